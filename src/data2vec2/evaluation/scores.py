"""The score table: a model beside its baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data2vec2.data.reader import Reader
from data2vec2.evaluation import probes as probing
from data2vec2.evaluation.features import LabelledFeatures, Normalise, Note, TokenProbe, encode_by_each
from data2vec2.evaluation.intervals import Interval, of_share
from data2vec2.evaluation.probes import Curve, Patches, draws
from data2vec2.method.encoder import Encoder
from data2vec2.training.progress import html_table

PROBES = ("knn", "linear", "attentive", "phones")
MODEL, BEFORE, RANDOM, MAJORITY = "data2vec2", "the model before", "random initialisation", "majority class"
"""What the features of a row or curve are made of."""

Samples = tuple[Reader, NDArray[np.int64]]
"""A reader and which of its samples; all must have labels."""


@dataclass(frozen=True)
class Row:
    """Accuracies, 0 to 1, of frozen-feature classifiers; none where one was not asked for or can't be."""

    features: str
    knn: float | None = None
    linear: float | None = None
    attentive: float | None = None
    phones: float | None = None
    """Of single tokens, not of samples."""


@dataclass(frozen=True)
class Scores:
    """What a frozen model is worth on a test part, given the labels of a training part."""

    part: str
    train_samples: int
    test_samples: int
    classes: tuple[str, ...]
    probes: tuple[str, ...]
    rows: tuple[Row, ...]
    curves: tuple[Curve, ...] = ()
    intervals: tuple[dict[str, Interval], ...] = ()
    """Of each row, the 95 % intervals of its accuracies: what other test samples could have given."""
    data: str = ""
    """What was scored."""
    skipped: dict[str, int] = field(default_factory=dict)
    """How many samples could not be read, by reason; they are left out."""
    own: dict[str, Any] = field(default_factory=dict)
    """Of a fine-tuned classifier, the scores of its own answers, as in scores.json of its run; empty for others."""

    def _repr_html_(self) -> str:
        rows = [(row.features, *(getattr(row, probe) for probe in self.probes)) for row in self.rows]
        return html_table(rows, ("features", *self.probes))

    def beside(self, before: Scores) -> Scores:
        """With the model of other scores, on the same samples, as the model before."""
        rows = (self.rows[0], replace(before.rows[0], features=BEFORE), *self.rows[1:])
        intervals = (self.intervals[0], before.intervals[0], *self.intervals[1:])
        own = [replace(curve, features=BEFORE) for curve in before.curves if curve.features == MODEL]
        first = [curve for curve in self.curves if curve.features == MODEL]
        curves = (*first, *own, *self.curves[len(first) :])
        return replace(self, rows=rows, intervals=intervals, curves=curves)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; a row has only the probes that were asked for."""
        asked = ("features", *self.probes)
        rows = [{name: value for name, value in asdict(row).items() if name in asked} for row in self.rows]
        found = {"kind": "probes", **asdict(self), "rows": rows}
        return found if self.own else {name: value for name, value in found.items() if name != "own"}


def score(
    encoder: Encoder,
    untrained: Encoder | None,
    train: Samples,
    test: Samples,
    normalise: Normalise,
    device: torch.device,
    part: str,
    *,
    raw: tuple[str, Callable[[Samples, Samples, Note], tuple[LabelledFeatures, LabelledFeatures]]],
    phones: TokenProbe | None = None,
    probes: Sequence[str] = PROBES[:2],
    labels: Sequence[int] = (),
    seeds: int = 3,
    seed: int = 0,
    log: Callable[[str], None] = lambda _: None,
    note: Note = lambda _: None,
) -> Scores:
    """The `probes` on features of a model, of the same network untrained and of raw inputs, and the majority class.

    `raw` names the raw features and makes them of both parts; `phones` is what the probe of that name learns from.
    Without the untrained network the raw features are left out too. With `labels` (a class) also low-label curves of
    kNN and linear probe over `seeds` draws of them, other ones for each `seed`. `log` hears what is being scored,
    `note` of samples that can't be read.
    """
    rows, curves, bars = [], [], []
    others = ((RANDOM, untrained), (raw[0], None)) if untrained else ()
    encoded: list[Sequence[LabelledFeatures]] = []
    if by_samples := bool(set(probes) - {"phones"} or labels):
        models = [encoder, *([untrained] if untrained else [])]
        read = (encode_by_each(models, *samples, normalise, device, note) for samples in (train, test))
        encoded = list(zip(*read, strict=True))
    for place, (name, model) in enumerate(((MODEL, encoder), *others)):
        log(f"scoring {name}")
        known, asked = LabelledFeatures.none(), LabelledFeatures.none()
        if by_samples:
            known, asked = raw[1](train, test, note) if model is None else encoded[place]
        row: dict[str, float] = {}
        bar: dict[str, Interval] = {}
        if "knn" in probes:
            row["knn"] = probing.knn_accuracy(known, asked)
        if "linear" in probes:
            row["linear"] = probing.linear_accuracy(known, asked, seed)
        if "attentive" in probes and model is not None:
            learned, scored = (Patches(model, *samples, normalise, device) for samples in (train, test))
            row["attentive"] = probing.attentive_accuracy(learned, scored, seed)
        if "phones" in probes and phones is not None:
            row["phones"], bar["phones"] = phones.accuracy(model, device, note)
        rows.append(Row(name, **row))
        bars.append(_of_shares(row, len(asked.y)) | bar)
        if labels:
            log(f"low-label curves of {name}")
            curves += _curves(name, known, asked, labels, draws(seeds, seed))
    chance, bar = dict.fromkeys(probes, probing.majority_accuracy(known, asked)) if len(known.y) else {}, {}
    if "phones" in probes and phones is not None:
        chance["phones"], bar["phones"] = phones.majority(device)
    rows.append(Row(MAJORITY, **chance))
    bars.append(_of_shares(chance, len(asked.y)) | bar)
    classes = train[0].records.classes
    found = tuple(probes), tuple(rows), tuple(curves), tuple(bars)
    return Scores(part, len(known.y), len(asked.y), classes, *found)


def _of_shares(row: dict[str, float], count: int) -> dict[str, Interval]:
    """95 % intervals of a row's accuracies, of those that are shares of `count` samples."""
    return {name: of_share(value, count) for name, value in row.items() if name != "phones"}


def _curves(
    name: str, known: LabelledFeatures, asked: LabelledFeatures, labels: Sequence[int], seeds: Sequence[int]
) -> list[Curve]:
    """The low-label curves of one kind of features."""
    curve = partial(probing.low_label_curve, name, labels=labels, seeds=seeds)
    drawn = partial(probing.draw_labels, known)
    return [
        curve("knn", accuracy=lambda count, seed: probing.knn_accuracy(drawn(count, seed), asked)),
        curve("linear", accuracy=lambda count, seed: probing.linear_accuracy(drawn(count, seed), asked, seed)),
    ]
