"""Scores of features whose worth is known; draws of few labels, intervals and curves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix, vstack
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from data2vec2.evaluation.features import LabelledFeatures
from data2vec2.evaluation.probes import (
    draw_labels,
    draws,
    interval,
    knn_accuracy,
    linear_accuracy,
    low_label_curve,
    majority_accuracy,
)


def clusters(count: int, seed: int, spread: float = 0.1, dim: int = 8, classes: int = 4) -> LabelledFeatures:
    generator = np.random.default_rng(seed)
    y = np.arange(count) % classes
    centres = np.random.default_rng(99).standard_normal((classes, dim))
    return LabelledFeatures((centres[y] + spread * generator.standard_normal((count, dim))).astype(np.float32), y)


def test_clear_clusters_are_told_apart() -> None:
    train, test = clusters(80, 0), clusters(40, 1)
    assert knn_accuracy(train, test) == 1.0
    assert linear_accuracy(train, test) == 1.0
    assert majority_accuracy(train, test) == 0.25


def test_noise_is_worth_no_more_than_chance() -> None:
    generator = np.random.default_rng(0)
    train, test = (
        LabelledFeatures(generator.standard_normal((400, 8)).astype(np.float32), generator.integers(0, 4, 400))
        for _ in range(2)
    )
    assert knn_accuracy(train, test) == pytest.approx(0.25, abs=0.1)
    assert linear_accuracy(train, test) == pytest.approx(0.25, abs=0.1)


def test_knn_is_the_weighted_vote_of_the_nearest_by_angle() -> None:
    generator = np.random.default_rng(3)
    train = LabelledFeatures(generator.standard_normal((60, 5)).astype(np.float32), generator.integers(0, 3, 60))
    test = LabelledFeatures(generator.standard_normal((50, 5)).astype(np.float32), generator.integers(0, 3, 50))
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
    scaled = LabelledFeatures(train.x * np.float32(1e3), train.y), LabelledFeatures(test.x * np.float32(1e3), test.y)
    assert knn_accuracy(*scaled) == pytest.approx(knn_accuracy(train, test))
    assert linear_accuracy(*scaled) == pytest.approx(linear_accuracy(train, test), abs=0.03)


def test_fewer_samples_than_neighbours_and_features_of_zeros() -> None:
    train, test = clusters(4, 0), clusters(8, 1)
    assert knn_accuracy(train, test) == 1.0
    zeros = LabelledFeatures(np.zeros_like(train.x), train.y)
    assert knn_accuracy(zeros, test) == pytest.approx(0.25, abs=0.25)
    assert linear_accuracy(zeros, test) == 0.25


def test_majority_is_that_of_the_training_part() -> None:
    x = np.zeros((4, 1), dtype=np.float32)
    assert (
        majority_accuracy(LabelledFeatures(x, np.array([0, 1, 1, 2])), LabelledFeatures(x, np.array([0, 0, 0, 1])))
        == 0.25
    )


def test_the_probe_finds_the_strength_that_noise_needs() -> None:
    """Many channels for few samples: hardly regularised, the probe would learn their noise."""
    generator = np.random.default_rng(0)

    def noisy(count: int) -> LabelledFeatures:
        y = generator.integers(0, 2, count)
        x = generator.standard_normal((count, 200))
        x[:, :20] += 0.4 * y[:, None]
        return LabelledFeatures(x.astype(np.float32), y)

    train, test = noisy(400), noisy(2_000)
    weak = LogisticRegression(C=100, max_iter=1_000).fit(train.x, train.y).score(test.x, test.y)
    assert linear_accuracy(train, test) > weak + 0.02


def test_the_probe_reads_directions_that_are_nearly_lost() -> None:
    """As in an untrained network: a common signal a thousand times larger than what tells the classes apart."""
    generator = np.random.default_rng(0)

    def common(count: int) -> LabelledFeatures:
        y = generator.integers(0, 4, count)
        inner = np.eye(4)[y] * 2 + generator.standard_normal((count, 4))
        x = inner @ mixing + 300 * generator.standard_normal((count, 1))
        return LabelledFeatures(x.astype(np.float32), y)

    mixing = generator.standard_normal((4, 16))
    train, test = common(1_000), common(1_000)
    scaled = StandardScaler().fit(train.x)
    plain = LogisticRegression(max_iter=100).fit(scaled.transform(train.x), train.y)
    assert linear_accuracy(train, test) > plain.score(scaled.transform(test.x), test.y) + 0.1


def test_the_probe_repeats_itself() -> None:
    train, test = clusters(300, 0, spread=3.0), clusters(300, 1, spread=3.0)
    assert linear_accuracy(train, test) == linear_accuracy(train, test)


def test_a_channel_without_variation_changes_nothing() -> None:
    train, test = clusters(200, 0, spread=2.0), clusters(200, 1, spread=2.0)
    wider = [LabelledFeatures(np.hstack([part.x, np.full((200, 1), 7, np.float32)]), part.y) for part in (train, test)]
    assert linear_accuracy(*wider) == pytest.approx(linear_accuracy(train, test), abs=0.02)


def test_sparse_features_are_read_as_dense_ones() -> None:
    train, test = (clusters(200, seed, spread=1.0) for seed in (0, 1))
    sparse = [LabelledFeatures(csr_matrix(part.x), part.y) for part in (train, test)]
    assert knn_accuracy(*sparse) == pytest.approx(knn_accuracy(train, test))
    assert linear_accuracy(*sparse) == pytest.approx(linear_accuracy(train, test), abs=0.03)
    zeros = csr_matrix(([], ([], [])), shape=(50, train.x.shape[1]), dtype=np.float32)
    more = LabelledFeatures(vstack([sparse[0].x, zeros]).tocsr(), np.append(train.y, np.zeros(50, dtype=np.int64)))
    assert knn_accuracy(more, sparse[1]) == pytest.approx(knn_accuracy(train, test)), "zeros are near to nothing"
    assert sparse[0].select(np.array([3, 1])).x.toarray().tolist() == train.x[[3, 1]].tolist()


def part() -> LabelledFeatures:
    y = np.repeat([0, 1, 2], [50, 30, 4])[np.random.default_rng(0).permutation(84)]
    return LabelledFeatures(np.arange(84, dtype=np.float32)[:, None], y)


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
