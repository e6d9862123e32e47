"""Pictures of what features know: PCA colours of patches, nearest neighbours, and a map of samples.

Shapes: `Q` pictures shown, `K` neighbours of each, `S` samples, `B` samples of a batch, `C` channels, `H` and `W`
pixels, `T` patches, `D` width.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from data2vec2.data.image import ImageReader
from data2vec2.data.reader import ReadBatch
from data2vec2.evaluation.features import Normalise
from data2vec2.models.encoder import Encoder

FILE = "gallery.npz"
PICTURES = 8
NEIGHBOURS = 6
SEARCHED = 2_000
"""At most so many samples are searched for neighbours."""
MAPPED = 1_000
"""At most so many samples are put on the map: t-SNE of them takes 5 s on one core, of 2,000 it takes 15 s."""
FEW = 50
"""Fewer samples are put on the map by PCA: t-SNE needs neighbourhoods."""
MAX_SIDE, MAX_NEIGHBOUR_SIDE = 224, 96
"""Larger pictures are kept smaller; the page that shows them should stay light."""

Features = NDArray[np.float32]


@torch.no_grad()
def write_gallery(
    run_path: Path,
    encoder: Encoder,
    reader: ImageReader,
    samples: NDArray[np.int64],
    normalise: Normalise,
    device: torch.device,
) -> None:
    """Write `run_path`/gallery.npz, whole or not at all; needs no labels, but at least two samples.

    It holds `pictures` (QHWC uint8) with `labels` Q, `colours` (uint8, Q x rows x columns of patches x 3),
    `neighbours` (QKHWC uint8), `neighbour_labels` QK, `neighbour_cosines` QK, `map` S2 with `map_labels` S and
    `map_method`, and `classes`. Labels are indices into `classes`, or -1. The encoder should be in eval mode.
    """
    samples = samples[np.linspace(0, len(samples) - 1, min(len(samples), SEARCHED)).astype(np.int64)]
    features, labels, sums_TD = [], [], []
    for batch in _batches(reader, samples):
        encoded = encoder(_inputs(batch, normalise, device))
        features.append(encoded.pooled().float().cpu().numpy())
        labels.append(batch.labels_B)
        sums_TD.append(encoded.features_NTD.float().sum(0).cpu().numpy())
    features_SD, labels_S = np.concatenate(features), np.concatenate(labels)

    shown_Q = _shown(labels_S)
    near_QK, cosines_QK = _nearest(features_SD, shown_Q)
    shown = reader.eval_batch(samples[shown_Q])
    near = reader.eval_batch(samples[near_QK.reshape(-1)])
    neighbours = _thumbnails(near.inputs, MAX_NEIGHBOUR_SIDE)
    mapped = np.linspace(0, len(samples) - 1, min(len(samples), MAPPED)).astype(np.int64)
    map_S2, method = _map(features_SD[mapped])
    arrays: dict[str, Any] = {
        "pictures": _thumbnails(shown.inputs, MAX_SIDE),
        "labels": labels_S[shown_Q],
        "colours": _colours(encoder, _inputs(shown, normalise, device), np.sum(sums_TD, axis=0) / len(samples)),
        "neighbours": neighbours.reshape(*near_QK.shape, *neighbours.shape[1:]),
        "neighbour_labels": labels_S[near_QK],
        "neighbour_cosines": cosines_QK,
        "map": map_S2,
        "map_labels": labels_S[mapped],
        "map_method": method,
        "classes": np.array(reader.records.classes, dtype=np.str_),
    }
    temporary = run_path / f".{FILE}.tmp"
    with temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    temporary.replace(run_path / FILE)


def _batches(reader: ImageReader, samples: NDArray[np.int64]) -> Iterator[ReadBatch]:
    for group in reader.eval_groups(samples):
        yield reader.eval_batch(group)


def _inputs(batch: ReadBatch, normalise: Normalise, device: torch.device) -> torch.Tensor:
    return normalise(torch.from_numpy(batch.inputs).to(device))


def _shown(labels_S: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which samples are shown: one of each of eight classes, or evenly spread where there are fewer classes."""
    values, firsts = np.unique(labels_S, return_index=True)
    candidates = np.sort(firsts[values >= 0])
    if len(candidates) < PICTURES:
        candidates = np.arange(len(labels_S))
    return candidates[np.linspace(0, len(candidates) - 1, min(PICTURES, len(candidates))).astype(np.int64)]


def _nearest(features_SD: Features, shown_Q: NDArray[np.int64]) -> tuple[NDArray[np.int64], Features]:
    """Indices of the samples most similar to each shown one, itself left out, and their cosine similarities, `QK`."""
    unit_SD = features_SD / np.maximum(np.linalg.norm(features_SD, axis=1, keepdims=True), 1e-12)
    cosines_QS = unit_SD[shown_Q] @ unit_SD.T
    cosines_QS[np.arange(len(shown_Q)), shown_Q] = -np.inf
    near_QK = np.argsort(-cosines_QS, axis=1, kind="stable")[:, : min(NEIGHBOURS, len(unit_SD) - 1)]
    return near_QK, np.take_along_axis(cosines_QS, near_QK, axis=1)


def _colours(encoder: Encoder, inputs_QCHW: torch.Tensor, mean_TD: Features) -> NDArray[np.uint8]:
    """Red, green and blue of every patch: the first three principal components of all patches' last-layer features.

    The mean of every place over many samples is taken off first, else the colours only say where a patch is.
    """
    encoded = encoder(inputs_QCHW)
    features_QTD = encoded.features_NTD.float().cpu().numpy() - mean_TD
    flat = features_QTD.reshape(-1, features_QTD.shape[-1])
    components = np.zeros((len(flat), 3), dtype=np.float32)
    count = min(3, *flat.shape)
    components[:, :count] = PCA(count, svd_solver="covariance_eigh").fit_transform(flat)
    low, high = np.percentile(components, (2, 98), axis=0)
    shares = np.clip((components - low) / np.maximum(high - low, 1e-9), 0, 1)
    colours: NDArray[np.uint8] = np.rint(shares * 255).astype(np.uint8)
    return colours.reshape(len(features_QTD), *encoded.tokens.grid, 3)


def _map(features_SD: Features) -> tuple[Features, str]:
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


def _thumbnails(pixels_BCHW: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Pictures `BHWC`, averaged down where their longer side is above `side` pixels."""
    height, width = pixels_BCHW.shape[2:]
    pixels = torch.from_numpy(pixels_BCHW)
    if max(height, width) > side:
        size = (max(1, height * side // max(height, width)), max(1, width * side // max(height, width)))
        smaller = torch.nn.functional.interpolate(pixels.float(), size=size, mode="area")
        pixels = smaller.round().to(torch.uint8)
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())
