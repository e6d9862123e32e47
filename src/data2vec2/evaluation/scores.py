"""The score table: a model beside its baselines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data2vec2.data.image import ImageReader
from data2vec2.evaluation.features import Normalise, encode, raw_pixels
from data2vec2.evaluation.probes import Part, knn_accuracy, linear_accuracy, majority_accuracy
from data2vec2.models.encoder import Encoder


@dataclass(frozen=True)
class Row:
    """Accuracies, 0 to 1, of two frozen-feature classifiers."""

    features: str
    knn: float
    linear: float


@dataclass(frozen=True)
class Scores:
    """What a frozen model is worth on a test part, given the labels of a training part."""

    part: str
    train_samples: int
    test_samples: int
    classes: tuple[str, ...]
    rows: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def score(
    encoder: Encoder,
    untrained: Encoder,
    train: tuple[ImageReader, NDArray[np.int64]],
    test: tuple[ImageReader, NDArray[np.int64]],
    normalise: Normalise,
    device: torch.device,
    part: str,
    log: Callable[[str], None] = lambda _: None,
) -> Scores:
    """KNN and linear probe of a model, the same network untrained, raw pixels, and the majority class.

    `train` and `test` are a reader and which of its samples; all must have labels. `log` hears what is being scored.
    """

    def both(name: str, parts: tuple[Part, Part]) -> Row:
        log(f"scoring {name}")
        return Row(name, knn_accuracy(*parts), linear_accuracy(*parts))

    def encoded(model: Encoder) -> tuple[Part, Part]:
        return encode(model, *train, normalise, device), encode(model, *test, normalise, device)

    pixels = raw_pixels(*train), raw_pixels(*test)
    majority = majority_accuracy(*pixels)
    rows = (
        both("data2vec2", encoded(encoder)),
        both("random initialisation", encoded(untrained)),
        both("raw pixels", pixels),
        Row("majority class", majority, majority),
    )
    return Scores(part, len(pixels[0].y), len(pixels[1].y), train[0].records.classes, rows)
