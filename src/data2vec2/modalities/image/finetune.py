"""What fine-tuning on pictures adds: another size, drop path, and augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from data2vec2.config import FinetuneConfig
from data2vec2.data.batch import Addition, Batch, Step
from data2vec2.data.reader import Bad
from data2vec2.errors import UsageError
from data2vec2.method.encoder import Encoder
from data2vec2.method.heads import Classifier
from data2vec2.modalities.image.augment import Augment, needs_timm
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig, ImageFinetuneDataConfig, ImageTaskConfig
from data2vec2.modalities.image.reader import ImageReader, survey
from data2vec2.modalities.info import ModelInfo
from data2vec2.modalities.jobs import FinetuneData, Job
from data2vec2.tasks.finetune import ClassTargets


@dataclass(frozen=True)
class Augmented:
    """Augments the pictures of a batch, and mixes them with their targets."""

    augment: Augment

    def __call__(self, batch: Batch, step: Step) -> Batch:
        """Depends on (seed, epoch, sample), and mixing on (seed, step, rank)."""
        assert batch.targets is not None
        pictures = self.augment.pictures(step.read.inputs, step.plan.epochs_B, step.plan.samples_B)
        inputs, targets = self.augment.mix(pictures, batch.targets, step.number, step.rank)
        return replace(batch, inputs=inputs, targets=targets)


class ImageClassifyJob(Job):
    """Classes of pictures."""

    def completed(self, config: FinetuneConfig, info: ModelInfo) -> tuple[FinetuneConfig, ModelInfo]:
        """Mean and deviation as the model has them; the shape at the image size asked for."""
        task, data = _task(config), config.data
        modality, of_model = info.model.modality, info.data
        assert isinstance(data, ImageFinetuneDataConfig)
        assert isinstance(modality, ImageConfig) and isinstance(of_model, ImageDataConfig)
        if data.mean is None or data.std is None:
            data = replace(data, mean=of_model.mean, std=of_model.std)
        elif not len(data.mean) == len(data.std) == modality.channels:
            channels = modality.channels
            raise UsageError(f"data.mean and data.std have {len(data.mean)} values; the model has {channels} channels")
        size, patch = task.model.image_size, modality.patch_size
        if size is not None and size != modality.image_size:
            if size % patch:
                raise UsageError(f"model.image_size is {size}; it must be a multiple of {patch}, the patch size")
            modality = replace(modality, image_size=size, position_size=modality.position_size or modality.image_size)
        config = replace(config, data=data)
        if needs_timm(task.augment):  # what is wrong with it is said before anything is written
            _augment(config, modality)
        return super().completed(config, replace(info, model=replace(info.model, modality=modality)))

    def check(self, data: FinetuneData) -> tuple[Sequence[Bad], int]:
        """Some of the pictures."""
        assert isinstance(data.train, ImageReader)
        found = survey(data.train)
        return found.bad, found.checked

    def in_memory(self, data: FinetuneData, config: FinetuneConfig) -> bool:
        """Arrays that are not augmented."""
        return data.train.in_memory and not needs_timm(_task(config).augment)

    def model(self, config: FinetuneConfig, encoder: Encoder, data: FinetuneData) -> Classifier:
        """Mean of the patches."""
        return Classifier(encoder, data.outputs, _task(config).model.drop_path)

    def additions(
        self, config: FinetuneConfig, info: ModelInfo, data: FinetuneData, model: nn.Module
    ) -> list[Addition]:
        """Classes, smoothed, and augmentation."""
        augment, modality = _task(config).augment, info.model.modality
        assert isinstance(modality, ImageConfig)
        targets = ClassTargets(data.train.records, augment.label_smoothing)
        return [targets, Augmented(_augment(config, modality))] if needs_timm(augment) else [targets]


def _augment(config: FinetuneConfig, modality: ImageConfig) -> Augment:
    data = config.data
    assert isinstance(data, ImageFinetuneDataConfig)
    size, seed = modality.image_size, config.train.seed
    return Augment(_task(config).augment, size, data.mean or (), data.std or (), seed)


def _task(config: FinetuneConfig) -> ImageTaskConfig:
    assert isinstance(config.task, ImageTaskConfig)
    return config.task
