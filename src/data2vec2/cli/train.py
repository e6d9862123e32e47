"""Verbs that train: pretrain, demo."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from data2vec2.cli.common import STATES, USAGE, fail
from data2vec2.config import (
    AudioDataConfig,
    EmaConfig,
    ImageDataConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    TextDataConfig,
    TrainConfig,
    from_dict,
)
from data2vec2.recipes import DEMO_RECIPES, get_recipe
from data2vec2.recipes.files import is_file_name, read_values


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """The fields of a run's configuration as flags."""

    model: ModelConfig
    optim: OptimConfig
    ema: EmaConfig
    data: ImageDataConfig | AudioDataConfig | TextDataConfig
    train: TrainConfig
    init_from: str | None
    """Weights to start from: a run, an exported model, or a .pt checkpoint of the original; none: random ones."""


Flags = Annotated[Overrides, tyro.conf.arg(name="")]


@dataclass(kw_only=True)
class Pretrain:
    """Pre-train on your own data."""

    recipe: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RECIPE")]
    """A recipe (image_tiny, image_base, image_large, image_huge14; audio_mel_tiny, audio_mel_base, audio_tiny,
    audio_base, audio_large; text_tiny, text_base, text_large) or the config.yaml of a run."""
    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """A folder of images or recordings, .parquet or .tar files, IDX arrays, one such file, a .npz or fairseq .tsv
    file, or hf:NAME. Of text: .txt, .jsonl, .csv, .tsv or .parquet files, a folder of them, or hf:NAME."""
    out: Path
    """Run folder to write; a new one."""
    config: Flags
    val: Path | None = None
    """Data for validation; none: part of DATA is held out."""
    resume: bool = False
    """Go on with the run that the folder holds."""
    overwrite: bool = False
    """Delete the run that the folder holds."""
    dry_run: bool = False
    """Only print plan, schedule, and the first batch's shapes."""
    json: bool = False
    """Print the outcome as JSON."""


@dataclass(kw_only=True)
class Demo:
    """Learn from bundled pictures, speech or text in minutes on a CPU, and say what it learned."""

    config: Flags
    out: Path | None = None
    """Run folder to write; none: a new one under runs/."""
    json: bool = False
    """Print the scores as JSON."""


def run_pretrain(rest: list[str]) -> int:
    """Parse and run `pretrain`; returns the exit code."""
    default = _first_config(rest)
    args = _parse(Pretrain, "pretrain", rest, default)
    from data2vec2.commands.plan import saved_config
    from data2vec2.commands.pretrain import pretrain

    if args.resume and (args.out / "config.yaml").is_file():  # what is not given stays as the run has it
        default = replace(saved_config(args.out), recipe=default.recipe)
        args = _parse(Pretrain, "pretrain", rest, default)
    outcome = pretrain(
        _configured(default, args.config),
        args.data,
        args.out,
        val=args.val,
        resume=args.resume,
        overwrite=args.overwrite,
        dry_run=args.dry_run,
    )
    if args.json:
        print(json.dumps({"run": str(args.out), **asdict(outcome)}))
    elif outcome.state == "finished":
        print(f"model: {args.out / 'exported'}\nreport: {args.out / 'report.html'}")
    return STATES[outcome.state]


def run_demo(rest: list[str]) -> int:
    """Parse and run `demo`; returns the exit code."""
    kind: Any = rest.pop(0) if rest and not rest[0].startswith("-") else "image"
    if kind not in DEMO_RECIPES:
        return fail(f"unknown demo {kind!r}; there are: {', '.join(DEMO_RECIPES)}", USAGE)
    default = get_recipe(DEMO_RECIPES[kind])
    args = _parse(Demo, f"demo {kind}", rest, default)
    from data2vec2.commands.demo import demo
    from data2vec2.commands.evaluate import format_scores

    result = demo(kind, _configured(default, args.config), args.out)
    if args.json:
        scores = result.scores.to_dict() if result.scores else None
        print(json.dumps({"run": str(result.run), "scores": scores, **asdict(result.outcome)}))
    elif result.scores:
        what = {"image": "pictures", "audio": "recordings", "text": "texts"}[kind]
        print(f"\nAccuracy on {result.scores.test_samples:,} test {what}, in percent:\n")
        print(f"{format_scores(result.scores)}\n")
        print(f"report: {result.run / 'report.html'}")
    return STATES[result.outcome.state]


def _first_config(rest: list[str]) -> RunConfig:
    """The configuration that the first word names, a recipe or a file that holds one: flags default to its values."""
    if {"-h", "--help"} & set(rest) and (not rest or rest[0].startswith("-")):
        return get_recipe("image_base")
    if not rest or rest[0].startswith("-"):
        raise ValueError("the recipe comes first: data2vec2 pretrain RECIPE DATA --out RUN [...]")
    name = rest[0]
    if is_file_name(name):
        return from_dict(RunConfig, read_values(name, get_recipe))
    return get_recipe(name)


def _parse(kind: type[Any], verb: str, rest: list[str], config: RunConfig) -> Any:
    """Arguments of a verb whose flags default to a configuration."""
    flags = Overrides(**{field.name: getattr(config, field.name) for field in fields(Overrides)})
    arguments: dict[str, Any] = {"config": flags}
    if kind is Pretrain:
        arguments.update(recipe=tyro.MISSING, data=tyro.MISSING, out=tyro.MISSING)
    return tyro.cli(
        kind, args=rest, default=kind(**arguments), prog=f"data2vec2 {verb}", config=(tyro.conf.AvoidSubcommands,)
    )


def _configured(default: RunConfig, flags: Overrides) -> RunConfig:
    return RunConfig(recipe=default.recipe, **{field.name: getattr(flags, field.name) for field in fields(Overrides)})
