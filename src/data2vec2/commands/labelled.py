"""What fine-tuning does with its DATA argument."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data2vec2.commands.data import held_out
from data2vec2.commands.kinds import KINDS, Log
from data2vec2.config import (
    AudioConfig,
    AudioDataConfig,
    AudioFinetuneConfig,
    FinetuneConfig,
    ImageConfig,
    ImageDataConfig,
    ModelConfig,
    TextConfig,
)
from data2vec2.data.audio import AudioReader
from data2vec2.data.image import ImageReader, survey
from data2vec2.data.labelled import labelled_records
from data2vec2.data.records import Records, open_data
from data2vec2.data.skipped import Skipped
from data2vec2.errors import UserError


@dataclass(frozen=True)
class LabelledData:
    """Labelled samples of each part; the test part is only looked at when the run has ended."""

    train: ImageReader | AudioReader
    val: ImageReader | AudioReader | None
    test: ImageReader | AudioReader | None
    description: str

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.train.records.classes

    @property
    def outputs(self) -> int:
        """How many there are."""
        return len(self.classes)

    @property
    def multi_label(self) -> bool:
        """Whether a sample can have several of them."""
        return self.train.records.tags is not None


def open_labelled_data(
    config: FinetuneConfig | AudioFinetuneConfig, shape: ModelConfig, path: Path, val: Path | None
) -> LabelledData:
    """Open a data set with labels and split it.

    Raises `UserError` if nothing usable is there, or there are too few classes, or those of `val` are others.
    """
    seed, modality = config.train.seed, shape.modality
    assert not isinstance(modality, TextConfig)
    parts = open_data(path, modality.kind)
    train, held = held_out(parts, open_data(val, modality.kind) if val else None, config.data.val_fraction, seed)
    few = len(train.classes) < (2 if train.tags is None else 1)
    train = labelled_records(train, config.data.labels_per_class, seed)
    if few or not len(train):
        raise UserError(
            f"{path} has no labels to learn from ({parts.description}); put the {KINDS[modality.kind].plural} of each "
            "class into a folder of its own, or give a table with labels"
        )
    if held and (held.classes, held.tags is None) != (train.classes, train.tags is None):
        raise UserError(f"{path} has the classes {_few(train)}, but {val} has {_few(held)}; they must be the same")

    def reader(records: Records) -> ImageReader | AudioReader:
        if isinstance(modality, AudioConfig):
            assert isinstance(config.data, AudioDataConfig)
            return AudioReader(records, modality, config.data, seed)
        assert isinstance(modality, ImageConfig) and isinstance(config.data, ImageDataConfig)
        return ImageReader(records, modality, config.data, seed)

    def labelled_reader(records: Records | None) -> ImageReader | AudioReader | None:
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
    kind = "several labels a sample" if data.multi_label else "one label a sample"
    log(f"data: {len(train):,} to train on, {', '.join(held) or 'none held out'}; {len(data.classes)} classes, {kind}")
    skipped = Skipped(len(train), max_bad)
    found = survey(data.train) if isinstance(data.train, ImageReader) else None
    if found and skipped.add(found.bad, found.checked):
        log(f"data: {len(found.bad)} of {found.checked} looked at can't be used: {skipped.summary()}")
    return skipped


def _few(records: Records, shown: int = 10) -> str:
    """The first names of classes, for a message."""
    return ", ".join(records.classes[:shown]) + (", ..." if len(records.classes) > shown else "") or "none"
