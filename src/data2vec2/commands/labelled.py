"""What fine-tuning does with its DATA argument."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data2vec2.commands.data import held_out
from data2vec2.commands.kinds import KINDS, Log
from data2vec2.config import (
    AnyFinetuneConfig,
    AudioConfig,
    AudioDataConfig,
    ImageConfig,
    ImageDataConfig,
    ModelConfig,
    TextConfig,
    TextFinetuneConfig,
)
from data2vec2.data.audio import AudioReader
from data2vec2.data.image import ImageReader, survey
from data2vec2.data.labelled import labelled_records
from data2vec2.data.reader import Bad
from data2vec2.data.records import Parts, Records, open_data
from data2vec2.data.sentences import NO_TEXT, SentenceReader, open_sentences
from data2vec2.data.skipped import Skipped
from data2vec2.errors import UserError

AnyReader = ImageReader | AudioReader | SentenceReader


@dataclass(frozen=True)
class LabelledData:
    """Labelled samples of each part; the test part is only looked at when the run has ended."""

    train: AnyReader
    val: AnyReader | None
    test: AnyReader | None
    description: str

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.train.records.classes

    @property
    def outputs(self) -> int:
        """How many there are; 1 where numbers are learned."""
        return len(self.classes) if self.train.records.numbers is None else 1

    @property
    def multi_label(self) -> bool:
        """Whether a sample can have several of them."""
        return self.train.records.tags is not None


def open_labelled_data(
    config: AnyFinetuneConfig, shape: ModelConfig, path: Path, val: Path | None, numbers: bool = False
) -> LabelledData:
    """Open a data set with labels, or with `numbers`, and split it.

    Raises `UserError` if nothing usable is there, or there are too few classes, or those of `val` are others.
    """
    seed, modality = config.train.seed, shape.modality

    def opened(where: Path) -> Parts:
        if isinstance(modality, TextConfig):
            assert isinstance(config, TextFinetuneConfig)
            columns = config.data.text_columns, config.data.label_column
            return open_sentences(where, *columns, "numbers" if numbers else "classes")
        return open_data(where, modality.kind)

    parts = opened(path)
    train, held = held_out(parts, opened(val) if val else None, config.data.val_fraction, seed)
    few = not numbers and len(train.classes) < (2 if train.tags is None else 1)
    train = labelled_records(train, config.data.labels_per_class, seed)
    if few or not len(train):
        raise UserError(_no_labels(path, parts, modality.kind, numbers))
    if held and (held.classes, held.tags is None) != (train.classes, train.tags is None):
        raise UserError(f"{path} has the classes {_few(train)}, but {val} has {_few(held)}; they must be the same")

    def reader(records: Records) -> AnyReader:
        if isinstance(modality, TextConfig):
            assert isinstance(config, TextFinetuneConfig) and config.tokenizer
            return SentenceReader(records, modality, Path(config.tokenizer), seed)
        if isinstance(modality, AudioConfig):
            assert isinstance(config.data, AudioDataConfig)
            return AudioReader(records, modality, config.data, seed)
        assert isinstance(modality, ImageConfig) and isinstance(config.data, ImageDataConfig)
        return ImageReader(records, modality, config.data, seed)

    def labelled_reader(records: Records | None) -> AnyReader | None:
        records = labelled_records(records) if records else None
        return reader(records) if records else None

    return LabelledData(reader(train), labelled_reader(held), labelled_reader(parts.test), parts.description)


def look_at(data: LabelledData, max_bad: float, log: Log) -> Skipped:
    """Say what there is; read some of it and note what can't be (`UserError` if too much of it)."""
    train = data.train.records
    held = [
        f"{len(part.records):,} {name}"
        for name, part in (("for validation", data.val), ("to test on", data.test))
        if part
    ]
    kind = f"{len(data.classes)} classes, {'several labels' if data.multi_label else 'one label'} a sample"
    if train.numbers is not None:
        kind = f"numbers from {train.numbers.min():g} to {train.numbers.max():g}"
    log(f"data: {len(train):,} to train on, {', '.join(held) or 'none held out'}; {kind}")
    skipped = Skipped(len(train), max_bad)
    bad: tuple[Bad, ...] = ()
    checked = len(train)
    if isinstance(data.train, ImageReader):
        found = survey(data.train)
        bad, checked = found.bad, found.checked
    elif isinstance(data.train, SentenceReader):
        empty = np.flatnonzero(data.train.lengths_N == 0)
        bad = tuple(Bad(train.names[place], NO_TEXT) for place in empty.tolist())
    if skipped.add(bad, checked):
        log(f"data: {len(bad)} of {checked} looked at can't be used: {skipped.summary()}")
    return skipped


def _no_labels(path: Path, parts: Parts, kind: str, numbers: bool) -> str:
    """Why nothing can be learned from data, and what to do."""
    hint = f"put the {KINDS[kind].plural} of each class into a folder of its own, or give a table with labels"
    if kind == "text":
        hint = "name their column with --data.label-column"
    return f"{path} has no {'numbers' if numbers else 'labels'} to learn from ({parts.description}); {hint}"


def _few(records: Records, shown: int = 10) -> str:
    """The first names of classes, for a message."""
    return ", ".join(records.classes[:shown]) + (", ..." if len(records.classes) > shown else "") or "none"
