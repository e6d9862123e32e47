"""Scores of a model that gives numbers, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data2vec2.data.reader import ReadBatch
from data2vec2.data.records import Records
from data2vec2.data.sentences import Texts
from data2vec2.evaluation.classification import SHOWN
from data2vec2.evaluation.regression import Numbers, correlations, predict_numbers, worst_numbers


def numbers(given: list[float], truth: list[float]) -> Numbers:
    return Numbers(np.array(given), np.array(truth), np.arange(len(given)))


class Lengths:
    """A reader whose input of a text is its length; the third can't be read, the first stands in for it."""

    in_memory = True

    def __init__(self, texts: list[str], truth: list[float]) -> None:
        labels, names = np.full(len(texts), -1), [f"a.csv[{place}]" for place in range(len(texts))]
        source = Texts(tuple((text,) for text in texts))
        self.records = Records("table", names, labels, (), {}, source, numbers=np.array(truth))

    def eval_groups(self, samples_B: np.ndarray) -> list[np.ndarray]:
        return [samples_B[::-1][:2], samples_B[::-1][2:]]

    def eval_batch(self, samples_B: np.ndarray) -> ReadBatch:
        indices = np.where(samples_B == 2, 0, samples_B)
        inputs = np.array([[len(self.records.source.rows[place][0])] for place in indices], dtype=np.float32)  # type: ignore[attr-defined]
        return ReadBatch(inputs, self.records.labels[indices], (), indices, np.ones(len(indices), dtype=np.int64))


class Half(nn.Module):
    def forward(self, inputs: Tensor, lengths_B: Tensor) -> Tensor:
        return inputs / 2


def test_error_and_correlations() -> None:
    found = correlations(numbers([1, 2, 3, 10], [2, 4, 9, 8]))
    assert found["mse"] == (1 + 4 + 36 + 4) / 4
    a, b = np.array([1, 2, 3, 10]) - 4.0, np.array([2, 4, 9, 8]) - 5.75
    assert found["pearson"] == pytest.approx((a @ b) / np.sqrt((a @ a) * (b @ b)))
    assert found["spearman"] == pytest.approx(1 - 6 * (0 + 0 + 1 + 1) / (4 * 15))


@pytest.mark.parametrize(("given", "truth"), [([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [5, 5, 5]), ([1], [2])])
def test_where_nothing_varies_there_is_no_correlation(given: list[float], truth: list[float]) -> None:
    found = correlations(numbers(given, truth))
    assert (found["pearson"], found["spearman"]) == (0.0, 0.0)


def test_rescaled_undoes_standardisation() -> None:
    truth = np.array([100.0, 130.0, 160.0])
    found = numbers(((truth - truth.mean()) / truth.std()).tolist(), truth.tolist())
    assert correlations(found.rescaled(truth.mean(), truth.std()))["mse"] == pytest.approx(0)


def test_what_can_not_be_read_is_not_scored_and_the_worst_come_first() -> None:
    reader = Lengths(["a" * 4, "b" * 8, "", "c" * (SHOWN + 10)], [2.5, 9.0, 7.0, 1.0])
    found = predict_numbers(Half(), reader, torch.device("cpu"))  # type: ignore[arg-type]
    assert sorted(zip(found.samples_N, found.given_N, found.truth_N, strict=True)) == [
        (0, 2.0, 2.5),
        (1, 4.0, 9.0),
        (3, 155.0, 1.0),
    ]
    worst = worst_numbers(found, reader, limit=2)  # type: ignore[arg-type]
    assert worst["names"].tolist() == ["a.csv[3]", "a.csv[1]"]
    assert (worst["truth"].tolist(), worst["predicted"].tolist()) == ([1, 9], [155, 4])
    assert worst["texts"].tolist() == ["c" * SHOWN + "…", "b" * 8]
