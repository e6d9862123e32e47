"""Samples with labels, and batches of pictures with targets, for fine-tuning.

Shapes: `B` samples, `C` classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from data2vec2 import rng
from data2vec2.data.augment import Augment
from data2vec2.data.image import ImageReader
from data2vec2.data.reader import Bad
from data2vec2.data.records import Records
from data2vec2.data.sampler import Order


@dataclass(frozen=True)
class LabelledBatch:
    """Pictures and what the model should say of them."""

    inputs: Tensor
    """`BCHW` in units of 0 to 255, not yet normalised; uint8, or float32 after some augmentations."""
    targets_BC: Tensor
    """Probability of each class, float32."""
    bad: tuple[Bad, ...] = ()
    """Samples that could not be read and were replaced."""
    weight: ClassVar[float] = 1.0

    def __len__(self) -> int:
        return len(self.inputs)

    def split(self, size: int) -> Iterator[LabelledBatch]:
        """Micro-batches of `size` samples."""
        for start in range(0, len(self), size):
            yield LabelledBatch(self.inputs[start : start + size], self.targets_BC[start : start + size])

    def to(self, device: torch.device) -> LabelledBatch:
        """The same batch on a device, copied without waiting."""
        inputs, targets_BC = (part.to(device, non_blocking=True) for part in (self.inputs, self.targets_BC))
        return LabelledBatch(inputs, targets_BC, self.bad)

    def pin_memory(self) -> LabelledBatch:
        """The same batch in page-locked memory."""
        return LabelledBatch(self.inputs.pin_memory(), self.targets_BC.pin_memory(), self.bad)


class LabelledBatches(Dataset[LabelledBatch]):
    """Item `step` is this process's part of that step's batch; it depends on nothing but seed, step and rank.

    Only Mixup and CutMix look at the rank: they mix inside a process's part.
    """

    def __init__(
        self,
        reader: ImageReader,
        order: Order,
        label_smoothing: float,
        augment: Augment | None,
        rank: int = 0,
        size: int = 1,
    ) -> None:
        """For process `rank` of `size`. Every record must have a label, or tags."""
        self.reader, self.order, self.label_smoothing, self.augment = reader, order, label_smoothing, augment
        self.rank, self.size = rank, size

    def __getitem__(self, step: int) -> LabelledBatch:
        plan = self.order(step).part(self.rank, self.size)
        images = self.reader.train_batch(plan)
        targets = torch.from_numpy(targets_of(self.reader.records, images.indices_B, self.label_smoothing))
        if self.augment is None:
            return LabelledBatch(torch.from_numpy(images.inputs), targets, images.bad)
        pictures = self.augment.pictures(images.inputs, plan.epochs_B, plan.samples_B)
        return LabelledBatch(*self.augment.mix(pictures, targets, step, self.rank), images.bad)


def targets_of(records: Records, indices_B: NDArray[np.int64], label_smoothing: float = 0.0) -> NDArray[np.float32]:
    """Target `BC` of each class: its probability, or with several labels the probability that a sample has it."""
    if records.tags is not None:
        hard_BC, even = records.tags[indices_B], 0.5
    else:
        hard_BC, even = records.labels[indices_B, None] == np.arange(len(records.classes)), 1 / len(records.classes)
    return ((1 - label_smoothing) * hard_BC + label_smoothing * even).astype(np.float32)


def labelled_records(records: Records, labels_per_class: int | None = None, seed: int = 0) -> Records:
    """The samples that have a label, or a number, or may have several labels; so many of each class, drawn by `seed`.

    Where samples have several labels, the first so many of each class are taken, so some classes get more.
    """
    places = np.arange(len(records))
    if records.tags is None:
        has_label = records.labels >= 0 if records.numbers is None else np.isfinite(records.numbers)
        places = np.flatnonzero(has_label)
    classes = range(len(records.classes))
    if labels_per_class is not None and classes:
        shuffled = places[rng.permutation(rng.keys(rng.Stream.LABELS, seed), len(places))]
        has_of = [records.labels == index if records.tags is None else records.tags[:, index] for index in classes]
        places = np.unique(np.concatenate([shuffled[has_N[shuffled]][:labels_per_class] for has_N in has_of]))
    return records if len(places) == len(records) else records.select(places)
