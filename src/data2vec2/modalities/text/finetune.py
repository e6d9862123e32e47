"""What fine-tuning on text adds: dropouts, and a batch that counts tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from data2vec2.config.run import FinetuneConfig
from data2vec2.data.reader import Bad, Skipped
from data2vec2.errors import UsageError
from data2vec2.method.encoder import Encoder
from data2vec2.method.heads import Classifier
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.jobs import FinetuneData, Job, RegressJob, Sized
from data2vec2.modalities.text.config import TextConfig, TextTaskConfig
from data2vec2.modalities.text.reader import NO_TEXT, SentenceReader


class TextClassifyJob(Job):
    """Classes of texts."""

    def completed(self, config: FinetuneConfig, info: ModelInfo) -> tuple[FinetuneConfig, ModelInfo]:
        """The model's tokenizer; its shape with the dropouts of fine-tuning."""
        model, reading = _task(config).model, info.data
        encoder = replace(info.model.encoder, dropout=model.dropout, attention_dropout=model.attention_dropout)
        config, info = super().completed(config, replace(info, model=replace(info.model, encoder=encoder)))
        return config, replace(info, data=reading)

    def open(self, config: FinetuneConfig, info: ModelInfo, path: Path, val: Path | None) -> FinetuneData:
        """Texts with labels or numbers; `UsageError` for a batch that has no room for the longest."""
        data = super().open(config, info, path, val)
        longest, processes = int(_lengths(data).max()), config.train.processes or 1
        if config.train.batch_size < longest * processes:
            raise UsageError(
                f"train.batch_size is {config.train.batch_size}; it must be at least {longest * processes:,} tokens, "
                f"so that every process has room for the longest text ({longest} tokens)"
            )
        return data

    def check(self, data: FinetuneData) -> tuple[Sequence[Bad], int]:
        """Rows without text."""
        names, empty = data.train.records.names, np.flatnonzero(_lengths(data) == 0)
        return [Bad(names[place], NO_TEXT) for place in empty.tolist()], len(names)

    def look(self, data: FinetuneData, config: FinetuneConfig, log: Any) -> Skipped:
        """Labels, rows without text, and how often a run goes through the data."""
        skipped, lengths_N = super().look(data, config, log), _lengths(data)
        per_epoch = len(data.train.order(config.train.batch_size).starts)  # type: ignore[attr-defined]
        log(
            f"data: {lengths_N.sum():,} tokens, at most {lengths_N.max()} in a sample; {per_epoch:,} batches are once "
            f"through the data, so {config.train.updates:,} updates are {config.train.updates / per_epoch:.1f} times"
        )
        return skipped

    def model(self, config: FinetuneConfig, encoder: Encoder, data: FinetuneData) -> Classifier:
        """The first token, or the mean."""
        return Classifier(encoder, data.outputs, pooling=_task(config).model.pooling)

    def largest(self, config: FinetuneConfig, info: ModelInfo, model: nn.Module) -> Sized:
        """The longest text."""
        modality, device = info.model.modality, next(model.parameters()).device
        assert isinstance(modality, TextConfig)
        tokens = min(modality.max_tokens, config.train.batch_size)
        ids = torch.full((1, tokens), modality.bos_id, device=device)
        lengths = torch.tensor([tokens], device=device)
        return Sized(lambda: self.error(model(ids, lengths)), float(tokens))


class TextRegressJob(TextClassifyJob, RegressJob):
    """A number for each text."""


def _lengths(data: FinetuneData) -> Any:
    assert isinstance(data.train, SentenceReader)
    return data.train.lengths_N


def _task(config: FinetuneConfig) -> TextTaskConfig:
    assert isinstance(config.task, TextTaskConfig)
    return config.task
