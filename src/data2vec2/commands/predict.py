"""predict MODEL FILES."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data2vec2.commands.options import Predict, paths_of, refuse
from data2vec2.commands.runner import named_columns
from data2vec2.data.reader import Windowed, stream
from data2vec2.data.records import Records
from data2vec2.errors import UsageError, UserError
from data2vec2.evaluation.classification import long_logits
from data2vec2.files import whole_file
from data2vec2.interop.folder import export_of, load_classifier
from data2vec2.method.heads import Classifier, TokenClassifier
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.dense import dense_job
from data2vec2.modalities.tools import tools_of
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
    mask: bytes | None = None
    """Of models of classes of pixels: the classes as a PNG file."""
    parts: tuple[dict[str, Any], ...] = ()
    """Of models with a class for each word, frame or pixel: the words, segments in seconds, or shares of classes; of
    those that answer questions: the question with its answer."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which has no word for a mask."""
        return {name: value for name, value in vars(self).items() if name != "mask" and (name != "parts" or value)}


def predict(given: Predict) -> Iterator[Prediction]:
    """Classes or numbers of samples, one a file or text, in order; what is wrong with the rest is said at once."""
    paths = paths_of(given.files, "are no FILES; name files or folders of them")
    classifier, info = load_classifier(export_of(Path(given.model), *paths))
    check_asked(given, info)
    tools, device = tools_of(info.kind), choose_device(given.device)
    columns = named_columns(tools, given, info.columns)
    sources = dense_job(tools, info).listed(paths, columns) if info.dense else tools.listed(paths, columns)
    classifier.to(device)
    found = (one for records in sources for one in predictions(classifier, info, records, device, given))
    return found if given.masks is None else _written(found, Path(given.masks), info)


def check_asked(given: Predict, info: ModelInfo) -> None:
    """`UsageError` for an option that the model has no use for."""
    if not info.multi_label:
        refuse(given, ("threshold",), "is for models of tags, several for each sample, and MODEL is none")
    if info.regression or info.dense:
        refuse(given, ("top",), f"is for classes of whole samples, and MODEL is a {info.what}")


def _written(found: Iterator[Prediction], folder: Path, info: ModelInfo) -> Iterator[Prediction]:
    """The same, with masks written as NAME.png; `UserError` for two pictures of one name."""
    if not info.dense or not dense_job(tools_of(info.kind), info).draws:
        raise UsageError("--masks is for models of finetune patches, and MODEL is none")
    if folder.exists():
        raise UserError(f"{folder} exists; give a new folder for --masks")

    def written() -> Iterator[Prediction]:
        folder.mkdir(parents=True)
        for one in found:
            if one.mask is not None:
                path = folder / f"{Path(one.name).stem}.png"
                if path.exists():
                    raise UserError(f"{path} exists already: another picture has the name of {one.name}")
                with whole_file(path) as file:
                    file.write(one.mask)
            yield one

    return written()


def predictions(
    classifier: Classifier | TokenClassifier, info: ModelInfo, records: Records, device: torch.device, how: Predict
) -> Iterator[Prediction]:
    """What a model on a device says of each of the records, in order."""

    def outputs(logits_BC: Tensor) -> NDArray[np.float32]:
        if not (info.regression or info.dense):
            logits_BC = logits_BC.sigmoid() if info.multi_label else logits_BC.softmax(dim=-1)
        found: NDArray[np.float32] = logits_BC.float().cpu().numpy()
        return found

    def said(index: int, probabilities_C: NDArray[np.float32]) -> dict[str, Any]:
        if info.regression:
            return {"value": float(probabilities_C[0])}
        if job and reader:
            parts = tuple(job.told_of(reader, index, probabilities_C, info))
            return {"parts": parts, "mask": job.mask(reader, index, probabilities_C)}
        order = np.argsort(-probabilities_C, kind="stable")[: how.top or (None if info.multi_label else 1)]
        values = {info.classes[place]: float(probabilities_C[place]) for place in order.tolist()}
        return {"classes": {name: p for name, p in values.items() if p >= how.threshold or not info.multi_label}}

    def several(inputs: Tensor, lengths_B: Tensor | None) -> list[NDArray[np.float32]]:
        return list(outputs(classifier(inputs, lengths_B)))

    def one(windows: Windowed) -> NDArray[np.float32]:
        return outputs(long_logits(classifier, windows, device))

    tools = tools_of(info.kind)
    job = dense_job(tools, info) if info.dense else None
    records = job.asked(records) if job else records
    reader = job.reader(records, info, 0) if job else None
    feed = tools.feed(tools, info)
    for chunk in stream(records, feed.open(records), how.batch):
        found = feed.run(list(chunk.good.values()), several, one, device)
        rows = dict(zip(chunk.good, found, strict=True))
        for index in sorted((*chunk.good, *chunk.bad)):
            if index in rows:
                yield Prediction(records.names[index], **said(index, rows[index]))
            else:
                yield Prediction(records.names[index], error=chunk.bad[index].reason)
