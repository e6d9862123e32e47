"""What `finetune` must know of a task on a modality: its data, its model, and how that is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data2vec2.config.run import FinetuneConfig
from data2vec2.config.tree import flag_of
from data2vec2.data.account import Account, counted
from data2vec2.data.batch import Addition, Batches
from data2vec2.data.labels import ONE_CLASS, UNLABELLED
from data2vec2.data.reader import Reader
from data2vec2.data.records import Parts, Records, among, held_out, labelled_records
from data2vec2.errors import UsageError, UserError
from data2vec2.evaluation import classification
from data2vec2.method import losses
from data2vec2.method.encoder import Encoder
from data2vec2.method.heads import Classifier
from data2vec2.modalities import get_finetune_recipe
from data2vec2.modalities.data import DataTools, Labels, Log, ModelInfo, Survey
from data2vec2.tasks import RunContext
from data2vec2.tasks.finetune import Bars, ClassTargets, NumberTargets, SampleTask
from data2vec2.training.task import Task

PARTS = {"train": "to train on", "val": "for validation", "test": "to test on"}
"""What each part is for."""
NUMBER = "value"
"""What the output of a model that gives numbers is called."""


@dataclass(frozen=True, kw_only=True)
class FinetuneData:
    """Samples with targets of each part; nothing is learned or chosen by the test part."""

    train: Reader
    val: Reader | None
    test: Reader | None
    where: str = ""
    """The data set, as the user named it."""
    account: Account = field(default_factory=Account)
    """What became of all samples."""
    description: str
    """One line for the user."""
    outputs: int
    """Numbers that the model's head gives."""
    more: Any = None
    """What else a job knows of its data."""

    @classmethod
    def of(cls, parts: Parts, readers: Mapping[str, Reader], where: str, *, outputs: int, more: Any = None) -> Self:
        """Of a data set's parts, as they are read; the part to train on is among them."""
        told: dict[str, Any] = {"where": str(where), "account": parts.account, "description": parts.description}
        each: dict[str, Any] = {"train": readers["train"], "val": readers.get("val"), "test": readers.get("test")}
        return cls(**each, **told, outputs=outputs, more=more)

    @property
    def multi_label(self) -> bool:
        """Whether a sample can have several classes."""
        return self.train.records.tags is not None

    @property
    def readers(self) -> dict[str, Reader]:
        """What there is, by the name of the part."""
        found = {"train": self.train, "val": self.val, "test": self.test}
        return {key: reader for key, reader in found.items() if reader is not None}


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
    """The loss of samples of the largest size, and what they count in a batch size."""

    loss: Callable[[], Tensor]
    size: float


def refuse_unused(config: FinetuneConfig, names: Iterable[str]) -> None:
    """`UsageError` for one of some fields without a use that has another value than in its recipe."""
    for name in names:
        given, usual = (attrgetter(name)(one) for one in (config, get_finetune_recipe(config.recipe)))
        if given != usual:
            raise UsageError(f"{flag_of(name)} is {given}, but nothing would be done with it here; leave it out")


class Job:
    """Classes of samples, one each or several. Other tasks, and modalities with something of their own, derive."""

    outputs = "classes"
    """What the head tells apart."""
    labels: Labels = "classes"
    """What is learned of samples."""
    of_learned: tuple[str, ...] = ()
    """Fields of the configuration without a use from scratch, as `task.model.freeze_stem`."""
    unused: tuple[str, ...] = ()
    """Fields of a configuration that the task has no use for."""

    def __init__(self, tools: DataTools) -> None:
        self.tools = tools

    def completed(self, config: FinetuneConfig, info: ModelInfo) -> tuple[FinetuneConfig, ModelInfo]:
        """The configuration with what it leaves to the model, and what the model will be; `UsageError` for a misfit."""
        refuse_unused(config, self.unused)
        without: dict[str, Any] = {"classes": (), "letters": None}
        without |= dict.fromkeys(("regression", "dense", "answers", "unanswerable"), False)
        return config, replace(info, data=config.data, **without)

    def parts(self, config: FinetuneConfig, path: str) -> Parts:
        """The samples of a data set."""
        return self.tools.open_labelled(path, self.tools.columns(config.data), self.labels)

    def reader(self, records: Records, info: ModelInfo, seed: int) -> Reader:
        """What reads samples for a model."""
        return self.tools.reader(records, info.model, info.data, seed)

    def open(self, config: FinetuneConfig, info: ModelInfo, path: str, val: str | None) -> FinetuneData:
        """Open a data set with labels and split it; `UserError` for too few of them, or for other classes in `val`."""
        seed = config.train.seed
        parts, train, held = self.split(config, path, val)
        few = train.numbers is None and len(train.classes) < (2 if train.tags is None else 1)
        account = parts.account
        train = labelled_records(train, config.data.labels_per_class, seed, account.part("train"))
        if few or not len(train):
            one = any(ONE_CLASS in remark for remark in account.remarks)
            what = "numbers" if train.numbers is not None else "classes" if one else "labels"
            hint, about = self.tools.label_hint("--data.label-column"), "; ".join((parts.description, *account.remarks))
            raise UserError(f"{path} has no {what} to learn from ({about}); {hint}")
        if train.numbers is None and train.tags is None and len(only := np.unique(train.labels)) == 1:
            what = f"all {len(train):,} {self.tools.words.many} to train on are of one class ({train.classes[only[0]]})"
            raise UserError(f"{what}; {path} has no classes to tell apart")
        if held:
            held, lacking = among(held, train, val or path, path)
            account.remarks += lacking
        more = {
            key: labelled_records(one, account=account.part(key))
            for key, one in (("val", held), ("test", parts.test))
            if one
        }
        account.remarks = [one for one in account.remarks if not one.endswith(UNLABELLED)]  # they are left out by name
        account.remarks += _of_one_class(more)
        readers = {key: self.reader(one, info, seed) for key, one in {"train": train, **more}.items() if one}
        return FinetuneData.of(parts, readers, path, outputs=len(train.classes) if train.numbers is None else 1)

    def fitted(
        self, config: FinetuneConfig, info: ModelInfo, data: FinetuneData
    ) -> tuple[FinetuneConfig, ModelInfo, FinetuneData]:
        """All three, with what only the data decide."""
        return config, info, data

    def split(self, config: FinetuneConfig, path: str, val: str | None) -> tuple[Parts, Records, Records | None]:
        """A data set, and what of it (or of `val`) is to train on and for validation."""
        parts, other = self.parts(config, path), self.parts(config, val) if val else None
        train, held = held_out(parts, other, config.data.val_fraction, config.train.seed)
        account = parts.account
        account.hold_out(len(parts.train) - len(train))
        if other:
            account.join_val(other.account)
        account.limit(config.data.max_bad)
        return parts, train, held

    def look(self, data: FinetuneData, config: FinetuneConfig, log: Log) -> None:
        """Read some of each part and note what can't be (`UserError` if too much of it); say what there is."""
        for key, reader in data.readers.items():
            found, part = self.check(reader, log, key == "train"), data.account.part(key)
            part.leave_out(found.left_out)
            part.mend(found.mended)
            for what, items in (("left out", found.left_out), ("repaired", found.mended)):
                if items:
                    log(f"data: {len(items):,} {key} samples are {what}: {counted(why for _, why in items)}")
            if part.add(found.bad, found.checked):
                bad = f"{len(found.bad):,} of {found.checked:,} {key} samples checked can't be used"
                log(f"data: {bad}: {part.summary()}")
        train, *held = (f"{data.account.part(key).used:,} {PARTS[key]}" for key in data.readers)
        log(f"data: {train}, {', '.join(held) or 'none held out'}; {self.about(data)}")

    def about(self, data: FinetuneData) -> str:
        """What is learned, for the user."""
        if (numbers := data.train.records.numbers) is not None:
            return f"numbers from {numbers.min():g} to {numbers.max():g}"
        several = "several labels" if data.multi_label else "one label"
        return f"{len(data.train.records.classes)} classes, {several} a sample"

    def check(self, reader: Reader, log: Log, training: bool) -> Survey:
        """A look at some samples of a part."""
        good, bad = reader.looked_at()
        return Survey(len(good) + len(bad), tuple(bad))

    def in_memory(self, data: FinetuneData, config: FinetuneConfig) -> bool:
        """Whether reading is so quick that it needs no processes of its own."""
        return data.train.in_memory

    def model(self, config: FinetuneConfig, encoder: Encoder, data: FinetuneData) -> nn.Module:
        """The encoder with a head."""
        return Classifier(encoder, data.outputs)

    def largest(self, config: FinetuneConfig, info: ModelInfo, model: nn.Module, count: int) -> Sized:
        """As much as a batch ever holds of `count` samples."""
        found = self.tools.largest(info.model, info.data)
        inputs = found.inputs.to(next(model.parameters()).device).repeat_interleave(count, 0)
        return Sized(lambda: self.error(model(inputs)), count * found.size)

    def error(self, outputs: Tensor) -> Tensor:
        """The loss for outputs, whatever the targets."""
        return losses.classification(outputs, torch.zeros_like(outputs, dtype=torch.float32), False)

    def additions(self, config: FinetuneConfig, info: ModelInfo, data: FinetuneData) -> list[Addition]:
        """What is added to batches to learn from."""
        return [self.targets(data)]

    def targets(self, data: FinetuneData) -> Addition:
        """Classes."""
        return ClassTargets(data.train.records)

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

        def scores(*of: Any) -> tuple[dict[str, float], Bars]:
            found = classification.predictions_of(classification.outputs(*of))
            return classification.headline(found), classification.headline_intervals(found)

        return SampleTask(error, scores, "map" if data.multi_label else "accuracy", *common)

    def finished(self, model: nn.Module, info: ModelInfo, data: FinetuneData) -> ModelInfo:
        """What the trained model is; may put a last touch to its weights."""
        assert isinstance(model, Classifier)
        return replace(info, classes=data.train.records.classes, multi_label=data.multi_label, pooling=model.pooling)

    def score(self, model: Any, info: ModelInfo, data: FinetuneData, key: str, device: torch.device) -> Scored:
        """The trained model on the part `key`; what can't be read of it is noted (`UserError` if it is too much)."""
        part, note = data.readers[key], data.account.part(key).add
        given = classification.outputs(model, part, self.tools.normalise(info.data, device), device, note)
        found = classification.predictions_of(given)
        scores = {"kind": "classify", "samples": len(found.samples_N), "classes": list(info.classes)}
        scores |= {**classification.headline(found), "intervals": classification.headline_intervals(found)}
        scores |= classification.details(found, info.classes)
        if found.only_class is not None:
            only = f"all {len(found.samples_N):,} {self.tools.words.many} are of one class"
            scores["note"] = f"{only} ({info.classes[found.only_class]}), so there is no accuracy"
        main = "map" if data.multi_label else "accuracy"
        return self.scored(scores, main, classification.mistakes(found, part), data)

    def scored(self, scores: dict[str, Any], main: str, wrong: dict[str, NDArray[Any]], data: FinetuneData) -> Scored:
        """The scores with the main one in words."""
        sentence = str(scores.get("note"))
        if main in scores:
            sentence = f"{said(main, scores)}; {scores['samples']:,} {self.tools.words.many}"
        return Scored(scores={**scores, "labels": data.account.part("train").used}, sentence=sentence, mistakes=wrong)


def said(key: str, scores: Mapping[str, Any], name: str = "") -> str:
    """A score with its interval, for the user: "accuracy 0.8400 (95 % interval 0.7812 to 0.8850)"."""
    low, high = scores["intervals"][key]
    return f"{name or key} {scores[key]:.4f} (95 % interval {low:.4f} to {high:.4f})"


class RegressJob(Job):
    """A number for each sample."""

    outputs = "number"
    labels = "numbers"

    def open(self, config: FinetuneConfig, info: ModelInfo, path: str, val: str | None) -> FinetuneData:
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

    def targets(self, data: FinetuneData) -> Addition:
        """Numbers, standardised."""
        return NumberTargets(data.train.records)

    def learning(self, data: FinetuneData, common: tuple[Any, ...]) -> Task:
        """The squared error of standardised numbers; validated as they are in the data."""
        scale = NumberTargets(data.train.records).scale

        def scores(*of: Any) -> tuple[dict[str, float], Bars]:
            found = classification.numbers_of(classification.outputs(*of)).rescaled(*scale)
            return classification.correlations(found), classification.correlation_intervals(found)

        return SampleTask(losses.squared_error, scores, "pearson", *common)

    def finished(self, model: nn.Module, info: ModelInfo, data: FinetuneData) -> ModelInfo:
        """A model that gives numbers as they stand in the data."""
        assert isinstance(model, Classifier)
        model.rescale(*NumberTargets(data.train.records).scale)
        return replace(info, classes=(NUMBER,), pooling=model.pooling, regression=True)

    def score(self, model: Any, info: ModelInfo, data: FinetuneData, key: str, device: torch.device) -> Scored:
        """Error and correlations; beside the error stands that of always answering the training part's mean."""
        part, note = data.readers[key], data.account.part(key).add
        given = classification.outputs(model, part, self.tools.normalise(info.data, device), device, note)
        found = classification.numbers_of(given)
        mean, _ = NumberTargets(data.train.records).scale
        scores = {"kind": "regress", "samples": len(found.samples_N), **classification.correlations(found)}
        scores["intervals"] = classification.correlation_intervals(found)
        scores["mse_of_mean"] = float(np.square(found.truth_N - mean).mean())
        return self.scored(scores, "pearson", classification.worst_numbers(found, part), data)


def _of_one_class(parts: Mapping[str, Records]) -> Iterator[str]:
    """What the user should know of parts whose samples are all of one class."""
    for key, part in parts.items():
        if part.tags is None and part.classes and len(only := np.unique(part.labels)) == 1:
            yield f"all {len(part):,} {key} samples are of one class ({part.classes[only[0]]}): they have no accuracy"
