"""What every modality's reader gives: batches of inputs as arrays, each sample replaced if it can't be read.

Shapes: `B` samples, `S` samples of audio.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data2vec2.data.records import Records
from data2vec2.data.sampler import Order, Plan


@dataclass(frozen=True)
class Bad:
    """A sample that could not be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class ReadBatch:
    """Inputs, their labels (-1: none), and the samples that others stand in for (once for each time)."""

    inputs: NDArray[Any]
    """Pictures `BCHW` uint8; waveforms `BS` float32."""
    labels_B: NDArray[np.int64]
    bad: tuple[Bad, ...]
    indices_B: NDArray[np.int64]
    """The records that were read: those asked for, or what stands in for them."""
    lengths_B: NDArray[np.int64] | None = None
    """Samples of audio of each waveform; what follows them only fills the batch up. None: all are full."""


class Reader(Protocol):
    """Batches of the model's inputs from records. Can be pickled; the same arguments always give the same batch.

    A bad sample is replaced by another one, chosen by (seed, sample) alone. Both batch methods raise `UserError` if a
    hundred others are bad too.
    """

    @property
    def records(self) -> Records:
        """What is read."""

    @property
    def in_memory(self) -> bool:
        """Whether reading costs next to nothing, so that no process of its own need do it."""

    def train_batch(self, plan: Plan) -> ReadBatch:
        """Random crops; each depends on (seed, epoch, sample) and the plan's length alone."""

    def eval_batch(self, samples_B: NDArray[np.int64]) -> ReadBatch:
        """The samples as evaluation sees them: central squares, whole recordings."""

    def eval_groups(self, samples_B: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """The samples in groups that `eval_batch` should be asked for at once; not always in the same order."""

    def order(self, batch_size: int) -> Order:
        """Global batches of so many samples (of audio: seconds)."""

    def grid(self, plan: Plan) -> tuple[int, ...]:
        """Arrangement of the tokens of a training batch."""

    def size(self, plan: Plan) -> float:
        """What each sample of a training batch counts in a batch size: 1, of audio its seconds."""
