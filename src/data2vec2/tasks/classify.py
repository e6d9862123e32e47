"""Fine-tuning: classes of pictures, recordings or texts, one each or several, and numbers of texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from data2vec2.config import AnyFinetuneConfig, AudioFinetuneConfig, FinetuneConfig
from data2vec2.data.audio import AudioReader
from data2vec2.data.augment import Augment, needs_timm
from data2vec2.data.image import ImageReader
from data2vec2.data.labelled import LabelledBatch, LabelledBatches
from data2vec2.data.sentence_batches import NumberTargets, SentenceBatches
from data2vec2.data.sentences import SentenceReader
from data2vec2.data.skipped import Skipped
from data2vec2.data.span_batches import ClassTargets, SpanBatch, SpanBatches, Targets
from data2vec2.evaluation.classification import headline, predict
from data2vec2.evaluation.features import Normalise
from data2vec2.evaluation.regression import correlations, predict_numbers
from data2vec2.losses import classification, squared_error
from data2vec2.models import Classifier
from data2vec2.tasks.reading import Reading
from data2vec2.training.loop import Sums
from data2vec2.training.parallel import ALONE, World

AnyReader = ImageReader | AudioReader | SentenceReader


class ClassifyTask:
    """A classifier on labelled pictures, recordings or texts."""

    ema = None

    def __init__(
        self,
        model: Classifier,
        config: AnyFinetuneConfig,
        train: AnyReader,
        val: AnyReader | None,
        device: torch.device,
        skipped: Skipped,
        skipped_path: Path,
        world: World = ALONE,
    ) -> None:
        """`val` (never trained on) chooses the best model. All records of both have labels; data.mean and std are set.

        Raises `UserError` if the augmentation needs timm and that is missing.
        """
        self.model, self.val, self.device = model, val, device
        self.multi_label = train.records.tags is not None
        self.monitor = f"val_{'map' if self.multi_label else 'accuracy'}"
        self.normalise: Callable[[Tensor], Tensor] = lambda inputs: inputs
        if isinstance(train, ImageReader):
            assert isinstance(config, FinetuneConfig) and config.data.mean is not None and config.data.std is not None
            self.normalise = Normalise(config.data.mean, config.data.std, device)
        dataset = _dataset(config, train, self.targets(train), model, world)
        self._reading = Reading(dataset, config.data.workers or 0, device, skipped, skipped_path, world)

    def targets(self, train: AnyReader) -> Targets:
        """What the model should say of samples."""
        return ClassTargets(train.records)

    def batches(self, start: int, stop: int) -> Iterator[LabelledBatch | SpanBatch]:
        """Batches of the given steps; notes what could not be read."""
        return self._reading.batches(start, stop)

    def loss(self, model: nn.Module, batch: LabelledBatch | SpanBatch) -> Sums:
        """The loss, summed over samples."""
        if isinstance(batch, LabelledBatch):
            outputs, targets = model(self.normalise(batch.inputs)), batch.targets_BC
        else:
            masks = batch.time_masks_BT, batch.channel_masks_BD
            outputs = model(batch.inputs, batch.lengths_B, *masks, freeze_encoder=batch.freeze_encoder)
            targets = batch.targets
        return Sums(self.error(outputs, targets), len(batch))

    def error(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The cross-entropy, summed over samples."""
        return classification(outputs, targets, self.multi_label)

    def figures(self, step: int) -> dict[str, float]:
        """Nothing more; counts bad samples."""
        self._reading.count(step)
        return {}

    def evaluate(self, step: int) -> dict[str, float]:
        """Loss, accuracy, F1 and Matthews' coefficient, or mean average precision, on the validation part."""
        if self.val is None:
            return {}
        predictions = predict(self.model, self.val, self.normalise, self.device)
        return {f"val_{name}": value for name, value in headline(predictions).items()}


class RegressTask(ClassifyTask):
    """A model that gives a number for each text; learned standardised, validated as they are."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        """As of `ClassifyTask`; all records have numbers, which are not all the same."""
        super().__init__(*arguments, **more)
        self.monitor = "val_pearson"

    def targets(self, train: AnyReader) -> Targets:
        """Standardised numbers."""
        self.numbers = NumberTargets(train.records)
        return self.numbers

    def error(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The squared error, summed over samples."""
        return squared_error(outputs, targets)

    def evaluate(self, step: int) -> dict[str, float]:
        """Mean squared error and correlations on the validation part."""
        if self.val is None:
            return {}
        numbers = predict_numbers(self.model, self.val, self.device).rescaled(*self.numbers.scale)
        return {f"val_{name}": value for name, value in correlations(numbers).items()}


def _dataset(
    config: AnyFinetuneConfig, train: AnyReader, targets: Targets, model: Classifier, world: World
) -> Dataset[Any]:
    """Batches to learn from."""
    if isinstance(train, ImageReader):
        return _pictures(config, train, world)
    if isinstance(train, AudioReader):
        return _sounds(config, train, targets, model, world)
    return SentenceBatches(train, train.order(config.train.batch_size), targets, world.rank, world.size)


def _pictures(config: AnyFinetuneConfig, train: ImageReader, world: World) -> LabelledBatches:
    """Batches of pictures with augmentation."""
    assert isinstance(config, FinetuneConfig)
    data, seed, augment = config.data, config.train.seed, None
    if needs_timm(config.augment):
        augment = Augment(config.augment, train.config.image_size, data.mean or (), data.std or (), seed)
    order = train.order(config.train.batch_size)
    return LabelledBatches(train, order, config.augment.label_smoothing, augment, world.rank, world.size)


def _sounds(
    config: AnyFinetuneConfig, train: AudioReader, targets: Targets, model: Classifier, world: World
) -> SpanBatches:
    """Batches of recordings with masks."""
    assert isinstance(config, AudioFinetuneConfig)
    order, width = train.order(config.train.batch_size), model.encoder.config.embed_dim
    frozen = config.model.freeze_updates
    return SpanBatches(train, order, targets, config.masks, width, frozen, world.rank, world.size)
