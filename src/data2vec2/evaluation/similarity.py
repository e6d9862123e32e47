"""What makes a gallery of any modality: samples to show, their neighbours, colours of tokens, a map, and its file.

Shapes: `Q` samples shown, `K` neighbours of each, `S` samples, `T` tokens, `D` width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

FILE = "gallery.npz"
SEARCHED = 2_000
"""At most so many samples are searched for neighbours."""
MAPPED = 1_000
"""At most so many samples are put on the map: t-SNE of them takes 5 s on one core, of 2,000 it takes 15 s."""
FEW = 50
"""Fewer samples are put on the map by PCA: t-SNE needs neighbourhoods."""

Features = NDArray[np.float32]


def spread(count: int, limit: int) -> NDArray[np.int64]:
    """At most `limit` of the places 0 to `count` - 1, evenly spread."""
    return np.linspace(0, count - 1, min(count, limit)).astype(np.int64)


def shown_samples(labels_S: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Which samples are shown: one of each of `limit` classes, or evenly spread where there are fewer classes."""
    values, firsts = np.unique(labels_S, return_index=True)
    candidates = np.sort(firsts[values >= 0])
    if len(candidates) < limit:
        candidates = np.arange(len(labels_S))
    return candidates[spread(len(candidates), limit)]


def nearest(features_SD: Features, shown_Q: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], Features]:
    """Indices of the samples most similar to each shown one, itself left out, and their cosine similarities, `QK`."""
    unit_SD = features_SD / np.maximum(np.linalg.norm(features_SD, axis=1, keepdims=True), 1e-12)
    cosines_QS = unit_SD[shown_Q] @ unit_SD.T
    cosines_QS[np.arange(len(shown_Q)), shown_Q] = -np.inf
    near_QK = np.argsort(-cosines_QS, axis=1, kind="stable")[:, : min(count, len(unit_SD) - 1)]
    return near_QK, np.take_along_axis(cosines_QS, near_QK, axis=1)


def colours(features_TD: Features) -> NDArray[np.uint8]:
    """Red, green and blue of every token: the first three principal components of all of them."""
    components = np.zeros((len(features_TD), 3), dtype=np.float32)
    count = min(3, *features_TD.shape)
    components[:, :count] = PCA(count, svd_solver="covariance_eigh").fit_transform(features_TD)
    low, high = np.percentile(components, (2, 98), axis=0)
    shares = np.clip((components - low) / np.maximum(high - low, 1e-9), 0, 1)
    pixels: NDArray[np.uint8] = np.rint(shares * 255).astype(np.uint8)
    return pixels


def map_of(features_SD: Features, labels_S: NDArray[np.int64], classes: tuple[str, ...]) -> dict[str, Any]:
    """Arrays of the map of at most `MAPPED` samples: `map`, `map_labels`, `map_method` and `classes`."""
    mapped = spread(len(features_SD), MAPPED)
    places_S2, method = _places(features_SD[mapped])
    names = np.array(classes, dtype=np.str_)
    return {"map": places_S2, "map_labels": labels_S[mapped], "map_method": method, "classes": names}


def write_arrays(run_path: Path, arrays: dict[str, Any]) -> None:
    """Write `run_path`/gallery.npz, whole or not at all."""
    temporary = run_path / f".{FILE}.tmp"
    with temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    temporary.replace(run_path / FILE)


def _places(features_SD: Features) -> tuple[Features, str]:
    """Places in a plane where similar samples are close, and the name of the method."""
    places_S2 = np.zeros((len(features_SD), 2), dtype=np.float32)
    if np.ptp(features_SD, axis=0).max() == 0:
        return places_S2, "PCA"  # all samples are the same
    if len(features_SD) < FEW:
        count = min(2, *features_SD.shape)
        places_S2[:, :count] = PCA(count).fit_transform(features_SD)
        return places_S2, "PCA"
    tsne = TSNE(2, init="pca", perplexity=min(30, len(features_SD) / 4), random_state=0)
    return tsne.fit_transform(features_SD).astype(np.float32), "t-SNE"
