"""Recipes for images: as the authors released them, and small ones for a CPU."""

from __future__ import annotations

from dataclasses import replace

import data2vec2.modalities.image.config as image
from data2vec2.config.model import DecoderConfig, EncoderConfig, LossConfig, MaskConfig, ModelConfig, TargetConfig
from data2vec2.config.run import (
    EmaConfig,
    FinetuneConfig,
    FinetuneOptimConfig,
    OptimConfig,
    RunConfig,
    TrainConfig,
    fit_schedule,
)

_CPU = TrainConfig(processes=2, threads=1)
_MIXED = image.AugmentConfig(mixup=0.7, cutmix=1.0, mix_share=0.9, cutmix_share=0.5, label_smoothing=0.1)
_STRONG = replace(_MIXED, rand_augment="rand-m9-mstd0.5-inc1", erasing=0.25)


def image_finetune_base() -> FinetuneConfig:
    """ViT-B/16 as released: 100 epochs of ImageNet-1K, batch 512."""
    return FinetuneConfig(
        recipe="image_finetune_base",
        task=image.ImageTaskConfig(model=image.ImageHeadConfig(drop_path=0.1), augment=_STRONG),
        optim=FinetuneOptimConfig(lr=1e-3, lr_batch=512, warmup_updates=16_000, clip_norm=None, layer_decay=0.65),
        data=image.ImageFinetuneDataConfig(min_crop=0.08),
        train=TrainConfig(updates=250_200, batch_size=512, eval_every=2_502, save_every=2_502),
    )


def image_finetune_large() -> FinetuneConfig:
    """ViT-L/16 and ViT-H/14 as released: 50 epochs of ImageNet-1K, batch 512."""
    base = image_finetune_base()
    return replace(
        base,
        recipe="image_finetune_large",
        task=image.ImageTaskConfig(model=image.ImageHeadConfig(drop_path=0.2), augment=_STRONG),
        optim=replace(base.optim, lr=5e-4, clip_norm=4.0, layer_decay=0.75),
        train=replace(base.train, updates=125_100),
    )


def image_finetune_tiny() -> FinetuneConfig:
    """Small pictures on a CPU, with about 10,000 labels: four to five minutes on two busy cores (LOG.md).

    At equal time, many small batches learn more than few large ones here, as in pre-training.
    """
    return FinetuneConfig(
        recipe="image_finetune_tiny",
        task=image.ImageTaskConfig(augment=image.AugmentConfig(label_smoothing=0.1)),
        optim=FinetuneOptimConfig(lr=2e-3, lr_batch=8, warmup_updates=250, clip_norm=4.0, layer_decay=0.75),
        data=image.ImageFinetuneDataConfig(min_crop=0.8, eval_crop=1.0),
        train=replace(_CPU, updates=5_000, batch_size=8, log_every=50, eval_every=500, save_every=500),
    )


def image_segment_tiny() -> FinetuneConfig:
    """Classes of pixels of small pictures on a CPU; evaluation sees whole pictures. Not tuned."""
    tiny = image_finetune_tiny()
    return replace(
        tiny,
        recipe="image_segment_tiny",
        task=image.ImageTaskConfig(),
        data=image.ImageFinetuneDataConfig(min_crop=0.5, whole=True),
        train=replace(tiny.train, updates=2_000),
    )


def image_segment_base() -> FinetuneConfig:
    """ViT-B/16 on classes of pixels, at twice the size of pre-training: 160 passes over 4,000 pictures. Not tuned."""
    base = image_finetune_base()
    return replace(
        base,
        recipe="image_segment_base",
        task=image.ImageTaskConfig(model=image.ImageHeadConfig(image_size=448, drop_path=0.1)),
        optim=replace(base.optim, lr=1e-4, lr_batch=16, warmup_updates=1_500),
        data=image.ImageFinetuneDataConfig(min_crop=0.3, whole=True),
        train=TrainConfig(updates=40_000, batch_size=16, eval_every=4_000, save_every=4_000),
    )


IMAGENET = image.ImageDataConfig(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def image_base() -> RunConfig:
    """ImageNet on several GPUs, as released: ViT-B/16, 75 epochs of ImageNet-1K, batch 256."""
    return RunConfig(recipe="image_base", model=ModelConfig(modality=image.ImageConfig()), data=IMAGENET)


def image_small() -> RunConfig:
    """Thousands to a million pictures on one GPU: ViT-S/16, 128 pixels.

    `image_base` with the width and heads of ViT-S, half of the masks (a quarter of which is visible, as in
    `image_large`: 16 of 64 patches), its schedules as they are for 100,000 updates, and a rate in proportion to the
    batch: as it is, a batch of 16 collapses (LOG.md). Not tuned.
    """
    base = image_base()
    small = replace(
        base,
        recipe="image_small",
        model=replace(
            base.model,
            modality=image.ImageConfig(image_size=128, num_channels=None),
            encoder=replace(base.model.encoder, embed_dim=384, num_heads=6),
            masks=replace(base.model.masks, num_masks=8, mask_ratio=0.75, adjust=0.1),
            decoder=replace(base.model.decoder, depth=4, dim=384),
        ),
        optim=replace(base.optim, lr_rule="linear", lr_batch=256),
        data=image.ImageDataConfig(),
        train=replace(base.train, updates=100_000, eval_every=1_000, save_every=1_000),
    )
    return fit_schedule(small, base)


def image_large() -> RunConfig:
    """ImageNet on several GPUs, as released: ViT-L/16, 37.5 epochs of ImageNet-1K, batch 128."""
    base = image_base()
    return replace(
        base,
        recipe="image_large",
        model=ModelConfig(
            modality=image.ImageConfig(),
            encoder=EncoderConfig(embed_dim=1024, num_heads=16, prenet_depth=0, depth=24),
            masks=MaskConfig(num_masks=16, mask_ratio=0.75, adjust=0.1, block_length=3),
            decoder=DecoderConfig(depth=3, kernel=5, dim=1024, groups=16),
            targets=TargetConfig(average_layers=18),
            loss=LossConfig(cls_loss_weight=1.28),
        ),
        optim=replace(base.optim, lr=4e-4, lr_batch=128),
        ema=EmaConfig(start=0.9998, end=0.99999, anneal_updates=150_000),
        train=replace(base.train, batch_size=128),
    )


def image_huge14() -> RunConfig:
    """ImageNet on several GPUs, as released: ViT-H/14, 100 epochs of ImageNet-1K, batch 256."""
    large = image_large()
    return replace(
        large,
        recipe="image_huge14",
        model=replace(
            large.model,
            modality=image.ImageConfig(image_size=224, patch_size=14),
            encoder=EncoderConfig(embed_dim=1280, num_heads=16, prenet_depth=0, depth=32),
            targets=TargetConfig(average_layers=24),
        ),
        optim=replace(large.optim, lr_batch=256),
        ema=EmaConfig(start=0.9998, end=1.0, anneal_updates=300_000),
        train=replace(large.train, updates=500_000, batch_size=256),
    )


def image_tiny() -> RunConfig:
    """Small pictures on a CPU, in about three minutes: 28 pixels.

    LOG.md has the experiments behind these values. Two processes with one thread each: such small operations gain
    little from a second thread, and lose much when another program uses the core.
    """
    return RunConfig(
        recipe="image_tiny",
        model=ModelConfig(
            modality=image.ImageConfig(image_size=28, patch_size=4, num_channels=None),
            encoder=EncoderConfig(embed_dim=96, num_heads=3, prenet_depth=0, depth=4),
            masks=MaskConfig(num_masks=4, mask_ratio=0.6, adjust=0.1, block_length=2),
            decoder=DecoderConfig(depth=2, kernel=3, dim=48, groups=8),
            targets=TargetConfig(average_layers=4),
            loss=LossConfig(cls_loss_weight=0.3),
        ),
        optim=OptimConfig(lr=4e-3, warmup_updates=160, lr_batch=16),
        ema=EmaConfig(start=0.99, end=0.999, anneal_updates=1_100),
        data=image.ImageDataConfig(min_crop=0.7, eval_crop=1.0),
        train=replace(_CPU, updates=2_200, batch_size=16, log_every=50, eval_every=550, save_every=550),
    )


RECIPES = {recipe.__name__: recipe for recipe in (image_tiny, image_small, image_base, image_large, image_huge14)}
FINETUNE = {recipe.__name__: recipe for recipe in (image_finetune_tiny, image_finetune_base, image_finetune_large)}
SEGMENT = {recipe.__name__: recipe for recipe in (image_segment_tiny, image_segment_base)}
