"""Batches of whole recordings: all of them once an epoch, never more than there is room for, and a slow version."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from data2vec2 import rng
from data2vec2.data.sampler import LENGTH_STEP, WholeBatches

RATE = 1_000
CASES = [(1, 4), (2, 4), (3, 12), (50, 4), (50, 12), (300, 40), (41, 1)]
"""Numbers of recordings, of .3 to 4 s each, and seconds of a batch."""


def lengths_of(count: int) -> NDArray[np.int64]:
    return np.random.default_rng(count).integers(300, 4_001, count)


def epoch_of(order: WholeBatches, epoch: int) -> list[list[int]]:
    """The batches of an epoch, each ascending."""
    count = len(order.batches)
    plans = [order(step) for step in range(epoch * count, (epoch + 1) * count)]
    assert all((plan.epochs_B == epoch).all() for plan in plans)
    return [sorted(plan.samples_B.tolist()) for plan in plans]


def slow_epoch(lengths: NDArray[np.int64], seconds: int, seed: int, epoch: int) -> list[list[int]]:
    """From the longest on, one after another as long as there is room; the last takes of the one before."""
    steps = (lengths - lengths.min()) // round(LENGTH_STEP * RATE)
    shuffled = rng.permutation(rng.keys(rng.Stream.ORDER, seed, epoch), len(lengths)).tolist()
    waiting = sorted(shuffled, key=lambda sample: steps[sample])
    all_of_them, batches = list(waiting), []

    def has_room(batch: list[int], longest: int) -> bool:
        """For one more, where the longest may be any of its step."""
        return (len(batch) + 1) * max(lengths[steps == steps[longest]]) <= seconds * RATE

    while waiting:
        batch = [waiting.pop()]
        while waiting and has_room(batch, batch[0]):
            batch.append(waiting.pop())
        batches.append(batch)
    for more in all_of_them[len(batches[-1]) :]:
        if not has_room(batches[-1], more):
            break
        batches[-1].append(more)
    return [sorted(batch) for batch in batches]


@pytest.mark.parametrize(("count", "seconds"), CASES)
def test_against_a_slow_version(count: int, seconds: int) -> None:
    lengths = lengths_of(count)
    order = WholeBatches(lengths, seconds, 7, RATE)
    for epoch in (0, 1, 5):
        assert sorted(epoch_of(order, epoch)) == sorted(slow_epoch(lengths, seconds, 7, epoch))


@pytest.mark.parametrize(("count", "seconds"), CASES)
def test_all_once_an_epoch_and_never_more_than_there_is_room_for(count: int, seconds: int) -> None:
    lengths = lengths_of(count)
    order = WholeBatches(lengths, seconds, 0, RATE)
    epochs = [epoch_of(order, epoch) for epoch in range(3)]
    for batches in epochs:
        seen = Counter(sample for batch in batches for sample in batch)
        assert set(seen) == set(range(count))
        assert max(seen.values()) <= 2  # once, and to fill up the batch of the shortest
        repeated = {sample for sample, times in seen.items() if times == 2}
        assert not repeated or any(repeated < set(batch) for batch in batches)
        assert all(len(batch) == 1 or len(batch) * max(lengths[batch]) <= seconds * RATE for batch in batches)
    if count >= 50:
        assert epochs[0] != epochs[1]
    for step in range(2 * len(order.batches)):
        plan = order(step)
        longest = max(lengths[plan.samples_B])
        assert longest <= plan.length < longest + round(LENGTH_STEP * RATE)


@pytest.mark.parametrize("processes", [2, 3])
def test_every_process_gets_a_recording(processes: int) -> None:
    """Where a batch has room for so many of the longest, as `AudioFinetuneConfig` asks for."""
    for count in range(processes, 40):
        order = WholeBatches(lengths_of(count), 4 * processes, 0, RATE)
        assert min(len(order(step).samples_B) for step in range(len(order.batches))) >= processes


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    lengths = lengths_of(60)
    ahead, behind = WholeBatches(lengths, 12, 3, RATE), WholeBatches(lengths, 12, 3, RATE)
    forwards = [ahead(step) for step in range(40)]
    for step in reversed(range(40)):
        assert np.array_equal(forwards[step].samples_B, behind(step).samples_B)
        assert forwards[step].length == behind(step).length
    assert epoch_of(ahead, 0) != epoch_of(WholeBatches(lengths, 12, 4, RATE), 0)


def test_one_longer_than_a_batch_is_alone() -> None:
    order = WholeBatches(np.array([1_000, 9_000, 1_100, 1_000]), 4, 0, RATE)
    assert sorted(epoch_of(order, 0)) == [[0, 2, 3], [1]]


def test_nothing_to_train_on() -> None:
    with pytest.raises(ValueError, match="no recordings"):
        WholeBatches(np.array([], dtype=np.int64), 4, 0, RATE)
