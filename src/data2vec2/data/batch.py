"""From the sampler's order to batches of tensors, in this process or in workers.

Shapes: `B` samples, `M` masks, `N = B*M` student rows, `K` kept tokens, `T` tokens, `D` width, `L` letters of a text.
"""

from __future__ import annotations

import math
import multiprocessing
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from data2vec2.data.account import Bad
from data2vec2.data.reader import ReadBatch, Reader
from data2vec2.data.sampler import Order, Plan
from data2vec2.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Inputs of one step, each sample once, and what a task adds to them."""

    inputs: Tensor
    """As read, not yet normalised: `B` and the axes of a sample."""
    lengths_B: Tensor | None = None
    """Real length of each sample's first axis; none: all are full."""
    keep_ids_NK: Tensor | None = None
    """Places that the M student rows of each sample keep; row `b * M + m` belongs to sample `b`."""
    targets: Tensor | None = None
    """What the model should say: classes `BC`, numbers `B1` (float32), letters `BL` with zeros behind each text, or
    places of classes, of tokens `BT` or of pixels `BHW`."""
    target_lengths_B: Tensor | None = None
    """Letters of each text."""
    time_masks_BT: Tensor | None = None
    """True at tokens that become noise."""
    channel_masks_BD: Tensor | None = None
    """True at channels that become 0."""
    freeze_encoder: bool = False
    """Whether only the head learns from this batch."""
    bad: tuple[Bad, ...] = ()
    """Samples that could not be read and were replaced."""
    weight: float = 1.0
    """Of this process's mean loss in the mean over processes: 1 where all have equally many samples."""
    size: float = 1.0
    """What a sample counts in a batch size: 1, or its length with padding (`Reader.size`)."""
    piped: bool = False
    """Whether a reader sent it through a pipe, for lack of room in shared memory."""

    def __len__(self) -> int:
        return len(self.inputs)

    def split(self, size: int, most: int | None = None) -> Iterator[Batch]:
        """Micro-batches of at most `size` (at least one sample); as many as a part of `most` samples would have."""
        count, total = max(1, int(size / self.size)), len(self)
        starts = list(range(0, total, count))
        if most is not None:
            starts = [total * n // math.ceil(most / count) for n in range(math.ceil(most / count))]
        for start, stop in pairwise([*starts, total]):
            part = slice(start, stop)
            yield replace(self.each(lambda rows: rows.reshape(total, -1, *rows.shape[1:])[part].flatten(0, 1)), bad=())  # noqa: B023

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device, copied without waiting."""
        return self.each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory."""
        return self.each(Tensor.pin_memory)

    def each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch with every tensor changed."""
        changed: dict[str, Any] = {name: change(of) for name, of in vars(self).items() if isinstance(of, Tensor)}
        return replace(self, **changed)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(of.nbytes for of in vars(self).values() if isinstance(of, Tensor))

    def __getstate__(self) -> dict[str, Any]:
        """What a reader sends: tensors, which are shared, or arrays, which go through a pipe, where room is short."""
        if get_worker_info() is None or self.nbytes <= shared_room():
            return vars(self)
        arrays = {name: of.numpy() if isinstance(of, Tensor) else of for name, of in vars(self).items()}
        return {**arrays, "piped": True}

    def __setstate__(self, state: dict[str, Any]) -> None:
        back = {name: torch.from_numpy(of) if isinstance(of, np.ndarray) else of for name, of in state.items()}
        vars(self).update(back)


def shared_room() -> float:
    """How large a batch may be that is passed on in shared memory, in bytes.

    A sixteenth of what is free in /dev/shm, since as many readers may ask at once: where it is full (a container has
    64 MB), what is written there is lost, or the process is killed. Systems without that folder have no such limit.
    """
    try:
        return shutil.disk_usage("/dev/shm").free / 16
    except OSError:
        return float("inf")


@dataclass(frozen=True)
class Step:
    """Where a batch comes from: all that what is added to it may depend on."""

    plan: Plan
    read: ReadBatch
    number: int
    """Of the step, from 0."""
    rank: int
    seed: int


Addition = Callable[[Batch, Step], Batch]
"""What a task adds to a batch: masks, targets, augmentation. Can be pickled; depends on its arguments alone."""


class Batches(Dataset[Batch]):
    """Item `step` is this process's part of that step's batch; it depends on nothing but seed, step and rank."""

    def __init__(
        self, reader: Reader, order: Order, additions: Sequence[Addition] = (), rank: int = 0, size: int = 1
    ) -> None:
        """For process `rank` of `size`."""
        self.reader, self.order, self.additions, self.rank, self.size = reader, order, additions, rank, size

    def __getitem__(self, step: int) -> Batch:
        plan = self.order(step).part(self.rank, self.size)
        read = self.reader.train_batch(plan)
        lengths_B = None if read.lengths_B is None else torch.from_numpy(read.lengths_B)
        inputs, size = torch.from_numpy(read.inputs), self.reader.size(read)
        batch = Batch(inputs=inputs, lengths_B=lengths_B, bad=read.bad, weight=plan.weight, size=size)
        for add in self.additions:
            batch = add(batch, Step(plan, read, step, self.rank, self.reader.seed))
        return batch


def iterate(dataset: Dataset[Any], start: int, stop: int, *, workers: int, pin_memory: bool = False) -> Iterator[Any]:
    """Items `start` to `stop - 1` of a dataset in order, prepared by `workers` processes (0: here)."""
    # Workers must be this process's own children: then they notice when it is killed, and end.
    own = {"worker_init_fn": _quiet_worker, "multiprocessing_context": "spawn", "prefetch_factor": 4} if workers else {}
    more: dict[str, Any] = {"num_workers": workers, "pin_memory": pin_memory, **own}
    try:
        yield from DataLoader(dataset, batch_size=None, sampler=range(start, stop), **more)
    except UserError as error:  # a worker's has its traceback in front
        raise UserError(str(error).rpartition("UserError: ")[2].strip()) from None
    except (ConnectionError, EOFError) as error:
        time.sleep(5)  # a reader died while a batch was taken from it; PyTorch's handler raises here what it died of
        raise RuntimeError(f"DataLoader worker (one of {workers}) has ended: {error}") from error


def _quiet_worker(_: int) -> None:
    for name in ("SIGINT", "SIGHUP", "SIGUSR1"):  # they are for the main process, which saves a checkpoint first
        if number := getattr(signal, name, None):
            signal.signal(number, signal.SIG_IGN)
    sys.excepthook = _unless_orphaned


def _unless_orphaned(*error: Any) -> None:
    """Print an error of a thread, unless the process that this one reads for was killed, which then is the reason."""
    parent = multiprocessing.parent_process()
    if parent is None or parent.is_alive():
        sys.__excepthook__(*error)
