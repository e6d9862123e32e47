"""finetune: train a pre-trained encoder on labels."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import tyro
import yaml

from data2vec2.cli.common import STATES
from data2vec2.config import (
    AugmentConfig,
    FinetuneConfig,
    FinetuneDataConfig,
    FinetuneModelConfig,
    FinetuneOptimConfig,
    TrainConfig,
    from_dict,
)
from data2vec2.errors import UserError
from data2vec2.recipes.finetune import get_finetune_recipe

TASKS = ("classify",)


@dataclass(frozen=True, kw_only=True)
class FinetuneOverrides:
    """The fields of a run's configuration as flags."""

    model: FinetuneModelConfig
    augment: AugmentConfig
    optim: FinetuneOptimConfig
    data: FinetuneDataConfig
    train: TrainConfig


@dataclass(kw_only=True)
class Finetune:
    """Train a classifier from a pre-trained model on your labels."""

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """A run folder or an exported model."""
    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """Data with labels, one or several a picture."""
    out: Path
    """Run folder to write; a new one."""
    config: Annotated[FinetuneOverrides, tyro.conf.arg(name="")]
    recipe: str = "image_finetune_tiny"
    """A recipe (image_finetune_tiny, image_finetune_base, image_finetune_large) or the config.yaml of a run."""
    val: Path | None = None
    """Data for validation, which chooses the best model; none: DATA's own, or part of DATA is held out."""
    from_scratch: bool = False
    """Take the model's shape but not its weights: what pre-training is worth."""
    resume: bool = False
    """Go on with the run that the folder holds."""
    overwrite: bool = False
    """Delete the run that the folder holds."""
    dry_run: bool = False
    """Only print plan, schedule, and the first batch's shapes."""
    json: bool = False
    """Print the outcome as JSON."""


def run_finetune(rest: list[str]) -> int:
    """Parse and run `finetune TASK`; returns the exit code."""
    if rest and rest[0] in TASKS:
        rest = rest[1:]
    elif not {"-h", "--help"} & set(rest):
        found = f", not {rest[0]!r}" if rest else ""
        raise ValueError(
            f"the task comes first{found}: data2vec2 finetune {'|'.join(TASKS)} MODEL DATA --out RUN [...]"
        )
    default = _default(_value(rest, "--recipe"))
    args = _parse(rest, default)
    from data2vec2.commands.finetune import finetune, saved_finetune_config

    if args.resume and (args.out / "config.yaml").is_file():  # what is not given stays as the run has it
        saved = saved_finetune_config(args.out)
        default = saved if _value(rest, "--recipe") in (None, saved.recipe) else default
        args = _parse(rest, default)
    changed = {field.name: getattr(args.config, field.name) for field in fields(FinetuneOverrides)}
    outcome = finetune(
        args.model,
        args.data,
        args.out,
        config=FinetuneConfig(recipe=default.recipe, from_scratch=default.from_scratch, **changed),
        val=args.val,
        from_scratch=args.from_scratch,
        resume=args.resume,
        overwrite=args.overwrite,
        dry_run=args.dry_run,
    )
    if args.json:
        scores = args.out / "scores.json"
        found_scores = json.loads(scores.read_text()) if outcome.state == "finished" and scores.exists() else None
        print(json.dumps({"run": str(args.out), **asdict(outcome), "scores": found_scores}))
    elif outcome.state == "finished":
        print(f"model: {args.out / 'exported'}\nreport: {args.out / 'report.html'}")
    return STATES[outcome.state]


def _value(rest: list[str], flag: str) -> str | None:
    """What a command line gives a flag, if it does."""
    for place, word in enumerate(rest):
        if word == flag and place + 1 < len(rest):
            return rest[place + 1]
        if word.startswith(f"{flag}="):
            return word.removeprefix(f"{flag}=")
    return None


def _default(recipe: str | None) -> FinetuneConfig:
    """The configuration that flags default to: of a recipe, or of a file that holds one."""
    if recipe is None:
        return get_finetune_recipe("image_finetune_tiny")
    if recipe.endswith((".yaml", ".yml")):
        try:
            return from_dict(FinetuneConfig, yaml.safe_load(Path(recipe).read_text()))
        except (OSError, yaml.YAMLError) as error:
            raise UserError(f"{recipe} can't be read: {error}") from error
    return get_finetune_recipe(recipe)


def _parse(rest: list[str], config: FinetuneConfig) -> Any:
    """Arguments whose flags default to a configuration."""
    flags = FinetuneOverrides(**{field.name: getattr(config, field.name) for field in fields(FinetuneOverrides)})
    missing: Any = tyro.MISSING
    default = Finetune(model=missing, data=missing, out=missing, config=flags)
    return tyro.cli(Finetune, args=rest, default=default, prog=f"data2vec2 finetune {TASKS[0]}")
