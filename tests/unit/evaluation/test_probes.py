"""Scores of features whose worth is known."""

from __future__ import annotations

import numpy as np
import pytest

from data2vec2.evaluation.probes import Part, knn_accuracy, linear_accuracy, majority_accuracy


def clusters(count: int, seed: int, spread: float = 0.1, dim: int = 8, classes: int = 4) -> Part:
    generator = np.random.default_rng(seed)
    y = np.arange(count) % classes
    centres = np.random.default_rng(99).standard_normal((classes, dim))
    return Part((centres[y] + spread * generator.standard_normal((count, dim))).astype(np.float32), y)


def test_clear_clusters_are_told_apart() -> None:
    train, test = clusters(80, 0), clusters(40, 1)
    assert knn_accuracy(train, test) == 1.0
    assert linear_accuracy(train, test) == 1.0
    assert majority_accuracy(train, test) == 0.25


def test_noise_is_worth_no_more_than_chance() -> None:
    generator = np.random.default_rng(0)
    train, test = (
        Part(generator.standard_normal((400, 8)).astype(np.float32), generator.integers(0, 4, 400)) for _ in range(2)
    )
    assert knn_accuracy(train, test) == pytest.approx(0.25, abs=0.1)
    assert linear_accuracy(train, test) == pytest.approx(0.25, abs=0.1)


def test_knn_is_the_weighted_vote_of_the_nearest_by_angle() -> None:
    generator = np.random.default_rng(3)
    train = Part(generator.standard_normal((60, 5)).astype(np.float32), generator.integers(0, 3, 60))
    test = Part(generator.standard_normal((50, 5)).astype(np.float32), generator.integers(0, 3, 50))
    right = 0
    for x, y in zip(test.x, test.y, strict=True):
        cosine = train.x @ x / np.linalg.norm(train.x, axis=1) / np.linalg.norm(x)
        distance = np.sqrt(np.maximum(2 - 2 * cosine, 0))
        nearest = np.argsort(distance)[:10]
        votes = np.bincount(train.y[nearest], weights=1 / distance[nearest], minlength=3)
        right += votes.argmax() == y
    assert knn_accuracy(train, test) == pytest.approx(right / 50)


def test_scale_of_features_does_not_matter() -> None:
    train, test = clusters(80, 0, spread=1.0), clusters(80, 1, spread=1.0)
    scaled = Part(train.x * np.float32(1e3), train.y), Part(test.x * np.float32(1e3), test.y)
    assert knn_accuracy(*scaled) == pytest.approx(knn_accuracy(train, test))
    assert linear_accuracy(*scaled) == pytest.approx(linear_accuracy(train, test), abs=0.03)


def test_fewer_samples_than_neighbours_and_features_of_zeros() -> None:
    train, test = clusters(4, 0), clusters(8, 1)
    assert knn_accuracy(train, test) == 1.0
    zeros = Part(np.zeros_like(train.x), train.y)
    assert knn_accuracy(zeros, test) == pytest.approx(0.25, abs=0.25)
    assert linear_accuracy(zeros, test) == 0.25


def test_majority_is_that_of_the_training_part() -> None:
    x = np.zeros((4, 1), dtype=np.float32)
    assert majority_accuracy(Part(x, np.array([0, 1, 1, 2])), Part(x, np.array([0, 0, 0, 1]))) == 0.25
