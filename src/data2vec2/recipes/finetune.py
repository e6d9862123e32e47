"""Recipes for fine-tuning on labelled images: as the authors released them, and one for small pictures on a CPU."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace

from data2vec2.config import (
    AnyFinetuneConfig,
    AugmentConfig,
    FinetuneConfig,
    FinetuneDataConfig,
    FinetuneModelConfig,
    FinetuneOptimConfig,
    TrainConfig,
    read_finetune_config,
)
from data2vec2.recipes.files import is_file_name, read_values
from data2vec2.recipes.speech import SPEECH_RECIPES
from data2vec2.recipes.text_finetune import TEXT_FINETUNE_RECIPES


def image_finetune_base() -> FinetuneConfig:
    """ViT-B/16 as released: 100 epochs of ImageNet-1K at 512 pictures a step."""
    return FinetuneConfig(
        recipe="image_finetune_base",
        model=FinetuneModelConfig(drop_path=0.1),
        augment=AugmentConfig(
            rand_augment="rand-m9-mstd0.5-inc1",
            erasing=0.25,
            mixup=0.7,
            cutmix=1.0,
            mix_share=0.9,
            cutmix_share=0.5,
            label_smoothing=0.1,
        ),
        optim=FinetuneOptimConfig(lr=1e-3, lr_batch=512, warmup_updates=16_000, clip_norm=None, layer_decay=0.65),
        data=FinetuneDataConfig(min_crop=0.08),
        train=TrainConfig(updates=250_200, batch_size=512, eval_every=2_502, save_every=2_502),
    )


def image_finetune_large() -> FinetuneConfig:
    """ViT-L/16 and ViT-H/14 as released: 50 epochs of ImageNet-1K at 512 pictures a step."""
    base = image_finetune_base()
    return replace(
        base,
        recipe="image_finetune_large",
        model=FinetuneModelConfig(drop_path=0.2),
        optim=replace(base.optim, lr=5e-4, clip_norm=4.0, layer_decay=0.75),
        train=replace(base.train, updates=125_100),
    )


def image_finetune_tiny() -> FinetuneConfig:
    """Small pictures on a CPU, with about 10,000 labels: four to five minutes on two busy cores (LOG.md).

    At equal time, many small batches learn more than few large ones here, as in pre-training.
    """
    return FinetuneConfig(
        recipe="image_finetune_tiny",
        augment=AugmentConfig(label_smoothing=0.1),
        optim=FinetuneOptimConfig(lr=2e-3, lr_batch=8, warmup_updates=250, clip_norm=4.0, layer_decay=0.75),
        data=FinetuneDataConfig(min_crop=0.8, eval_crop=1.0),
        train=TrainConfig(
            updates=5_000, batch_size=8, processes=2, threads=1, log_every=50, eval_every=500, save_every=500
        ),
    )


FINETUNE_RECIPES = {
    recipe.__name__: recipe for recipe in (image_finetune_tiny, image_finetune_base, image_finetune_large)
}


def get_finetune_recipe(name: str) -> AnyFinetuneConfig:
    """The configuration of a recipe; `ValueError` with the nearest name if there is none of this name."""
    recipes: dict[str, Callable[[], AnyFinetuneConfig]]
    recipes = {**FINETUNE_RECIPES, **SPEECH_RECIPES, **TEXT_FINETUNE_RECIPES}
    if name not in recipes:
        near = difflib.get_close_matches(name, recipes, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(recipes)}"
        raise ValueError(f"no fine-tuning recipe {name!r}; {hint}")
    return recipes[name]()


def finetune_config(name: str) -> AnyFinetuneConfig:
    """The configuration of a recipe, or of a YAML file such as a run's config.yaml.

    What the file leaves out is as in the recipe that it names. Raises `UserError` for a file that can't be read, and
    `ValueError` for a recipe or a value that can't be.
    """
    if is_file_name(name):
        return read_finetune_config(read_values(name, get_finetune_recipe))
    return get_finetune_recipe(name)
