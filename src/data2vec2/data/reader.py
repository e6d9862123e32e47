"""From records to arrays: batches to learn from or to score, and every sample of a source once and in order.

Shapes: `B` samples, `T` the first axis of a sample, filled up where lengths differ.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data2vec2 import rng
from data2vec2.data.account import Bad, PartAccount
from data2vec2.data.records import Records
from data2vec2.data.sampler import GlobalBatches, Order, Plan, Repeated
from data2vec2.data.source import BadSample
from data2vec2.errors import UserError

REPLACEMENTS = 100
"""So many others are tried in place of a sample that can't be read."""
_EVAL_GROUP = 250  # samples of one size that are evaluated at once
_AHEAD = 3  # chunks
LOOK_AT: ContextVar[int] = ContextVar("LOOK_AT", default=1 << 30)
"""How many samples are looked at at most before anything begins; fewer where only time and memory are asked for."""


@dataclass(frozen=True)
class ReadBatch:
    """Samples that were read together."""

    inputs: NDArray[Any]
    """As read, not yet normalised: `B` and the axes of a sample."""
    labels_B: NDArray[np.int64]
    """-1: none."""
    bad: tuple[Bad, ...]
    """Samples that others stand in for, once for each time."""
    indices_B: NDArray[np.int64]
    """The records that were read: those asked for, or what stands in for them."""
    lengths_B: NDArray[np.int64] | None = None
    """Real length of each sample's first axis; what follows only fills the batch up. None: all are full."""
    pieces_B: NDArray[np.int64] | None = None
    """What was read of each record, as a plan counts it, where that is not the record; none: it is."""


class Windowed(ABC):
    """A sample that is too long for one pass: iterating gives parts of it, and which of a part's tokens are kept."""

    @abstractmethod
    def __iter__(self) -> Iterator[tuple[NDArray[Any], slice]]:
        """The parts in order."""


class Reader(ABC):
    """Batches of the model's inputs from records. Can be pickled; the same arguments always give the same batch.

    A bad sample is replaced by another, chosen by (seed, sample) alone; `UserError` if a hundred others are bad too.
    """

    def __init__(self, records: Records, seed: int) -> None:
        self.records, self.seed = records, seed
        self.mended: dict[str, str] = {}
        """What was done to samples that were read, by name."""

    def name(self, sample: int) -> str:
        """What a sample of a training batch is called."""
        return self.records.names[sample]

    @property
    def in_memory(self) -> bool:
        """Whether reading costs next to nothing, so that no process of its own need do it."""
        return self.records.source.in_memory

    @abstractmethod
    def whole(self, sample: int) -> NDArray[Any]:
        """A sample as evaluation sees it; raises `BadSample`."""

    def entire(self, sample: int) -> NDArray[Any] | Windowed:
        """All of a sample, however long; raises `BadSample`."""
        return self.whole(sample)

    def crop(self, sample: int, epoch: int, plan: Plan) -> NDArray[Any]:
        """A sample as training sees it; depends on (seed, epoch, sample) and the plan's length alone."""
        return self.whole(sample)

    def marked(self, sample: int, epoch: int | None = None, plan: Plan | None = None) -> NDArray[np.int64]:
        """Class of each token or pixel (`IGNORED`: none) of `crop(sample, epoch, plan)`, without epoch of `whole`.

        Raises `BadSample`; `TypeError` where the reader knows no such classes.
        """
        raise TypeError(f"{type(self).__name__} reads no classes of tokens")

    def stacked(self, rows: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
        """One array of several samples, with zeros behind all but the longest, and lengths where these can differ."""
        return padded(rows, 0.0, np.float32)

    @abstractmethod
    def grid(self, inputs: NDArray[Any]) -> tuple[int, ...]:
        """Arrangement of the tokens that a batch of such inputs has."""

    def size(self, batch: ReadBatch) -> float:
        """What each sample of a training batch counts in a batch size."""
        return 1.0

    @property
    def num_trained(self) -> int:
        """Samples that training sees, bad ones among them."""
        return len(self.records)

    def amount(self) -> float:
        """What all samples count in a batch size."""
        return float(len(self.records))

    def order(self, batch_size: int) -> Order:
        """Global batches of so many samples, or of what else `size` counts."""
        if self.records.repeats is None:
            return GlobalBatches(len(self.records), batch_size, self.seed)
        return Repeated(self.records.repeats, lambda samples: GlobalBatches(len(samples), batch_size, self.seed))

    def eval_groups(self, samples_B: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """The samples in groups that `eval_batch` should be asked for at once; not always in the same order."""
        return [samples_B[start : start + _EVAL_GROUP] for start in range(0, len(samples_B), _EVAL_GROUP)]

    def train_batch(self, plan: Plan) -> ReadBatch:
        """The samples of a plan, as training sees them."""
        epochs = plan.epochs_B.tolist()
        return self.batch(plan.samples_B, lambda sample, place: self.crop(sample, epochs[place], plan))

    def eval_batch(self, samples_B: NDArray[np.int64]) -> ReadBatch:
        """The samples as evaluation sees them."""
        return self.batch(samples_B, lambda sample, _: self.whole(sample))

    def batch(
        self,
        samples_B: NDArray[np.int64],
        read: Callable[[int, int], NDArray[Any]],
        among: NDArray[np.int64] | None = None,
    ) -> ReadBatch:
        """What `read` makes of each sample and its place in the batch; bad ones are replaced by others `among` all."""
        indices_B, bad, rows = np.array(samples_B, dtype=np.int64), [], []
        for place, sample in enumerate(indices_B.tolist()):
            try:
                row = read(sample, place)
            except BadSample as error:
                bad.append(Bad(self.records.names[sample], error.reason))
                chosen = np.arange(len(self.records)) if among is None else among
                row, indices_B[place] = self.replacement(sample, bad[-1], lambda i: read(i, place), chosen)  # noqa: B023
            rows.append(row)
        inputs, lengths_B = self.stacked(rows)
        return ReadBatch(inputs, self.records.labels[indices_B], tuple(bad), indices_B, lengths_B)

    def replacement(
        self, sample: int, bad: Bad, read: Callable[[int], NDArray[Any]], *among: NDArray[np.int64]
    ) -> tuple[NDArray[Any], int]:
        """What stands in for a bad sample, and its place; equally many tries in each of `among`."""
        draws = rng.uniforms(rng.keys(rng.Stream.REPLACEMENT, self.seed, sample), REPLACEMENTS)[0]
        parts = zip(among, np.split(draws, len(among)), strict=True)
        last = bad.reason
        for other in np.concatenate([places[(part * len(places)).astype(np.int64)] for places, part in parts]).tolist():
            try:
                return read(other), other
            except BadSample as error:
                last = error.reason
        raise UserError(
            f"{bad.name} can't be used ({bad.reason}), nor can any of {REPLACEMENTS} replacements "
            f"(the last: {last}); check the files of the {self.records.kind}"
        )

    def unreadable(self, note: Callable[[str], None]) -> Sequence[Bad]:
        """Samples that evaluation can't use, as far as that is known of all before they are needed."""
        return ()

    def mends(self) -> tuple[Bad, ...]:
        """What was done to samples that were read so far."""
        return tuple(Bad(*item) for item in sorted(self.mended.items()))

    def note_unreadable(self, part: PartAccount, say: Callable[[str], None]) -> None:
        """Note in the account what `unreadable` finds of held-out samples; `UserError` if it is too much."""
        if part.add(self.unreadable(say), len(self.records)):
            say(f"data: {len(part.bad)} of {len(self.records)} held out can't be used: {part.summary()}")

    def looked_at(
        self, limit: int = 1_000, of: Callable[[Any], Any] = lambda sample: sample
    ) -> tuple[list[Any], list[Bad]]:
        """`of` at most so many samples, evenly spread, that can be read, and the others; `UserError` if none can."""
        count = min(limit, LOOK_AT.get(), len(self.records))
        places = np.arange(count) * len(self.records) // max(1, count)
        some = self.records.select(places)
        chunks = list(stream(some, lambda place: of(self.whole(int(places[place]))), _EVAL_GROUP))
        good = [sample for chunk in chunks for sample in chunk.good.values()]
        bad = [one for chunk in chunks for one in chunk.bad.values()]
        if not good:
            first = f"; the first, {bad[0].name}: {bad[0].reason}" if bad else ""
            raise UserError(f"none of {len(places)} samples of the {self.records.kind} can be used{first}")
        return good, bad

    def shown(self, samples: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Arrays that show samples in a report, beside their names."""
        return {}


def padded(rows: Sequence[NDArray[Any]], value: float, dtype: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Samples `B x T` of different lengths, filled up behind with `value`, and the lengths."""
    lengths_B = np.array([len(row) for row in rows], dtype=np.int64)
    filled = np.full((len(rows), lengths_B.max(initial=0), *(rows[0].shape[1:] if rows else ())), value, dtype=dtype)
    for full, row in zip(filled, rows, strict=True):
        full[: len(row)] = row
    return filled, lengths_B


def by_length(samples_B: NDArray[np.int64], lengths_N: NDArray[np.int64], room: float) -> list[NDArray[np.int64]]:
    """Samples sorted by length, in groups that take at most `room` when filled up (at least one sample each)."""
    groups: list[list[int]] = [[]]
    for sample in samples_B[np.argsort(lengths_N[samples_B], kind="stable")].tolist():
        if groups[-1] and (len(groups[-1]) + 1) * lengths_N[sample] > room:
            groups.append([])
        groups[-1].append(sample)
    return [np.array(group, dtype=np.int64) for group in groups if group]


class Chunk(NamedTuple):
    """Consecutive samples of a source, by the index of their record and in order."""

    good: dict[int, Any]
    """What was read."""
    bad: dict[int, Bad]


def stream(records: Records, read: Callable[[int], Any], size: int) -> Iterator[Chunk]:
    """All samples once and in order, as threads `read` them by index, in chunks of `size`, some ahead of the caller."""

    def attempt(index: int) -> Any:
        try:
            return read(index)
        except BadSample as error:
            return Bad(records.names[index], error.reason)

    pool, places = ThreadPoolExecutor(min(8, os.cpu_count() or 1)), range(len(records))
    waiting: deque[Iterator[tuple[int, Any]]] = deque()
    try:
        for start in range(0, len(records) + _AHEAD * size, size):  # in the last rounds nothing is left to begin
            chunk = places[start : start + size]
            waiting.append(zip(chunk, pool.map(attempt, chunk), strict=True))
            if len(waiting) > _AHEAD:
                found = dict(waiting.popleft())
                bad = {index: result for index, result in found.items() if isinstance(result, Bad)}
                yield Chunk({index: result for index, result in found.items() if index not in bad}, bad)
    finally:
        pool.shutdown(cancel_futures=True)
