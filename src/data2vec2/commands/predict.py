"""predict MODEL FILES."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data2vec2.commands.embed import encode_all, image_normalise
from data2vec2.commands.files import listed_files
from data2vec2.config import AudioConfig, AudioDataConfig
from data2vec2.data.audio import AudioReader
from data2vec2.data.content import PICTURES, RECORDINGS
from data2vec2.data.image import ImageReader
from data2vec2.data.records import Records
from data2vec2.data.stream import stream
from data2vec2.data.windows import Windows
from data2vec2.evaluation.classification import long_logits
from data2vec2.interop.export import ExportInfo, export_of, load_classifier
from data2vec2.models import Classifier
from data2vec2.training.device import choose_device


@dataclass(frozen=True)
class Prediction:
    """What the model says of one file."""

    name: str
    """The file, as named or as found in a folder."""
    classes: dict[str, float] = field(default_factory=dict)
    """Probability of each class, most probable first; may be empty where samples can have several classes."""
    error: str | None = None
    """Why the file could not be read."""


def predict(
    model: str | Path,
    files: str | Path | Sequence[str | Path],
    *,
    top: int | None = None,
    threshold: float = 0.5,
    batch: int = 64,
    device: str = "auto",
) -> Iterator[Prediction]:
    """Classes of pictures or recordings, and of those below folders, by a fine-tuned model; one a file, in order.

    `model` is a run folder of fine-tuning or its export. The `top` classes are given (none: one). Where a sample can
    have several classes, these are all whose probability is at least `threshold`, or the `top` of them.

    Recordings above a minute go through the model in windows of a minute that overlap, and are pooled over all of them.

    Raises, before the first file is read, `UserError` (no classifier, an empty folder) or `ValueError` (an option).
    """
    if top is not None and top < 1:
        raise ValueError(f"--top is {top}; it must be at least 1")
    if not 0 <= threshold <= 1:
        raise ValueError(f"--threshold is {threshold}; it must be from 0 to 1")
    if batch < 1:
        raise ValueError(f"--batch is {batch}; it must be at least 1")
    paths = [files] if isinstance(files, str | Path) else list(files)
    if not paths:
        raise ValueError("there are no FILES; name files or folders of them")
    classifier, info = load_classifier(export_of(Path(model)))
    torch_device, is_audio = choose_device(device), isinstance(info.model.modality, AudioConfig)
    classifier.to(torch_device)

    def probabilities(logits_BC: Tensor) -> Tensor:
        return logits_BC.sigmoid() if info.multi_label else logits_BC.softmax(dim=-1)

    def chosen(probabilities_C: NDArray[np.float32]) -> dict[str, float]:
        order = np.argsort(-probabilities_C, kind="stable")[: top or (None if info.multi_label else 1)]
        values = {info.classes[place]: float(probabilities_C[place]) for place in order.tolist()}
        return {name: value for name, value in values.items() if value >= threshold or not info.multi_label}

    return _predictions(
        listed_files(paths, RECORDINGS if is_audio else PICTURES),
        classifier,
        info,
        probabilities,
        chosen,
        batch,
        torch_device,
    )


def _predictions(
    records: Records,
    classifier: Classifier,
    info: ExportInfo,
    probabilities: Callable[[Tensor], Tensor],
    chosen: Callable[[NDArray[np.float32]], dict[str, float]],
    batch: int,
    device: torch.device,
) -> Iterator[Prediction]:
    """One prediction a record, in order."""
    modality, data = info.model.modality, info.data
    if isinstance(modality, AudioConfig):
        assert isinstance(data, AudioDataConfig)
        read: Callable[[int], Any] = AudioReader(records, modality, data, seed=0).entire
        encode = partial(_of_sounds, classifier, probabilities, device)
    else:
        read = ImageReader(records, *info.image, seed=0).central_square
        normalise = image_normalise(info, device)
        encode = partial(
            encode_all, features_of=lambda x: probabilities(classifier(x)), normalise=normalise, device=device
        )
    for chunk in stream(records, read, batch):
        found = encode(list(chunk.good.values()))
        rows = dict(zip(chunk.good, found, strict=True))
        for index in sorted((*chunk.good, *chunk.bad)):
            if index in rows:
                yield Prediction(records.names[index], chosen(rows[index]))
            else:
                yield Prediction(records.names[index], error=chunk.bad[index].reason)


@torch.inference_mode()
def _of_sounds(
    classifier: Classifier,
    probabilities: Callable[[Tensor], Tensor],
    device: torch.device,
    samples: Sequence[NDArray[np.float32] | Windows],
) -> list[NDArray[np.float32]]:
    """Probabilities of each recording, one after another: their lengths differ."""

    def logits(sample: NDArray[np.float32] | Windows) -> Tensor:
        if isinstance(sample, Windows):
            return long_logits(classifier, sample, device)
        return classifier(torch.from_numpy(sample)[None].to(device))[0]  # type: ignore[no-any-return]

    return [probabilities(logits(sample)).float().cpu().numpy() for sample in samples]
