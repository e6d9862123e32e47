"""Recipes for fine-tuning on text: GLUE as the authors released it, and one for small models on a CPU.

A batch counts tokens, padding included, where the released configurations count 16 or 32 texts: 1,024 tokens are 32
texts of 32 tokens, about what a pair of GLUE's has.
"""

from __future__ import annotations

from data2vec2.config import (
    FinetuneOptimConfig,
    TextFinetuneConfig,
    TextFinetuneModelConfig,
    TrainConfig,
)


def glue() -> TextFinetuneConfig:
    """Base models on a task of GLUE. 3,600 updates are 10 epochs of 5,700 pairs in batches of 16 (STS-B's size).

    Released are 10 epochs of each task, a warm-up of 6 % (QQP 25 %), and the best of the rates 1, 2, 4 and 6e-5.
    """
    return TextFinetuneConfig(
        recipe="glue",
        optim=FinetuneOptimConfig(
            lr=2e-5,
            lr_batch=1_024,
            warmup_updates=216,
            beta2=0.98,
            eps=1e-6,
            weight_decay=0.1,
            clip_norm=None,
            schedule="linear",
        ),
        train=TrainConfig(updates=3_600, batch_size=1_024, eval_every=360, save_every=360),
    )


def text_finetune_tiny() -> TextFinetuneConfig:
    """Small models (width 96) on a CPU. Few updates can take twice the rate, longer runs can't: see LOG.md."""
    return TextFinetuneConfig(
        recipe="text_finetune_tiny",
        model=TextFinetuneModelConfig(pooling="mean"),
        optim=FinetuneOptimConfig(
            lr=1e-3,
            lr_batch=1_024,
            warmup_updates=30,
            beta2=0.98,
            eps=1e-6,
            weight_decay=0.01,
            clip_norm=4.0,
            schedule="linear",
        ),
        train=TrainConfig(
            updates=300, batch_size=1_024, processes=2, threads=1, log_every=20, eval_every=50, save_every=100
        ),
    )


TEXT_FINETUNE_RECIPES = {recipe.__name__: recipe for recipe in (text_finetune_tiny, glue)}
