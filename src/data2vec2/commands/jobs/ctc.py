"""Speech to letters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data2vec2.commands.data import held_out
from data2vec2.commands.jobs.base import AnyConfig
from data2vec2.commands.jobs.sounds import audio_config, checked, prepare, survey
from data2vec2.commands.kinds import Log
from data2vec2.commands.recognise import score
from data2vec2.config import AudioFinetuneConfig, ModelConfig
from data2vec2.data.letters import Letters
from data2vec2.data.reader import Bad
from data2vec2.data.records import Records, open_data
from data2vec2.data.skipped import Skipped
from data2vec2.data.spoken import SpokenReader, trainable, with_transcript
from data2vec2.errors import UserError
from data2vec2.evaluation.recognition import rows_of
from data2vec2.interop.card import recognizer_card
from data2vec2.interop.export import ExportInfo, export_recognizer
from data2vec2.losses import ctc
from data2vec2.models import Encoder
from data2vec2.models.ctc import SpeechRecognizer
from data2vec2.recipes.speech import CTC_RECIPES
from data2vec2.tasks.ctc import CtcTask, write_transcripts
from data2vec2.training.best import Best
from data2vec2.training.parallel import World
from data2vec2.training.run import RunFolder

KEPT = 100
"""Transcripts of the scored part that the run keeps, evenly spread."""


@dataclass(frozen=True)
class SpokenData:
    """Recordings with transcripts of each part; the test part is only looked at when the run has ended."""

    train: SpokenReader
    val: SpokenReader | None
    test: Records | None
    """Of any length."""
    letters: Letters
    left_out: tuple[Bad, ...]
    bad: tuple[Bad, ...]
    total: int
    """Recordings of the training part, those left out counted in."""
    description: str

    @property
    def outputs(self) -> int:
        """Symbols."""
        return len(self.letters)


class CtcJob:
    """A recogniser of speech."""

    unit = "seconds of audio"
    outputs = "letters and other symbols"
    recipes = CTC_RECIPES

    def completed(self, config: AnyConfig, info: ExportInfo) -> tuple[AudioFinetuneConfig, ModelConfig]:
        """Nothing is frozen from scratch."""
        assert isinstance(config, AudioFinetuneConfig)
        return checked(config, info), info.model

    def open(self, config: AnyConfig, shape: ModelConfig, path: Path, val: Path | None) -> SpokenData:
        """Recordings with transcripts; letters are those of what is trained on."""
        assert isinstance(config, AudioFinetuneConfig)
        parts, seed, modality = open_data(path, "audio"), config.train.seed, audio_config(shape)
        held_parts = open_data(val, "audio") if val else None
        train, held = held_out(parts, held_parts, config.data.val_fraction, seed)
        if train.texts is None:
            raise UserError(
                f"{path} has no transcripts ({parts.description}); put them into a metadata.csv with columns file_name "
                "and transcription, or give a table or a manifest that has them"
            )
        used, left_out, bad = trainable(train, modality, config.data, seed)
        if not len(used):
            reasons = Skipped(len(train), 1.0)
            reasons.add((*left_out, *bad))
            raise UserError(f"none of {len(train)} recordings of {path} can be trained on: {reasons.summary()}")
        reader = None
        if held:
            of_all = config.data.__class__(**{**vars(config.data), "max_minutes": None})
            held, missing, _ = trainable(held, modality, of_all, seed)
            left_out = (*left_out, *missing)
            reader = SpokenReader(held, modality, config.data, seed) if len(held) else None
        test = with_transcript(parts.test)[0] if parts.test else None
        letters = Letters.of(text or "" for text in used.texts or ())
        ready = SpokenReader(used, modality, config.data, seed)
        test = test if test is not None and len(test) else None
        return SpokenData(ready, reader, test, letters, left_out, bad, len(train), parts.description)

    def look(self, data: SpokenData, config: AnyConfig, log: Log) -> Skipped:
        """How much there is, and what is left out."""
        held = f"{len(data.val.records) if data.val else 0:,} for validation"
        log(f"data: {len(data.train.records):,} to train on, {held}, {len(data.test or ()):,} to test on")
        skipped = Skipped(data.total, config.data.max_bad)
        skipped.leave_out(data.left_out)
        if data.left_out:
            reasons = Skipped(data.total, 1.0)
            reasons.add(data.left_out)
            log(f"data: {len(data.left_out):,} recordings are left out: {reasons.summary()} (skipped.jsonl)")
        skipped.add(data.bad)
        survey(data.train, skipped, log)
        log(f"data: letters: {' '.join(data.letters.symbols[3:])}")
        return skipped

    def in_memory(self, data: SpokenData, config: AnyConfig) -> bool:
        """Never: decoding takes time."""
        return False

    def model(self, config: AnyConfig, encoder: Encoder, data: SpokenData) -> SpeechRecognizer:
        """A letter at every token."""
        assert isinstance(config, AudioFinetuneConfig)
        prepare(config, encoder)
        dropout, noise_std = config.model.dropout, config.masks.noise_std
        return SpeechRecognizer(encoder, data.outputs, dropout=dropout, noise_std=noise_std)

    def one(
        self, config: AnyConfig, shape: ModelConfig, model: SpeechRecognizer
    ) -> tuple[Callable[[], torch.Tensor], float]:
        """The longest recording."""
        assert isinstance(config, AudioFinetuneConfig)
        device, seconds = model.head.weight.device, config.data.max_seconds
        wave = torch.zeros(1, int(seconds * audio_config(shape).sample_rate), device=device)
        letters, length = torch.ones(1, 1, dtype=torch.int64, device=device), torch.ones(1, dtype=torch.int64)

        def loss() -> torch.Tensor:
            logits_BTV, num_tokens_B = model(wave)
            return ctc(logits_BTV, num_tokens_B, letters, length.to(device)).loss

        return loss, seconds

    def task(
        self,
        model: SpeechRecognizer,
        config: AnyConfig,
        data: SpokenData,
        device: torch.device,
        skipped: Skipped,
        run: RunFolder,
        world: World,
        log: Log,
    ) -> CtcTask:
        """The CTC loss."""
        assert isinstance(config, AudioFinetuneConfig)
        return CtcTask(model, config, data.letters, data.train, data.val, device, skipped, run.path, log, world)

    def show_first(self, config: AnyConfig, shape: ModelConfig, data: SpokenData, say: Log) -> None:
        """Recordings."""
        plan = data.train.order(config.train.batch_size)(0)
        say(f"first batch: recordings {(len(plan.samples_B), plan.length)}")

    def finish(
        self, run: RunFolder, config: AnyConfig, shape: ModelConfig, model: SpeechRecognizer, data: SpokenData, log: Log
    ) -> None:
        """Export the best model on the validation part (without one the last), and score it once, greedily.

        On the test part, or where there is none on the validation part: RUN/scores.json and RUN/transcripts.jsonl.
        """
        assert isinstance(config, AudioFinetuneConfig)
        if best := Best(run.path).load():
            model.load_state_dict(best.groups["model"])
        step = best.step if best else config.train.updates
        info = ExportInfo(model=shape, data=config.data, letters=data.letters)
        part, records = ("test", data.test) if data.test else ("validation", data.val.records if data.val else None)
        scores: dict[str, Any] = {}
        if records is not None:
            heard, unread = score(model.eval(), info, records, next(model.parameters()).device)
            scores = {"kind": "ctc", "part": part, "samples": len(heard.samples), **heard.scores()}
            rows = rows_of(heard, records)
            kept = np.unique(np.linspace(0, len(rows) - 1, KEPT).astype(int)).tolist()
            write_transcripts(run.path, [{**rows[place], "part": part, "update": step} for place in kept])
            minutes = float(data.train.pieces.lengths_N.sum() / data.train.config.sample_rate / 60)
            more = {"from_scratch": config.from_scratch, "minutes": round(minutes, 3), "skipped": unread}
            run.write_json("scores.json", {**scores, "update": step, **more})
            log(
                f"{part} word error rate {scores['wer']:.4f}, character error rate {scores['cer']:.4f} "
                f"({scores['samples']:,} recordings), with the model of update {step}"
            )
        card = recognizer_card(config, info, data.description, scores)
        export_recognizer(model, info, run.path / "exported", card)
