"""What fine-tuning on pictures adds: another size, drop path, and timm's augmentation as the authors used it.

timm draws from three global generators. Here they are seeded around every call from (seed, epoch, sample) or (seed,
step, rank) and put back after it, so results depend on nothing else, and nothing else depends on them.

Shapes: `B` samples, `C` channels, `H` and `W` pixels.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import data2vec2.modalities.image.config as image
from data2vec2 import rng
from data2vec2.config.model import ModalityConfig
from data2vec2.config.run import FinetuneConfig
from data2vec2.config.tree import require
from data2vec2.data.batch import Addition, Batch, Step
from data2vec2.errors import UsageError, UserError
from data2vec2.method.encoder import Encoder
from data2vec2.method.heads import Classifier
from data2vec2.modalities.data import ModelInfo, narrow
from data2vec2.modalities.image.reader import ImageReader
from data2vec2.modalities.jobs import FinetuneData, Job, refuse_unused
from data2vec2.tasks.finetune import ClassTargets


class Augment:
    """What a configuration asks of timm, added to batches. Can be pickled."""

    def __init__(
        self, config: image.AugmentConfig, image_size: int, mean: tuple[float, ...], std: tuple[float, ...], seed: int
    ) -> None:
        """Mean and deviation of channels, from 0 to 1. `UserError` without timm, `UsageError` for a policy it lacks."""
        self.config, self.seed = config, seed
        self.mean_C11, self.std_C11 = (255 * torch.tensor(values).view(-1, 1, 1) for values in (mean, std))
        timm_data = _timm_data()
        allowed = config.rand_augment is None or len(mean) in (1, 3)
        require(allowed, "augment.rand_augment", config.rand_augment, f"None for pictures of {len(mean)} channels")
        self.rand_augment = self.eraser = None
        if config.rand_augment is not None:
            fill = tuple(min(255, round(255 * value)) for value in (mean if len(mean) == 3 else mean * 3))
            hints = {"translate_const": int(image_size * 0.45), "img_mean": fill, "interpolation": 3}  # 3: bicubic
            try:
                self.rand_augment = timm_data.rand_augment_transform(config.rand_augment, hints)
            except (AssertionError, ValueError, KeyError) as error:
                expected = "a policy of timm's, as in rand-m9-mstd0.5-inc1"
                raise UsageError(f"augment.rand_augment is {config.rand_augment!r}; it must be {expected}") from error
            for operation in self.rand_augment.ops:
                if operation.name.startswith("Posterize"):
                    operation.level_fn = partial(_one_or_more, operation.level_fn)
        if config.erasing:
            self.eraser = timm_data.random_erasing.RandomErasing(config.erasing, mode="pixel", device="cpu")

    def __call__(self, batch: Batch, step: Step) -> Batch:
        """Pictures by (seed, epoch, sample), mixed with each other and their targets by (seed, step, rank)."""
        assert batch.targets is not None
        pictures = self.pictures(step.read.inputs, step.plan.epochs_B, step.plan.samples_B)
        inputs, targets = self.mix(pictures, batch.targets, step.number, step.rank)
        return replace(batch, inputs=inputs, targets=targets)

    def pictures(
        self, pixels_BCHW: NDArray[np.uint8], epochs_B: NDArray[np.int64], samples_B: NDArray[np.int64]
    ) -> Tensor:
        """Augment each picture by itself; the result is float32 where erasing is on, else uint8."""
        keys = rng.keys(rng.Stream.AUGMENT, self.seed, epochs_B, samples_B)
        return torch.stack([self._picture(pixels, key) for pixels, key in zip(pixels_BCHW, keys, strict=True)])

    def _picture(self, pixels_CHW: NDArray[np.uint8], key: NDArray[np.uint64]) -> Tensor:
        with _seeded(key):
            if self.rand_augment is not None:
                pixels_CHW = self._rand_augment(pixels_CHW)
            picture_CHW = torch.from_numpy(pixels_CHW)
            if self.eraser is None:
                return picture_CHW
            # timm's noise is N(0, 1), the distribution of normalised values.
            normal_CHW: Tensor = self.eraser((picture_CHW.float() - self.mean_C11) / self.std_C11)
            return normal_CHW * self.std_C11 + self.mean_C11

    def _rand_augment(self, pixels_CHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Timm's operations are for colour; a grey picture is coloured for them and made grey again."""
        assert self.rand_augment is not None
        grey = len(pixels_CHW) == 1
        colour = np.repeat(pixels_CHW, 3, axis=0) if grey else pixels_CHW
        picture = self.rand_augment(Image.fromarray(np.ascontiguousarray(colour.transpose(1, 2, 0))))
        values = np.asarray(picture.convert("L") if grey else picture)
        return np.array(values[None] if grey else values.transpose(2, 0, 1), order="C")

    def mix(self, pixels_BCHW: Tensor, targets_BC: Tensor, step: int, rank: int) -> tuple[Tensor, Tensor]:
        """Blend each picture and its targets with those of the batch's mirror place; B must be even."""
        if not self.config.mixes:
            return pixels_BCHW, targets_BC
        B = len(pixels_BCHW)
        alphas = (self.config.mixup, self.config.cutmix)
        shares = {"prob": self.config.mix_share, "switch_prob": self.config.cutmix_share}
        mixup = _timm_data().Mixup(*alphas, **shares, label_smoothing=0.0, num_classes=B)
        with _seeded(rng.keys(rng.Stream.MIX, self.seed, step, rank)):
            # With every picture a class of its own, timm's targets are the weights of the pictures.
            mixed_BCHW, weights_BB = mixup(pixels_BCHW.float(), torch.arange(B))
        return mixed_BCHW, weights_BB @ targets_BC


def needs_timm(config: image.AugmentConfig) -> bool:
    """Whether anything is on that timm does."""
    return bool(config.rand_augment is not None or config.erasing or config.mixes)


def _timm_data() -> Any:
    """`timm.data`; `UserError` where it can't be imported."""
    try:
        return importlib.import_module("timm.data")
    except Exception as error:  # a torchvision made for another torch raises whatever it likes
        raise UserError(
            f"RandAugment, erasing, Mixup and CutMix need timm, which can't be imported ({error}): "
            "pip install 'data2vec2[vision]', or turn them off (--augment.rand-augment None --augment.erasing 0 "
            "--augment.mixup 0 --augment.cutmix 0)"
        ) from error


def _one_or_more(level_fn: Callable[[float, Any], tuple[int, ...]], level: float, hints: Any) -> tuple[int, ...]:
    """Bits that Posterize keeps: its highest level would keep none, a black picture, which Pillow 13 refuses."""
    return tuple(max(1, bits) for bits in level_fn(level, hints))


@contextmanager
def _seeded(key: NDArray[np.uint64]) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and PyTorch (CPU) inside the block."""
    seed = rng.seed_of(key)
    python, numpy, torch_cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(torch_cpu)


class ImageClassifyJob(Job):
    """Classes of pictures."""

    def completed(self, config: FinetuneConfig, info: ModelInfo) -> tuple[FinetuneConfig, ModelInfo]:
        """Mean and deviation as the model has them; the shape at the image size asked for."""
        task, data = narrow(config.task, image.ImageTaskConfig), narrow(config.data, image.ImageFinetuneDataConfig)
        modality, of_model = narrow(info.model.modality, image.ImageConfig), narrow(info.data, image.ImageDataConfig)
        if data.mean is None or data.std is None:
            config = replace(config, data=replace(data, mean=of_model.mean, std=of_model.std))
        elif not len(data.mean) == len(data.std) == (channels := modality.channels):
            raise UsageError(f"data.mean and data.std have {len(data.mean)} values; the model has {channels} channels")
        if data.levels is None:
            known = narrow(config.data, image.ImageFinetuneDataConfig)
            config = replace(config, data=replace(known, levels=of_model.levels))
        size, patch = task.model.image_size, modality.patch_size
        if size is not None and size != modality.image_size:
            require(size % patch == 0, "model.image_size", size, f"a multiple of {patch}, the patch size")
            modality = replace(modality, image_size=size, position_size=modality.position_size or modality.image_size)
        refuse_unused(config, () if task.augment.mixes else ("task.augment.mix_share",))
        refuse_unused(config, () if task.augment.mixup and task.augment.cutmix else ("task.augment.cutmix_share",))
        if needs_timm(task.augment):  # what is wrong with it is said before anything is written
            _augment(config, modality)
        return super().completed(config, replace(info, model=replace(info.model, modality=modality)))

    def fitted(
        self, config: FinetuneConfig, info: ModelInfo, data: FinetuneData
    ) -> tuple[FinetuneConfig, ModelInfo, FinetuneData]:
        """Levels of the training data, if the model has none."""
        known = narrow(config.data, image.ImageFinetuneDataConfig)
        if known.levels or not data.train.records.levels:
            return config, info, data
        known = replace(known, levels=data.train.records.levels)
        for part in (data.train, data.val, data.test):
            if isinstance(part, ImageReader):
                part.data = known
        return replace(config, data=known), replace(info, data=known), data

    def in_memory(self, data: FinetuneData, config: FinetuneConfig) -> bool:
        """Arrays that are not augmented."""
        return data.train.in_memory and not needs_timm(narrow(config.task, image.ImageTaskConfig).augment)

    def model(self, config: FinetuneConfig, encoder: Encoder, data: FinetuneData) -> Classifier:
        """Mean of the patches."""
        return Classifier(encoder, data.outputs, narrow(config.task, image.ImageTaskConfig).model.drop_path)

    def additions(self, config: FinetuneConfig, info: ModelInfo, data: FinetuneData) -> list[Addition]:
        """Classes, smoothed, and augmentation."""
        augment = narrow(config.task, image.ImageTaskConfig).augment
        targets = ClassTargets(data.train.records, augment.label_smoothing)
        return [targets, _augment(config, info.model.modality)] if needs_timm(augment) else [targets]


def _augment(config: FinetuneConfig, modality: ModalityConfig) -> Augment:
    task, data = narrow(config.task, image.ImageTaskConfig), narrow(config.data, image.ImageFinetuneDataConfig)
    size = narrow(modality, image.ImageConfig).image_size
    return Augment(task.augment, size, data.mean or (), data.std or (), config.train.seed)
