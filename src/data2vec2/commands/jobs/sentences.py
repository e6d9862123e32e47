"""Classes of texts, and numbers for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from data2vec2.commands.finetuned import write_numbers
from data2vec2.commands.jobs.base import AnyConfig
from data2vec2.commands.jobs.classify import ClassifyJob
from data2vec2.commands.kinds import Log
from data2vec2.commands.labelled import LabelledData, look_at, open_labelled_data
from data2vec2.config import ModelConfig, TextConfig, TextDataConfig, TextFinetuneConfig
from data2vec2.data.sentence_batches import NumberTargets
from data2vec2.data.sentences import SentenceReader
from data2vec2.data.skipped import Skipped
from data2vec2.errors import UserError
from data2vec2.interop.export import ExportInfo
from data2vec2.losses import classification, squared_error
from data2vec2.models import Classifier, Encoder
from data2vec2.recipes.text_finetune import TEXT_FINETUNE_RECIPES
from data2vec2.tasks.classify import RegressTask
from data2vec2.training.run import RunFolder


class SentencesJob(ClassifyJob):
    """Classes of texts."""

    unit = "tokens"
    recipes = TEXT_FINETUNE_RECIPES
    numbers = False

    def completed(self, config: AnyConfig, info: ExportInfo) -> tuple[TextFinetuneConfig, ModelConfig]:
        """The model's tokenizer; its shape with the dropouts of fine-tuning."""
        assert isinstance(config, TextFinetuneConfig) and isinstance(info.data, TextDataConfig)
        dropout, attention_dropout = config.model.dropout, config.model.attention_dropout
        encoder = replace(info.model.encoder, dropout=dropout, attention_dropout=attention_dropout)
        return replace(config, tokenizer=info.data.tokenizer), replace(info.model, encoder=encoder)

    def open(self, config: AnyConfig, shape: ModelConfig, path: Path, val: Path | None) -> LabelledData:
        """Texts with labels; `ValueError` for a batch that has no room for the longest."""
        data = open_labelled_data(config, shape, path, val, self.numbers)
        assert isinstance(data.train, SentenceReader)
        longest, processes = int(data.train.lengths_N.max()), config.train.processes or 1
        if config.train.batch_size < longest * processes:
            raise ValueError(
                f"train.batch_size is {config.train.batch_size}; it must be at least {longest * processes:,} tokens, "
                f"so that every process has room for the longest text ({longest} tokens)"
            )
        return data

    def look(self, data: LabelledData, config: AnyConfig, log: Log) -> Skipped:
        """Labels, and rows without text."""
        skipped = look_at(data, config.data.max_bad, log)
        assert isinstance(data.train, SentenceReader)
        batches = data.train.order(config.train.batch_size)
        per_epoch = len(batches.starts)
        lengths_N = data.train.lengths_N
        log(
            f"data: {lengths_N.sum():,} tokens, at most {lengths_N.max()} in a sample; {per_epoch:,} batches are once "
            f"through the data, so {config.train.updates:,} updates are {config.train.updates / per_epoch:.1f} times"
        )
        return skipped

    def in_memory(self, data: LabelledData, config: AnyConfig) -> bool:
        """Always."""
        return True

    def model(self, config: AnyConfig, encoder: Encoder, data: LabelledData) -> Classifier:
        """The first token, or the mean."""
        assert isinstance(config, TextFinetuneConfig)
        return Classifier(encoder, data.outputs, pooling=config.model.pooling)

    def one(self, config: AnyConfig, shape: ModelConfig, model: Classifier) -> tuple[Callable[[], torch.Tensor], float]:
        """The longest text."""
        assert isinstance(shape.modality, TextConfig)
        tokens, device = min(shape.modality.max_tokens, config.train.batch_size), model.head.weight.device
        ids = torch.full((1, tokens), shape.modality.bos_id, device=device)
        lengths, target = torch.tensor([tokens], device=device), torch.zeros(1, model.head.out_features, device=device)
        return lambda: self.error(model(ids, lengths), target), float(tokens)

    def error(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss."""
        return classification(outputs, target, False)

    def show_first(self, config: AnyConfig, shape: ModelConfig, data: LabelledData, say: Log) -> None:
        """Texts and targets."""
        plan = data.train.order(config.train.batch_size)(0)
        say(f"first batch: ids {(len(plan.samples_B), plan.length)}")
        say(f"first batch: targets {(len(plan.samples_B), data.outputs)}")


class NumbersJob(SentencesJob):
    """A number for each text."""

    outputs = "number"
    numbers = True
    trained = RegressTask

    def open(self, config: AnyConfig, shape: ModelConfig, path: Path, val: Path | None) -> LabelledData:
        """Texts with numbers; `UserError` if these are all the same."""
        if config.data.labels_per_class is not None:
            raise ValueError("--data.labels-per-class is for classes; finetune regress learns from numbers")
        data = super().open(config, shape, path, val)
        mean, deviation = NumberTargets(data.train.records).scale
        if not deviation:
            raise UserError(f"all numbers of {path} are {mean:g}; there is nothing to learn from them")
        return data

    def error(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss."""
        return squared_error(outputs, target)

    def finish(
        self, run: RunFolder, config: AnyConfig, shape: ModelConfig, model: Classifier, data: LabelledData, log: Log
    ) -> None:
        """Error, correlations and the numbers that are furthest off."""
        write_numbers(run, config, shape, model, data, log)
