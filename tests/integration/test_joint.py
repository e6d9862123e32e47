"""One trunk for several modalities: the blocks are shared, and the comparison runs. What it measures is not tested."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_one_trunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import joint
    import time_to_accuracy

    monkeypatch.setattr(time_to_accuracy, "MOST", 100)
    train, trained = joint.train, []

    def watched(models: list[torch.nn.Module], *rest: object) -> list[int]:
        before = [one.clone() for one in models[0].encoder.blocks.parameters()]
        updates = train(models, *rest)
        changed = any(
            not torch.equal(*pair) for pair in zip(before, models[0].encoder.blocks.parameters(), strict=True)
        )
        trained.append((models, updates, changed))
        return updates

    monkeypatch.setattr(joint, "train", watched)
    flags = ["--out", str(tmp_path), "--seconds", "0.5", "--seeds", "1", "--kinds", "image", "text"]
    monkeypatch.setattr(sys, "argv", ["joint.py", *flags])
    joint.main()
    *alone, (models, updates, changed) = trained
    assert len(alone) == 2 and changed and min(updates) > 0
    pictures, texts = models
    assert (
        pictures.encoder.blocks is texts.encoder.blocks and pictures.model.teacher.blocks is texts.model.teacher.blocks
    )
    assert pictures.model.decoder is not texts.model.decoder
    table = capsys.readouterr().out
    assert table.count("| image, ") == 2 and table.count("| text, ") == 1
    joint.main()  # nothing is done again
    assert len(trained) == 3 and capsys.readouterr().out == table
