"""Fine-tuning: classes of pictures or recordings, one each or several."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from data2vec2.config import AudioFinetuneConfig, FinetuneConfig
from data2vec2.data.audio import AudioReader
from data2vec2.data.augment import Augment, needs_timm
from data2vec2.data.image import ImageReader
from data2vec2.data.labelled import LabelledBatch, LabelledBatches
from data2vec2.data.skipped import Skipped
from data2vec2.data.span_batches import ClassTargets, SpanBatch, SpanBatches
from data2vec2.evaluation.classification import headline, predict
from data2vec2.evaluation.features import Normalise
from data2vec2.losses import classification
from data2vec2.models import Classifier
from data2vec2.tasks.reading import Reading
from data2vec2.training.loop import Sums
from data2vec2.training.parallel import ALONE, World


class ClassifyTask:
    """A classifier on labelled pictures or recordings."""

    ema = None

    def __init__(
        self,
        model: Classifier,
        config: FinetuneConfig | AudioFinetuneConfig,
        train: ImageReader | AudioReader,
        val: ImageReader | AudioReader | None,
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
        self.normalise: Callable[[Tensor], Tensor] = lambda waveforms_BS: waveforms_BS
        if isinstance(train, ImageReader):
            assert isinstance(config, FinetuneConfig) and config.data.mean is not None and config.data.std is not None
            self.normalise = Normalise(config.data.mean, config.data.std, device)
        dataset = (
            _pictures(config, train, world) if isinstance(train, ImageReader) else _sounds(config, train, model, world)
        )
        self._reading = Reading(dataset, config.data.workers or 0, device, skipped, skipped_path, world)

    def batches(self, start: int, stop: int) -> Iterator[LabelledBatch | SpanBatch]:
        """Batches of the given steps; notes what could not be read."""
        return self._reading.batches(start, stop)

    def loss(self, model: nn.Module, batch: LabelledBatch | SpanBatch) -> Sums:
        """The cross-entropy, summed over samples."""
        if isinstance(batch, LabelledBatch):
            logits_BC, targets_BC = model(self.normalise(batch.inputs)), batch.targets_BC
        else:
            masks = batch.time_masks_BT, batch.channel_masks_BD
            logits_BC = model(batch.inputs, batch.lengths_B, *masks, freeze_encoder=batch.freeze_encoder)
            targets_BC = batch.targets
        return Sums(classification(logits_BC, targets_BC, self.multi_label), len(batch))

    def figures(self, step: int) -> dict[str, float]:
        """Nothing more; counts bad samples."""
        self._reading.count(step)
        return {}

    def evaluate(self, step: int) -> dict[str, float]:
        """Loss, and accuracy or mean average precision, on the validation part."""
        if self.val is None:
            return {}
        predictions = predict(self.model, self.val, self.normalise, self.device)
        return {f"val_{name}": value for name, value in headline(predictions).items()}


def _pictures(config: FinetuneConfig | AudioFinetuneConfig, train: ImageReader, world: World) -> LabelledBatches:
    """Batches of pictures with augmentation."""
    assert isinstance(config, FinetuneConfig)
    data, seed, augment = config.data, config.train.seed, None
    if needs_timm(config.augment):
        augment = Augment(config.augment, train.config.image_size, data.mean or (), data.std or (), seed)
    order = train.order(config.train.batch_size)
    return LabelledBatches(train, order, config.augment.label_smoothing, augment, world.rank, world.size)


def _sounds(
    config: FinetuneConfig | AudioFinetuneConfig, train: AudioReader, model: Classifier, world: World
) -> SpanBatches:
    """Batches of recordings with masks."""
    assert isinstance(config, AudioFinetuneConfig)
    order, width = train.order(config.train.batch_size), model.encoder.config.embed_dim
    frozen, targets = config.model.freeze_updates, ClassTargets(train.records)
    return SpanBatches(train, order, targets, config.masks, width, frozen, world.rank, world.size)
