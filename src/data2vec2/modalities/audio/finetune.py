"""What fine-tuning on recordings adds: masks of time and channels, frozen parts, and letters.

Shapes: `B` samples, `T` tokens, `D` width.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data2vec2 import rng
from data2vec2.config.run import FinetuneConfig
from data2vec2.data.account import counted
from data2vec2.data.batch import Addition, Batch, Step
from data2vec2.data.letters import Letters
from data2vec2.data.reader import Reader
from data2vec2.errors import UsageError, UserError
from data2vec2.evaluation.recognition import rows_of
from data2vec2.evaluation.similarity import spread
from data2vec2.method import losses
from data2vec2.method.block import Block
from data2vec2.method.encoder import Encoder
from data2vec2.method.heads import Classifier, SpeechRecognizer
from data2vec2.method.masking import draw_spans
from data2vec2.modalities.audio.config import (
    AudioConfig,
    AudioFinetuneDataConfig,
    AudioTaskConfig,
    SpanMaskConfig,
    WaveformConfig,
)
from data2vec2.modalities.audio.model import freeze_stem
from data2vec2.modalities.audio.reader import AudioReader, survey_audio
from data2vec2.modalities.audio.speech import SpokenReader, drawn, remarks_on, scorable, score, trainable
from data2vec2.modalities.data import Log, ModelInfo, Survey, narrow
from data2vec2.modalities.jobs import FinetuneData, Job, Scored, said
from data2vec2.tasks.finetune import CtcTask, LetterTargets
from data2vec2.training.task import Task

KEPT = 100  # transcripts of the scored part, evenly spread
LOOKED_AT = 200
"""So many recordings of each part are decoded before training, evenly spread."""


@dataclass(frozen=True)
class Spans:
    """Adds what is hidden of recordings, and whether the encoder is frozen."""

    masks: SpanMaskConfig
    modality: WaveformConfig
    embed_dim: int
    freeze_updates: int

    def __call__(self, batch: Batch, step: Step) -> Batch:
        """Masks by (seed, epoch, sample) and a recording's own length alone."""
        read, plan, masks, B = step.read, step.plan, self.masks, len(step.read.inputs)
        lengths_B = np.full(B, read.inputs.shape[1]) if read.lengths_B is None else read.lengths_B
        tokens_B = np.array([self.modality.num_tokens(length) for length in lengths_B.tolist()])

        def drawn(stream: rng.Stream, share: float, span: int, sizes_B: NDArray[np.int64]) -> Tensor | None:
            if not share:
                return None
            return torch.from_numpy(draw_spans(stream, share, span, sizes_B, step.seed, plan.epochs_B, plan.samples_B))

        time, channels = rng.Stream.TIME_SPANS, rng.Stream.CHANNEL_SPANS
        return replace(
            batch,
            time_masks_BT=drawn(time, masks.time_share, masks.time_length, tokens_B),
            channel_masks_BD=drawn(channels, masks.channel_share, masks.channel_length, np.full(B, self.embed_dim)),
            freeze_encoder=step.number < self.freeze_updates,
        )


class AudioClassifyJob(Job):
    """Classes of recordings."""

    of_learned = ("task.model.freeze_updates", "task.model.freeze_stem")
    unused: tuple[str, ...] = "task.model.dropout", "data.gaps"

    def completed(self, config: FinetuneConfig, info: ModelInfo) -> tuple[FinetuneConfig, ModelInfo]:
        """Nothing is frozen that was never trained; `UsageError` if masks are too wide."""
        task = _task(config)
        width, length = info.model.encoder.embed_dim, task.masks.channel_length
        if task.masks.channel_share and length > width:
            raise UsageError(f"masks.channel_length is {length}; it must be at most {width}, the model's width")
        if config.from_scratch:
            task = replace(task, model=replace(task.model, freeze_updates=0, freeze_stem=False))
        return super().completed(replace(config, task=task), info)

    def open(self, config: FinetuneConfig, info: ModelInfo, path: str, val: str | None) -> FinetuneData:
        """Of what is to train on as many minutes as were asked for; `UserError` if these are of one class."""
        data, seed = super().open(config, info, path, val), config.train.seed
        reader, minutes = narrow(data.train, AudioReader), narrow(config.data, AudioFinetuneDataConfig).max_minutes
        if minutes is None:
            return data
        records, usable = reader.records, np.unique(reader.pieces.records_P)
        kept = drawn(usable, reader.pieces.lengths_N, minutes, reader.rate, seed)
        data.account.part("train").asked["--data.max-minutes"] += len(usable) - len(kept)
        if records.marks is None and records.tags is None and len(np.unique(records.labels[kept])) < 2:
            raise UserError(f"--data.max-minutes {minutes:g} draws recordings of one class; give more")
        kept = np.setdiff1d(np.arange(len(records)), np.setdiff1d(usable, kept))  # what can't be used is said later
        return replace(data, train=self.reader(records.select(kept), info, seed))

    def check(self, reader: Reader, log: Log, training: bool) -> Survey:
        """Lengths, and some of the recordings."""
        if not training:
            good, bad = reader.looked_at(LOOKED_AT)
            return Survey(len(good) + len(bad), tuple(bad), mended=reader.mends())
        found = survey_audio(narrow(reader, AudioReader), log, LOOKED_AT)
        log(f"data: {60 * found.hours:.1f} minutes; recordings of {found.shortest_s:.1f} to {found.longest_s:.1f} s")
        return found

    def in_memory(self, data: FinetuneData, config: FinetuneConfig) -> bool:
        """Never: decoding takes time."""
        return False

    def model(self, config: FinetuneConfig, encoder: Encoder, data: FinetuneData) -> nn.Module:
        """Pooled over time."""
        task = prepare(config, encoder)
        return Classifier(encoder, data.outputs, 0.0, task.model.pooling, task.masks.noise_std)

    def additions(self, config: FinetuneConfig, info: ModelInfo, data: FinetuneData) -> list[Addition]:
        """Classes, and masks."""
        task, modality = _task(config), info.model.modality
        assert isinstance(modality, WaveformConfig)
        spans = Spans(task.masks, modality, info.model.encoder.embed_dim, task.model.freeze_updates)
        return [self.targets(data), spans]


class CtcJob(AudioClassifyJob):
    """Letters of speech."""

    outputs, unused = "letters and other symbols", ("task.model.pooling", "data.gaps")

    def open(self, config: FinetuneConfig, info: ModelInfo, path: str, val: str | None) -> FinetuneData:
        """Recordings with transcripts that can be aligned; letters are those of what is trained on."""
        data, modality, seed = config.data, narrow(info.model.modality, AudioConfig), config.train.seed
        assert isinstance(data, AudioFinetuneDataConfig)
        if data.labels_per_class is not None:
            raise UsageError("--data.labels-per-class is for classes; of transcripts, --data.max-minutes takes some")
        parts, train, held = self.split(config, path, val)
        if train.texts is None:
            more = "; ".join(("", *parts.account.lines()))
            raise UserError(
                f"{path} has no transcripts ({parts.description}); put them into a metadata.csv with columns file_name "
                f"and transcription, or NAME.txt beside NAME.wav, or give a table or a manifest that has them{more}"
            )
        readers: dict[str, AudioReader] = {}
        for key, records, usable, of in (
            ("train", train, trainable, data),
            ("val", held, trainable, replace(data, max_minutes=None)),
            ("test", parts.test, scorable, data),
        ):
            if records is None:
                continue
            used, left_out, bad = usable(records, modality, of, seed)
            if key == "train" and not len(used):
                why = counted(item.reason for item in (*left_out, *bad))
                raise UserError(f"none of {len(train)} recordings of {path} can be trained on: {why}")
            parts.account.remarks += remarks_on(key, records)
            account = parts.account.part(key)
            account.leave_out(left_out)
            account.add(bad)
            if undrawn := account.used - len(used):
                account.asked["--data.max-minutes"] += undrawn
            if len(used):
                readers[key] = SpokenReader(used, modality, data, seed)
        letters = Letters.of(text or "" for text in readers["train"].records.texts or ())
        return FinetuneData.of(parts, readers, path, outputs=len(letters), more=letters)

    def about(self, data: FinetuneData) -> str:
        """Letters."""
        return f"letters: {' '.join(data.more.symbols[3:])}"

    def model(self, config: FinetuneConfig, encoder: Encoder, data: FinetuneData) -> SpeechRecognizer:
        """A letter at every token."""
        task = prepare(config, encoder)
        return SpeechRecognizer(encoder, data.outputs, dropout=task.model.dropout, noise_std=task.masks.noise_std)

    def error(self, outputs: Any) -> Tensor:
        """The CTC loss of a letter each; without data, where PyTorch has none, the mean."""
        if outputs[0].is_meta:
            return outputs[0].mean()  # type: ignore[no-any-return]
        letters_BL = torch.ones(len(outputs[0]), 1, dtype=torch.int64, device=outputs[0].device)
        return losses.ctc(outputs[0], outputs[1], letters_BL, letters_BL[:, 0]).loss

    def targets(self, data: FinetuneData) -> Addition:
        """Letters."""
        return LetterTargets(data.more, data.train.records.texts or ())

    def learning(self, data: FinetuneData, common: tuple[Any, ...]) -> Task:
        """The CTC loss."""
        return CtcTask(*common, letters=data.more)

    def finished(self, model: nn.Module, info: ModelInfo, data: FinetuneData) -> ModelInfo:
        """With its letters."""
        return replace(info, letters=data.more)

    def score(self, model: Any, info: ModelInfo, data: FinetuneData, key: str, device: torch.device) -> Scored:
        """Error rates, greedily; what can't be read is noted (`UserError` if it is too much)."""
        train, records = narrow(data.train, AudioReader), data.readers[key].records
        heard, unread = score(model, info, records, device)
        data.account.part(key).add(unread)
        count, rates, rows = len(heard.samples), heard.scores(), rows_of(heard, records)
        minutes = round(float(train.pieces.lengths_N.sum() / train.rate / 60), 3)
        skipped = dict(Counter(reason for _, reason in unread))
        words, characters = said("wer", rates, "word error rate"), said("cer", rates, "character error rate")
        return Scored(
            scores={"kind": "ctc", "samples": count, **rates, "minutes": minutes, "skipped": skipped},
            sentence=f"{words}, {characters}; {count:,} recordings",
            transcripts=[rows[place] for place in spread(len(rows), KEPT)],
        )


def prepare(config: FinetuneConfig, encoder: Encoder) -> AudioTaskConfig:
    """Set what fine-tuning changes of an encoder: layer-drop, dropout in MLPs, and whether its convolutions learn."""
    task = _task(config)
    encoder.layer_drop = task.model.layer_drop
    for block in encoder.blocks:
        assert isinstance(block, Block)
        block.mlp.dropout.p = task.model.activation_dropout
    if task.model.freeze_stem:
        freeze_stem(encoder)
    return task


def _task(config: FinetuneConfig) -> AudioTaskConfig:
    assert isinstance(config.task, AudioTaskConfig)
    return config.task
