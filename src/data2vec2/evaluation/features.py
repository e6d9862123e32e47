"""Frozen features of many samples, and the figures that show a collapse.

Shapes: `B` samples of a batch, `T` tokens, `D` width.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data2vec2.data.account import Bad
from data2vec2.data.reader import Reader, Windowed
from data2vec2.data.source import BadSample
from data2vec2.errors import UserError
from data2vec2.evaluation.intervals import Interval
from data2vec2.method.encoder import Encoder
from data2vec2.training.parallel import ALONE, World

Features = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class LabelledFeatures:
    """Features `NF` (dense, or a SciPy matrix of sparse rows) and labels `N`, 0 or above, of one part of the data."""

    x: Features
    y: Labels

    @classmethod
    def none(cls) -> LabelledFeatures:
        """No samples."""
        return cls(np.zeros((0, 0), np.float32), np.zeros(0, np.int64))

    def select(self, places: NDArray[np.int64]) -> LabelledFeatures:
        """Some of the samples."""
        return LabelledFeatures(self.x[places], self.y[places])


Normalise = Callable[[Tensor], Tensor]
"""Makes the model's input of what was read."""
Note = Callable[[Iterable[Bad]], object]
"""Hears of samples that could not be read; they are left out."""


def labelled(labels: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """At most `limit` indices of samples that have a label, evenly spread."""
    indices = np.flatnonzero(labels >= 0)
    return indices[np.arange(min(limit, len(indices))) * len(indices) // max(1, min(limit, len(indices)))]


@dataclass(frozen=True)
class Inputs:
    """Samples that could be read."""

    inputs: Tensor
    """As read, not yet normalised."""
    labels_B: NDArray[np.int64]
    samples_B: NDArray[np.int64]
    """Places in the records."""
    lengths_B: Tensor | None = None
    """Samples of audio of each, where there are fewer than `inputs` have room for."""

    def given(self, normalise: Normalise, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """What a model takes, on its device: normalised inputs and their lengths."""
        return normalise(self.inputs.to(device)), None if self.lengths_B is None else self.lengths_B.to(device)


def readable_batches(
    reader: Reader, groups: Sequence[NDArray[np.int64]], note: Note = lambda _: None
) -> Iterator[Inputs]:
    """Groups of samples as evaluation sees them, without those that can't be read.

    Threads read some of them ahead.
    """
    threads = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(groups), threads):
            some = groups[first : first + threads]
            for asked, batch in zip(some, pool.map(reader.eval_batch, some), strict=True):
                note(batch.bad)
                read = batch.indices_B == asked  # elsewhere another sample stands in
                if read.any():
                    lengths = None if batch.lengths_B is None else torch.from_numpy(batch.lengths_B[read])
                    yield Inputs(torch.from_numpy(batch.inputs[read]), batch.labels_B[read], asked[read], lengths)


def over_batches(
    compute: Callable[[Inputs], Mapping[str, NDArray[Any]]],
    reader: Reader,
    samples: NDArray[np.int64],
    note: Note = lambda _: None,
    world: World = ALONE,
) -> dict[str, NDArray[Any]]:
    """What `compute` makes of all samples that can be read, in the groups' order; and `samples_N`, their places.

    Each process of a world computes a share, and all get all; all hear of what can't be read. `UserError` if none can.
    """
    bad: list[Bad] = []
    groups = reader.eval_groups(samples)
    batches = readable_batches(reader, groups[world.rank :: world.size], bad.extend)
    parts = [{"samples_N": batch.samples_B, **compute(batch)} for batch in batches]
    note(Bad(name, reason) for part in world.collect([(one.name, one.reason) for one in bad]) for name, reason in part)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
    found = [part for part in world.collect_arrays(joined) if part]
    if not found:
        raise UserError(f"none of {len(samples)} samples of the {reader.records.kind} can be read")
    rows = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    return {name: row[_as(np.concatenate(groups), rows["samples_N"])] for name, row in rows.items()}


def _as(wanted: NDArray[np.int64], found: NDArray[np.int64]) -> NDArray[np.int64]:
    """The permutation that puts `found` into the order of `wanted`."""
    place_of = {sample: place for place, sample in enumerate(wanted.tolist())}
    return np.argsort([place_of[sample] for sample in found.tolist()])


def features_of(
    features: Callable[[Inputs], NDArray[np.float32]],
    reader: Reader,
    samples: NDArray[np.int64],
    note: Note = lambda _: None,
    world: World = ALONE,
) -> LabelledFeatures:
    """`features` of all samples that can be read, in their order, with their labels; otherwise as `over_batches`."""
    found = over_batches(lambda batch: {"x": features(batch), "y": batch.labels_B}, reader, samples, note, world)
    return LabelledFeatures(found["x"], found["y"]).select(_as(samples, found["samples_N"]))


def encode_by_each(
    encoders: Sequence[Encoder],
    reader: Reader,
    samples: NDArray[np.int64],
    normalise: Normalise,
    device: torch.device,
    note: Note = lambda _: None,
    world: World = ALONE,
) -> list[LabelledFeatures]:
    """Mean-pooled features of the samples as evaluation sees them, with the labels, by each encoder, in eval mode.

    The encoders are of one width; every sample is read once.
    """

    @torch.no_grad()
    def pooled(batch: Inputs) -> NDArray[np.float32]:
        inputs, lengths_B = batch.given(normalise, device)
        each = [encoder(inputs, lengths_B=lengths_B).pooled().float() for encoder in encoders]
        return torch.cat(each, 1).cpu().numpy()

    found = features_of(pooled, reader, samples, note, world)
    return [LabelledFeatures(np.ascontiguousarray(x), found.y) for x in np.split(found.x, len(encoders), 1)]


@torch.no_grad()
def token_features(
    encoder: Encoder, inputs: Tensor, lengths_B: Tensor | None, *, stem: bool = False
) -> list[NDArray[np.float32]]:
    """Features `TD` of each sample's real tokens: the output of an encoder in eval mode, or what its `stem` makes."""
    encoded = encoder(inputs, lengths_B=lengths_B)
    rows = (encoded.tokens.tokens_BTD if stem else encoded.features_NTD).float().cpu().numpy()
    padding_BT = encoded.tokens.padding_BT
    real_B = [rows.shape[1]] * len(rows) if padding_BT is None else (~padding_BT).sum(1).tolist()
    return [row[:count] for row, count in zip(rows, real_B, strict=True)]


@torch.no_grad()
def effective_rank(x: Tensor, limit: int = 2048) -> float:
    """Effective number of dimensions that features `(..., D)` use, from 1 to D.

    The exponential of the entropy of the singular values, normalised to sum 1, of the centred features (Roy and
    Vetterli, 2007). At most `limit` rows, evenly spread, are looked at. Not a number where a feature is not finite.
    """
    rows = x.detach().flatten(0, -2)
    rows = rows[:: max(1, len(rows) // limit)][:limit].double().cpu()
    if not torch.isfinite(rows).all():
        return float("nan")
    rows = rows - rows.mean(0)
    singular = torch.linalg.eigvalsh(rows.T @ rows).clamp(min=0).sqrt()
    total = singular.sum()
    if total <= 1e-12:
        return 1.0
    p = singular / total
    return float(torch.exp(-(p * p.clamp(min=1e-30).log()).sum()))


@torch.no_grad()
def mean_std(x: Tensor) -> float:
    """Standard deviation of each channel of `(..., D)` over all rows, averaged over channels."""
    rows = x.detach().flatten(0, -2).float()
    return float((rows.var(0) + 1e-6).sqrt().mean())


def window_features(
    encoder: Encoder, windows: Windowed, device: torch.device, *, stem: bool = False
) -> Iterator[NDArray[np.float32]]:
    """As `token_features`, of a long sample, some tokens at once; `UserError` if it can't be read a second time."""
    try:
        for wave_S, kept in windows:
            (row_TD,) = token_features(encoder, torch.from_numpy(wave_S)[None].to(device), None, stem=stem)
            yield row_TD[kept]
    except BadSample as error:
        raise UserError(f"a long sample changed while it was read: {error.reason}") from error


def mean_features(rows: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The mean `D` over all tokens of rows `TD`."""
    sums, count = np.zeros(1), 0
    for row_TD in rows:
        sums, count = sums + row_TD.sum(axis=0, dtype=np.float64), count + len(row_TD)
    return (sums / count).astype(np.float32)


class TokenProbe(Protocol):
    """A probe of what single tokens know."""

    def accuracy(
        self, encoder: Encoder | None, device: torch.device, note: Note = lambda _: None
    ) -> tuple[float, Interval]:
        """Share of tokens that are told right from the encoder's output (none: from the raw input); its interval."""

    def majority(self, device: torch.device) -> tuple[float, Interval]:
        """Accuracy of always answering the most frequent class, and its interval."""
