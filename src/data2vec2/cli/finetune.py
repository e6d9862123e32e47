"""finetune: train a pre-trained encoder on labels, once or at several learning rates."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import tyro

from data2vec2.cli.common import STATES
from data2vec2.config import (
    AnyFinetuneConfig,
    AudioFinetuneConfig,
    AudioFinetuneDataConfig,
    AudioFinetuneModelConfig,
    AugmentConfig,
    FinetuneConfig,
    FinetuneDataConfig,
    FinetuneModelConfig,
    FinetuneOptimConfig,
    SpanMaskConfig,
    TextFinetuneConfig,
    TextFinetuneDataConfig,
    TextFinetuneModelConfig,
    TrainConfig,
)
from data2vec2.recipes.finetune import finetune_config, get_finetune_recipe

TASKS = ("classify", "regress", "ctc")
DEFAULTS = {"image": "image_finetune_tiny", "audio": "audio_classify_tiny", "text": "text_finetune_tiny"}
"""The recipe for classes, by the kind of the model."""


@dataclass(frozen=True, kw_only=True)
class FinetuneOverrides:
    """The fields of a run's configuration as flags."""

    model: FinetuneModelConfig
    augment: AugmentConfig
    optim: FinetuneOptimConfig
    data: FinetuneDataConfig
    train: TrainConfig


@dataclass(frozen=True, kw_only=True)
class AudioFinetuneOverrides:
    """The same for models of audio."""

    model: AudioFinetuneModelConfig
    masks: SpanMaskConfig
    optim: FinetuneOptimConfig
    data: AudioFinetuneDataConfig
    train: TrainConfig


@dataclass(frozen=True, kw_only=True)
class TextFinetuneOverrides:
    """The same for models of text."""

    model: TextFinetuneModelConfig
    optim: FinetuneOptimConfig
    data: TextFinetuneDataConfig
    train: TrainConfig


OVERRIDES: dict[type[AnyFinetuneConfig], type] = {
    FinetuneConfig: FinetuneOverrides,
    AudioFinetuneConfig: AudioFinetuneOverrides,
    TextFinetuneConfig: TextFinetuneOverrides,
}


@dataclass(kw_only=True)
class Finetune:
    """Train a classifier, a model that gives numbers, or a recogniser of speech from a pre-trained model."""

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """A run folder or an exported model."""
    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """Data with labels, one or several a sample; for regress, texts with numbers; for ctc, recordings with
    transcripts."""
    out: Path
    """Run folder to write; a new one."""
    config: Annotated[FinetuneOverrides | AudioFinetuneOverrides | TextFinetuneOverrides, tyro.conf.arg(name="")]
    recipe: str | None = None
    """A recipe or the config.yaml of a run; none: the tiny one. Of pictures image_finetune_tiny, image_finetune_base,
    image_finetune_large; of audio audio_classify_tiny, audio_classify_base; of text text_finetune_tiny, glue; for ctc
    ctc_tiny, ctc_base_10m, ctc_base_1h, ctc_base_10h, ctc_base_100h, ctc_base_960h."""
    val: Path | None = None
    """Data for validation, which chooses the best model; none: DATA's own, or part of DATA is held out."""
    from_scratch: bool = False
    """Take the model's shape but not its weights: what pre-training is worth."""
    resume: bool = False
    """Go on with the run that the folder holds."""
    overwrite: bool = False
    """Delete the run that the folder holds."""
    sweep: str = ""
    """Peak learning rates to try, with commas, as in 1e-5,2e-5; OUT then holds a run for each rate and seed, and the
    rate with the highest median of validation scores is named. With --resume finished runs are kept."""
    seeds: int = 1
    """Seeds for each rate of --sweep, from train.seed on; without --sweep, of the one rate."""
    dry_run: bool = False
    """Only print plan, schedule, and the first batch's shapes."""
    json: bool = False
    """Print the outcome as JSON."""


def run_finetune(rest: list[str]) -> int:
    """Parse and run `finetune TASK`; returns the exit code."""
    asks_help = bool({"-h", "--help"} & set(rest))
    if rest and rest[0] in TASKS:
        task, rest = rest[0], rest[1:]
    elif asks_help:
        task = "classify"
    else:
        found = f", not {rest[0]!r}" if rest else ""
        raise ValueError(
            f"the task comes first{found}: data2vec2 finetune {'|'.join(TASKS)} MODEL DATA --out RUN [...]"
        )
    default = _default(task, _value(rest, "--recipe"), rest)
    args = _parse(task, rest, default)
    from data2vec2.commands.finetune import finetune, read_config

    several = bool(args.sweep) or args.seeds != 1
    kept = args.out / ("sweep.yaml" if several else "config.yaml")
    if args.resume and kept.is_file():  # what is not given stays as the run has it
        saved = read_config(kept)
        default = saved if _value(rest, "--recipe") in (None, saved.recipe) else default
        args = _parse(task, rest, default)
    changed = {field.name: getattr(args.config, field.name) for field in fields(args.config)}
    config: AnyFinetuneConfig = type(default)(recipe=default.recipe, from_scratch=default.from_scratch, **changed)
    if several:
        return _sweep(args, task, config)
    outcome = finetune(
        args.model,
        args.data,
        args.out,
        task=task,  # type: ignore[arg-type]
        config=config,
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


def _sweep(args: Any, task: str, config: AnyFinetuneConfig) -> int:
    """Fine-tune at several rates or seeds; returns the exit code."""
    from data2vec2.commands.sweep import format_sweep, sweep

    for flag in ("overwrite", "dry_run"):
        if getattr(args, flag):
            raise ValueError(f"--{flag.replace('_', '-')} is for single runs, not with --sweep or --seeds")
    try:
        rates = [float(rate) for rate in args.sweep.split(",")] if args.sweep else [config.optim.lr]
    except ValueError:
        raise ValueError(f"--sweep is {args.sweep!r}; it must be rates with commas, as in 1e-5,2e-5") from None
    given = {name: getattr(args, name) for name in ("val", "from_scratch", "resume")}
    places = args.model, args.data, args.out, rates, args.seeds
    outcome, rows = sweep(*places, task=task, config=config, **given)  # type: ignore[arg-type]
    if args.json:
        found = {"out": str(args.out), **asdict(outcome), "rates": [asdict(row) for row in rows]}
        print(json.dumps(found))
    elif rows:
        print(format_sweep(rows))
        if rows[0].run:
            print(f"best: rate {rows[0].lr:g}, {args.out / rows[0].run}")
    return STATES[outcome.state]


def _value(rest: list[str], flag: str) -> str | None:
    """What a command line gives a flag, if it does."""
    for place, word in enumerate(rest):
        if word == flag and place + 1 < len(rest):
            return rest[place + 1]
        if word.startswith(f"{flag}="):
            return word.removeprefix(f"{flag}=")
    return None


def _default(task: str, recipe: str | None, rest: list[str]) -> AnyFinetuneConfig:
    """The configuration that flags default to: of a recipe, or of a file that holds one."""
    if recipe is None:
        kind = "text" if task == "regress" else _kind(rest)
        return get_finetune_recipe("ctc_tiny" if task == "ctc" else DEFAULTS[kind])
    return finetune_config(recipe)


def _kind(rest: list[str]) -> str:
    """Of which modality the model is that the first word names; what is wrong with it is said later."""
    for folder in (Path(rest[0]) / "exported", Path(rest[0])) if rest else ():
        try:
            kind = json.loads((folder / "config.json").read_text())["model_type"].removeprefix("data2vec2-")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        return kind if kind in DEFAULTS else "image"
    return "image"


def _parse(task: str, rest: list[str], config: AnyFinetuneConfig) -> Any:
    """Arguments whose flags default to a configuration."""
    kind: Any = OVERRIDES[type(config)]
    flags: Any = kind(**{field.name: getattr(config, field.name) for field in fields(kind)})
    missing: Any = tyro.MISSING
    default = Finetune(model=missing, data=missing, out=missing, config=flags)
    prog = f"data2vec2 finetune {task}"
    return tyro.cli(Finetune, args=rest, default=default, prog=prog, config=(tyro.conf.AvoidSubcommands,))
