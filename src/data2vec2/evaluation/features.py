"""Frozen features of many samples."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from data2vec2.data.image import ImageReader
from data2vec2.evaluation.probes import Part
from data2vec2.models.encoder import Encoder, pooled_features

BATCH = 250


class Normalise:
    """Raw values 0 to 255 to zero mean and unit variance: what the model sees, in training and in every later use."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> None:
        """Mean and standard deviation of each channel, in units of 0 to 1."""
        self.mean_C11 = torch.tensor(mean, device=device).view(-1, 1, 1) * 255
        self.std_C11 = torch.tensor(std, device=device).view(-1, 1, 1) * 255

    def __call__(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """uint8 pictures `BCHW` on the device to float32."""
        return (pixels_BCHW.float() - self.mean_C11) / self.std_C11


def labelled(labels: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """At most `limit` indices of samples that have a label, evenly spread."""
    indices = np.flatnonzero(labels >= 0)
    return indices[np.arange(min(limit, len(indices))) * len(indices) // max(1, min(limit, len(indices)))]


def encode(
    encoder: Encoder, reader: ImageReader, samples: NDArray[np.int64], normalise: Normalise, device: torch.device
) -> Part:
    """Mean-pooled features of the samples' central squares, with the labels. The encoder should be in eval mode."""
    features, labels = [], []
    for start in range(0, len(samples), BATCH):
        batch = reader.eval_batch(samples[start : start + BATCH])
        pixels = normalise(torch.from_numpy(batch.pixels_BCHW).to(device))
        features.append(pooled_features(encoder, pixels).cpu().numpy())
        labels.append(batch.labels_B)
    return _known(np.concatenate(features), np.concatenate(labels))


def raw_pixels(reader: ImageReader, samples: NDArray[np.int64], side: int = 32) -> Part:
    """The pictures themselves as features, larger ones averaged down to at most `side` pixels."""
    features, labels = [], []
    for start in range(0, len(samples), BATCH):
        batch = reader.eval_batch(samples[start : start + BATCH])
        pixels = torch.from_numpy(batch.pixels_BCHW).float() / 255
        if pixels.shape[-1] > side:
            pixels = torch.nn.functional.adaptive_avg_pool2d(pixels, side)
        features.append(pixels.flatten(1).numpy())
        labels.append(batch.labels_B)
    return _known(np.concatenate(features), np.concatenate(labels))


def _known(x: NDArray[np.float32], y: NDArray[np.int64]) -> Part:
    """Without the samples that a replacement without a label stands in for."""
    return Part(x[y >= 0], y[y >= 0])
