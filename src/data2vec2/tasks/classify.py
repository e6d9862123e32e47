"""Fine-tuning: classes of pictures, one each or several."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from data2vec2.config import FinetuneConfig
from data2vec2.data.augment import Augment, needs_timm
from data2vec2.data.image import ImageReader
from data2vec2.data.labelled import LabelledBatch, LabelledBatches
from data2vec2.data.loader import iterate
from data2vec2.data.reader import Bad
from data2vec2.data.skipped import Skipped
from data2vec2.evaluation.classification import headline, predict
from data2vec2.evaluation.features import Normalise
from data2vec2.losses import classification
from data2vec2.models import Classifier
from data2vec2.training.loop import Sums
from data2vec2.training.parallel import ALONE, World


class ClassifyTask:
    """A classifier on labelled pictures."""

    ema = None

    def __init__(
        self,
        model: Classifier,
        config: FinetuneConfig,
        train: ImageReader,
        val: ImageReader | None,
        device: torch.device,
        skipped: Skipped,
        skipped_path: Path,
        world: World = ALONE,
    ) -> None:
        """`val` (never trained on) chooses the best model. All records of both have labels; data.mean and std are set.

        Raises `UserError` if the augmentation needs timm and that is missing.
        """
        self.model, self.config, self.train, self.val, self.device = model, config, train, val, device
        self.skipped, self.skipped_path, self.world = skipped, skipped_path, world
        data, seed, batch_size = config.data, config.train.seed, config.train.batch_size
        assert data.mean is not None and data.std is not None
        self.normalise = Normalise(data.mean, data.std, device)
        self.multi_label = train.records.tags is not None
        self.monitor = f"val_{'map' if self.multi_label else 'accuracy'}"
        augment = None
        if needs_timm(config.augment):
            augment = Augment(config.augment, train.config.image_size, data.mean, data.std, seed)
        order = train.order(batch_size)
        self.dataset = LabelledBatches(train, order, config.augment.label_smoothing, augment, world.rank, world.size)
        self._bad: list[Bad] = []

    def batches(self, start: int, stop: int) -> Iterator[LabelledBatch]:
        """Batches of the given steps; notes what could not be read."""
        workers = self.config.data.workers or 0
        for batch in iterate(self.dataset, start, stop, workers=workers, pin_memory=self.device.type == "cuda"):
            self._bad += batch.bad
            yield batch

    def loss(self, model: nn.Module, batch: LabelledBatch) -> Sums:
        """The cross-entropy, summed over samples."""
        logits_BC = model(self.normalise(batch.inputs))
        return Sums(classification(logits_BC, batch.targets_BC, self.multi_label), len(batch))

    def figures(self, step: int) -> dict[str, float]:
        """Nothing more; counts bad samples."""
        bad = self.world.collect(f"bad-{step}", [(item.name, item.reason) for item in self._bad])
        self._bad.clear()
        if self.skipped.add(Bad(name, reason) for part in bad for name, reason in part):
            self.skipped.write(self.skipped_path)
        return {}

    def evaluate(self, step: int) -> dict[str, float]:
        """Loss, and accuracy or mean average precision, on the validation part."""
        if self.val is None:
            return {}
        predictions = predict(self.model, self.val, self.normalise, self.device)
        return {f"val_{name}": value for name, value in headline(predictions).items()}
