"""From the sampler's order to batches of tensors, in this process or in workers.

Shapes: `B` samples, `M` masks, `N = B*M` student rows, `K` kept tokens.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data2vec2.config import MaskConfig
from data2vec2.data.reader import Bad, Reader
from data2vec2.data.sampler import Order
from data2vec2.masking import draw_keep_ids


@dataclass(frozen=True)
class MaskedBatch:
    """A pre-training batch: every sample once, with the places that its M student rows keep."""

    inputs: Tensor
    """As read, not yet normalised; images: `BCHW` uint8, audio: `BS` float32."""
    keep_ids_NK: Tensor
    """Row `b * M + m` belongs to sample `b`."""
    bad: tuple[Bad, ...] = ()
    """Samples that could not be read and were replaced."""
    weight: float = 1.0
    """Of this process's mean loss in the mean over processes: 1 where all have equally many samples."""
    size: float = 1.0
    """What a sample counts in a batch size: 1, of audio its seconds."""

    def __len__(self) -> int:
        return len(self.inputs)

    def split(self, size: int) -> Iterator[MaskedBatch]:
        """Micro-batches of at most `size` (at least one sample)."""
        num_masks, count = len(self.keep_ids_NK) // len(self), max(1, int(size / self.size))
        for start in range(0, len(self), count):
            rows = slice(start * num_masks, (start + count) * num_masks)
            yield replace(self, inputs=self.inputs[start : start + count], keep_ids_NK=self.keep_ids_NK[rows], bad=())

    def to(self, device: torch.device) -> MaskedBatch:
        """The same batch on a device, copied without waiting."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> MaskedBatch:
        """The same batch in page-locked memory."""
        return self._with(Tensor.pin_memory)

    def _with(self, change: Callable[[Tensor], Tensor]) -> MaskedBatch:
        return replace(self, inputs=change(self.inputs), keep_ids_NK=change(self.keep_ids_NK))


class MaskedBatches(Dataset[MaskedBatch]):
    """Item `step` is this process's part of that step's batch; it depends on nothing but the seed and the step."""

    def __init__(self, reader: Reader, order: Order, masks: MaskConfig, rank: int = 0, size: int = 1) -> None:
        """For process `rank` of `size`."""
        self.reader, self.order, self.masks, self.rank, self.size = reader, order, masks, rank, size

    def __getitem__(self, step: int) -> MaskedBatch:
        plan = self.order(step).part(self.rank, self.size)
        read, grid = self.reader.train_batch(plan), self.reader.grid(plan)
        keep_ids = draw_keep_ids(self.masks, grid, self.order.seed, plan.epochs_B, plan.samples_B)
        inputs, size = torch.from_numpy(read.inputs), self.reader.size(plan)
        return MaskedBatch(inputs, torch.from_numpy(keep_ids), read.bad, plan.weight, size)


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
