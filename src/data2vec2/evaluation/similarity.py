"""What makes a gallery of any modality: samples to show, their neighbours, colours of tokens, a map, and its file.

Shapes: `Q` samples shown, `K` neighbours of each, `S` samples, `T` tokens, `D` width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data2vec2.evaluation.features import LabelledFeatures
from data2vec2.files import whole_file

FILE = "gallery.npz"
SEARCHED = 2_000
"""At most so many samples are searched for neighbours."""
MAPPED = 1_000
"""At most so many samples are put on the map: t-SNE of them takes 5 s on one core, of 2,000 it takes 15 s."""
FEW = 50
"""Fewer samples are put on the map by PCA: t-SNE needs neighbourhoods."""
CAPTIONED, NEIGHBOURS = 8, 4
"""Samples shown, and neighbours of each, where words stand for them."""

Features = NDArray[np.float32]


def spread(count: int, limit: int) -> NDArray[np.int64]:
    """At most `limit` of the places 0 to `count` - 1, evenly spread."""
    return np.linspace(0, count - 1, min(count, limit)).astype(np.int64)


def nearest(features_SD: Features, shown_Q: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], Features]:
    """Indices of the samples most similar to each shown one, itself left out, and their cosine similarities, `QK`."""
    unit_SD = features_SD / np.maximum(np.linalg.norm(features_SD, axis=1, keepdims=True), 1e-12)
    cosines_QS = unit_SD[shown_Q] @ unit_SD.T
    cosines_QS[np.arange(len(shown_Q)), shown_Q] = -np.inf
    near_QK = np.argsort(-cosines_QS, axis=1, kind="stable")[:, : min(count, len(unit_SD) - 1)]
    return near_QK, np.take_along_axis(cosines_QS, near_QK, axis=1)


def colours(features_TD: Features) -> NDArray[np.uint8]:
    """Red, green and blue of every token: the first three principal components of all of them."""
    from sklearn.decomposition import PCA

    components = np.zeros((len(features_TD), 3), dtype=np.float32)
    count = min(3, *features_TD.shape)
    components[:, :count] = PCA(count, svd_solver="covariance_eigh").fit_transform(features_TD)
    low, high = np.percentile(components, (2, 98), axis=0)
    shares = np.clip((components - low) / np.maximum(high - low, 1e-9), 0, 1)
    pixels: NDArray[np.uint8] = np.rint(shares * 255).astype(np.uint8)
    return pixels


def arranged(
    features_SD: Features, labels_S: NDArray[np.int64], classes: tuple[str, ...], shown: int, neighbours: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], dict[str, Any]]:
    """Which samples are shown, `Q`, their neighbours, `QK`, and the arrays of any gallery.

    These are `labels` Q, `neighbour_labels` and `neighbour_cosines` QK, and of the map of at most `MAPPED` samples
    `map` S2, `map_labels` S and `map_method`. Labels are indices into `classes`, or -1.
    """
    values, firsts = np.unique(labels_S, return_index=True)
    candidates = np.sort(firsts[values >= 0])  # one of each class, or all where there are fewer classes
    candidates = candidates if len(candidates) >= shown else np.arange(len(labels_S))
    shown_Q, mapped = candidates[spread(len(candidates), shown)], spread(len(features_SD), MAPPED)
    near_QK, cosines_QK = nearest(features_SD, shown_Q, neighbours)
    places_S2, method = _places(features_SD[mapped])
    arrays = {
        "labels": labels_S[shown_Q],
        "neighbour_labels": labels_S[near_QK],
        "neighbour_cosines": cosines_QK,
        "map": places_S2,
        "map_labels": labels_S[mapped],
        "map_method": method,
        "classes": np.array(classes, dtype=np.str_),
    }
    return shown_Q, near_QK, arrays


def write_captions(
    run: Path, kind: str, known: LabelledFeatures, classes: tuple[str, ...], **captions: Sequence[str]
) -> None:
    """Write `run`/gallery.npz of samples that words stand for, whole or not at all; of fewer than two there is none.

    `known` are features and labels of the samples. Beside the arrays of any gallery the file holds `captions` under
    their name, Q, and `neighbour_` and their name, QK.
    """
    if len(known.y) < 2:
        (run / FILE).unlink(missing_ok=True)
        return
    shown_Q, near_QK, arrays = arranged(known.x, known.y, classes, CAPTIONED, NEIGHBOURS)
    for name, said in captions.items():
        said_S = np.array(said, dtype=np.str_)
        arrays |= {name: said_S[shown_Q], f"neighbour_{name}": said_S[near_QK]}
    write_arrays(run, kind, arrays)


def write_arrays(run: Path, kind: str, arrays: Mapping[str, Any]) -> None:
    """Write `run`/gallery.npz of a modality, whole or not at all."""
    with whole_file(run / FILE) as file:
        np.savez_compressed(file, kind=kind, **arrays)


def _places(features_SD: Features) -> tuple[Features, str]:
    """Places in a plane where similar samples are close, and the name of the method."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    places_S2 = np.zeros((len(features_SD), 2), dtype=np.float32)
    if np.ptp(features_SD, axis=0).max() == 0:
        return places_S2, "PCA"  # all samples are the same
    if len(features_SD) < FEW:
        count = min(2, *features_SD.shape)
        places_S2[:, :count] = PCA(count).fit_transform(features_SD)
        return places_S2, "PCA"
    tsne = TSNE(2, init="pca", perplexity=min(30, len(features_SD) / 4), random_state=0)
    return tsne.fit_transform(features_SD).astype(np.float32), "t-SNE"
