"""Fine-tuning: classes, numbers and letters, of samples of any modality, and classes of their tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data2vec2.data.batch import Batch, Step
from data2vec2.data.labels import IGNORED
from data2vec2.data.letters import Letters
from data2vec2.data.reader import Reader, padded
from data2vec2.data.records import Records, targets_of
from data2vec2.evaluation.features import Normalise, Note
from data2vec2.evaluation.recognition import recognise_all, rows_of
from data2vec2.evaluation.similarity import spread
from data2vec2.method import losses
from data2vec2.tasks import ReadingTask
from data2vec2.training.parallel import World
from data2vec2.training.run import RunFolder, write_text
from data2vec2.training.task import Sums

TRANSCRIPTS = "transcripts.jsonl"
_WRITTEN, _LOGGED = 8, 3  # transcripts of each evaluation
Error = Callable[[Tensor, Tensor], Tensor]
"""The loss of outputs for targets, summed over samples."""
Bars = Mapping[str, tuple[float, float]]
"""95 % intervals of scores."""
Scores = Callable[[nn.Module, Reader, Normalise, torch.device, Note, World], tuple[Mapping[str, float], Bars]]
"""Scores of a model on samples, and their intervals."""


@dataclass(frozen=True)
class ClassTargets:
    """Adds the probability of each class, or of each tag."""

    records: Records
    label_smoothing: float = 0.0

    def __call__(self, batch: Batch, step: Step) -> Batch:
        """Targets `BC` float32."""
        targets_BC = targets_of(self.records, step.read.indices_B, self.label_smoothing)
        return replace(batch, targets=torch.from_numpy(targets_BC))


@dataclass(frozen=True)
class NumberTargets:
    """Adds numbers, standardised: (number - mean) / deviation over the records."""

    records: Records

    @property
    def scale(self) -> tuple[float, float]:
        """Mean and deviation."""
        assert self.records.numbers is not None
        return float(self.records.numbers.mean()), float(self.records.numbers.std())

    def __call__(self, batch: Batch, step: Step) -> Batch:
        """Targets `B1` float32."""
        assert self.records.numbers is not None
        mean, deviation = self.scale
        targets_B = (self.records.numbers[step.read.indices_B] - mean) / deviation
        return replace(batch, targets=torch.from_numpy(targets_B.astype(np.float32))[:, None])


@dataclass(frozen=True)
class DenseTargets:
    """Adds the class of each token or pixel."""

    reader: Reader

    def __call__(self, batch: Batch, step: Step) -> Batch:
        """Targets `BT` or `BHW`, `IGNORED` where there is none."""
        pieces_B = step.read.indices_B if step.read.pieces_B is None else step.read.pieces_B
        pairs = zip(pieces_B.tolist(), step.plan.epochs_B.tolist(), strict=True)
        targets, _ = padded([self.reader.marked(*pair, step.plan) for pair in pairs], IGNORED, np.int64)
        return replace(batch, targets=torch.from_numpy(targets))


@dataclass(frozen=True)
class LetterTargets:
    """Adds the letters of transcripts."""

    letters: Letters
    texts: Sequence[str | None]

    def __call__(self, batch: Batch, step: Step) -> Batch:
        """Targets `BL`, and how many."""
        targets_BL, lengths_B = self.of(step.read.indices_B.tolist())
        return replace(batch, targets=targets_BL, target_lengths_B=lengths_B)

    def of(self, samples: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Letters `BL` of samples, with zeros behind, and how many."""
        ids = [torch.from_numpy(self.letters.encode(self.texts[sample] or "")) for sample in samples]
        return nn.utils.rnn.pad_sequence(ids, batch_first=True), torch.tensor([len(one) for one in ids])


class _FinetuneTask(ReadingTask):
    """A model with a head. `val` chooses the best one; all samples have targets."""

    lighter = "--train.checkpoint-activations, smaller or shorter samples, or --train.device cpu"

    def outputs(self, model: nn.Module, batch: Batch) -> Any:
        """What the model gives for a batch."""
        masks = batch.time_masks_BT, batch.channel_masks_BD
        return model(self.normalise(batch.inputs), batch.lengths_B, *masks, freeze_encoder=batch.freeze_encoder)


class SampleTask(_FinetuneTask):
    """Classes or a number of whole samples, or a class of each of their tokens."""

    def __init__(self, error: Error, scores: Scores, monitor: str, *arguments: Any) -> None:
        """As of `ReadingTask`; `monitor` names the score that chooses the best model."""
        super().__init__(*arguments)
        self.error, self.scores, self.monitor = error, scores, f"val_{monitor}"

    def loss(self, model: nn.Module, batch: Batch) -> Sums:
        """The error, summed over samples."""
        assert batch.targets is not None
        return Sums(self.error(self.outputs(model, batch), batch.targets), len(batch))

    def evaluate(self, step: int) -> dict[str, float]:
        """Scores on the validation part, if there is one."""
        if self.val is None:
            return {}
        note = partial(self.note, "val")
        found, bars = self.scores(self.model, self.val, self.normalise, self.context.device, note, self.context.world)
        self.bars = {f"val_{name}": bar for name, bar in bars.items()}
        return {f"val_{name}": value for name, value in found.items()}


class CtcTask(_FinetuneTask):
    """A recogniser: a letter at every token."""

    monitor = "val_letter_accuracy"

    def __init__(self, *arguments: Any, letters: Letters) -> None:
        """As of `ReadingTask`."""
        super().__init__(*arguments)
        self.letters = letters
        self._impossible = torch.zeros(())

    def loss(self, model: nn.Module, batch: Batch) -> Sums:
        """The CTC loss, summed over samples."""
        assert batch.targets is not None and batch.target_lengths_B is not None
        logits_BTV, num_tokens_B = self.outputs(model, batch)
        found = losses.ctc(logits_BTV, num_tokens_B, batch.targets, batch.target_lengths_B)
        self._impossible = found.num_impossible
        return Sums(found.loss, len(batch))

    def figures(self, step: int) -> dict[str, float]:
        """Samples of the last micro-batch with more letters than tokens; counts bad samples."""
        return super().figures(step) | {"impossible": float(self._impossible)}

    def evaluate(self, step: int) -> dict[str, float]:
        """Error rates (greedy) and the loss of what can be aligned of the validation part; writes some transcripts."""
        if self.val is None:
            return {}
        targets, device = LetterTargets(self.letters, self.val.records.texts or ()), self.context.device
        losses_of, impossible_of = [], []

        def note(logits_BTV: Tensor, num_tokens_B: Tensor, samples: list[int]) -> None:
            letters_BL, lengths_B = targets.of(samples)
            found = losses.ctc(logits_BTV, num_tokens_B, letters_BL.to(device), lengths_B.to(device))
            losses_of.append(found.loss.item())
            impossible_of.append(int(found.num_impossible))

        order = np.arange(len(self.val.records))
        unread = partial(self.note, "val")
        world = self.context.world
        found = recognise_all(self.model, self.letters, self.val, order, self.normalise, device, note, unread, world)
        loss, impossible = map(sum, zip(*world.collect((sum(losses_of), sum(impossible_of))), strict=True))
        rows = rows_of(found, self.val.records)
        kept = [rows[place] for place in spread(len(rows), _WRITTEN)]
        if world.rank:
            kept = []
        for row in kept[:_LOGGED]:
            self.context.log(f'update {step}  "{row["reference"]}" heard as "{row["hypothesis"]}"')
        if kept:
            write_transcripts(self.context.run, [{**row, "part": "validation", "update": step} for row in kept])
        rates = found.scores()
        (low, high), wer = rates["intervals"]["cer"], rates["intervals"]["wer"]
        self.bars = {"val_cer": (low, high), "val_wer": wer, self.monitor: (1 - high, 1 - low)}
        scores = {"val_cer": rates["cer"], "val_wer": rates["wer"]}
        if not (possible := len(rows) - impossible):
            return scores  # by which no model is the best
        return {"val_loss": loss / possible, **scores, self.monitor: 1 - rates["cer"]}


def write_transcripts(run: RunFolder, rows: list[dict[str, Any]]) -> None:
    """RUN/transcripts.jsonl: a JSON object a line (name, reference, hypothesis, cer, part, update)."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(run.path / TRANSCRIPTS, lines, errors="backslashreplace")  # of names that are no text
