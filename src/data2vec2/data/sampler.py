"""The order of samples, a function of the step. Shapes: `B` samples of a global batch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data2vec2 import rng

LENGTH_STEP = 0.25
"""Seconds: recordings whose lengths differ by less are in random order, and cut to the same length."""


@dataclass(frozen=True)
class Plan:
    """Which samples make a batch, and what they have in common; everything random about them follows from this."""

    epochs_B: NDArray[np.int64]
    """How often the data had been gone through when the sample's turn came."""
    samples_B: NDArray[np.int64]
    """Places in the records."""
    length: int = 0
    """Samples of audio that every recording is cut to; 0: not audio."""
    weight: float = 1.0
    """Of this part's mean loss in the global batch's, times the number of parts: 1 where all parts are equal."""

    def part(self, rank: int, size: int) -> Plan:
        """What process `rank` of `size` takes."""
        total = len(self.samples_B)
        own = slice(total * rank // size, total * (rank + 1) // size)
        share = (own.stop - own.start) * size / total
        return Plan(self.epochs_B[own], self.samples_B[own], self.length, share)


class Order(Protocol):
    """Which samples make the batches, one after another without end."""

    @property
    def per_epoch(self) -> float:
        """How many batches a pass over the data has."""

    def __call__(self, step: int, /) -> Plan:
        """The global batch of a step (0 is the first)."""


class GlobalBatches:
    """Global batches of one size; every epoch is a fresh permutation, and a batch may span two epochs.

    Place `p = step * batch_size + i` of the endless stream is sample `order(p // n)[p % n]`: no past needs saving.
    """

    def __init__(self, num_samples: int, batch_size: int, seed: int) -> None:
        if num_samples < 1:
            raise ValueError("no samples to train on")
        self.num_samples, self.batch_size, self.seed = num_samples, batch_size, seed
        self.per_epoch = num_samples / batch_size

    def __call__(self, step: int) -> Plan:
        """The global batch of a step (0 is the first)."""
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, within = np.divmod(places, self.num_samples)
        samples = np.empty_like(within)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            samples[here] = _order(self.seed, int(epoch), self.num_samples)[within[here]]
        return Plan(epochs, samples)


class LengthBatches:
    """Global batches of recordings of similar length, so many seconds in all; every epoch all of them once, shuffled.

    Recordings are sorted by length in steps of a quarter of a second, in an order within a step that is new in every
    epoch, and dealt out from the shortest on. Each batch is cut to its shortest step; the last takes of the one before.
    """

    def __init__(self, lengths: NDArray[np.int64], batch_seconds: float, seed: int, sample_rate: int) -> None:
        """`lengths` in samples, longer ones already limited to what a batch should hold of them."""
        if not len(lengths):
            raise ValueError("no recordings to train on")
        self.seed = seed
        step, shortest = max(1, round(LENGTH_STEP * sample_rate)), int(lengths.min())
        self.steps = (lengths - shortest) // step
        cuts = shortest + np.sort(self.steps) * step
        self.batches: list[tuple[slice, int]] = []
        start = 0
        while start < len(cuts):
            count = max(1, int(batch_seconds * sample_rate // cuts[start]))
            first = max(0, min(start, len(cuts) - count))
            self.batches.append((slice(first, first + count), int(cuts[first])))
            start += count

    @property
    def per_epoch(self) -> float:
        """How many batches a pass over the data has."""
        return len(self.batches)

    def __call__(self, step: int) -> Plan:
        """The global batch of a step (0 is the first)."""
        epoch, within = divmod(step, len(self.batches))
        samples, order = self._epoch(epoch)
        places, length = self.batches[order[within]]
        return Plan(np.full(len(samples[places]), epoch), samples[places], length)

    def _epoch(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Recordings by length with ties in a random order, and the order of the batches."""
        if getattr(self, "_last", (-1,))[0] != epoch:
            ties = _order(self.seed, epoch, len(self.steps))
            samples = ties[np.argsort(self.steps[ties], kind="stable")]
            key = rng.keys(rng.Stream.ORDER, self.seed, epoch, 1)
            self._last = (epoch, samples, rng.permutation(key, len(self.batches)))
        return self._last[1], self._last[2]


class WholeBatches(LengthBatches):
    """Global batches of whole recordings of similar length: so many that, filled up to the longest, they have room.

    Recordings are dealt out from the longest on, all once an epoch; the last batch takes of the one before if it can.
    """

    def __init__(self, lengths: NDArray[np.int64], batch_seconds: float, seed: int, sample_rate: int) -> None:
        """`lengths` in samples; one that is longer than the batch is a batch of its own."""
        super().__init__(lengths, batch_seconds, seed, sample_rate)
        order = np.argsort(self.steps, kind="stable")
        longest = np.maximum.accumulate(lengths[order])  # up to each place; ties are in any order
        longest = longest[np.searchsorted(self.steps[order], self.steps[order], side="right") - 1]
        room = int(batch_seconds * sample_rate)
        self.batches = []
        stop = total = len(lengths)
        while stop > 0:
            start = max(0, stop - max(1, room // int(longest[stop - 1])))
            while not start and stop < total and (stop + 1) * longest[stop] <= room:
                stop += 1
            self.batches.append((slice(start, stop), int(longest[stop - 1])))
            stop = start


class Repeated:
    """An order in which samples come several times in a pass, each time with other crops and masks."""

    def __init__(self, repeats_N: NDArray[np.int64], order: Callable[[NDArray[np.int64]], Order]) -> None:
        """`order` makes an order of places, whose samples it is given: each as often as `repeats_N` says."""
        self.samples = np.repeat(np.arange(len(repeats_N)), repeats_N)
        self.times = np.arange(len(self.samples)) - np.repeat(np.cumsum(repeats_N) - repeats_N, repeats_N)
        self.most, self.order = int(repeats_N.max()), order(self.samples)

    @property
    def per_epoch(self) -> float:
        """How many batches a pass over the data has."""
        return self.order.per_epoch

    def __call__(self, step: int) -> Plan:
        """The global batch of a step (0 is the first); a sample's second time in a pass counts as another epoch."""
        plan = self.order(step)
        epochs_B = plan.epochs_B * self.most + self.times[plan.samples_B]
        return replace(plan, epochs_B=epochs_B, samples_B=self.samples[plan.samples_B])


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, num_samples: int) -> NDArray[np.int64]:
    return rng.permutation(rng.keys(rng.Stream.ORDER, seed, epoch), num_samples)


def split_validation(
    labels: NDArray[np.int64], fraction: float, seed: int, limit: int = 2000
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the training samples, and of `fraction` of all, at most `limit`, to validate on; both ascending.

    In proportion to the labels (-1 is one), each of which keeps a sample to train on. Below 20 samples all train.
    """
    total = len(labels)
    order = np.lexsort((rng.uniforms(rng.keys(rng.Stream.SPLIT, seed, np.arange(total)), 1)[:, 0], labels))
    kept = np.unique(labels[order], return_index=True)[1]  # the first sample of each label trains
    candidates = np.delete(order, kept)
    count = min(limit, round(fraction * total), len(candidates)) if total >= 20 else 0
    # Every n-th of the candidates, which are sorted by label: that takes each label in proportion.
    start = rng.uniforms(rng.keys(rng.Stream.SPLIT, seed, total), 1)[0, 0]
    places = ((np.arange(count) + start) * len(candidates) / max(count, 1)).astype(np.int64)
    validation = np.sort(candidates[places])
    return np.setdiff1d(np.arange(total), validation, assume_unique=True), validation
