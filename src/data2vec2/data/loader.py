"""From the sampler's order to batches of tensors, in this process or in workers.

Shapes: `B` samples, `M` masks, `N = B*M` student rows, `K` kept tokens.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data2vec2.config import MaskConfig
from data2vec2.data.image import Bad, ImageReader
from data2vec2.data.sampler import GlobalBatches
from data2vec2.masking import draw_keep_ids


@dataclass(frozen=True)
class MaskedBatch:
    """A pre-training batch: every sample once, with the places that its M student rows keep."""

    inputs: Tensor
    """As read, not yet normalised; images: `BCHW` uint8."""
    keep_ids_NK: Tensor
    """Row `b * M + m` belongs to sample `b`."""
    bad: tuple[Bad, ...] = ()
    """Samples that could not be read and were replaced."""

    def __len__(self) -> int:
        return len(self.inputs)

    def split(self, size: int) -> Iterator[MaskedBatch]:
        """Micro-batches of `size` samples."""
        num_masks = len(self.keep_ids_NK) // len(self)
        for start in range(0, len(self), size):
            rows = slice(start * num_masks, (start + size) * num_masks)
            yield MaskedBatch(self.inputs[start : start + size], self.keep_ids_NK[rows])

    def to(self, device: torch.device) -> MaskedBatch:
        """The same batch on a device, copied without waiting."""
        return MaskedBatch(
            self.inputs.to(device, non_blocking=True), self.keep_ids_NK.to(device, non_blocking=True), self.bad
        )

    def pin_memory(self) -> MaskedBatch:
        """The same batch in page-locked memory."""
        return MaskedBatch(self.inputs.pin_memory(), self.keep_ids_NK.pin_memory(), self.bad)


class MaskedBatches(Dataset[MaskedBatch]):
    """Item `step` is this process's part of that step's batch; it depends on nothing but the seed and the step."""

    def __init__(
        self,
        reader: ImageReader,
        order: GlobalBatches,
        masks: MaskConfig,
        grid: tuple[int, ...],
        part: slice = slice(None),
    ) -> None:
        """`part` is what this process takes of every global batch."""
        self.reader, self.order, self.masks, self.grid, self.part = reader, order, masks, grid, part

    def __getitem__(self, step: int) -> MaskedBatch:
        epochs, samples = (of_batch[self.part] for of_batch in self.order(step))
        images = self.reader.train_batch(epochs, samples)
        keep_ids = draw_keep_ids(self.masks, self.grid, self.order.seed, epochs, samples)
        return MaskedBatch(torch.from_numpy(images.pixels_BCHW), torch.from_numpy(keep_ids), images.bad)


def iterate(dataset: Dataset[Any], start: int, stop: int, *, workers: int, pin_memory: bool = False) -> Iterator[Any]:
    """Items `start` to `stop - 1` of a dataset in order, prepared by `workers` processes (0: here)."""
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_quiet_worker if workers else None,
        # Workers must be this process's own children: then they notice when it is killed, and end.
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=4 if workers else None,
    )
    return iter(loader)


def default_workers(in_memory: bool) -> int:
    """Reader processes: none for arrays in memory, else half of the cores, at least 1 and at most 8."""
    return 0 if in_memory else min(8, max(1, (os.cpu_count() or 2) // 2))


def _quiet_worker(_: int) -> None:
    """Leave Ctrl-C to the main process, which saves a checkpoint first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
