"""Batches of texts with targets, for fine-tuning.

Shapes: `B` samples, `T` tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from data2vec2.data.records import Records
from data2vec2.data.sampler import Order
from data2vec2.data.sentences import SentenceReader
from data2vec2.data.span_batches import SpanBatch, Targets


@dataclass(frozen=True)
class NumberTargets:
    """Numbers, standardised: (number - mean) / deviation over the records."""

    records: Records

    @property
    def scale(self) -> tuple[float, float]:
        """Mean and deviation."""
        assert self.records.numbers is not None
        return float(self.records.numbers.mean()), float(self.records.numbers.std())

    def __call__(self, indices_B: NDArray[np.int64]) -> tuple[Tensor, None]:
        """Targets `B1` float32."""
        assert self.records.numbers is not None
        mean, deviation = self.scale
        targets_B = (self.records.numbers[indices_B] - mean) / deviation
        return torch.from_numpy(targets_B.astype(np.float32))[:, None], None


class SentenceBatches(Dataset[SpanBatch]):
    """Item `step` is this process's part of that step's batch; it depends on nothing but the seed and the step."""

    def __init__(self, reader: SentenceReader, order: Order, targets: Targets, rank: int = 0, size: int = 1) -> None:
        """For process `rank` of `size`."""
        self.reader, self.order, self.targets, self.rank, self.size = reader, order, targets, rank, size

    def __getitem__(self, step: int) -> SpanBatch:
        plan = self.order(step).part(self.rank, self.size)
        read = self.reader.train_batch(plan)
        assert read.lengths_B is not None
        return SpanBatch(
            torch.from_numpy(read.inputs),
            self.targets(read.indices_B)[0],
            torch.from_numpy(read.lengths_B),
            bad=read.bad,
            weight=plan.weight,
            size=float(read.inputs.shape[1]),
        )
