"""Recipes for text: as the authors released them, and small ones for a CPU.

In fine-tuning a batch counts tokens, padding included, where the released configurations count 16 or 32 texts: 1,024
tokens are 32 texts of 32 tokens, about what a pair of GLUE's has.
"""

from __future__ import annotations

from dataclasses import replace

import data2vec2.modalities.text.config as text
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

DECODER = DecoderConfig(depth=5, kernel=9, dim=768, groups=1, input_dropout=0.1, residual=False, projection_depth=2)
_CPU = TrainConfig(processes=2, threads=1)
_LINEAR = FinetuneOptimConfig(lr_batch=1_024, beta2=0.98, eps=1e-6, schedule="linear")


def text_base() -> RunConfig:
    """English text on several GPUs, as released: batches of 64 blocks of 512 tokens.

    The paper's tables say 32 blocks and a mask ratio of .42.
    """
    return RunConfig(
        recipe="text_base",
        model=ModelConfig(
            modality=text.TextConfig(),
            encoder=EncoderConfig(prenet_depth=0, depth=12, norm_eps=1e-5, dropout=0.1, attention_dropout=0.1),
            masks=MaskConfig(num_masks=8, mask_ratio=0.48, adjust=0.0, block_length=1),
            decoder=DECODER,
            targets=TargetConfig(average_layers=12, final_norm="none"),
            loss=LossConfig(scale=1.0, cls_loss_weight=0.0),
        ),
        optim=OptimConfig(
            lr=2e-4, lr_batch=64, warmup_updates=4_000, beta2=0.98, eps=1e-6, weight_decay=0.01, clip_norm=1.0
        ),
        ema=EmaConfig(start=0.9999, end=0.99999, anneal_updates=100_000),
        data=text.TextDataConfig(),
        train=TrainConfig(updates=1_000_000, batch_size=64),
    )


def text_large() -> RunConfig:
    """English text on several GPUs, as released: batches of 64 blocks of 512 tokens."""
    base = text_base()
    return replace(
        base,
        recipe="text_large",
        model=replace(
            base.model,
            encoder=replace(base.model.encoder, embed_dim=1024, num_heads=16, depth=24),
            masks=replace(base.model.masks, mask_ratio=0.5),
            targets=TargetConfig(average_layers=24, layer_norm="layer", final_norm="instance"),
        ),
        optim=replace(base.optim, lr=1e-4),
        train=replace(base.train, updates=600_000),
    )


def text_small() -> RunConfig:
    """Millions to a billion tokens on one GPU: blocks of 256 tokens, half the width of `text_base`.

    `text_base` with 6 heads of the same size, blocks of 256 tokens, half of the masks, the factor of `text_tiny` on its
    embeddings (LOG.md), schedules as they are for 100,000 updates, and a rate in proportion to the batch. Not tuned.
    """
    base = text_base()
    small = replace(
        base,
        recipe="text_small",
        model=replace(
            base.model,
            modality=text.TextConfig(vocab_size=16_000, max_tokens=256, token_scale=50.0),
            encoder=replace(base.model.encoder, embed_dim=384, num_heads=6),
            masks=replace(base.model.masks, num_masks=4),
            decoder=replace(DECODER, dim=384),
        ),
        optim=replace(base.optim, lr=5e-4, lr_rule="linear", clip_norm=4.0),
        train=replace(base.train, updates=100_000, eval_every=1_000, save_every=1_000),
    )
    return fit_schedule(small, base)


def text_tiny() -> RunConfig:
    """Thousands of short texts on a CPU, in minutes: blocks of 128 tokens, vocabulary of 4,000.

    Rate, mask ratio and number of masks: "`text_tiny` at eight times the rate", LOG.md.
    """
    base = text_base()
    return replace(
        base,
        recipe="text_tiny",
        model=replace(
            base.model,
            modality=text.TextConfig(vocab_size=4_000, max_tokens=128, token_scale=50.0),
            encoder=EncoderConfig(embed_dim=96, num_heads=4, prenet_depth=0, depth=4, norm_eps=1e-5),
            masks=replace(base.model.masks, num_masks=4, mask_ratio=0.6),
            decoder=replace(DECODER, depth=2, kernel=5, dim=48, input_dropout=0.0),
            targets=TargetConfig(average_layers=4, final_norm="none"),
        ),
        optim=replace(base.optim, lr=8e-3, lr_batch=16, warmup_updates=200, clip_norm=4.0),
        ema=EmaConfig(start=0.998, end=0.9999, anneal_updates=2_000),
        train=replace(_CPU, updates=600, batch_size=16, log_every=50, eval_every=200, save_every=200),
    )


def glue() -> FinetuneConfig:
    """Base models on a GLUE task. 3,600 updates are 10 epochs of 5,700 pairs in batches of 16 (STS-B's size).

    Released are 10 epochs of each task, a warm-up of 6 % (QQP 25 %), and the best of the rates 1, 2, 4 and 6e-5.
    """
    return FinetuneConfig(
        recipe="glue",
        task=text.TextTaskConfig(),
        data=text.TextFinetuneDataConfig(),
        optim=replace(_LINEAR, lr=2e-5, warmup_updates=216, weight_decay=0.1, clip_norm=None),
        train=TrainConfig(updates=3_600, batch_size=1_024, eval_every=360, save_every=360),
    )


def text_finetune_tiny() -> FinetuneConfig:
    """Small models (width 96) on a CPU. Short runs work at twice the learning rate, longer runs do not: see LOG.md.

    How much of the start is new depends on the model ("half of the start, at its size", LOG.md).
    """
    return replace(
        glue(),
        recipe="text_finetune_tiny",
        task=text.TextTaskConfig(model=text.TextHeadConfig(pooling="mean")),
        optim=replace(_LINEAR, lr=1e-3, warmup_updates=30, weight_decay=0.01, clip_norm=4.0, fresh=None),
        train=replace(_CPU, updates=300, batch_size=1_024, log_every=20, eval_every=50, save_every=100),
    )


def squad() -> FinetuneConfig:
    """Base models on SQuAD. 3,650 updates are 2 epochs of 87,600 questions in batches of 48, as RoBERTa's.

    So are the warm-up of 6 %, the decay and the rate (Liu et al., 2019, table 10). 8,192 tokens are 48 windows of 170.
    """
    return replace(
        glue(),
        recipe="squad",
        optim=replace(_LINEAR, lr=1.5e-5, lr_batch=8_192, warmup_updates=219, weight_decay=0.01, clip_norm=None),
        train=TrainConfig(updates=3_650, batch_size=8_192, eval_every=365, save_every=365),
    )


RECIPES = {recipe.__name__: recipe for recipe in (text_tiny, text_small, text_base, text_large)}
FINETUNE = {recipe.__name__: recipe for recipe in (text_finetune_tiny, glue)}
ANSWERS = {recipe.__name__: recipe for recipe in (text_finetune_tiny, squad)}
