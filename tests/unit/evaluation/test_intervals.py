"""Error bars against the libraries' values, and against many samples of the same kind."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, matthews_corrcoef

from data2vec2.evaluation.classification import (
    Numbers,
    Predictions,
    correlation_intervals,
    headline,
    headline_intervals,
)
from data2vec2.evaluation.intervals import f1_and_matthews, of_correlation, of_map, of_ratio, of_share, resampled
from data2vec2.evaluation.recognition import Recognition


def test_shares_are_wilsons() -> None:
    assert of_share(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert of_share(1.0, 20) == pytest.approx((0.8389, 1.0), abs=1e-4)  # never certain
    assert of_share(0.0, 20)[0] == 0


def test_correlations_are_fishers() -> None:
    assert of_correlation(0.5, 28) == pytest.approx((0.156, 0.736), abs=1e-3)
    low, high = of_correlation(0.5, 28, ranks=True)
    assert low < 0.156 < 0.736 < high
    assert of_correlation(0.5, 3) == (-1, 1)
    assert of_correlation(1.0, 30) == (1, 1)


@pytest.mark.parametrize("classes", [2, 4])
def test_f1_and_matthews_are_scikit_learns(classes: int) -> None:
    generator = np.random.default_rng(classes)
    truth, said = generator.integers(0, classes, (2, 60))
    confusion = np.zeros((classes, classes))
    np.add.at(confusion, (truth, said), 1)
    average = "binary" if classes == 2 else "macro"
    expected = f1_score(truth, said, average=average), matthews_corrcoef(truth, said)
    assert f1_and_matthews(confusion) == pytest.approx(expected)
    assert f1_and_matthews(np.diag([0.0, 5.0])) == (1.0, 0.0)


def test_mean_average_precision_is_scikit_learns_of_each_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    logits, truth = generator.integers(0, 9, (40, 3)).astype(np.float32), generator.random((40, 3)) < 0.4
    seen = []

    def twice(statistics, count, work=None):
        for seed in range(3):
            weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count)).astype(float)
            columns = zip(truth.T, logits.T, strict=True)
            expected = np.mean([average_precision_score(of, by, sample_weight=weights) for of, by in columns])
            seen.append((statistics(weights)[0], expected))
        return [(0.0, 1.0)]

    monkeypatch.setattr("data2vec2.evaluation.intervals.resampled", twice)
    of_map(logits, truth)
    assert len(seen) == 3
    assert [found for found, _ in seen] == pytest.approx([expected for _, expected in seen])


def test_the_bootstrap_covers_what_other_samples_give() -> None:
    """Of 200 samples of a skewed ratio, nearly 95 % of the intervals hold the true one."""
    generator, hits = np.random.default_rng(1), 0
    for _ in range(200):
        lengths = generator.integers(5, 40, 60)
        low, high = of_ratio(generator.binomial(lengths, 0.2), lengths)
        hits += low <= 0.2 <= high
    assert 0.88 <= hits / 200 <= 0.99
    assert resampled(lambda weights: [weights.sum()], 50) == [(50.0, 50.0)]


def test_intervals_of_few_samples_are_wide_enough() -> None:
    """The plain bootstrap holds the true ratio in 87 % of such samples."""
    generator, hits = np.random.default_rng(0), 0
    for _ in range(400):
        low, high = of_ratio(generator.binomial(20, generator.beta(2, 8, 8)), np.full(8, 20))
        hits += low <= 0.2 <= high
    assert 0.9 <= hits / 400 <= 0.99


def test_what_is_perfect_is_not_certain() -> None:
    assert of_ratio([0, 0, 0, 0], [3, 4, 5, 6]) == of_share(0.0, 4)
    assert of_ratio([3, 4, 5, 6], [3, 4, 5, 6]) == of_share(1.0, 4)
    right = np.eye(3, dtype=bool)[np.arange(12) % 3]
    assert of_map(right.astype(np.float32), right) == of_share(1.0, 12)


def test_every_score_has_its_interval_around_it() -> None:
    generator = np.random.default_rng(3)
    truth = generator.random((80, 4)) < 0.3
    logits = (truth + generator.normal(0, 1, truth.shape)).astype(np.float32)
    single = np.eye(4, dtype=bool)[generator.integers(0, 4, 80)]
    several = Predictions(logits, truth, np.arange(80), multi_label=True)
    one = Predictions(
        (single + generator.normal(0, 0.6, single.shape)).astype(np.float32), single, np.arange(80), False
    )
    for found in (several, one):
        scores, bars = headline(found), headline_intervals(found)
        assert bars.keys() == scores.keys() - {"loss"}
        assert all(bars[name][0] < scores[name] < bars[name][1] for name in bars)
    numbers = Numbers(logits[:, 0].astype(np.float64), truth[:, 0] + logits[:, 0] / 2, np.arange(80))
    assert correlation_intervals(numbers).keys() == {"mse", "pearson", "spearman"}
    heard = Recognition((0, 1, 2), ("a b c", "d e", "f g"), ("a b", "d x y", "f g"))
    rates = heard.scores()
    assert rates["wer"] == pytest.approx(3 / 7)
    assert rates["intervals"]["wer"][0] == 0 < rates["wer"] < rates["intervals"]["wer"][1]


def test_samples_of_one_class_have_no_accuracy() -> None:
    logits, truth = np.eye(3, dtype=np.float32)[[0, 0, 1]], np.eye(3, dtype=bool)[[0, 0, 0]]
    found = Predictions(logits, truth, np.arange(3), multi_label=False)
    assert found.only_class == 0
    assert headline(found).keys() == {"loss"}
    assert headline_intervals(found) == {}
