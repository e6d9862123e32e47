"""What a report shows of pictures: masks, PCA colours of patches, nearest neighbours, and a map of samples.

Shapes: `Q` pictures shown, `K` neighbours of each, `S` samples, `B` samples of a batch, `C` channels, `H` and `W`
pixels, `T` patches, `D` width, `N` pictures, `M` masks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from data2vec2.data.reader import Reader
from data2vec2.evaluation.features import Inputs, LabelledFeatures, Note, features_of, readable_batches
from data2vec2.evaluation.similarity import SEARCHED, arranged, colours, spread, write_arrays
from data2vec2.method.encoder import Encoder
from data2vec2.modalities.image.reader import Normalise, visible
from data2vec2.modalities.show import Arrays, Show

PICTURES, NEIGHBOURS = 8, 6
RAW_SIDE = 32
MAX_SIDE, MAX_NEIGHBOUR_SIDE = 224, 96
"""Larger pictures are kept smaller; the page that shows them should stay light."""


def raw_pixels(reader: Reader, samples: NDArray[np.int64], note: Note = lambda _: None) -> LabelledFeatures:
    """The pictures themselves as features, larger ones averaged down to `RAW_SIDE` pixels."""

    def flat(batch: Inputs) -> NDArray[np.float32]:
        pixels = batch.inputs.float() / 255
        if pixels.shape[-1] > RAW_SIDE:
            pixels = F.adaptive_avg_pool2d(pixels, RAW_SIDE)
        return pixels.flatten(1).numpy()

    return features_of(flat, reader, samples, note)


class ImageShow(Show):
    """Pictures with their masks, the colours of their patches, and their neighbours."""

    template = ("data2vec2.modalities.image", "image.html.j2")
    masks_shown = 8
    sample = {"picture": "pictures", "colours": "colours"}  # noqa: RUF012
    neighbour = {"picture": "neighbours"}  # noqa: RUF012

    def masks(self, arrays: Arrays) -> dict[str, Any]:
        """Pictures and, by mask, which of their pixels the student sees: of `images` NHWC, or of one `image`."""
        keep_ids, side = arrays["keep_ids"], int(arrays["patch_size"])
        one = "images" not in arrays  # as written by the first versions
        images_NHWC, keep_ids_NMK = (arrays["image"][None], keep_ids[None]) if one else (arrays["images"], keep_ids)
        rows, columns = (size // side for size in images_NHWC.shape[1:3])
        seen_NMT, counts = self.seen(keep_ids_NMK, rows * columns)
        seen_NMHW = seen_NMT.reshape(*seen_NMT.shape[:2], rows, columns).repeat(side, axis=2).repeat(side, axis=3)
        samples = zip(images_NHWC, seen_NMHW, strict=True)
        return {"samples": [{"picture": picture, "seen": seen} for picture, seen in samples], **counts}


@torch.no_grad()
def write_gallery(
    run: Path, encoder: Encoder, reader: Reader, samples: NDArray[np.int64], normalise: Normalise, device: torch.device
) -> None:
    """Write `run`/gallery.npz, whole or not at all; needs no labels, but at least two samples.

    Beside the arrays of any gallery it holds `pictures` (QHWC uint8), `colours` (uint8, Q x rows x columns of patches
    x 3) and `neighbours` (QKHWC uint8). The encoder should be in eval mode.
    """
    read, features, sums_TD = [], [], []
    for batch in readable_batches(reader, reader.eval_groups(samples[spread(len(samples), SEARCHED)])):
        encoded = encoder(normalise(batch.inputs.to(device)))
        read.append(batch.samples_B)
        features.append(encoded.pooled().float().cpu().numpy())
        sums_TD.append(encoded.features_NTD.float().sum(0).cpu().numpy())
    samples, features_SD = np.concatenate(read), np.concatenate(features)
    mean_TD = np.sum(sums_TD, axis=0) / len(samples)

    labels_S, classes = reader.records.labels[samples], reader.records.classes
    shown_Q, near_QK, arrays = arranged(features_SD, labels_S, classes, PICTURES, NEIGHBOURS)
    shown = reader.eval_batch(samples[shown_Q]).inputs
    encoded = encoder(normalise(torch.from_numpy(shown).to(device)))
    # Without the mean of every place over many samples, else the colours only say where a patch is.
    features_QTD = encoded.features_NTD.float().cpu().numpy() - mean_TD
    flat = colours(features_QTD.reshape(-1, features_QTD.shape[-1]))
    neighbours = _thumbnails(reader.eval_batch(samples[near_QK.reshape(-1)]).inputs, MAX_NEIGHBOUR_SIDE)
    arrays |= {
        "pictures": _thumbnails(shown, MAX_SIDE),
        "colours": flat.reshape(len(shown), *encoded.tokens.grid, 3),
        "neighbours": neighbours.reshape(*near_QK.shape, *neighbours.shape[1:]),
    }
    write_arrays(run, "image", arrays)


def _thumbnails(pixels_BCHW: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Pictures `BHWC`, averaged down where their longer side is above `side` pixels."""
    pixels, longer = torch.from_numpy(visible(pixels_BCHW)), max(pixels_BCHW.shape[2:])
    if longer > side:
        size = [max(1, length * side // longer) for length in pixels.shape[2:]]
        pixels = F.interpolate(pixels.float(), size=size, mode="area").round().to(torch.uint8)
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())
