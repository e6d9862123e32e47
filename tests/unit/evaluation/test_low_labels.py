"""Draws of few labels, intervals and curves."""

from __future__ import annotations

import numpy as np
import pytest

from data2vec2.evaluation.low_labels import draw_labels, draws, interval, low_label_curve
from data2vec2.evaluation.probes import Part


def part() -> Part:
    y = np.repeat([0, 1, 2], [50, 30, 4])[np.random.default_rng(0).permutation(84)]
    return Part(np.arange(84, dtype=np.float32)[:, None], y)


def test_each_class_gives_so_many_or_all() -> None:
    drawn = draw_labels(part(), 10, 0)
    assert np.bincount(drawn.y).tolist() == [10, 10, 4]
    assert (part().y[drawn.x[:, 0].astype(int)] == drawn.y).all()
    assert len(np.unique(drawn.x)) == 24


def test_draws_of_a_seed_are_nested_and_of_seeds_differ() -> None:
    few, many = draw_labels(part(), 3, 0), draw_labels(part(), 20, 0)
    assert set(few.x[:, 0]) < set(many.x[:, 0])
    assert set(few.x[:, 0]) == set(draw_labels(part(), 3, 0).x[:, 0])
    assert set(few.x[:, 0]) != set(draw_labels(part(), 3, 1).x[:, 0])


def test_each_seed_has_its_own_draws() -> None:
    assert [*draws(3, 0), *draws(3, 1), *draws(3, 2)] == list(range(9))


def test_interval_is_students() -> None:
    mean, low, high = interval([0.5, 0.6, 0.7])
    assert mean == pytest.approx(0.6)
    half = 4.302653 * 0.1 / np.sqrt(3)  # the table's value for two degrees of freedom
    assert (low, high) == (pytest.approx(0.6 - half, abs=1e-6), pytest.approx(0.6 + half, abs=1e-6))
    assert interval([0.3]) == (0.3, 0.3, 0.3)
    assert interval([0.1, 0.9])[1:] == (0, 1)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    held = [
        low <= 0.5 <= high for _, low, high in (interval(generator.normal(0.5, 0.02, 3).tolist()) for _ in range(2_000))
    ]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


def test_a_curve_asks_for_every_count_and_seed() -> None:
    asked = []

    def accuracy(count: int, seed: int) -> float:
        asked.append((count, seed))
        return count / 100 + seed / 10

    curve = low_label_curve("raw pixels", "knn", [10, 20], range(2), accuracy)
    assert asked == [(10, 0), (10, 1), (20, 0), (20, 1)]
    assert curve.draws == 2
    assert (curve.features, curve.probe, curve.labels) == ("raw pixels", "knn", (10, 20))
    assert curve.mean == pytest.approx((0.15, 0.25))
    assert all(low < mean < high for low, mean, high in zip(curve.low, curve.mean, curve.high, strict=True))
