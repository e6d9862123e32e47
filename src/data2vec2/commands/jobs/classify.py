"""Classes of pictures and of recordings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from data2vec2.commands.finetuned import write_result
from data2vec2.commands.jobs.base import AnyConfig
from data2vec2.commands.jobs.sounds import audio_config, checked, prepare, survey
from data2vec2.commands.kinds import Log
from data2vec2.commands.labelled import LabelledData, look_at, open_labelled_data
from data2vec2.config import AudioFinetuneConfig, FinetuneConfig, ImageConfig, ModelConfig
from data2vec2.data.audio import AudioReader
from data2vec2.data.augment import Augment, needs_timm
from data2vec2.data.skipped import Skipped
from data2vec2.interop.export import ExportInfo
from data2vec2.losses import classification
from data2vec2.models import Classifier, Encoder
from data2vec2.recipes.finetune import FINETUNE_RECIPES
from data2vec2.recipes.speech import CLASSIFY_RECIPES
from data2vec2.tasks.classify import ClassifyTask
from data2vec2.training.parallel import World
from data2vec2.training.run import RunFolder


class ClassifyJob:
    """What is the same for all modalities."""

    outputs = "classes"
    trained: type[ClassifyTask] = ClassifyTask

    def task(
        self,
        model: Classifier,
        config: AnyConfig,
        data: LabelledData,
        device: torch.device,
        skipped: Skipped,
        run: RunFolder,
        world: World,
        log: Log,
    ) -> ClassifyTask:
        """What the loop trains: cross-entropy, unless `trained` is another."""
        return self.trained(model, config, data.train, data.val, device, skipped, run.path / "skipped.jsonl", world)

    def open(self, config: AnyConfig, shape: ModelConfig, path: Path, val: Path | None) -> LabelledData:
        """Samples with labels."""
        return open_labelled_data(config, shape, path, val)

    def finish(
        self, run: RunFolder, config: AnyConfig, shape: ModelConfig, model: Classifier, data: LabelledData, log: Log
    ) -> None:
        """Scores and mistakes."""
        write_result(run, config, shape, model, data, log)


class PicturesJob(ClassifyJob):
    """Classes of pictures."""

    unit = "pictures"
    recipes = FINETUNE_RECIPES

    def completed(self, config: AnyConfig, info: ExportInfo) -> tuple[FinetuneConfig, ModelConfig]:
        """Mean and deviation as the model has them; the shape at the image size asked for."""
        assert isinstance(config, FinetuneConfig)
        (modality, of_model), data = info.image, config.data
        channels = modality.channels
        if data.mean is None or data.std is None:
            data = replace(data, mean=of_model.mean, std=of_model.std)
        elif not len(data.mean) == len(data.std) == channels:
            raise ValueError(f"data.mean and data.std have {len(data.mean)} values; the model has {channels} channels")
        size = config.model.image_size
        if size is not None and size != modality.image_size:
            if size % modality.patch_size:
                raise ValueError(
                    f"model.image_size is {size}; it must be a multiple of {modality.patch_size}, the patch size"
                )
            modality = replace(modality, image_size=size, position_size=modality.position_size or modality.image_size)
        config = replace(config, data=data)
        if needs_timm(config.augment):  # what is wrong with it is said before anything is written
            Augment(config.augment, modality.image_size, data.mean or (), data.std or (), config.train.seed)
        return config, replace(info.model, modality=modality)

    def look(self, data: LabelledData, config: AnyConfig, log: Log) -> Skipped:
        """Labels and some of the pictures."""
        return look_at(data, config.data.max_bad, log)

    def in_memory(self, data: LabelledData, config: AnyConfig) -> bool:
        """Arrays that are not augmented."""
        assert isinstance(config, FinetuneConfig)
        return data.train.records.source.in_memory and not needs_timm(config.augment)

    def model(self, config: AnyConfig, encoder: Encoder, data: LabelledData) -> Classifier:
        """Mean of the patches."""
        assert isinstance(config, FinetuneConfig)
        return Classifier(encoder, data.outputs, config.model.drop_path)

    def one(self, config: AnyConfig, shape: ModelConfig, model: Classifier) -> tuple[Callable[[], torch.Tensor], float]:
        """A picture."""
        modality, device = shape.modality, model.head.weight.device
        assert isinstance(modality, ImageConfig)
        picture = torch.zeros(1, modality.channels, modality.image_size, modality.image_size, device=device)
        target = torch.zeros(1, model.head.out_features, device=device)
        return lambda: classification(model(picture), target, False), 1.0

    def show_first(self, config: AnyConfig, shape: ModelConfig, data: LabelledData, say: Log) -> None:
        """Pictures and targets."""
        modality, batch = shape.modality, config.train.batch_size
        assert isinstance(modality, ImageConfig)
        say(f"first batch: pictures {(batch, modality.channels, modality.image_size, modality.image_size)}")
        say(f"first batch: targets {(batch, data.outputs)}")


class SoundsJob(ClassifyJob):
    """Classes of recordings."""

    unit = "seconds of audio"
    recipes = CLASSIFY_RECIPES

    def completed(self, config: AnyConfig, info: ExportInfo) -> tuple[AudioFinetuneConfig, ModelConfig]:
        """Nothing is frozen from scratch."""
        assert isinstance(config, AudioFinetuneConfig)
        return checked(config, info), info.model

    def look(self, data: LabelledData, config: AnyConfig, log: Log) -> Skipped:
        """Labels and some of the recordings."""
        skipped = look_at(data, config.data.max_bad, log)
        assert isinstance(data.train, AudioReader)
        survey(data.train, skipped, log)
        return skipped

    def in_memory(self, data: LabelledData, config: AnyConfig) -> bool:
        """Never: decoding takes time."""
        return False

    def model(self, config: AnyConfig, encoder: Encoder, data: LabelledData) -> Classifier:
        """Pooled over time."""
        assert isinstance(config, AudioFinetuneConfig)
        prepare(config, encoder)
        model = Classifier(encoder, data.outputs, 0.0, config.model.pooling, config.masks.noise_std)
        model.skips_parts = config.model.freeze_updates > 0
        return model

    def one(self, config: AnyConfig, shape: ModelConfig, model: Classifier) -> tuple[Callable[[], torch.Tensor], float]:
        """The longest crop."""
        assert isinstance(config, AudioFinetuneConfig)
        device, seconds = model.head.weight.device, config.data.max_seconds
        wave = torch.zeros(1, int(seconds * audio_config(shape).sample_rate), device=device)
        target = torch.zeros(1, model.head.out_features, device=device)
        return lambda: classification(model(wave), target, False), seconds

    def show_first(self, config: AnyConfig, shape: ModelConfig, data: LabelledData, say: Log) -> None:
        """Recordings and targets."""
        plan = data.train.order(config.train.batch_size)(0)
        say(f"first batch: recordings {(len(plan.samples_B), plan.length)}")
        say(f"first batch: targets {(len(plan.samples_B), data.outputs)}")
