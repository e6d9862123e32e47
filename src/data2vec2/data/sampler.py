"""The order of samples: a function of the step."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from data2vec2 import rng


class GlobalBatches:
    """Global batches as (epoch, sample) pairs; every epoch is a fresh permutation, and a batch may span two epochs.

    Place `p = step * batch_size + i` of the endless stream is sample `order(p // n)[p % n]`, so nothing about the past
    needs saving to go on from any step, and ranks and micro-batches simply take slices.
    """

    def __init__(self, num_samples: int, batch_size: int, seed: int) -> None:
        if num_samples < 1:
            raise ValueError("no samples to train on")
        self.num_samples, self.batch_size, self.seed = num_samples, batch_size, seed

    def __call__(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """`epochs_B` and `samples_B` of the global batch of a step (0 is the first)."""
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, within = np.divmod(places, self.num_samples)
        samples = np.empty_like(within)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            samples[here] = _order(self.seed, int(epoch), self.num_samples)[within[here]]
        return epochs, samples


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, num_samples: int) -> NDArray[np.int64]:
    return rng.permutation(rng.keys(rng.Stream.ORDER, seed, epoch), num_samples)
