"""What a run held out is what it is scored on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data2vec2.data.records import open_data
from tests.integration.helpers import SMALL, run_here, small_npz


def test_a_run_is_scored_on_what_it_held_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = small_npz(tmp_path / "small.npz"), tmp_path / "run"
    flags = [*SMALL, *["--train.updates", "2", "--train.eval-every", "0", "--data.val-fraction", "0.5"]]
    assert run_here(["pretrain", "image_tiny", data, "--out", run, *flags]) == 0
    names = json.loads((run / "split.json").read_text())["validation"]
    assert len(names) == 100
    capsys.readouterr()

    assert run_here(["evaluate", run, data, "--json"]) == 0
    out, err = capsys.readouterr()
    scores = json.loads(out)
    assert "held-out part" in err
    assert (scores["train_samples"], scores["test_samples"]) == (100, 100)
    records = open_data(data).train
    held_out = np.isin(records.names, names)
    train_labels, test_labels = records.labels[~held_out], records.labels[held_out]
    majority = (test_labels == np.bincount(train_labels).argmax()).mean()
    assert scores["rows"][-1] == {"features": "majority class", "knn": majority, "linear": majority}

    assert run_here(["evaluate", run / "exported", data, "--json"]) == 0  # an export does not know
    assert "split-off part" in capsys.readouterr().err
