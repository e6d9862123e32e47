"""The best model beside the last ones."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from data2vec2.training.checkpoint import Best


def linear(value: float) -> dict[str, Tensor]:
    return {"weight": torch.full((1, 1), value)}


def keep(best: Best, step: int, score: float, tensors: dict[str, Tensor]) -> None:
    best.put(step, score, tensors)
    best.save()


def test_the_first_score_is_best_and_then_only_higher_ones(tmp_path: Path) -> None:
    best = Best(tmp_path)
    assert best.load() is None
    assert best.is_best(-1.0)
    keep(best, 10, 0.5, linear(1))
    assert not best.is_best(0.5)  # the first of equal scores stays
    assert not best.is_best(math.nan)
    assert best.is_best(0.51)


def test_nan_is_not_even_the_first(tmp_path: Path) -> None:
    assert not Best(tmp_path).is_best(math.nan)


def test_one_model_is_kept_and_found_again(tmp_path: Path) -> None:
    best = Best(tmp_path)
    keep(best, 10, 0.5, linear(1))
    keep(best, 20, 0.75, linear(2))
    again = Best(tmp_path)
    found = again.load()
    assert again.score == 0.75
    assert found is not None
    assert (found.step, found.state) == (20, {"score": 0.75})
    assert torch.equal(found.groups["model"]["weight"], torch.full((1, 1), 2.0))
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["step-20"]


def test_a_better_model_of_an_earlier_update_replaces_a_later_one(tmp_path: Path) -> None:
    """A run that is resumed from before its best, with scores at other updates."""
    keep(Best(tmp_path), 50, 0.5, linear(1))
    best = Best(tmp_path)
    keep(best, 45, 0.6, linear(2))
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["step-45"]
