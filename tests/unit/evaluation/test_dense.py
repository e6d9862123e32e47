"""Scores of classes of words, frames and pixels against scikit-learn, and entities by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, jaccard_score, precision_recall_fscore_support

from data2vec2.evaluation.dense import Tally, decided, entities, is_bio, measures
from data2vec2.method.losses import upsampled

DRAWS = np.random.default_rng(1)


def drawn(count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes, and predictions of which about half are right; the last class occurs in neither."""
    truth = DRAWS.integers(classes - 1, size=count)
    return truth, np.where(DRAWS.random(count) < 0.5, truth, DRAWS.integers(classes - 1, size=count))


def tallied(pairs: list[tuple[np.ndarray, np.ndarray]], classes: int) -> Tally:
    counts = [confusion_matrix(truth, said, labels=range(classes)) for truth, said in pairs]
    return Tally(np.stack(counts), np.zeros((len(pairs), 3), dtype=np.int64))


def test_scores_against_scikit_learn() -> None:
    pairs = [drawn(count, 5) for count in (3, 40, 200)]
    truth, said = (np.concatenate(some) for some in zip(*pairs, strict=True))
    found = tallied(pairs, 5)
    scores = found.scores(("accuracy", "macro_f1", "miou"))
    assert scores["accuracy"] == pytest.approx(accuracy_score(truth, said))
    assert scores["macro_f1"] == pytest.approx(f1_score(truth, said, average="macro"))
    assert scores["miou"] == pytest.approx(jaccard_score(truth, said, average="macro"))
    rows = found.details("abcde")["per_class"]
    columns = precision_recall_fscore_support(truth, said, labels=range(5), zero_division=0.0)
    for key, values in zip(("precision", "recall", "f1", "count"), columns, strict=True):
        assert [row[key] for row in rows] == pytest.approx(list(values)), key
    assert [row["iou"] for row in rows[:4]] == pytest.approx(list(jaccard_score(truth, said, average=None)))
    assert found.details("abcde")["confusion"] == confusion_matrix(truth, said, labels=range(5)).tolist()


def test_intervals_are_over_samples_not_over_places() -> None:
    """The places of a sample stand or fall together, so a few samples of many places are not certain."""
    right, wrong = np.zeros(1_000, dtype=int), np.ones(1_000, dtype=int)
    found = tallied([(right, right)] * 5 + [(right, wrong)] * 5, 2)
    low, high = found.intervals(("accuracy",))["accuracy"]
    assert low < 0.25 < 0.5 < 0.75 < high
    none = tallied([(right, wrong)] * 20, 2).intervals(("accuracy", "macro_f1"))
    assert none["accuracy"][0] == 0
    assert none["accuracy"][1] > 0.05, "what is never right may be so by chance"


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("O O", set()),
        ("B-PER I-PER O", {(0, 2, "PER")}),
        ("O B-PER", {(1, 2, "PER")}),
        ("B-PER B-PER I-PER", {(0, 1, "PER"), (1, 3, "PER")}),
        ("B-PER I-LOC", {(0, 1, "PER")}),
        ("I-PER I-PER O", set()),
        ("O I-PER B-LOC I-LOC I-LOC", {(2, 5, "LOC")}),
        ("", set()),
    ],
)
def test_entities_are_read_strictly(tags: str, found: set[tuple[int, int, str]]) -> None:
    assert entities(tags.split()) == found


def test_which_classes_are_tags_of_entities() -> None:
    assert is_bio(("B-PER", "I-PER", "O"))
    assert not is_bio(("NOUN", "VERB", "O"))
    assert not is_bio(("O", "I-PER"))


def test_entity_f1() -> None:
    assert measures(np.eye(3), np.array([2, 4, 3]))["entity_f1"] == pytest.approx(2 * 2 / 7)
    assert measures(np.eye(3), np.array([0, 0, 0]))["entity_f1"] == 0


def test_decided_of_tokens_and_of_pixels() -> None:
    logits = torch.randn(9, 4, generator=torch.Generator().manual_seed(3))
    assert decided(logits, (6,)).tolist() == logits[:6].argmax(-1).tolist()  # what follows fills the batch up
    planes = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(4))
    assert decided(planes, (2, 3)).tolist() == planes.argmax(0).tolist()
    assert decided(planes, (10, 7)).tolist() == upsampled(planes[None], (10, 7))[0].argmax(0).tolist()
