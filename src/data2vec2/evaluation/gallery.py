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

from data2vec2.data.image import ImageReader
from data2vec2.data.reader import ReadBatch
from data2vec2.evaluation.features import Normalise
from data2vec2.evaluation.similarity import (
    SEARCHED,
    Features,
    colours,
    map_of,
    nearest,
    shown_samples,
    spread,
    write_arrays,
)
from data2vec2.models.encoder import Encoder

PICTURES = 8
NEIGHBOURS = 6
MAX_SIDE, MAX_NEIGHBOUR_SIDE = 224, 96
"""Larger pictures are kept smaller; the page that shows them should stay light."""


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
    samples = samples[spread(len(samples), SEARCHED)]
    features, labels, sums_TD = [], [], []
    for batch in _batches(reader, samples):
        encoded = encoder(_inputs(batch, normalise, device))
        features.append(encoded.pooled().float().cpu().numpy())
        labels.append(batch.labels_B)
        sums_TD.append(encoded.features_NTD.float().sum(0).cpu().numpy())
    features_SD, labels_S = np.concatenate(features), np.concatenate(labels)

    shown_Q = shown_samples(labels_S, PICTURES)
    near_QK, cosines_QK = nearest(features_SD, shown_Q, NEIGHBOURS)
    shown = reader.eval_batch(samples[shown_Q])
    near = reader.eval_batch(samples[near_QK.reshape(-1)])
    neighbours = _thumbnails(near.inputs, MAX_NEIGHBOUR_SIDE)
    arrays: dict[str, Any] = {
        "pictures": _thumbnails(shown.inputs, MAX_SIDE),
        "labels": labels_S[shown_Q],
        "colours": _colours(encoder, _inputs(shown, normalise, device), np.sum(sums_TD, axis=0) / len(samples)),
        "neighbours": neighbours.reshape(*near_QK.shape, *neighbours.shape[1:]),
        "neighbour_labels": labels_S[near_QK],
        "neighbour_cosines": cosines_QK,
        **map_of(features_SD, labels_S, reader.records.classes),
    }
    write_arrays(run_path, arrays)


def _batches(reader: ImageReader, samples: NDArray[np.int64]) -> Iterator[ReadBatch]:
    for group in reader.eval_groups(samples):
        yield reader.eval_batch(group)


def _inputs(batch: ReadBatch, normalise: Normalise, device: torch.device) -> torch.Tensor:
    return normalise(torch.from_numpy(batch.inputs).to(device))


def _colours(encoder: Encoder, inputs_QCHW: torch.Tensor, mean_TD: Features) -> NDArray[np.uint8]:
    """Colours of every patch by its last-layer features.

    The mean of every place over many samples is taken off first, else the colours only say where a patch is.
    """
    encoded = encoder(inputs_QCHW)
    features_QTD = encoded.features_NTD.float().cpu().numpy() - mean_TD
    flat = colours(features_QTD.reshape(-1, features_QTD.shape[-1]))
    return flat.reshape(len(features_QTD), *encoded.tokens.grid, 3)


def _thumbnails(pixels_BCHW: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Pictures `BHWC`, averaged down where their longer side is above `side` pixels."""
    height, width = pixels_BCHW.shape[2:]
    pixels = torch.from_numpy(pixels_BCHW)
    if max(height, width) > side:
        size = (max(1, height * side // max(height, width)), max(1, width * side // max(height, width)))
        smaller = torch.nn.functional.interpolate(pixels.float(), size=size, mode="area")
        pixels = smaller.round().to(torch.uint8)
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())
