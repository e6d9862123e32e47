"""The configuration that a run starts or goes on with."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TypeVar

import yaml

from data2vec2.commands.kinds import KINDS, Log
from data2vec2.config import (
    AnyFinetuneConfig,
    AudioFinetuneConfig,
    FinetuneConfig,
    RunConfig,
    TextDataConfig,
    TextFinetuneConfig,
    fit_schedule,
    from_dict,
    to_dict,
)
from data2vec2.data.tokenizer import load_tokenizer
from data2vec2.errors import UserError
from data2vec2.recipes import get_recipe
from data2vec2.training.run import CONFIG, TOKENIZER

C = TypeVar("C", RunConfig, FinetuneConfig, AudioFinetuneConfig, TextFinetuneConfig, AnyFinetuneConfig)


def fitted_config(config: RunConfig, data: Path, say: Log) -> RunConfig:
    """The configuration with schedules that fit the number of updates and a model that fits the data."""
    recipe = get_recipe(config.recipe)
    fitted = fit_schedule(config, recipe)
    if fitted != config:
        say(
            f"schedule: {config.train.updates:,} updates instead of {recipe.train.updates:,}: "
            f"warm-up {fitted.optim.warmup_updates:,}, EMA {fitted.ema.start:.6g} to {fitted.ema.end:.6g} "
            f"over {fitted.ema.anneal_updates:,} updates"
        )
    return KINDS[fitted.model.modality.kind].adapted(fitted, recipe, data, say)


# What may differ between a run and its resumption: where and how the sums are made, not what they are.
FREE_ON_RESUME = (
    "train.processes",
    "train.device",
    "train.threads",
    "train.precision",
    "train.micro_batch",
    "train.compile",
    "train.log_every",
    "train.eval_every",
    "train.save_every",
    "train.keep",
    "data.max_bad",
    "data.workers",
    "data.tokenizer",  # as far as it is the same one
)


def with_own_tokenizer(config: RunConfig, run: Path) -> RunConfig:
    """The configuration of a run of text with the tokenizer that its folder holds; `UserError` if another is asked."""
    own = run / TOKENIZER
    if not isinstance(config.data, TextDataConfig) or not own.is_dir():
        return config
    asked = Path(config.data.tokenizer or own)
    if asked.exists() and load_tokenizer(asked).digest != load_tokenizer(own).digest:
        raise UserError(f"--data.tokenizer {asked} can't change on --resume: the run was started with {own}")
    return replace(config, data=replace(config.data, tokenizer=str(own.absolute())))


def saved_config(run: Path) -> RunConfig:
    """The configuration in a run folder; `UserError` if it can't be read."""
    try:
        return from_dict(RunConfig, yaml.safe_load((run / CONFIG).read_text()))
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise UserError(f"{run / CONFIG} can't be read: {error}") from error


def resumed_config(saved: RunConfig, asked: RunConfig | str) -> RunConfig:
    """The run's own configuration, with what may change as asked; `UserError` for any other change."""
    recipe = asked if isinstance(asked, str) else asked.recipe
    if recipe != saved.recipe:
        raise UserError(f"the folder holds a run of {saved.recipe}, not of {recipe}")
    if isinstance(asked, str):
        return saved
    fitted = fit_schedule(asked, get_recipe(recipe))
    if asked.init_from not in (None, saved.init_from):
        raise UserError(f"--init-from {asked.init_from} can't change on --resume: the run began with {saved.init_from}")
    return keep_started(saved, asked, fitted)


def keep_started(saved: C, asked: C, fitted: C) -> C:
    """`saved` with what `asked` changes of `FREE_ON_RESUME`; `UserError` for any other change.

    `fitted` is `asked` with the schedule that it had got at the start.
    """
    for section in (field.name for field in fields(saved) if is_dataclass(getattr(saved, field.name))):
        mine, adapted, theirs = (_flat(to_dict(getattr(c, section)), section) for c in (asked, fitted, saved))
        for name, value in mine.items():
            if value in (None, "auto") or theirs[name] in (value, adapted[name]):
                continue
            if name not in FREE_ON_RESUME:
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag} {value} can't change on --resume: the run was started with {theirs[name]}")
            saved = replace(saved, **{section: replace(getattr(saved, section), **{name.split(".")[1]: value})})
    return saved


def _flat(tree: dict[str, object], prefix: str) -> dict[str, object]:
    """Nested keys as dotted names."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        flat.update(_flat(value, f"{prefix}.{key}") if isinstance(value, dict) else {f"{prefix}.{key}": value})
    return flat
