"""Recipes for audio: as the authors released them, and small ones for a CPU."""

from __future__ import annotations

from dataclasses import replace

from data2vec2.config import (
    AudioConfig,
    AudioDataConfig,
    DecoderConfig,
    EmaConfig,
    EncoderConfig,
    LossConfig,
    MaskConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    TargetConfig,
    TrainConfig,
)

SPANS = MaskConfig(num_masks=8, mask_ratio=0.5, adjust=0.05, block_length=5, inverse=False)
DECODER = DecoderConfig(depth=4, kernel=7, dim=384, groups=16, input_dropout=0.1)


def audio_base() -> RunConfig:
    """Speech as released: LibriSpeech at 1,000 seconds a step."""
    return RunConfig(
        recipe="audio_base",
        model=ModelConfig(
            modality=AudioConfig(),
            encoder=EncoderConfig(
                prenet_depth=0, depth=12, norm_eps=1e-5, dropout=0.1, attention_dropout=0.1, layer_drop=0.05
            ),
            masks=SPANS,
            decoder=DECODER,
            targets=TargetConfig(average_layers=8, final_norm="none"),
            loss=LossConfig(cls_loss_weight=0.0),
        ),
        optim=OptimConfig(
            lr=7.5e-4, lr_batch=1_000, warmup_updates=8_000, beta2=0.98, eps=1e-6, weight_decay=0.01, clip_norm=None
        ),
        ema=EmaConfig(start=0.999, end=0.99999, anneal_updates=75_000),
        data=AudioDataConfig(),
        train=TrainConfig(updates=400_000, batch_size=1_000),
    )


def audio_large() -> RunConfig:
    """Speech as released: Libri-light at 960 seconds a step."""
    base = audio_base()
    return replace(
        base,
        recipe="audio_large",
        model=replace(
            base.model,
            encoder=replace(base.model.encoder, embed_dim=1024, num_heads=16, prenet_depth=8, depth=16, layer_drop=0.0),
            masks=replace(SPANS, num_masks=12, mask_ratio=0.55, adjust=0.1),
            decoder=replace(DECODER, dim=768),
            targets=TargetConfig(average_layers=16, final_norm="none"),
        ),
        optim=replace(base.optim, lr=4e-4, lr_batch=960, warmup_updates=10_000, clip_norm=1.0),
        ema=EmaConfig(start=0.9997, end=1.0, anneal_updates=300_000),
        train=replace(base.train, updates=600_000, batch_size=960),
    )


def audio_mel_base() -> RunConfig:
    """`audio_base` over fixed log-mel spectra instead of learned convolutions; not trained at full size by us."""
    base = audio_base()
    return replace(base, recipe="audio_mel_base", model=replace(base.model, modality=AudioConfig(stem="mel")))


def audio_mel_tiny() -> RunConfig:
    """Short pieces of speech on a CPU, over log-mel spectra: about four minutes. LOG.md says how it was found."""
    base = audio_base()
    return replace(
        base,
        recipe="audio_mel_tiny",
        model=replace(
            base.model,
            modality=AudioConfig(stem="mel", position_depth=2, position_kernel=9, position_groups=8),
            encoder=EncoderConfig(embed_dim=96, num_heads=4, prenet_depth=0, depth=4, norm_eps=1e-5),
            masks=replace(SPANS, num_masks=4),
            decoder=DecoderConfig(depth=2, kernel=7, dim=48, groups=1),
            targets=TargetConfig(average_layers=4, final_norm="none"),
        ),
        optim=OptimConfig(lr=2e-3, lr_batch=24, warmup_updates=200, beta2=0.98, eps=1e-6, weight_decay=0.01),
        ema=EmaConfig(start=0.996, end=0.9995, anneal_updates=700),
        data=AudioDataConfig(min_seconds=1.5, max_seconds=1.5),
        train=TrainConfig(
            updates=1_350, batch_size=24, processes=2, threads=1, log_every=50, eval_every=450, save_every=450
        ),
    )


def audio_tiny() -> RunConfig:
    """`audio_mel_tiny` with the published waveform stem, narrower. LOG.md says what it learns from little data."""
    tiny = audio_mel_tiny()
    return replace(
        tiny,
        recipe="audio_tiny",
        model=replace(
            tiny.model, modality=AudioConfig(conv_dim=96, position_depth=2, position_kernel=9, position_groups=8)
        ),
    )
