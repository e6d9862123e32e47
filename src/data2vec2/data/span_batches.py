"""Batches of recordings (or, without masks, of texts) with targets and masks, for fine-tuning.

Shapes: `B` samples, `S` samples of a waveform, `T` tokens, `D` width, `L` letters of a text, `C` classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from data2vec2 import rng
from data2vec2.config import SpanMaskConfig
from data2vec2.data.audio import AudioReader
from data2vec2.data.labelled import targets_of
from data2vec2.data.letters import Letters
from data2vec2.data.reader import Bad
from data2vec2.data.records import Records
from data2vec2.data.sampler import Order
from data2vec2.masking import draw_spans


@dataclass(frozen=True)
class SpanBatch:
    """Recordings, what the model should say of them, and what is hidden from it."""

    inputs: Tensor
    """Waveforms `BS` float32, zeros behind each recording's end; of texts ids `BT`, padding behind each."""
    targets: Tensor
    """Letters `BL` int64 with zeros behind each text, classes `BC` float32 as in `LabelledBatch`, or numbers `B1`."""
    lengths_B: Tensor | None = None
    """Samples of each recording, tokens of each text; none: all are full."""
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
    """What a sample counts in a batch size: seconds of each recording, or tokens of each text, filled up."""

    def __len__(self) -> int:
        return len(self.inputs)

    def split(self, size: int) -> Iterator[SpanBatch]:
        """Micro-batches of at most `size` seconds or tokens (at least one sample)."""
        count = max(1, int(size / self.size))
        for start in range(0, len(self), count):
            yield self._with(lambda tensor: tensor[start : start + count], bad=())  # noqa: B023

    def to(self, device: torch.device) -> SpanBatch:
        """The same batch on a device, copied without waiting."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> SpanBatch:
        """The same batch in page-locked memory."""
        return self._with(Tensor.pin_memory)

    def _with(self, change: Callable[[Tensor], Tensor], **others: Any) -> SpanBatch:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors: dict[str, Any] = {name: change(value) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **tensors, **others)


Targets = Callable[[NDArray[np.int64]], tuple[Tensor, Tensor | None]]
"""Targets and, of letters, their number, of records."""


@dataclass(frozen=True)
class LetterTargets:
    """Letters of transcripts."""

    letters: Letters
    texts: tuple[str | None, ...]

    def __call__(self, indices_B: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Letters `BL`, and how many."""
        ids = [torch.from_numpy(self.letters.encode(self.texts[index] or "")) for index in indices_B.tolist()]
        lengths_B = torch.tensor([len(one) for one in ids])
        return torch.nn.utils.rnn.pad_sequence(ids, batch_first=True), lengths_B


@dataclass(frozen=True)
class ClassTargets:
    """Classes or tags."""

    records: Records

    def __call__(self, indices_B: NDArray[np.int64]) -> tuple[Tensor, None]:
        """Probabilities `BC`."""
        return torch.from_numpy(targets_of(self.records, indices_B)), None


class SpanBatches(Dataset[SpanBatch]):
    """Item `step` is this process's part of that step's batch; it depends on nothing but the seed and the step."""

    def __init__(
        self,
        reader: AudioReader,
        order: Order,
        targets: Targets,
        masks: SpanMaskConfig,
        embed_dim: int,
        freeze_updates: int,
        rank: int = 0,
        size: int = 1,
    ) -> None:
        """For process `rank` of `size`; only the head learns in the first `freeze_updates` steps."""
        self.reader, self.order, self.targets, self.masks = reader, order, targets, masks
        self.embed_dim, self.freeze_updates, self.rank, self.size = embed_dim, freeze_updates, rank, size

    def __getitem__(self, step: int) -> SpanBatch:
        plan = self.order(step).part(self.rank, self.size)
        read, config = self.reader.train_batch(plan), self.reader.config
        samples = read.inputs.shape[1]
        lengths_B = np.full(len(plan.samples_B), samples) if read.lengths_B is None else read.lengths_B
        tokens_B = np.array([config.num_tokens(length) for length in lengths_B.tolist()])
        where = (self.order.seed, plan.epochs_B, plan.samples_B)
        masks, time_masks, channel_masks = self.masks, None, None
        if masks.time_share:
            spans = draw_spans(rng.Stream.TIME_SPANS, masks.time_share, masks.time_length, tokens_B, *where)
            time_masks = torch.from_numpy(spans)
        if masks.channel_share:
            width, stream = np.full_like(tokens_B, self.embed_dim), rng.Stream.CHANNEL_SPANS
            spans = draw_spans(stream, masks.channel_share, masks.channel_length, width, *where)
            channel_masks = torch.from_numpy(spans)
        targets, target_lengths = self.targets(read.indices_B)
        return SpanBatch(
            torch.from_numpy(read.inputs),
            targets,
            None if read.lengths_B is None else torch.from_numpy(read.lengths_B),
            target_lengths,
            time_masks,
            channel_masks,
            freeze_encoder=step < self.freeze_updates,
            bad=read.bad,
            weight=plan.weight,
            size=samples / config.sample_rate,
        )
