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
from data2vec2.commands.files import listed_files, listed_texts
from data2vec2.config import AudioConfig, AudioDataConfig, TextConfig, TextDataConfig
from data2vec2.data.audio import AudioReader
from data2vec2.data.content import PICTURES, RECORDINGS
from data2vec2.data.image import ImageReader
from data2vec2.data.records import Records
from data2vec2.data.sentences import SentenceReader, padded
from data2vec2.data.stream import stream
from data2vec2.data.windows import Windows
from data2vec2.evaluation.classification import long_logits
from data2vec2.interop.export import ExportInfo, export_of, load_classifier
from data2vec2.models import Classifier
from data2vec2.training.device import choose_device


@dataclass(frozen=True)
class Prediction:
    """What the model says of one file, or of one text."""

    name: str
    """The file, as named or as found in a folder; of a text with its place among the rows, as in reviews.csv[17]."""
    classes: dict[str, float] = field(default_factory=dict)
    """Probability of each class, most probable first; may be empty where samples can have several classes."""
    error: str | None = None
    """Why the file could not be read."""
    value: float | None = None
    """The number that a model of finetune regress gives."""


def predict(
    model: str | Path,
    files: str | Path | Sequence[str | Path],
    *,
    top: int | None = None,
    threshold: float = 0.5,
    batch: int = 64,
    device: str = "auto",
    text_columns: Sequence[str] = (),
) -> Iterator[Prediction]:
    """Classes of pictures or recordings, and of those below folders, by a fine-tuned model; one a file, in order.

    Of a model of text, files are tables or have a text a line, as in fine-tuning, and each text (or pair) gets its
    classes, or its number. `text_columns` name the columns of tables, unless they have a usual name.

    `model` is a run folder of fine-tuning or its export. The `top` classes are given (none: one). Where a sample can
    have several classes, these are all whose probability is at least `threshold`, or the `top` of them.

    Texts longer than the model takes are cut as in fine-tuning. Recordings above a minute go through the model in
    windows of a minute that overlap, and are pooled over all of them.

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
    modality, torch_device = info.model.modality, choose_device(device)
    if text_columns and modality.kind != "text":
        raise ValueError(f"--text-columns is for models of text, and this is one of {modality.kind}")
    if modality.kind == "text":
        sources = listed_texts(paths, text_columns)
    else:
        sources = [listed_files(paths, RECORDINGS if modality.kind == "audio" else PICTURES)]
    classifier.to(torch_device)

    def outputs(logits_BC: Tensor) -> Tensor:
        if info.regression:
            return logits_BC
        return logits_BC.sigmoid() if info.multi_label else logits_BC.softmax(dim=-1)

    def said(probabilities_C: NDArray[np.float32]) -> dict[str, Any]:
        if info.regression:
            return {"value": float(probabilities_C[0])}
        order = np.argsort(-probabilities_C, kind="stable")[: top or (None if info.multi_label else 1)]
        values = {info.classes[place]: float(probabilities_C[place]) for place in order.tolist()}
        shown = {name: value for name, value in values.items() if value >= threshold or not info.multi_label}
        return {"classes": shown}

    return (
        prediction
        for records in sources
        for prediction in _predictions(records, classifier, info, outputs, said, batch, torch_device)
    )


def _predictions(
    records: Records,
    classifier: Classifier,
    info: ExportInfo,
    outputs: Callable[[Tensor], Tensor],
    said: Callable[[NDArray[np.float32]], dict[str, Any]],
    batch: int,
    device: torch.device,
) -> Iterator[Prediction]:
    """One prediction a record, in order."""
    modality, data = info.model.modality, info.data
    if isinstance(modality, AudioConfig):
        assert isinstance(data, AudioDataConfig)
        read: Callable[[int], Any] = AudioReader(records, modality, data, seed=0).entire
        encode = partial(_of_sounds, classifier, outputs, device)
    elif isinstance(modality, TextConfig):
        assert isinstance(data, TextDataConfig) and data.tokenizer
        read = SentenceReader(records, modality, Path(data.tokenizer), seed=0).whole
        encode = partial(_of_texts, classifier, outputs, modality.pad_id, device)
    else:
        read = ImageReader(records, *info.image, seed=0).central_square
        normalise = image_normalise(info, device)
        encode = partial(encode_all, features_of=lambda x: outputs(classifier(x)), normalise=normalise, device=device)
    for chunk in stream(records, read, batch):
        found = encode(list(chunk.good.values()))
        rows = dict(zip(chunk.good, found, strict=True))
        for index in sorted((*chunk.good, *chunk.bad)):
            if index in rows:
                yield Prediction(records.names[index], **said(rows[index]))
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


@torch.inference_mode()
def _of_texts(
    classifier: Classifier,
    outputs: Callable[[Tensor], Tensor],
    pad_id: int,
    device: torch.device,
    rows: Sequence[NDArray[np.int64]],
) -> list[NDArray[np.float32]]:
    """Probabilities of each text, or its number; filled up to the longest of them."""
    if not rows:  # none of them could be read
        return []
    ids_BT, lengths_B = torch.from_numpy(padded(rows, pad_id)), torch.tensor([len(row) for row in rows])
    return list(outputs(classifier(ids_BT.to(device), lengths_B.to(device))).float().cpu().numpy())
