"""Recipes for audio: as the authors released them, and small ones for a CPU.

LR, updates, masks, schedule and what is frozen are those of the released CTC configurations. They do not say a batch
size for base models of version 2; 1,600 seconds is our reading of version 1's (8 GPUs with 200 seconds each).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

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
from data2vec2.modalities.audio.config import (
    AudioConfig,
    AudioDataConfig,
    AudioFinetuneDataConfig,
    AudioHeadConfig,
    AudioTaskConfig,
    SpanMaskConfig,
)

SPANS = MaskConfig(num_masks=8, mask_ratio=0.5, adjust=0.05, block_length=5, inverse=False)
DECODER = DecoderConfig(depth=4, kernel=7, dim=384, groups=16, input_dropout=0.1)
TRI_STAGE = FinetuneOptimConfig(lr_batch=1_600, beta2=0.98, weight_decay=0.0, clip_norm=None, schedule="tri_stage")
TINY = TrainConfig(processes=2, threads=1, log_every=50)
CTC_BASE = {
    "10m": (13_000, 1e-4, 0.65, 0.25),
    "1h": (13_000, 3e-4, 0.75, 0.25),
    "10h": (20_000, 1e-4, 0.75, 0.25),
    "100h": (80_000, 3e-5, 0.5, 0.5),
    "960h": (320_000, 3e-5, 0.5, 0.25),
}
"""Transcribed speech to updates, LR, and the shares of tokens and of channels that masks hide."""


def audio_base() -> RunConfig:
    """LibriSpeech's 960 hours on several GPUs, as released: waveforms, batches of 1,000 seconds."""
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
    """Libri-light's speech on several GPUs, as released: waveforms, batches of 960 seconds."""
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
    """As `audio_base`, on log-mel spectrograms; not trained at full size by us."""
    base = audio_base()
    return replace(base, recipe="audio_mel_base", model=replace(base.model, modality=AudioConfig(stem="mel")))


def audio_small() -> RunConfig:
    """Tens to hundreds of hours of recordings on one GPU: waveforms, half the width of `audio_base`.

    `audio_base` with 6 heads of the same size, half of the channels in stem and decoder, half of the masks, pieces of
    10 seconds at most, its schedules as they are for 50,000 updates, and a rate in proportion to the batch. Not tuned.
    """
    base = audio_base()
    small = replace(
        base,
        recipe="audio_small",
        model=replace(
            base.model,
            modality=AudioConfig(conv_dim=256),
            encoder=replace(base.model.encoder, embed_dim=384, num_heads=6),
            masks=replace(SPANS, num_masks=4),
            decoder=replace(DECODER, dim=192),
        ),
        optim=replace(base.optim, lr_rule="linear", clip_norm=4.0),
        data=AudioDataConfig(max_seconds=10.0),
        train=replace(base.train, updates=50_000, batch_size=400, eval_every=1_000, save_every=1_000),
    )
    return fit_schedule(small, base)


def audio_mel_small() -> RunConfig:
    """As `audio_small`, on log-mel spectrograms: learns more from little data."""
    small = audio_small()
    return replace(small, recipe="audio_mel_small", model=replace(small.model, modality=AudioConfig(stem="mel")))


def audio_mel_tiny() -> RunConfig:
    """Minutes of speech on a CPU, in about four minutes: log-mel spectrograms."""
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
        train=replace(TINY, updates=1_350, batch_size=24, eval_every=450, save_every=450),
    )


def audio_tiny() -> RunConfig:
    """As `audio_mel_tiny`, on waveforms: learns less from little data."""
    tiny = audio_mel_tiny()
    return replace(
        tiny,
        recipe="audio_tiny",
        model=replace(
            tiny.model, modality=AudioConfig(conv_dim=96, position_depth=2, position_kernel=9, position_groups=8)
        ),
    )


def ctc_base(speech: str) -> FinetuneConfig:
    """Base models on a given amount of transcribed speech, one of `CTC_BASE`."""
    updates, lr, time_share, channel_share = CTC_BASE[speech]
    return FinetuneConfig(
        recipe=f"ctc_base_{speech}",
        task=AudioTaskConfig(masks=SpanMaskConfig(time_share=time_share, channel_share=channel_share)),
        optim=replace(TRI_STAGE, lr=lr, warmup_updates=updates // 10),
        data=AudioFinetuneDataConfig(min_seconds=0.5, max_seconds=30.0),
        train=TrainConfig(updates=updates, batch_size=1_600, eval_every=1_000, save_every=1_000),
    )


def ctc_tiny() -> FinetuneConfig:
    """Small models (width 96) on a CPU: 15 minutes of one voice, in minutes. LOG.md has the experiments."""
    base = ctc_base("10h")
    return replace(
        base,
        recipe="ctc_tiny",
        task=AudioTaskConfig(
            model=AudioHeadConfig(activation_dropout=0.0, layer_drop=0.0, freeze_updates=30),
            masks=SpanMaskConfig(time_share=0.3, time_length=5, channel_share=0.25, channel_length=8),
        ),
        optim=replace(base.optim, lr=1e-3, lr_batch=40, warmup_updates=60, clip_norm=4.0),
        data=AudioFinetuneDataConfig(min_seconds=0.3, max_seconds=20.0),
        train=replace(TINY, updates=600, batch_size=40, eval_every=100, save_every=100),
    )


def audio_classify_base() -> FinetuneConfig:
    """Base models on classes; for tags, version 1 had --model.pooling linear_softmax. Not tuned."""
    base = ctc_base("10m")
    return replace(
        base,
        recipe="audio_classify_base",
        task=AudioTaskConfig(model=AudioHeadConfig(freeze_updates=0)),
        optim=replace(
            base.optim, lr_batch=1_280, weight_decay=0.01, clip_norm=4.0, schedule="cosine", layer_decay=0.75
        ),
        data=AudioFinetuneDataConfig(min_seconds=0.5, max_seconds=10.0),
        train=replace(base.train, batch_size=1_280),
    )


def audio_classify_tiny() -> FinetuneConfig:
    """Short recordings on a CPU. Not tuned."""
    base = audio_classify_base()
    return replace(
        base,
        recipe="audio_classify_tiny",
        task=AudioTaskConfig(
            model=AudioHeadConfig(activation_dropout=0.0, layer_drop=0.0, freeze_stem=False, freeze_updates=0),
            masks=SpanMaskConfig(time_share=0.0, channel_share=0.0, channel_length=8),
        ),
        optim=replace(base.optim, lr=1e-3, lr_batch=12, warmup_updates=150),
        data=AudioFinetuneDataConfig(min_seconds=0.3, max_seconds=5.0),
        train=replace(TINY, updates=3_000, batch_size=12, eval_every=500, save_every=500),
    )


_MEL, _WAVEFORM = (audio_mel_tiny, audio_mel_small, audio_mel_base), (audio_tiny, audio_small, audio_base, audio_large)
RECIPES = {recipe.__name__: recipe for recipe in (*_MEL, *_WAVEFORM)}
CLASSIFY = {recipe.__name__: recipe for recipe in (audio_classify_tiny, audio_classify_base)}
CTC = {"ctc_tiny": ctc_tiny} | {f"ctc_base_{speech}": partial(ctc_base, speech) for speech in CTC_BASE}
