"""Splitting a validation part off the training part."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data2vec2 import rng

_FEWEST = 20


def split_validation(
    labels: NDArray[np.int64], fraction: float, seed: int, limit: int = 2000
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the training and of the validation samples, both ascending.

    The validation part is `fraction` of the samples, at most `limit`, in proportion to the labels (-1 is one of them);
    every label keeps at least one training sample. It is empty for fraction 0 and for fewer than 20 samples.
    """
    total = len(labels)
    order = np.lexsort((rng.uniforms(rng.keys(rng.Stream.SPLIT, seed, np.arange(total)), 1)[:, 0], labels))
    kept = np.unique(labels[order], return_index=True)[1]  # the first sample of each label trains
    candidates = np.delete(order, kept)
    count = min(limit, round(fraction * total), len(candidates)) if total >= _FEWEST else 0
    # Every n-th of the candidates, which are sorted by label: that takes each label in proportion.
    start = rng.uniforms(rng.keys(rng.Stream.SPLIT, seed, total), 1)[0, 0]
    places = ((np.arange(count) + start) * len(candidates) / max(count, 1)).astype(np.int64)
    validation = np.sort(candidates[places])
    return np.setdiff1d(np.arange(total), validation, assume_unique=True), validation
