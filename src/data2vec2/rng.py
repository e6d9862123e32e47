"""Counter-based randomness: a draw depends on its own counters and on nothing else.

No generator state exists to save or to share: the crop of sample 7 in epoch 3 is the same in any process, batch, order
or resumed run. The mixing function is SplitMix64's finaliser (Steele, Lea and Flood, OOPSLA 2014).
"""

from __future__ import annotations

import enum

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Stream(enum.IntEnum):
    """What a draw is for; different purposes never share numbers."""

    ORDER = 1
    CROP = 2
    MASK = 3
    STEP = 4
    SPLIT = 5
    REPLACEMENT = 6
    AUGMENT = 7
    MIX = 8
    LABELS = 9
    TIME_SPANS = 10
    CHANNEL_SPANS = 11
    RESAMPLE = 12


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def keys(stream: Stream, *counters: int | NDArray[np.int64]) -> NDArray[np.uint64]:
    """64-bit keys of the given counters (integers or arrays, broadcast against each other)."""
    with np.errstate(over="ignore"):
        key = _mix(np.asarray([int(stream)], dtype=np.uint64) * _GOLDEN)
        for counter in counters:
            key = _mix((key ^ np.asarray(counter).astype(np.uint64)) + _GOLDEN)
    return key


def uniforms(key: NDArray[np.uint64], count: int) -> NDArray[np.float64]:
    """`count` uniform numbers in [0, 1) for every key: shape `key.shape + (count,)`."""
    with np.errstate(over="ignore"):
        bits = _mix(key[..., None] + np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(key: NDArray[np.uint64], count: int) -> NDArray[np.int64]:
    """A permutation of `range(count)` for one key."""
    return np.argsort(uniforms(key.reshape(1), count)[0], kind="stable")


def seed_of(key: NDArray[np.uint64]) -> int:
    """A seed for a generator that wants one integer (63 bits)."""
    return int(key.reshape(-1)[0] >> np.uint64(1))
