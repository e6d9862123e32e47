"""Recipes for images: as the authors released them, and one for small pictures on a CPU."""

from __future__ import annotations

from dataclasses import replace

from data2vec2.config import (
    DecoderConfig,
    EmaConfig,
    EncoderConfig,
    ImageConfig,
    ImageDataConfig,
    LossConfig,
    MaskConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    TargetConfig,
    TrainConfig,
)

IMAGENET = ImageDataConfig(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def image_base() -> RunConfig:
    """ViT-B/16 as released: 75 epochs of ImageNet-1K at 256 pictures a step."""
    return RunConfig(recipe="image_base", data=IMAGENET)


def image_large() -> RunConfig:
    """ViT-L/16 as released: 37.5 epochs of ImageNet-1K at 128 pictures a step."""
    base = image_base()
    return replace(
        base,
        recipe="image_large",
        model=ModelConfig(
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
    """ViT-H/14 as released: 100 epochs of ImageNet-1K at 256 pictures a step."""
    large = image_large()
    return replace(
        large,
        recipe="image_huge14",
        model=replace(
            large.model,
            modality=ImageConfig(image_size=224, patch_size=14),
            encoder=EncoderConfig(embed_dim=1280, num_heads=16, prenet_depth=0, depth=32),
            targets=TargetConfig(average_layers=24),
        ),
        optim=replace(large.optim, lr_batch=256),
        ema=EmaConfig(start=0.9998, end=1.0, anneal_updates=300_000),
        train=replace(large.train, updates=500_000, batch_size=256),
    )


def image_tiny() -> RunConfig:
    """Small pictures (28 px by default) on a CPU: about three minutes.

    How these values were found stands in LOG.md. Two processes with one thread each: operations this small gain little
    from a second thread, and lose much when another program wants the core.
    """
    return RunConfig(
        recipe="image_tiny",
        model=ModelConfig(
            modality=ImageConfig(image_size=28, patch_size=4, num_channels=None),
            encoder=EncoderConfig(embed_dim=96, num_heads=3, prenet_depth=0, depth=4),
            masks=MaskConfig(num_masks=4, mask_ratio=0.6, adjust=0.1, block_length=2),
            decoder=DecoderConfig(depth=2, kernel=3, dim=48, groups=8),
            targets=TargetConfig(average_layers=4),
            loss=LossConfig(cls_loss_weight=0.3),
        ),
        optim=OptimConfig(lr=4e-3, warmup_updates=160, lr_batch=16),
        ema=EmaConfig(start=0.99, end=0.999, anneal_updates=1_100),
        data=ImageDataConfig(min_crop=0.7, eval_crop=1.0),
        train=TrainConfig(
            updates=2_200, batch_size=16, processes=2, threads=1, log_every=50, eval_every=550, save_every=550
        ),
    )
