"""Fewer recordings than processes: each process needs one of every batch, which is said before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.helpers import run_here, words
from tests.integration.speech import spoken_folder, tiny_encoder

FLAGS = words("--train.processes 4 --train.batch-size 40 --train.device cpu --data.val-fraction 0")


@pytest.mark.parametrize("verb", ["pretrain audio_mel_tiny", "finetune ctc", "finetune classify"])
def test_fewer_recordings_than_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    data, first, *task = spoken_folder(tmp_path / "data", ("digits", "letters"), train=1, test=1), *words(verb)
    model = [tiny_encoder(tmp_path / "model")] if first == "finetune" else []
    more = [] if model else words("--data.min-seconds 0.5")
    given = [first, *task, *model, data, "--out", tmp_path / "run", *FLAGS, "--data.max-seconds", 5, *more]
    assert run_here(given) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "2 of 2 samples to train on, too few for 4 processes" in error
    assert "--train.processes 2" in error
    assert not (tmp_path / "run").exists()
