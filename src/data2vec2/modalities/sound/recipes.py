"""Recipes for sounds: as the authors of EAT released theirs (Chen et al., IJCAI 2024), and a small one for a CPU."""

from __future__ import annotations

from dataclasses import replace

from data2vec2.config.model import DecoderConfig, EncoderConfig, LossConfig, MaskConfig, ModelConfig, TargetConfig
from data2vec2.config.run import EmaConfig, FinetuneConfig, OptimConfig, RunConfig, TrainConfig
from data2vec2.modalities.audio.config import AudioHeadConfig, SpanMaskConfig
from data2vec2.modalities.audio.recipes import TINY, audio_classify_base
from data2vec2.modalities.sound.config import SoundConfig, SoundDataConfig, SoundFinetuneDataConfig, SoundTaskConfig


def sound_base() -> RunConfig:
    """AudioSet's ten-second clips on several GPUs, as EAT released it: batches of 48 clips.

    EAT weights the CLS token's loss by 1, summed over the 192 rows of one of four devices: a mean's weight is 192.
    """
    return RunConfig(
        recipe="sound_base",
        model=ModelConfig(
            modality=SoundConfig(),
            encoder=EncoderConfig(prenet_depth=0, depth=12),
            masks=MaskConfig(num_masks=16, mask_ratio=0.8, adjust=0.07, block_length=5),
            decoder=DecoderConfig(),
            targets=TargetConfig(average_layers=12),
            loss=LossConfig(cls_loss_weight=192.0),
        ),
        optim=OptimConfig(lr=5e-4, lr_batch=480, warmup_updates=53_333, beta2=0.95, weight_decay=0.05, clip_norm=4.0),
        ema=EmaConfig(start=0.9998, end=0.99999, anneal_updates=100_000),
        data=SoundDataConfig(),
        train=TrainConfig(updates=400_000, batch_size=480),
    )


def sound_tiny() -> RunConfig:
    """Minutes of short sounds on a CPU. Not tuned."""
    base = sound_base()
    return replace(
        base,
        recipe="sound_tiny",
        model=replace(
            base.model,
            modality=SoundConfig(num_mels=64, patch_size=8),
            encoder=EncoderConfig(embed_dim=96, num_heads=4, prenet_depth=0, depth=4),
            masks=replace(base.model.masks, num_masks=8, block_length=3),
            decoder=DecoderConfig(depth=3, dim=48, groups=1),
            targets=TargetConfig(average_layers=4),
            loss=LossConfig(cls_loss_weight=1.0),
        ),
        optim=replace(base.optim, lr=2e-3, lr_batch=24, warmup_updates=200),
        ema=EmaConfig(start=0.996, end=0.9995, anneal_updates=700),
        data=SoundDataConfig(min_seconds=0.1, max_seconds=1.5),
        train=replace(TINY, updates=1_350, batch_size=24, eval_every=450, save_every=450),
    )


def sound_classify_base() -> FinetuneConfig:
    """Base models on classes; for clips with several tags, --model.pooling linear_softmax. Not tuned."""
    base = audio_classify_base()
    return replace(
        base,
        recipe="sound_classify_base",
        task=SoundTaskConfig(
            model=AudioHeadConfig(activation_dropout=0.0, layer_drop=0.0, freeze_stem=False, freeze_updates=0),
            masks=SpanMaskConfig(time_share=0.0, channel_share=0.0),
        ),
        data=SoundFinetuneDataConfig(min_seconds=0.5, max_seconds=10.0),
    )


def sound_classify_tiny() -> FinetuneConfig:
    """Short sounds on a CPU. Not tuned."""
    base = sound_classify_base()
    return replace(
        base,
        recipe="sound_classify_tiny",
        task=replace(base.task, masks=SpanMaskConfig(time_share=0.0, channel_share=0.0, channel_length=8)),  # type: ignore[call-arg]
        optim=replace(base.optim, lr=1e-3, lr_batch=12, warmup_updates=150),
        data=SoundFinetuneDataConfig(min_seconds=0.1, max_seconds=5.0),
        train=replace(TINY, updates=1_500, batch_size=12, eval_every=250, save_every=250),
    )


RECIPES = {recipe.__name__: recipe for recipe in (sound_tiny, sound_base)}
CLASSIFY = {recipe.__name__: recipe for recipe in (sound_classify_tiny, sound_classify_base)}
