"""What `finetune` must know of a task on a modality: its data, its model, and how that is scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data2vec2.config.run import FinetuneConfig
from data2vec2.data.account import Account, Bad
from data2vec2.data.batch import Addition, Batches
from data2vec2.data.reader import Reader
from data2vec2.data.records import Parts, Records, held_out, labelled_records
from data2vec2.errors import UsageError, UserError
from data2vec2.evaluation import classification
from data2vec2.method import losses
from data2vec2.method.encoder import Encoder
from data2vec2.method.heads import Classifier
from data2vec2.modalities.data import DataTools, Labels, Log, ModelInfo
from data2vec2.tasks import RunContext
from data2vec2.tasks.finetune import ClassTargets, NumberTargets, SampleTask
from data2vec2.training.loop import Task

NUMBER = "value"
"""What the output of a model that gives numbers is called."""


@dataclass(frozen=True, kw_only=True)
class FinetuneData:
    """Samples with targets of each part; the test part is only looked at when the run has ended."""

    train: Reader
    val: Reader | None
    test: Reader | Records | None
    account: Account = field(default_factory=Account)
    """What became of all samples."""
    description: str
    """One line for the user."""
    outputs: int
    """Numbers that the model's head gives."""
    more: Any = None
    """What else a job knows of its data."""

    @property
    def multi_label(self) -> bool:
        """Whether a sample can have several classes."""
        return self.train.records.tags is not None


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a fine-tuned model is worth."""

    scores: dict[str, Any]
    """For scores.json."""
    sentence: str
    """The main score, for the user."""
    mistakes: dict[str, NDArray[Any]] | None = None
    """Arrays of mistakes.npz."""
    transcripts: list[dict[str, Any]] = field(default_factory=list)
    """Rows of transcripts.jsonl."""


class Sized(NamedTuple):
    """The loss of one sample of the largest size, and what that counts in a batch size."""

    loss: Callable[[], Tensor]
    size: float


class Job:
    """Classes of samples, one each or several. Other tasks, and modalities with something of their own, derive."""

    outputs = "classes"
    """What the head tells apart."""
    labels: Labels = "classes"
    """What is learned of samples."""

    def __init__(self, tools: DataTools) -> None:
        self.tools = tools

    def completed(self, config: FinetuneConfig, info: ModelInfo) -> tuple[FinetuneConfig, ModelInfo]:
        """The configuration with what it leaves to the model, and what the model will be; `UsageError` for a misfit."""
        return config, replace(info, data=config.data, classes=(), regression=False, letters=None)

    def parts(self, config: FinetuneConfig, path: Path) -> Parts:
        """The samples of a data set."""
        return self.tools.open_labelled(path, self.tools.columns(config.data), self.labels)

    def open(self, config: FinetuneConfig, info: ModelInfo, path: Path, val: Path | None) -> FinetuneData:
        """Open a data set with labels and split it; `UserError` for too few of them, or for other classes in `val`."""
        seed, parts = config.train.seed, self.parts(config, path)
        others = self.parts(config, val) if val else None
        train, held = held_out(parts, others, config.data.val_fraction, seed)
        few = train.numbers is None and len(train.classes) < (2 if train.tags is None else 1)
        account = parts.account
        account.hold_out(len(parts.train) - len(train))
        if others:
            account.parts["val"] = others.account.part("train")
        train = labelled_records(train, config.data.labels_per_class, seed, account.part("train"))
        if few or not len(train):
            what = "labels" if train.numbers is None else "numbers"
            hint = self.tools.label_hint("--data.label-column")
            raise UserError(f"{path} has no {what} to learn from ({parts.description}); {hint}")
        if train.numbers is None and train.tags is None and len(only := np.unique(train.labels)) == 1:
            what = (
                f"all {len(train):,} {self.tools.words.many} to train on are of one class, {train.classes[only[0]]!r}"
            )
            raise UserError(f"{what}; {path} has nothing to tell apart")
        if held and (held.classes, held.tags is None) != (train.classes, train.tags is None):
            raise UserError(f"{path} has the classes {_few(train)}, but {val} has {_few(held)}; they must be the same")
        more = [
            one and labelled_records(one, account=account.part(key))
            for key, one in (("val", held), ("test", parts.test))
        ]
        ready = self.tools.reader(train, info.model, info.data, seed)
        other, test = (self.tools.reader(one, info.model, info.data, seed) if one else None for one in more)
        outputs = len(train.classes) if train.numbers is None else 1
        return FinetuneData(
            train=ready, val=other, test=test, account=account, description=parts.description, outputs=outputs
        )

    def fitted(
        self, config: FinetuneConfig, info: ModelInfo, data: FinetuneData
    ) -> tuple[FinetuneConfig, ModelInfo, FinetuneData]:
        """All three, with what only the data decide."""
        return config, info, data

    def look(self, data: FinetuneData, config: FinetuneConfig, log: Log) -> None:
        """Say what there is; read some of it and note what can't be (`UserError` if too much of it)."""
        train, names = data.train.records, (("for validation", data.val), ("to test on", data.test))
        held = [f"{len(part.records if isinstance(part, Reader) else part):,} {name}" for name, part in names if part]
        kind = f"{len(train.classes)} classes, {'several labels' if data.multi_label else 'one label'} a sample"
        if train.numbers is not None:
            kind = f"numbers from {train.numbers.min():g} to {train.numbers.max():g}"
        log(f"data: {len(train):,} to train on, {', '.join(held) or 'none held out'}; {kind}")
        for name, part in names:
            records = part.records if isinstance(part, Reader) else part
            if records and records.tags is None and len(only := np.unique(records.labels)) == 1 and only[0] >= 0:
                remark = f"all {len(records):,} {name} are of one class, {records.classes[only[0]]!r}"
                data.account.remarks.append(f"{remark}; their accuracy says nothing")
                log(f"data: {data.account.remarks[-1]}")
        skipped = data.account.part("train")
        bad, checked = self.check(data)
        if skipped.add(bad, checked):
            log(f"data: {len(bad)} of {checked} looked at can't be used: {skipped.summary()}")
        for key, part in (("val", data.val), ("test", data.test)):
            if isinstance(part, Reader):
                part.note_unreadable(data.account.part(key), config.data.max_bad, log)

    def check(self, data: FinetuneData) -> tuple[Sequence[Bad], int]:
        """Samples that can't be used, among how many that were looked at."""
        good, bad = data.train.looked_at()
        return bad, len(good) + len(bad)

    def in_memory(self, data: FinetuneData, config: FinetuneConfig) -> bool:
        """Whether reading is so quick that it needs no processes of its own."""
        return data.train.in_memory

    def model(self, config: FinetuneConfig, encoder: Encoder, data: FinetuneData) -> nn.Module:
        """The encoder with a head."""
        return Classifier(encoder, data.outputs)

    def largest(self, config: FinetuneConfig, info: ModelInfo, model: nn.Module) -> Sized:
        """As much as a batch ever holds of one sample."""
        found = self.tools.largest(info.model, info.data)
        inputs = found.inputs.to(next(model.parameters()).device)
        return Sized(lambda: self.error(model(inputs)), found.size)

    def error(self, outputs: Tensor) -> Tensor:
        """The loss for outputs, whatever the targets."""
        return losses.classification(outputs, torch.zeros_like(outputs, dtype=torch.float32), False)

    def additions(self, config: FinetuneConfig, info: ModelInfo, data: FinetuneData) -> list[Addition]:
        """What is added to batches to learn from."""
        return [ClassTargets(data.train.records)]

    def task(
        self, model: nn.Module, config: FinetuneConfig, info: ModelInfo, data: FinetuneData, context: RunContext
    ) -> Task:
        """What the loop trains."""
        world = context.world
        order, additions = data.train.order(config.train.batch_size), self.additions(config, info, data)
        batches = Batches(data.train, order, additions, world.rank, world.size)
        normalise = self.tools.normalise(info.data, context.device)
        return self.learning(data, (model, batches, data.val, normalise, context))

    def learning(self, data: FinetuneData, common: tuple[Any, ...]) -> Task:
        """The task, of what all tasks are made of: cross-entropy; its usual figures, or mean average precision."""
        error = partial(losses.classification, multi_label=data.multi_label)

        def scores(*of: Any) -> dict[str, float]:
            return classification.headline(classification.predict(*of))

        return SampleTask(error, scores, "map" if data.multi_label else "accuracy", *common)

    def finished(self, model: nn.Module, info: ModelInfo, data: FinetuneData) -> ModelInfo:
        """What the trained model is; may put a last touch to its weights."""
        assert isinstance(model, Classifier)
        return replace(info, classes=data.train.records.classes, multi_label=data.multi_label, pooling=model.pooling)

    def score(self, model: Any, info: ModelInfo, data: FinetuneData, part: Any, device: torch.device) -> Scored:
        """The trained model on a part of the data."""
        found = classification.predict(model, part, self.tools.normalise(info.data, device), device)
        scores = {"kind": "classify", "samples": len(found.samples_N), "classes": list(info.classes)}
        scores |= {**classification.headline(found), **classification.details(found, info.classes)}
        main = "map" if data.multi_label else "accuracy"
        told = self.scored(scores, main, classification.mistakes(found, part), data)
        if not data.multi_label and len(truth := np.unique(found.truth_NC.argmax(axis=1))) == 1:
            only = f"all {len(found.samples_N):,} {self.tools.words.many} are of one class, {info.classes[truth[0]]!r}"
            told = replace(told, sentence=f"accuracy says nothing: {only}")
        return told

    def scored(self, scores: dict[str, Any], main: str, wrong: dict[str, NDArray[Any]], data: FinetuneData) -> Scored:
        """The scores with the main one in words."""
        sentence = f"{main} {scores[main]:.4f} ({scores['samples']:,} {self.tools.words.many})"
        return Scored(scores={**scores, "labels": len(data.train.records)}, sentence=sentence, mistakes=wrong)


class RegressJob(Job):
    """A number for each sample."""

    outputs = "number"
    labels = "numbers"

    def open(self, config: FinetuneConfig, info: ModelInfo, path: Path, val: Path | None) -> FinetuneData:
        """As for classes; `UserError` if the numbers are all the same."""
        if config.data.labels_per_class is not None:
            raise UsageError("--data.labels-per-class is for classes; finetune regress learns from numbers")
        data = super().open(config, info, path, val)
        mean, deviation = NumberTargets(data.train.records).scale
        if not deviation:
            raise UserError(f"all numbers of {path} are {mean:g}; there is nothing to learn from them")
        return data

    def error(self, outputs: Tensor) -> Tensor:
        """The squared error."""
        return losses.squared_error(outputs, torch.zeros_like(outputs, dtype=torch.float32))

    def additions(self, config: FinetuneConfig, info: ModelInfo, data: FinetuneData) -> list[Addition]:
        """Numbers, standardised."""
        return [NumberTargets(data.train.records)]

    def learning(self, data: FinetuneData, common: tuple[Any, ...]) -> Task:
        """The squared error of standardised numbers; validated as they are in the data."""
        scale = NumberTargets(data.train.records).scale

        def scores(*of: Any) -> dict[str, float]:
            return classification.correlations(classification.predict_numbers(*of).rescaled(*scale))

        return SampleTask(losses.squared_error, scores, "pearson", *common)

    def finished(self, model: nn.Module, info: ModelInfo, data: FinetuneData) -> ModelInfo:
        """A model that gives numbers as they stand in the data."""
        assert isinstance(model, Classifier)
        model.rescale(*NumberTargets(data.train.records).scale)
        return replace(info, classes=(NUMBER,), pooling=model.pooling, regression=True)

    def score(self, model: Any, info: ModelInfo, data: FinetuneData, part: Any, device: torch.device) -> Scored:
        """Error and correlations; beside the error stands that of always answering the training part's mean."""
        found = classification.predict_numbers(model, part, self.tools.normalise(info.data, device), device)
        mean, _ = NumberTargets(data.train.records).scale
        of_mean = float(np.square(found.truth_N - mean).mean())
        scores = {"kind": "regress", "samples": len(found.samples_N), **classification.correlations(found)}
        scores["mse_of_mean"] = of_mean
        return self.scored(scores, "pearson", classification.worst_numbers(found, part), data)


def _few(records: Records, shown: int = 10) -> str:
    return ", ".join(records.classes[:shown]) + (", ..." if len(records.classes) > shown else "") or "none"
