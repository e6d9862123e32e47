"""export MODEL OUT: for ONNX Runtime, torch.export or Transformers alone, checked before it is there."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data2vec2.commands.evaluate import learned_and_scored
from data2vec2.commands.options import Export
from data2vec2.commands.runner import named_columns
from data2vec2.commands.transcribe import at_most, scored_part
from data2vec2.data.records import Parts, Records, labelled_records
from data2vec2.errors import UsageError, UserError
from data2vec2.evaluation.classification import correlations, headline, numbers_of, outputs, predictions_of
from data2vec2.evaluation.features import Inputs as Read
from data2vec2.evaluation.features import features_of, labelled
from data2vec2.evaluation.probes import knn_accuracy
from data2vec2.files import whole_folder
from data2vec2.interop import onnx
from data2vec2.interop.card import portable_card, standalone_card
from data2vec2.interop.folder import export_model, export_of, load_model, own_files
from data2vec2.interop.hub import check_push, push
from data2vec2.interop.standalone import run_alone, write_code
from data2vec2.modalities.audio.speech import score, with_transcript
from data2vec2.modalities.data import Labels, ModelInfo
from data2vec2.modalities.interop import PROCESSOR, AnyModel, Inputs
from data2vec2.modalities.tools import tools_of
from data2vec2.training.progress import console

To = Literal["onnx", "torch", "standalone"]
Run = Callable[[Sequence[Inputs]], Sequence[tuple[Tensor, ...]]]
"""Outputs of several batches of inputs by name."""
TOLERANCE = 1e-4
"""Largest difference from PyTorch; of models that give numbers, in multiples of the largest number."""
BATCHES = (1, 2, 5)
"""Sizes of the batches that are compared with PyTorch."""
CONSIDERED = 64
"""Samples, evenly spread, of which these are taken."""
MAX_SCORED = 2_000
"""Samples, evenly spread, that are scored."""
NAMES = {
    "accuracy": "accuracy",
    "map": "mean average precision",
    "pearson": "Pearson correlation",
    "cer": "character error rate",
    "knn": "accuracy of the ten nearest neighbours",
}
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Int8:
    """Scores of the exported model with 32 and with 8 bits."""

    measure: str
    """accuracy, map, pearson, cer (the only one where less is better) or, of an encoder, knn."""
    float32: float
    int8: float
    samples: int
    part: str
    """test, validation, whole or split-off."""

    @property
    def drop(self) -> float:
        """How much worse 8 bits are; below 0 where they happen to be better."""
        return self.int8 - self.float32 if self.measure == "cer" else self.float32 - self.int8

    @property
    def sentence(self) -> str:
        """For the user."""
        return (
            f"int8: {NAMES[self.measure]} {self.int8:.4f}, with float32 {self.float32:.4f}, worse by {self.drop:.4f}, "
            f"on {self.samples:,} samples ({self.part} part)"
        )


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written, and how it was checked."""

    out: Path
    kind: str
    """image, audio or text."""
    what: str
    """encoder, classifier, regressor or recogniser."""
    largest_difference: float
    """From PyTorch, over all outputs of all batches."""
    int8: Int8 | None = None
    """What 8 bits cost, if they were asked for."""
    pushed: str | None = None
    """Address on the hub, if it was uploaded."""


def export(given: Export) -> Exported:
    """Write a model as model.onnx, model.pt2 or a folder for Transformers, checked, with what makes its inputs."""
    to: To = "standalone" if given.standalone else given.to or "onnx"
    data, int8, source, out = given.data, given.int8, export_of(Path(given.model)), Path(given.out)
    if out.exists() or out.is_symlink():
        raise UserError(f"{out} exists; give a new folder")
    if to == "onnx":
        onnx.check_onnx()
    if given.push:
        check_push(given.push)
    loaded, info = load_model(source)
    if info.dense and int8:
        raise UsageError(
            "--int8 measures its drop in score on labels of samples, and this model tells classes of tokens"
        )
    tools = tools_of(info.kind)
    columns, demo = named_columns(tools, given, info.columns), tools.spec.demo
    if data is None and demo is None:
        raise UsageError(f"--data names {tools.words.many} to check with; none come with the package")
    samples = (demo.check or demo.data)() if data is None and demo else str(data)
    labels: Labels = ("numbers" if info.regression else "classes") if int8 else "none"
    parts, scores = tools.open_labelled(samples, columns, labels), None
    with whole_folder(out) as new, TemporaryDirectory() as work:
        if info.letters is not None and info.letters.places:  # what is written has the letters as they are here
            readme, source = source / "README.md", Path(work) / source.name
            export_model(loaded, info, source, readme.read_text("utf-8") if readme.is_file() else "")
        beside = ("config.json", PROCESSOR, *tools.interop.files)
        for name in own_files(info.kind) if to == "standalone" else beside:
            if (source / name).is_file():
                shutil.copyfile(source / name, new / name)
        difference = _checked(_written(loaded, info, new, to), loaded, info, parts)
        if int8:
            onnx.write_int8(new / onnx.ONNX, new / onnx.INT8)
            float32, eight = (onnx.OnnxRunner(new / name, info, loaded) for name in (onnx.ONNX, onnx.INT8))
            scores = int8_scores(float32, eight, info, parts)
        if to == "standalone":
            card = standalone_card(info, new / "README.md", given.push or "PATH", given.license)
        else:
            card = portable_card(info, to, difference, scores.sentence if scores else None)
        (new / "README.md").write_text(card, encoding="utf-8")
    pushed = push(out, given.push, private=given.private) if given.push else None
    what = {"kind": info.kind, "what": info.what}
    return Exported(out=out, **what, largest_difference=difference, int8=scores, pushed=pushed)


def _written(model: AnyModel, info: ModelInfo, folder: Path, to: To) -> Run:
    """Write the program, or the code; returns what runs it."""
    if to == "standalone":
        write_code(folder, info.kind)
        return partial(run_alone, folder)
    program = onnx.export_program(model, info)
    if to == "onnx":
        onnx.write_onnx(program, onnx.output_names(info), folder / onnx.ONNX)
        run: Callable[[Inputs], tuple[Tensor, ...]] = onnx.OnnxRunner(folder / onnx.ONNX, info, model).run
    else:
        written = io.BytesIO()  # for a full disk would kill the process if PyTorch wrote the file
        torch.export.save(program, written)
        (folder / onnx.TORCH).write_bytes(written.getbuffer())
        run = onnx.program_runner(folder / onnx.TORCH)
    return lambda batches: [run(inputs) for inputs in batches]


def _checked(run: Run, model: AnyModel, info: ModelInfo, parts: Parts) -> float:
    """The largest difference from PyTorch of what `run` runs; `UserError` if that is too large."""
    original, largest, batches = onnx.portable(model, info), 0.0, list(check_batches(info, parts.train))
    for inputs, exported in zip(batches, run(batches), strict=True):
        with torch.no_grad():
            expected = original(**inputs)
        scale = max(1.0, float(expected[0].abs().max())) if info.regression else 1.0
        found, shape = onnx.largest_difference(exported, expected) / scale, tuple(next(iter(inputs.values())).shape)
        console().print(f"inputs {shape}: difference from PyTorch {found:.1e}")
        if not found <= TOLERANCE:  # nor not a number
            raise UserError(f"the program differs from PyTorch by {found:.1e} for inputs {shape}; nothing was written")
        largest = max(largest, found)
    return largest


def check_batches(info: ModelInfo, records: Records) -> Iterator[Inputs]:
    """Batches of different sizes and lengths, filled up where these differ; few samples are taken several times."""
    tools = tools_of(info.kind)
    reader = tools.reader(at_most(CONSIDERED, records), info.model, info.data, seed=0)
    places, limit = tools.quick(reader)
    chosen = places[np.arange(sum(BATCHES)) * len(places) // sum(BATCHES)]
    normalise = tools.normalise(info.data, CPU)
    for samples_B in np.split(chosen, np.cumsum(BATCHES)[:-1]):
        batch = reader.eval_batch(samples_B)
        inputs = torch.from_numpy(batch.inputs if limit is None else batch.inputs[:, :limit])
        lengths_B = None if batch.lengths_B is None else torch.from_numpy(batch.lengths_B).clamp(max=inputs.shape[1])
        yield tools.interop.named(normalise(inputs), lengths_B)


def int8_scores(float32: onnx.OnnxRunner, int8: onnx.OnnxRunner, info: ModelInfo, parts: Parts) -> Int8:
    """Both on the test or validation part or on all of the data; `UserError` if these have not the model's labels."""
    part, records = scored_part(parts)
    measure: str
    if info.letters is not None:
        measure, records = "cer", with_transcript(records)[0]
    elif info.regression:
        measure, records = "pearson", labelled_records(records)
    elif info.classes:
        measure, records = "map" if info.multi_label else "accuracy", labelled_records(records)
        if len(records) and (records.classes != info.classes or (records.tags is not None) != info.multi_label):
            found = ", ".join(records.classes[:10]) or "none"
            raise UserError(f"the model's classes are {', '.join(info.classes[:10])}, and those of --data are {found}")
    else:
        return _int8_of_features(float32, int8, info, parts)
    if not len(records):
        raise UserError(f"--int8 needs labels to measure the drop in score, and --data has none ({parts.description})")
    records = at_most(MAX_SCORED, records)
    found32, found8 = (_score(runner, info, records, measure) for runner in (float32, int8))
    return Int8(measure=measure, float32=found32, int8=found8, samples=len(records), part=part)


def _score(runner: onnx.OnnxRunner, info: ModelInfo, records: Records, measure: str) -> float:
    """Of the model behind `runner`."""
    if measure == "cer":
        return float(score(runner, info, records, CPU)[0].scores()["cer"])
    kind = tools_of(info.kind)
    reader = kind.reader(records, info.model, info.data, seed=0)
    given = outputs(runner, reader, kind.normalise(info.data, CPU), CPU)
    if measure == "pearson":
        return correlations(numbers_of(given))["pearson"]
    found = headline(predictions_of(given))
    if measure not in found:
        raise UserError("the samples of --data to score on are of one class, so accuracy is meaningless")
    return found[measure]


def _int8_of_features(float32: onnx.OnnxRunner, int8: onnx.OnnxRunner, info: ModelInfo, parts: Parts) -> Int8:
    """Of an encoder: how well the labels of the training part name the classes of the other by its features."""
    train, held, part = learned_and_scored(parts, seed=0, run=None)
    both = [(records, labelled(records.labels, MAX_SCORED)) for records in (train, held) if records is not None]
    if len(both) < 2 or not all(len(samples) for _, samples in both):
        raise UserError(
            "--int8 needs one label per sample to measure the drop in score of an encoder's features, and --data has "
            f"none ({parts.description})"
        )
    kind = tools_of(info.kind)
    normalise = kind.normalise(info.data, CPU)
    readers = [(kind.reader(records, info.model, info.data, seed=0), samples) for records, samples in both]

    def accuracy(runner: onnx.OnnxRunner) -> float:
        def pooled(batch: Read) -> NDArray[np.float32]:
            return runner(normalise(batch.inputs), batch.lengths_B).numpy()  # type: ignore[no-any-return]

        known, asked = (features_of(pooled, reader, samples) for reader, samples in readers)
        return knn_accuracy(known, asked)

    samples = len(readers[1][1])
    return Int8(measure="knn", float32=accuracy(float32), int8=accuracy(int8), samples=samples, part=part)
