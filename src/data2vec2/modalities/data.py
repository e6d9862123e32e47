"""What opens and reads the data of a modality, builds its part of the network, and is known of a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data2vec2.config.model import ArchitectureConfig
from data2vec2.config.run import DataConfig, FinetuneDataConfig, RunConfig
from data2vec2.data.account import Bad
from data2vec2.data.letters import Letters
from data2vec2.data.reader import Reader
from data2vec2.data.records import OwnFormat, Parts, Records, listed_files, open_data
from data2vec2.data.source import Content, Objects
from data2vec2.method.encoder import Modality
from data2vec2.method.heads import Pooling
from data2vec2.modalities.spec import Spec, Words

Log = Callable[[str], None]
Labels = Literal["classes", "numbers", "none"]
T = TypeVar("T")


def narrow(value: object, to: type[T]) -> T:
    """The same value, which is of a class that its holder does not name: a modality's own."""
    assert isinstance(value, to)
    return value


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns of a table a user has named, if any."""

    text: tuple[str, ...] = ()
    """The column of texts, or the two that make a pair."""
    label: str | None = None
    encoding: str | None = None
    """Of the files; none: UTF-8, or UTF-16 where one begins so."""
    learned: tuple[str, ...] = ()
    """The columns of texts that a model learned from, which are taken where they are and no others are named."""

    def __bool__(self) -> bool:
        return bool(self.text or self.label or self.encoding)


@dataclass(frozen=True)
class Survey:
    """What a look at part of the data found."""

    checked: int
    """Samples that were looked at."""
    bad: tuple[Bad, ...] = ()
    """Those of them that can't be used."""
    left_out: tuple[Bad, ...] = ()
    """Those that are not used though nothing is wrong with them."""
    mended: tuple[Bad, ...] = ()
    """What was done to some that are used."""
    remarks: tuple[str, ...] = ()
    """What the user should know before training."""


class Largest(NamedTuple):
    """As much as a batch ever holds of one sample."""

    inputs: Tensor
    """`1 x ...`, normalised."""
    grid: tuple[int, ...]
    """Arrangement of its tokens."""
    size: float
    """What it counts in a batch size."""


class DataTools(ABC):
    """Data and network of a modality. Has no state."""

    content: ClassVar[Content]
    """What files of samples are, where a file is a sample; other modalities say how data are opened and listed."""
    own_format: ClassVar[OwnFormat | None] = None
    """Files of many samples that only this modality has."""

    spec: ClassVar[Spec]
    """What these tools are of."""

    @property
    def words(self) -> Words:
        """How the modality is spoken of."""
        return self.spec.words

    @abstractmethod
    def build(self, model: ArchitectureConfig) -> Modality:
        """The network's part that is the modality's own."""

    @abstractmethod
    def largest(self, model: ArchitectureConfig, data: DataConfig) -> Largest:
        """As much as a training batch ever holds of one sample."""

    def noise(self, config: RunConfig, count: int, device: torch.device) -> Tensor:
        """Normalised inputs of `count` made-up samples of the largest size."""
        return torch.randn(count, *self.largest(config.model, config.data).inputs.shape[1:], device=device)

    def open_labelled(self, path: str | Path, columns: Columns, labels: Labels) -> Parts:
        """The samples of a data set with labels or numbers, if it has any; `UserError` if it holds no samples."""
        return open_data(path, self.content, self.own_format)

    def open(self, path: str, config: RunConfig, say: Log) -> Parts:
        """The samples of a data set to pre-train on; `UserError` if it holds none."""
        return self.open_labelled(path, Columns(), "classes")

    def inspected(self, path: str, config: RunConfig, columns: Columns, say: Log) -> tuple[RunConfig, Parts]:
        """A configuration that fits a data set, and its samples with all that is known of them, to be looked at."""
        return self.fitted(config, config, [path], say), self.open_labelled(path, columns, "classes")

    def facts(self, records: Records, index: int) -> Mapping[str, float | str]:
        """What a file says of itself: sizes as numbers, other things as words; raises `BadSample`."""
        return {}

    def listed(self, paths: Sequence[str | Path], columns: Columns) -> list[Records]:
        """Files, and those below folders, as records without labels, in order; `UserError` where there is none."""
        return [listed_files(paths, self.content)]

    def given(self, samples: Sequence[Any]) -> Records:
        """Paths, or Python objects, as records without labels, in order."""
        paths = [isinstance(one, str | Path) for one in samples]
        if all(paths):
            return self.listed(samples, Columns())[0]
        names = [str(one) if is_path else f"[{i}]" for i, (one, is_path) in enumerate(zip(samples, paths, strict=True))]
        places = np.arange(len(samples))
        return Records("objects", names, np.full(len(samples), -1), (), Objects(samples, self.content, places))

    @abstractmethod
    def reader(self, records: Records, model: ArchitectureConfig, data: DataConfig, seed: int) -> Reader:
        """What reads records for the model."""

    def is_sample(self, path: Path) -> bool:
        """Whether a file is a sample, not a data set."""
        return path.suffix.lower() in self.content.extensions

    def quick(self, reader: Any) -> tuple[NDArray[np.int64], int | None]:
        """Samples that are quickly computed, and to what length their inputs may be cut."""
        return np.arange(len(reader.records)), None

    def with_columns(self, data: FinetuneDataConfig, columns: Columns) -> FinetuneDataConfig:
        """A configuration that names columns."""
        return data

    def columns(self, data: DataConfig) -> Columns:
        """Columns that a configuration names."""
        return Columns()

    def fitted(self, config: RunConfig, recipe: RunConfig, data: Sequence[str], say: Log) -> RunConfig:
        """The configuration with what the data decide of the model, where the recipe's own was left."""
        return config

    def located(self, config: RunConfig) -> RunConfig:
        """The configuration with whole paths, so that a run can go on from another folder."""
        return config

    def write_start(self, run: Path, config: RunConfig) -> None:  # noqa: B027 (most keep nothing)
        """Write what a run folder keeps of the data beside its configuration."""

    def resumed(self, config: RunConfig, run: Path) -> RunConfig:
        """The configuration with what `write_start` kept; `UserError` if another is asked for."""
        return config

    def look(self, reader: Reader, config: RunConfig, say: Log) -> tuple[RunConfig, Survey]:
        """Read some samples; fill in what the configuration leaves to them."""
        good, bad = reader.looked_at()
        return config, Survey(len(good) + len(bad), tuple(bad))

    def normalise(self, data: DataConfig, device: torch.device) -> Callable[[Tensor], Tensor]:
        """What makes the model's input of what was read."""
        return lambda inputs: inputs

    def label_hint(self, flag: str) -> str:
        """What to do about data without labels; `flag` names a column of them."""
        if self.words.columns:
            return f"name their column with {flag}"
        return f"put the {self.words.many} of each class into a folder of its own, or give a table with labels"


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """All that a user of an encoder or of a fine-tuned model must know; an exported folder says it."""

    model: ArchitectureConfig
    """What describes the encoder."""
    data: DataConfig
    """How inputs are read and normalised."""
    classes: tuple[str, ...] = ()
    """Names of a classifier's classes, in the order of its outputs; none for an encoder without head."""
    multi_label: bool = False
    """Whether a sample can have several of the classes."""
    pooling: Pooling = "mean"
    """How a classifier's tokens become classes."""
    regression: bool = False
    """Whether the model gives a number, which `classes` names, and no class."""
    letters: Letters | None = None
    """What a recogniser writes; none for another model."""
    dense: bool = False
    """Whether every token has a class of its own, not the whole sample."""
    answers: bool = False
    """Whether these classes are where the answer to a question starts and where it ends."""
    unanswerable: bool = False
    """Whether such a model may say that there is no answer, for which the first token stands."""
    columns: tuple[str, ...] = ()
    """The column of texts that it learned from, or the two of pairs, if it was fine-tuned on tables of text."""

    @property
    def kind(self) -> str:
        """The modality's name."""
        return self.model.modality.kind

    @property
    def what(
        self,
    ) -> Literal["encoder", "classifier", "regressor", "recogniser", "token classifier", "question answerer"]:
        """What stands on the encoder, if anything."""
        if self.letters is not None:
            return "recogniser"
        if self.dense:
            return "question answerer" if self.answers else "token classifier"
        return ("regressor" if self.regression else "classifier") if self.classes else "encoder"
