"""What every verb does with its DATA argument."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from data2vec2.commands.kinds import KINDS, Log
from data2vec2.config import RunConfig
from data2vec2.data.loader import default_workers
from data2vec2.data.reader import Reader
from data2vec2.data.records import Parts, Records
from data2vec2.data.skipped import Skipped
from data2vec2.data.splits import split_validation


@dataclass(frozen=True)
class TrainingData:
    """Opened, split and surveyed data, and the configuration that it completes."""

    config: RunConfig
    train: Reader
    val: Reader | None
    skipped: Skipped
    description: str


def held_out(parts: Parts, val: Parts | None, fraction: float, seed: int) -> tuple[Records, Records | None]:
    """Training and validation records: the part that `val` or the data name, or one split off the training part."""
    if val is not None:
        return parts.train, val.train
    if parts.val is not None:
        return parts.train, parts.val
    train, held = split_validation(parts.train.labels, fraction, seed)
    return parts.train.select(train), parts.train.select(held) if len(held) else None


def open_training_data(config: RunConfig, path: Path, val: Path | None, log: Log) -> TrainingData:
    """Open a data set for pre-training, look at it, and fill in what the configuration leaves to the data.

    Raises `UserError` if nothing usable is there or too many files are bad.
    """
    kind = KINDS[config.model.modality.kind]
    data = reopen_training_data(config, path, val, log)
    log(f"data: {path}: {data.description}")
    records = data.train.records
    config, found = kind.look(data.train, config, log)
    skipped = Skipped(len(records), config.data.max_bad)
    skipped.leave_out(found.left_out)
    if skipped.add(found.bad, found.checked):
        log(f"data: {len(found.bad)} of {found.checked} looked at can't be used: {skipped.summary()}")
    if config.data.workers is None:
        workers = default_workers(data.train.in_memory)
        config = replace(config, data=replace(config.data, workers=workers))
    held = len(data.val.records) if data.val else 0
    log(f"data: {len(records):,} to train on, {held:,} held out for validation")
    return replace(data, config=config, skipped=skipped)


def reopen_training_data(config: RunConfig, path: Path, val: Path | None, log: Log = lambda _: None) -> TrainingData:
    """What `open_training_data` opens, not looked at: for another process, with the configuration that it returned."""
    kind, seed = KINDS[config.model.modality.kind], config.train.seed
    if val:
        config = replace(config, data=replace(config.data, val_fraction=0.0))
    parts = kind.open(path, config, log)
    train, held = held_out(parts, kind.open(val, config, log) if val else None, config.data.val_fraction, seed)
    readers = [kind.reader(part, config.model, config.data, seed) if part else None for part in (train, held)]
    assert readers[0] is not None
    return TrainingData(config, readers[0], readers[1], Skipped(len(train), 1.0), parts.description)
