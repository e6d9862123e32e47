"""Scores of a classifier and of a model that gives numbers, against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from data2vec2.data.reader import ReadBatch
from data2vec2.data.records import Records
from data2vec2.evaluation.classification import (
    Numbers,
    Predictions,
    correlations,
    details,
    headline,
    mistakes,
    numbers_of,
    outputs,
    predictions_of,
    worst_numbers,
)
from data2vec2.modalities.image import fashion_mnist
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig
from data2vec2.modalities.image.reader import ImageReader, Normalise
from data2vec2.modalities.text.reader import MAX_CHARACTERS, SentenceReader, Texts
from tests.integration.helpers import jpeg_folder
from tests.unit.data.pictures import open_pictures

CPU = torch.device("cpu")


def single(probabilities: list[list[float]], truth: list[int]) -> Predictions:
    logits = np.log(np.array(probabilities, dtype=np.float32))
    hot: NDArray[np.bool_] = np.array(truth)[:, None] == np.arange(logits.shape[1])
    return Predictions(logits, hot, np.arange(len(truth)), multi_label=False)


def several(probabilities: list[list[float]], truth: list[list[int]]) -> Predictions:
    values = np.array(probabilities)
    logits = np.log(values / (1 - values)).astype(np.float32)
    return Predictions(logits, np.array(truth, dtype=bool), np.arange(len(truth)), multi_label=True)


FOUR = single([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.2, 0.5, 0.3]], [0, 1, 1, 2])


def test_loss_and_accuracy() -> None:
    found = headline(FOUR)
    assert found["accuracy"] == 0.5
    assert found["loss"] == pytest.approx(-np.log([0.7, 0.8, 0.3, 0.3]).mean(), rel=1e-5)


def test_f1_is_of_the_second_of_two_classes_or_the_mean_and_matthews() -> None:
    found = headline(FOUR)
    assert found["f1"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    # (right x all - sum of predicted x true) / roots; predicted 2, 2, 0 and true 1, 2, 1 of each class
    assert found["matthews"] == pytest.approx((2 * 4 - (2 + 4 + 0)) / np.sqrt((16 - 8) * (16 - 6)))
    two = headline(single([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4], [0.9, 0.1]], [0, 1, 0, 1, 0]))
    assert two["f1"] == pytest.approx(2 * 1 / (2 * 1 + 1 + 1))
    assert two["matthews"] == pytest.approx((1 * 2 - 1 * 1) / np.sqrt(2 * 2 * 3 * 3))


def test_confusion_and_classes() -> None:
    found = details(FOUR, ("a", "b", "c"))
    assert found["confusion"] == [[1, 0, 0], [1, 1, 0], [0, 1, 0]]  # rows are the truth
    assert found["per_class"] == [
        {"name": "a", "precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "count": 1},
        {"name": "b", "precision": 0.5, "recall": 0.5, "f1": 0.5, "count": 2},
        {"name": "c", "precision": 0.0, "recall": 0.0, "f1": 0.0, "count": 1},
    ]


def test_several_labels() -> None:
    found = several([[0.9, 0.8, 0.1], [0.3, 0.7, 0.2], [0.6, 0.1, 0.3]], [[1, 0, 0], [0, 1, 0], [1, 1, 0]])
    score = headline(found)
    # "a" ranks its two samples first; "b" ranks another one first, then its own at places 2 and 3; "c" has none.
    assert score["map"] == pytest.approx((1 + (1 / 2 + 2 / 3) / 2) / 2)
    right = np.log([0.9, 0.2, 0.9, 0.7, 0.7, 0.8, 0.6, 0.1, 0.7])
    assert score["loss"] == pytest.approx(-right.mean(), rel=1e-5)
    rows = details(found, ("a", "b", "c"))
    assert "confusion" not in rows
    assert [row["count"] for row in rows["per_class"]] == [2, 2, 0]
    assert [row["ap"] for row in rows["per_class"]] == [1, pytest.approx(7 / 12), None]
    assert [row["precision"] for row in rows["per_class"]] == [1, 0.5, 0]


class Known(nn.Module):
    """Says what it is told: row by row, in the order of the pictures."""

    def __init__(self, logits_NC: torch.Tensor) -> None:
        super().__init__()
        self.logits_NC, self.place = logits_NC, 0

    def forward(self, inputs: torch.Tensor, lengths_B: None = None) -> torch.Tensor:
        start, self.place = self.place, self.place + len(inputs)
        return self.logits_NC[start : self.place]


def reader(path: Path) -> ImageReader:
    return ImageReader(
        open_pictures(path).train, ImageConfig(image_size=28, patch_size=4, num_channels=1), ImageDataConfig(), 0
    )


def test_all_samples_are_asked_in_their_order() -> None:
    pictures = reader(fashion_mnist())
    pictures = ImageReader(pictures.records.select(range(600)), pictures.config, pictures.data, 0)
    logits = torch.randn(600, 10)
    found = predictions_of(outputs(Known(logits), pictures, Normalise((0.3,), (0.3,), CPU), CPU))  # type: ignore[arg-type]
    assert np.array_equal(found.logits_NC, logits.numpy())
    assert np.array_equal(found.truth_NC.argmax(axis=1), pictures.records.labels)


def test_a_sample_that_can_not_be_read_is_not_scored(tmp_path: Path) -> None:
    folder = jpeg_folder(tmp_path / "jpegs", 30)
    broken = sorted(folder.rglob("*.jpg"))[4]
    broken.write_bytes(b"\xff\xd8\xff")
    pictures = reader(folder)
    logits = torch.randn(30, len(pictures.records.classes))
    found = predictions_of(outputs(Known(logits), pictures, Normalise((0.3,), (0.3,), CPU), CPU))  # type: ignore[arg-type]
    place = list(pictures.records.names).index(broken.relative_to(folder).as_posix())
    assert found.samples_N.tolist() == [index for index in range(30) if index != place]
    assert np.array_equal(found.logits_NC, logits[:29].numpy())


def test_mistakes_are_the_wrong_ones_surest_first() -> None:
    pictures = reader(fashion_mnist())
    probabilities = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.05, 0.9, 0.05]]
    found = mistakes(single(probabilities, [0, 1, 1, 2]), pictures)
    assert found["names"].tolist() == [pictures.records.names[3], pictures.records.names[2]]
    assert (found["truth"].tolist(), found["predicted"].tolist()) == ([2, 1], [1, 0])
    assert found["probability"].tolist() == pytest.approx([0.9, 0.6])
    assert found["pictures"].shape == (2, 28, 28, 1)
    expected = pictures.eval_batch(np.array([3, 2])).inputs
    assert np.array_equal(found["pictures"], expected.transpose(0, 2, 3, 1))


def test_no_mistakes_are_no_pictures() -> None:
    found = mistakes(single([[0.9, 0.1]], [0]), reader(fashion_mnist()))
    assert found["pictures"].shape == (0, 28, 28, 1)
    assert len(found["names"]) == 0


def test_mistakes_with_several_labels_are_classes_that_are_not_there() -> None:
    probabilities = [[0.9, 0.8, 0.1], [0.3, 0.7, 0.2], [0.6, 0.1, 0.95]]
    found = mistakes(several(probabilities, [[1, 0, 0], [0, 1, 0], [0, 0, 0]]), reader(fashion_mnist()))
    assert found["predicted"].tolist() == [2, 1]
    assert found["truth"].tolist() == [-1, 0]  # the third has none
    assert found["probability"].tolist() == pytest.approx([0.95, 0.8])


def numbers(given: list[float], truth: list[float]) -> Numbers:
    return Numbers(np.array(given), np.array(truth), np.arange(len(given)))


class Lengths:
    """A reader whose input of a text is its length; the third can't be read, the first stands in for it."""

    in_memory, shown = True, SentenceReader.shown

    def __init__(self, texts: list[str], truth: list[float]) -> None:
        labels, names = np.full(len(texts), -1), [f"a.csv[{place}]" for place in range(len(texts))]
        self.texts = Texts(tuple((text,) for text in texts))
        self.records = Records("table", names, labels, (), self.texts, numbers=np.array(truth))

    def eval_groups(self, samples_B: np.ndarray) -> list[np.ndarray]:
        return [samples_B[::-1][:2], samples_B[::-1][2:]]

    def eval_batch(self, samples_B: np.ndarray) -> ReadBatch:
        indices = np.where(samples_B == 2, 0, samples_B)
        inputs = np.array([[len(self.texts.rows[place][0])] for place in indices], dtype=np.float32)
        return ReadBatch(inputs, self.records.labels[indices], (), indices, np.ones(len(indices), dtype=np.int64))


class Half(nn.Module):
    def forward(self, inputs: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
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
    reader = Lengths(["a" * 4, "b" * 8, "", "c" * (MAX_CHARACTERS + 10)], [2.5, 9.0, 7.0, 1.0])
    found = numbers_of(outputs(Half(), reader, lambda inputs: inputs, CPU))  # type: ignore[arg-type]
    assert sorted(zip(found.samples_N, found.given_N, found.truth_N, strict=True)) == [
        (0, 2.0, 2.5),
        (1, 4.0, 9.0),
        (3, 155.0, 1.0),
    ]
    worst = worst_numbers(found, reader, limit=2)  # type: ignore[arg-type]
    assert worst["names"].tolist() == ["a.csv[3]", "a.csv[1]"]
    assert (worst["truth"].tolist(), worst["predicted"].tolist()) == ([1, 9], [155, 4])
    assert worst["texts"].tolist() == ["c" * MAX_CHARACTERS + "…", "b" * 8]
