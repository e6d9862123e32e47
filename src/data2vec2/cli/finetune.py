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
    AudioFinetuneConfig,
    AudioFinetuneDataConfig,
    AudioFinetuneModelConfig,
    AugmentConfig,
    FinetuneConfig,
    FinetuneDataConfig,
    FinetuneModelConfig,
    FinetuneOptimConfig,
    SpanMaskConfig,
    TrainConfig,
    from_dict,
)
from data2vec2.errors import UserError
from data2vec2.recipes.finetune import get_finetune_recipe

TASKS = ("classify", "ctc")
AnyConfig = FinetuneConfig | AudioFinetuneConfig


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


@dataclass(kw_only=True)
class Finetune:
    """Train a classifier, or a recogniser of speech, from a pre-trained model on your labels."""

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """A run folder or an exported model."""
    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """Data with labels, one or several a sample; for ctc, recordings with transcripts."""
    out: Path
    """Run folder to write; a new one."""
    config: Annotated[FinetuneOverrides | AudioFinetuneOverrides, tyro.conf.arg(name="")]
    recipe: str | None = None
    """A recipe or the config.yaml of a run; none: the tiny one. Of pictures image_finetune_tiny, image_finetune_base,
    image_finetune_large; of audio audio_classify_tiny, audio_classify_base; for ctc ctc_tiny, ctc_base_10m,
    ctc_base_1h, ctc_base_10h, ctc_base_100h, ctc_base_960h."""
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

    if args.resume and (args.out / "config.yaml").is_file():  # what is not given stays as the run has it
        saved = read_config(args.out / "config.yaml")
        default = saved if _value(rest, "--recipe") in (None, saved.recipe) else default
        args = _parse(task, rest, default)
    changed = {field.name: getattr(args.config, field.name) for field in fields(args.config)}
    outcome = finetune(
        args.model,
        args.data,
        args.out,
        task=task,  # type: ignore[arg-type]
        config=type(default)(recipe=default.recipe, from_scratch=default.from_scratch, **changed),
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


def _default(task: str, recipe: str | None, rest: list[str]) -> AnyConfig:
    """The configuration that flags default to: of a recipe, or of a file that holds one."""
    if recipe is None:
        of_audio = "audio_classify_tiny" if _is_audio(rest) else "image_finetune_tiny"
        return get_finetune_recipe("ctc_tiny" if task == "ctc" else of_audio)
    if recipe.endswith((".yaml", ".yml")):
        try:
            values = yaml.safe_load(Path(recipe).read_text())
        except (OSError, yaml.YAMLError) as error:
            raise UserError(f"{recipe} can't be read: {error}") from error
        is_audio = isinstance(values, dict) and "masks" in values
        return from_dict(AudioFinetuneConfig, values) if is_audio else from_dict(FinetuneConfig, values)
    return get_finetune_recipe(recipe)


def _is_audio(rest: list[str]) -> bool:
    """Whether the first word names a model of audio; what is wrong with it is said later."""
    for folder in (Path(rest[0]) / "exported", Path(rest[0])) if rest else ():
        try:
            return bool(json.loads((folder / "config.json").read_text())["model_type"] == "data2vec2-audio")
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return False


def _parse(task: str, rest: list[str], config: AnyConfig) -> Any:
    """Arguments whose flags default to a configuration."""
    kind = FinetuneOverrides if isinstance(config, FinetuneConfig) else AudioFinetuneOverrides
    flags: Any = kind(**{field.name: getattr(config, field.name) for field in fields(kind)})
    missing: Any = tyro.MISSING
    default = Finetune(model=missing, data=missing, out=missing, config=flags)
    prog = f"data2vec2 finetune {task}"
    return tyro.cli(Finetune, args=rest, default=default, prog=prog, config=(tyro.conf.AvoidSubcommands,))
