"""Fine-tuning: speech to letters."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data2vec2.config import AudioFinetuneConfig
from data2vec2.data.letters import Letters
from data2vec2.data.skipped import Skipped
from data2vec2.data.span_batches import LetterTargets, SpanBatch, SpanBatches
from data2vec2.data.spoken import SpokenReader
from data2vec2.evaluation.recognition import recognise_all, rows_of
from data2vec2.losses import ctc
from data2vec2.models.ctc import SpeechRecognizer
from data2vec2.tasks.reading import Reading
from data2vec2.training.loop import Sums
from data2vec2.training.parallel import ALONE, World
from data2vec2.training.run import write_text

TRANSCRIPTS = "transcripts.jsonl"
SHOWN = 8
"""Transcripts that are written at each evaluation."""
LOGGED = 3
"""And how many of them to the log."""


class CtcTask:
    """A recogniser on recordings with transcripts."""

    ema = None
    monitor = "val_letter_accuracy"

    def __init__(
        self,
        model: SpeechRecognizer,
        config: AudioFinetuneConfig,
        letters: Letters,
        train: SpokenReader,
        val: SpokenReader | None,
        device: torch.device,
        skipped: Skipped,
        run: Path,
        log: Callable[[str], None],
        world: World = ALONE,
    ) -> None:
        """`val` (never trained on) chooses the best model. All records of both have transcripts."""
        self.model, self.config, self.letters, self.val, self.device = model, config, letters, val, device
        self.run, self.log = run, log
        targets = LetterTargets(letters, train.records.texts or ())
        order, width = train.order(config.train.batch_size), model.encoder.config.embed_dim
        dataset = SpanBatches(
            train, order, targets, config.masks, width, config.model.freeze_updates, world.rank, world.size
        )
        workers = config.data.workers or 0
        self._reading = Reading(dataset, workers, device, skipped, run / "skipped.jsonl", world)
        self._last = torch.zeros(())

    def batches(self, start: int, stop: int) -> Iterator[SpanBatch]:
        """Batches of the given steps; notes what could not be read."""
        return self._reading.batches(start, stop)

    def loss(self, model: nn.Module, batch: SpanBatch) -> Sums:
        """The CTC loss, summed over recordings."""
        logits_BTV, num_tokens_B = model(
            batch.inputs,
            batch.lengths_B,
            batch.time_masks_BT,
            batch.channel_masks_BD,
            freeze_encoder=batch.freeze_encoder,
        )
        assert batch.target_lengths_B is not None
        found = ctc(logits_BTV, num_tokens_B, batch.targets, batch.target_lengths_B)
        self._last = found.num_impossible
        return Sums(found.loss, len(batch))

    def figures(self, step: int) -> dict[str, float]:
        """Recordings of the last micro-batch with more letters than tokens; counts bad samples."""
        self._reading.count(step)
        return {"impossible": float(self._last)}

    def evaluate(self, step: int) -> dict[str, float]:
        """Loss and error rates (greedy) on the validation part; writes some transcripts."""
        if self.val is None:
            return {}
        order = np.argsort(self.val.pieces.lengths_N, kind="stable")
        losses: list[float] = []

        def note(logits_BTV: Tensor, num_tokens_B: Tensor, samples: list[int]) -> None:
            assert self.val is not None
            targets, lengths = LetterTargets(self.letters, self.val.records.texts or ())(np.array(samples))
            sums = ctc(logits_BTV, num_tokens_B, targets.to(self.device), lengths.to(self.device))
            losses.append(sums.loss.item())

        found = recognise_all(self.model, self.letters, self.val, order, self.device, note)
        rows = rows_of(found, self.val.records)
        kept = [rows[place] for place in np.unique(np.linspace(0, len(rows) - 1, SHOWN).astype(int)).tolist()]
        for row in kept[:LOGGED]:
            self.log(f'update {step}  "{row["reference"]}" heard as "{row["hypothesis"]}"')
        write_transcripts(self.run, [{**row, "part": "validation", "update": step} for row in kept])
        scores = found.scores()
        cer, wer = scores["cer"], scores["wer"]
        return {"val_loss": sum(losses) / len(rows), "val_cer": cer, "val_wer": wer, self.monitor: 1 - cer}


def write_transcripts(run: Path, rows: list[dict[str, Any]]) -> None:
    """RUN/transcripts.jsonl: a JSON object a line (name, reference, hypothesis, cer, part, update)."""
    write_text(run / TRANSCRIPTS, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
