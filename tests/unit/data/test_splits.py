"""Splitting off a validation part."""

from __future__ import annotations

import numpy as np
import pytest

from data2vec2.data.sampler import split_validation

SKEWED = np.repeat(np.arange(5), [600, 300, 80, 19, 1])
CASES = [SKEWED, np.full(1000, -1), np.arange(1000) % 7, np.arange(60)]


@pytest.mark.parametrize("labels", CASES)
@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.99])
def test_parts_partition_the_samples(labels: np.ndarray, fraction: float) -> None:
    train, val = split_validation(labels, fraction, seed=0)
    assert np.array_equal(np.sort(np.concatenate((train, val))), np.arange(len(labels)))
    assert (np.diff(train) > 0).all()
    assert (np.diff(val) > 0).all()
    assert set(labels[train]) == set(labels)
    assert len(val) <= round(fraction * len(labels))


@pytest.mark.parametrize("seed", range(5))
def test_labels_are_taken_in_proportion(seed: int) -> None:
    _, val = split_validation(SKEWED, 0.1, seed)
    assert len(val) == 100
    assert np.abs(np.bincount(SKEWED[val], minlength=5) - [60, 30, 8, 2, 0]).max() <= 1


def test_seed_decides() -> None:
    one, same, other = (split_validation(SKEWED, 0.1, seed)[1] for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_samples_are_chosen_evenly() -> None:
    chosen = np.zeros(100)
    for seed in range(400):
        chosen[split_validation(np.full(100, -1), 0.2, seed)[1]] += 1
    assert abs(chosen.mean() - 80) < 1e-9
    assert chosen.min() > 45
    assert chosen.max() < 115


def test_limit_and_empty_parts() -> None:
    assert len(split_validation(np.zeros(100_000, np.int64), 0.05, 0)[1]) == 2000
    assert len(split_validation(np.zeros(1000, np.int64), 0.5, 0, limit=10)[1]) == 10
    for labels, fraction in ((np.zeros(1000, np.int64), 0.0), (np.zeros(19, np.int64), 0.5), (np.zeros(0, int), 0.5)):
        train, val = split_validation(labels, fraction, 0)
        assert len(val) == 0
        assert np.array_equal(train, np.arange(len(labels)))
    assert len(split_validation(np.zeros(20, np.int64), 0.5, 0)[1]) == 10
