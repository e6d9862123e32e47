"""Recipes: complete configurations. Masks, decoder and targets are those of speech, smaller."""

from __future__ import annotations

from data2vec2.config.model import DecoderConfig, EncoderConfig, LossConfig, MaskConfig, ModelConfig, TargetConfig
from data2vec2.config.run import (
    EmaConfig,
    FinetuneConfig,
    FinetuneOptimConfig,
    OptimConfig,
    RunConfig,
    TaskConfig,
    TrainConfig,
)
from data2vec2_sensors.config import SensorConfig, SensorDataConfig, SensorFinetuneDataConfig


def sensors_tiny() -> RunConfig:
    """Short series on a CPU, in minutes. First values, not tuned."""
    return RunConfig(
        recipe="sensors_tiny",
        model=ModelConfig(
            modality=SensorConfig(),
            encoder=EncoderConfig(embed_dim=64, num_heads=4, prenet_depth=0, depth=4, norm_eps=1e-5),
            masks=MaskConfig(num_masks=4, mask_ratio=0.5, adjust=0.05, block_length=3, inverse=False),
            decoder=DecoderConfig(depth=2, kernel=5, dim=32, groups=1),
            targets=TargetConfig(average_layers=4, final_norm="none"),
            loss=LossConfig(cls_loss_weight=0.0),
        ),
        optim=OptimConfig(lr=2e-3, lr_batch=16, warmup_updates=100, weight_decay=0.01),
        ema=EmaConfig(start=0.99, end=0.999, anneal_updates=500),
        data=SensorDataConfig(),
        train=TrainConfig(updates=1_000, batch_size=16, eval_every=250, save_every=250),
    )


def sensors_classify_tiny() -> FinetuneConfig:
    """Classes of short series, on a CPU. First values, not tuned."""
    return FinetuneConfig(
        recipe="sensors_classify_tiny",
        task=TaskConfig(kind="sensors"),
        optim=FinetuneOptimConfig(lr=1e-3, lr_batch=16, warmup_updates=50, weight_decay=0.01),
        data=SensorFinetuneDataConfig(),
        train=TrainConfig(updates=500, batch_size=16, eval_every=100, save_every=100),
    )
