"""How well a model tells the class of each word, frame or pixel.

Shapes: `N` samples, `C` classes, `T` tokens of a sample, `h` and `w` rows and columns of patches, `P` places that have
a class, and 3 counts of entities: told right, told at all, and true.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data2vec2.data.labels import IGNORED
from data2vec2.data.reader import Reader
from data2vec2.data.source import BadSample
from data2vec2.evaluation import intervals
from data2vec2.evaluation.features import Inputs, Normalise, Note, over_batches
from data2vec2.method.losses import upsampled
from data2vec2.training.parallel import ALONE, World

Said = Callable[[Reader, int], NDArray[np.int64]]
"""Says classes of a sample where `Reader.marked` has them."""
MEASURES = {
    "entity_f1": "F1 of entities",
    "miou": "mean intersection over union",
    "macro_f1": "F1, mean over classes",
    "accuracy": "accuracy",
    "word_f1": "F1 of words",
    "exact_match": "exact match",
}
"""Scores of what models say of tokens, and what they are called; the last two are of answers."""


@dataclass(frozen=True)
class Tally:
    """What was told of samples with classes; those that could not be read are not among them."""

    counts_NCC: NDArray[np.int64]
    """Places by class (rows) and prediction (columns)."""
    entities_N3: NDArray[np.int64]
    """All 0 where classes are no BIO tags."""

    def scores(self, wanted: Sequence[str]) -> dict[str, float]:
        """Those of `MEASURES` that are wanted, over all places."""
        found = measures(self.counts_NCC.sum(0), self.entities_N3.sum(0))
        return {name: found[name] for name in wanted}

    def intervals(self, wanted: Sequence[str]) -> dict[str, intervals.Interval]:
        """95 % intervals of the scores, by a bootstrap over samples: places of one are not independent."""
        N, C, _ = self.counts_NCC.shape
        counts_NX = self.counts_NCC.reshape(N, -1).astype(np.float64)

        def drawn(weights_N: NDArray[np.float64]) -> list[float]:
            found = measures((weights_N @ counts_NX).reshape(C, C), weights_N @ self.entities_N3)
            return [found[name] for name in wanted]

        found = intervals.resampled(drawn, N, counts_NX.size)
        none = intervals.of_share(0.0, N)  # what is never right in any draw is no more certain than a share that is not
        return {name: bar if any(bar) else none for name, bar in zip(wanted, found, strict=True)}

    def details(self, classes: Sequence[str]) -> dict[str, Any]:
        """The confusion matrix, rows truth, columns prediction, and scores of each class."""
        counts_CC = self.counts_NCC.sum(0)
        right_C, true_C, said_C = np.diag(counts_CC), counts_CC.sum(1), counts_CC.sum(0)
        wholes = {"precision": said_C, "recall": true_C, "f1": (true_C + said_C) / 2, "iou": true_C + said_C - right_C}
        shares = {name: right_C / np.maximum(whole_C, 0.5) for name, whole_C in wholes.items()}
        rows = [
            {
                "name": name,
                **{key: float(share_C[place]) for key, share_C in shares.items()},
                "count": int(true_C[place]),
            }
            for place, name in enumerate(classes)
        ]
        return {"confusion": counts_CC.tolist(), "per_class": rows}


def measures(counts_CC: NDArray[Any], entities_3: NDArray[Any]) -> dict[str, float]:
    """Those of `MEASURES` that are of classes.

    Means over classes are over those that occur or are said, as scikit-learn has them.
    """
    right_C, true_C, said_C = np.diag(counts_CC), counts_CC.sum(1), counts_CC.sum(0)
    both_C = true_C + said_C
    occurs_C = both_C > 0
    right_C, both_C = right_C[occurs_C], both_C[occurs_C]
    right, said, true = entities_3.tolist()
    return {
        "entity_f1": 2 * right / max(said + true, 1e-12),
        "miou": float((right_C / (both_C - right_C)).mean()) if len(right_C) else 0.0,
        "macro_f1": float((2 * right_C / both_C).mean()) if len(right_C) else 0.0,
        "accuracy": float(right_C.sum() / max(counts_CC.sum(), 1e-12)),
    }


@torch.no_grad()
def tally(
    model: Callable[[Tensor, Tensor | None], Tensor],
    reader: Reader,
    normalise: Normalise,
    device: torch.device,
    note: Note = lambda _: None,
    world: World = ALONE,
) -> Tally:
    """What a model in eval mode tells of all samples; `note` hears of those that can't be read, `UserError` if all."""
    classes = reader.records.classes

    def counted(batch: Inputs) -> dict[str, NDArray[Any]]:
        outputs = model(*batch.given(normalise, device))
        rows = []
        for logits, sample in zip(outputs, batch.samples_B.tolist(), strict=True):
            truth = reader.marked(sample)
            said = decided(logits, truth.shape)
            rows.append(_counted(truth[: len(said)], said, classes))
        return {"counts": np.stack([one for one, _ in rows]), "entities": np.stack([other for _, other in rows])}

    found = over_batches(counted, reader, np.arange(len(reader.records)), note, world)
    return Tally(found["counts"], found["entities"])


def decided(logits: Tensor, shape: Sequence[int]) -> NDArray[np.int64]:
    """The most probable class of each token, of logits `TC` of which the first are real, or of each pixel, of `Chw`."""
    if len(shape) == 1:
        return logits[: shape[0]].argmax(dim=-1).cpu().numpy()
    return upsampled(logits[None], shape)[0].argmax(dim=0).cpu().numpy()


def tally_of(said: Said, reader: Reader) -> Tally:
    """The same of what needs no model; samples that can't be read are left out."""
    rows = []
    for sample in range(len(reader.records)):
        try:
            rows.append(_counted(reader.marked(sample), said(reader, sample), reader.records.classes))
        except BadSample:
            continue
    return Tally(np.stack([one for one, _ in rows]), np.stack([other for _, other in rows]))


def _counted(
    truth: NDArray[np.int64], said: NDArray[np.int64], classes: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places `CC` and entities `3` of a sample."""
    C, known = len(classes), truth != IGNORED
    truth_P, said_P = truth[known], said[known]
    counts_CC = np.bincount(truth_P * C + said_P, minlength=C * C).reshape(C, C)
    if not is_bio(classes):
        return counts_CC, np.zeros(3, dtype=np.int64)
    true, told = (entities([classes[place] for place in places.tolist()]) for places in (truth_P, said_P))
    return counts_CC, np.array([len(true & told), len(told), len(true)])


def is_bio(classes: Sequence[str]) -> bool:
    """Whether classes are tags of entities: "B-..." where one begins, "I-..." inside, "O" outside."""
    return any(name.startswith("B-") for name in classes) and all(
        name == "O" or name.startswith(("B-", "I-")) for name in classes
    )


def entities(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """Place of the first word, place behind the last one, and kind of each entity.

    Strictly: an "I-" that does not continue an entity of its kind is none.
    """
    found, start, kind = set(), 0, ""
    for place, tag in enumerate([*tags, "O"]):
        if kind and tag != f"I-{kind}":
            found.add((start, place, kind))
            kind = ""
        if tag.startswith("B-"):
            start, kind = place, tag[2:]
    return found
