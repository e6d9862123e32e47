"""What every verb does with its DATA argument."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data2vec2.config import RunConfig
from data2vec2.data.image import ImageReader, Survey, decode, survey
from data2vec2.data.loader import default_workers
from data2vec2.data.records import BadSample, Parts, Records, open_data
from data2vec2.data.skipped import Skipped
from data2vec2.data.splits import split_validation
from data2vec2.errors import UserError

Log = Callable[[str], None]


@dataclass(frozen=True)
class TrainingData:
    """Opened, split and surveyed data, and the configuration that it completes."""

    config: RunConfig
    train: ImageReader
    val: ImageReader | None
    skipped: Skipped
    description: str


def held_out(parts: Parts, val: Path | None, fraction: float, seed: int) -> tuple[Records, Records | None]:
    """Training and validation records: the part that `val` or the data name, or one split off the training part."""
    if val is not None:
        return parts.train, open_data(val).train
    if parts.val is not None:
        return parts.train, parts.val
    train, held = split_validation(parts.train.labels, fraction, seed)
    return parts.train.select(train), parts.train.select(held) if len(held) else None


def open_training_data(config: RunConfig, path: Path, val: Path | None, log: Log) -> TrainingData:
    """Open a data set for pre-training, look at it, and fill in what the configuration leaves to the data.

    Raises `UserError` if nothing usable is there or too many files are bad.
    """
    parts = open_data(path)
    log(f"data: {path}: {parts.description}")
    train_records, val_records = held_out(parts, val, config.data.val_fraction, config.train.seed)
    train = ImageReader(train_records, config.model.modality, config.data, config.train.seed)
    skipped = Skipped(len(train_records), config.data.max_bad)
    found = survey(train)
    if skipped.add(found.bad, found.checked):
        log(f"data: {len(found.bad)} of {found.checked} looked at can't be used: {skipped.summary()}")
    config = with_statistics(config, found, log)
    if config.data.workers is None:
        workers = default_workers(in_memory=train_records.source.in_memory)
        config = replace(config, data=replace(config.data, workers=workers))
    val_reader = None
    if val_records is not None:
        val_reader = ImageReader(val_records, config.model.modality, config.data, config.train.seed)
    log(f"data: {len(train_records):,} to train on, {len(val_records) if val_records else 0:,} held out for validation")
    return TrainingData(config, train, val_reader, skipped, parts.description)


def reopen_training_data(config: RunConfig, path: Path, val: Path | None) -> TrainingData:
    """What `open_training_data` has opened already, in another process and with the configuration that it returned."""
    parts = open_data(path)
    records, _ = held_out(parts, val, config.data.val_fraction, config.train.seed)
    train = ImageReader(records, config.model.modality, config.data, config.train.seed)
    return TrainingData(config, train, None, Skipped(len(records), 1.0), parts.description)


def with_statistics(config: RunConfig, found: Survey, log: Log) -> RunConfig:
    """The configuration with mean and deviation of the pictures, unless they were given."""
    channels = config.model.modality.num_channels
    if config.data.mean is None:
        mean, std = (tuple(round(value, 4) for value in values) for values in (found.mean, found.std))
        log(f"data: normalised with mean {mean} and deviation {std}, from {found.checked - len(found.bad):,} pictures")
        return replace(config, data=replace(config.data, mean=mean, std=std))
    if len(config.data.mean) != channels or config.data.std is None or len(config.data.std) != channels:
        raise UserError(f"--data.mean and --data.std have {len(config.data.mean)} values for {channels} channels")
    return config


def has_colour(records: Records, looks: int = 16) -> bool:
    """Whether any of a few pictures, evenly spread, has a pixel that is not grey."""
    for index in np.unique(np.linspace(0, len(records) - 1, looks).astype(int)).tolist():
        try:
            pixels = np.asarray(decode(records.read(index), 3)).astype(int)
        except BadSample:
            continue
        if (np.ptp(pixels, axis=2) > 8).any():
            return True
    return False
