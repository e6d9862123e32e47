"""What fine-tuning on text adds: dropouts, and a batch that counts tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from data2vec2.config.run import FinetuneConfig
from data2vec2.config.tree import require
from data2vec2.data.account import Bad
from data2vec2.data.reader import Reader
from data2vec2.method.encoder import Encoder
from data2vec2.method.heads import Classifier
from data2vec2.modalities.data import Log, ModelInfo, Survey, narrow
from data2vec2.modalities.jobs import FinetuneData, Job, RegressJob, Sized
from data2vec2.modalities.text.config import TextTaskConfig
from data2vec2.modalities.text.reader import SentenceReader, Texts


class TextClassifyJob(Job):
    """Classes of texts."""

    def completed(self, config: FinetuneConfig, info: ModelInfo) -> tuple[FinetuneConfig, ModelInfo]:
        """The model's tokenizer; its shape with the dropouts of fine-tuning."""
        model, reading = narrow(config.task, TextTaskConfig).model, info.data
        encoder = replace(info.model.encoder, dropout=model.dropout, attention_dropout=model.attention_dropout)
        config, info = super().completed(config, replace(info, model=replace(info.model, encoder=encoder)))
        return config, replace(info, data=reading, columns=self.tools.columns(config.data).text)

    def open(self, config: FinetuneConfig, info: ModelInfo, path: str, val: str | None) -> FinetuneData:
        """Texts with labels or numbers; `UsageError` for a batch that has no room for the longest."""
        data = super().open(config, info, path, val)
        longest, size = int(narrow(data.train, SentenceReader).lengths_N.max()), config.train.batch_size
        room = longest * (config.train.processes or 1)
        why = f"so that every process has room for the longest text ({longest} tokens)"
        require(size >= room, "train.batch_size", size, f"at least {room:,} tokens, {why}")
        return data

    def check(self, reader: Reader, log: Log, training: bool) -> Survey:
        """Rows without text."""
        return Survey(len(reader.records), tuple(_without_text(reader)))

    def look(self, data: FinetuneData, config: FinetuneConfig, log: Any) -> None:
        """Labels, rows without text, and how long texts are."""
        super().look(data, config, log)
        lengths_N = narrow(data.train, SentenceReader).lengths_N
        log(f"data: {lengths_N.sum():,} tokens, at most {lengths_N.max()} in a sample")
        for key, one in data.readers.items():
            reader = narrow(one, SentenceReader)
            longest = reader.config.max_tokens
            if reader.records.marks is None and (full := int((reader.lengths_N == longest).sum())):
                what = f"{full:,} of {len(reader.records):,} {key} texts fill all {longest} tokens"
                data.account.remarks.append(f"{what}; what is longer is cut")
                log(f"data: {data.account.remarks[-1]}")

    def model(self, config: FinetuneConfig, encoder: Encoder, data: FinetuneData) -> Classifier:
        """The first token, or the mean."""
        return Classifier(encoder, data.outputs, pooling=narrow(config.task, TextTaskConfig).model.pooling)

    def finished(self, model: nn.Module, info: ModelInfo, data: FinetuneData) -> ModelInfo:
        """And the columns that were read."""
        info = super().finished(model, info, data)
        return replace(info, columns=narrow(data.train.records.source, Texts).columns or info.columns)

    def largest(self, config: FinetuneConfig, info: ModelInfo, model: nn.Module, count: int) -> Sized:
        """The longest texts."""
        device = next(model.parameters()).device
        ids = self.tools.largest(info.model, info.data).inputs[:, : config.train.batch_size].to(device)
        ids = ids.repeat_interleave(count, 0)
        lengths = torch.full((count,), ids.shape[1], device=device)
        return Sized(lambda: self.error(model(ids, lengths)), float(ids.numel()))


def _without_text(reader: Reader) -> list[Bad]:
    """Rows that can't be used."""
    texts, names = narrow(reader, SentenceReader).texts, reader.records.names
    return [Bad(name, fault) for place, name in enumerate(names) if (fault := texts.fault(place))]


class TextRegressJob(TextClassifyJob, RegressJob):
    """A number for each text."""
