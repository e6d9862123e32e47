"""Recipes for fine-tuning on audio: CTC as the authors released it, classes of sounds, and small ones for a CPU.

LR, updates, masks, schedule and what is frozen are those of the released CTC configurations. They do not say a batch
size for base models of version 2; 1,600 seconds is our reading of version 1's (8 GPUs with 200 seconds each).
"""

from __future__ import annotations

import difflib
from dataclasses import replace

from data2vec2.config import (
    AudioFinetuneConfig,
    AudioFinetuneDataConfig,
    AudioFinetuneModelConfig,
    FinetuneOptimConfig,
    SpanMaskConfig,
    TrainConfig,
)


def ctc_base_10m() -> AudioFinetuneConfig:
    """Base models on 10 minutes of transcribed speech."""
    return _ctc_base("ctc_base_10m", updates=13_000, lr=1e-4, time_share=0.65, channel_share=0.25)


def ctc_base_1h() -> AudioFinetuneConfig:
    """Base models on an hour of transcribed speech."""
    return _ctc_base("ctc_base_1h", updates=13_000, lr=3e-4, time_share=0.75, channel_share=0.25)


def ctc_base_10h() -> AudioFinetuneConfig:
    """Base models on 10 hours of transcribed speech."""
    return _ctc_base("ctc_base_10h", updates=20_000, lr=1e-4, time_share=0.75, channel_share=0.25)


def ctc_base_100h() -> AudioFinetuneConfig:
    """Base models on 100 hours of transcribed speech."""
    return _ctc_base("ctc_base_100h", updates=80_000, lr=3e-5, time_share=0.5, channel_share=0.5)


def ctc_base_960h() -> AudioFinetuneConfig:
    """Base models on 960 hours of transcribed speech."""
    return _ctc_base("ctc_base_960h", updates=320_000, lr=3e-5, time_share=0.5, channel_share=0.25)


def _ctc_base(recipe: str, *, updates: int, lr: float, time_share: float, channel_share: float) -> AudioFinetuneConfig:
    return AudioFinetuneConfig(
        recipe=recipe,
        masks=SpanMaskConfig(time_share=time_share, channel_share=channel_share),
        optim=FinetuneOptimConfig(
            lr=lr,
            lr_batch=1_600,
            warmup_updates=updates // 10,
            beta2=0.98,
            weight_decay=0.0,
            clip_norm=None,
            schedule="tri_stage",
        ),
        data=AudioFinetuneDataConfig(min_seconds=0.5, max_seconds=30.0),
        train=TrainConfig(updates=updates, batch_size=1_600, eval_every=1_000, save_every=1_000),
    )


def ctc_tiny() -> AudioFinetuneConfig:
    """Small models (width 96) on a CPU: 15 minutes of one voice, in minutes. LOG.md says what was tried."""
    base = ctc_base_10h()
    return replace(
        base,
        recipe="ctc_tiny",
        model=AudioFinetuneModelConfig(activation_dropout=0.0, layer_drop=0.0, freeze_updates=30),
        masks=SpanMaskConfig(time_share=0.3, time_length=5, channel_share=0.25, channel_length=8),
        optim=replace(base.optim, lr=1e-3, lr_batch=40, warmup_updates=60, clip_norm=4.0),
        data=AudioFinetuneDataConfig(min_seconds=0.3, max_seconds=20.0),
        train=TrainConfig(
            updates=600, batch_size=40, processes=2, threads=1, log_every=50, eval_every=100, save_every=100
        ),
    )


def audio_classify_base() -> AudioFinetuneConfig:
    """Base models on classes or tags of recordings. Version 2 has no such recipe; these are first values, not tuned.

    Where a recording has several tags, --model.pooling linear_softmax is what version 1 used.
    """
    return AudioFinetuneConfig(
        recipe="audio_classify_base",
        model=AudioFinetuneModelConfig(freeze_updates=0),
        optim=FinetuneOptimConfig(
            lr=1e-4,
            lr_batch=1_280,
            warmup_updates=1_300,
            beta2=0.98,
            weight_decay=0.01,
            clip_norm=4.0,
            layer_decay=0.75,
        ),
        data=AudioFinetuneDataConfig(min_seconds=0.5, max_seconds=10.0),
        train=TrainConfig(updates=13_000, batch_size=1_280, eval_every=1_000, save_every=1_000),
    )


def audio_classify_tiny() -> AudioFinetuneConfig:
    """Short recordings on a CPU. First values, not tuned."""
    base = audio_classify_base()
    return replace(
        base,
        recipe="audio_classify_tiny",
        model=AudioFinetuneModelConfig(activation_dropout=0.0, layer_drop=0.0, freeze_stem=False, freeze_updates=0),
        masks=SpanMaskConfig(time_share=0.0, channel_share=0.0, channel_length=8),
        optim=replace(base.optim, lr=1e-3, lr_batch=12, warmup_updates=150),
        data=AudioFinetuneDataConfig(min_seconds=0.3, max_seconds=5.0),
        train=TrainConfig(
            updates=3_000, batch_size=12, processes=2, threads=1, log_every=50, eval_every=500, save_every=500
        ),
    )


_CTC = (ctc_tiny, ctc_base_10m, ctc_base_1h, ctc_base_10h, ctc_base_100h, ctc_base_960h)
_CLASSIFY = (audio_classify_tiny, audio_classify_base)
CTC_RECIPES = {recipe.__name__: recipe for recipe in _CTC}
CLASSIFY_RECIPES = {recipe.__name__: recipe for recipe in _CLASSIFY}
SPEECH_RECIPES = {**CTC_RECIPES, **CLASSIFY_RECIPES}


def get_speech_recipe(name: str) -> AudioFinetuneConfig:
    """The configuration of a recipe; `ValueError` with the nearest name if there is none of this name."""
    if name not in SPEECH_RECIPES:
        near = difflib.get_close_matches(name, SPEECH_RECIPES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(SPEECH_RECIPES)}"
        raise ValueError(f"no fine-tuning recipe {name!r}; {hint}")
    return SPEECH_RECIPES[name]()
