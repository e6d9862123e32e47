"""The command line: verb to command. Only parsing happens here, so that `--help` needs no torch."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
import yaml

from data2vec2.config import DataConfig, EmaConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig, from_dict
from data2vec2.errors import UserError
from data2vec2.recipes import RECIPES, get_recipe
from data2vec2.version import __version__

FAILED, USAGE, ALARM, INTERRUPTED, ABORTED = 1, 2, 3, 75, 130
STATES = {"finished": 0, "planned": 0, "helped": 0, "diverged": ALARM, "collapsed": ALARM, "interrupted": INTERRUPTED}


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """The fields of a run's configuration as flags."""

    model: ModelConfig
    optim: OptimConfig
    ema: EmaConfig
    data: DataConfig
    train: TrainConfig


Flags = Annotated[Overrides, tyro.conf.arg(name="")]


@dataclass(kw_only=True)
class Pretrain:
    """Pre-train on your own data."""

    recipe: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RECIPE")]
    """A recipe (image_tiny, image_base, image_large, image_huge14) or the config.yaml of a run."""
    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """A folder of images, a folder or file of IDX arrays, or a .npz file."""
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
    """Learn from bundled pictures in about three minutes on a CPU, and say what it learned."""

    config: Flags
    out: Path | None = None
    """Run folder to write; none: a new one under runs/."""
    json: bool = False
    """Print the scores as JSON."""


@dataclass(kw_only=True)
class Evaluate:
    """Score a model's frozen features beside random initialisation, raw pixels and the majority class."""

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """A run folder or an exported model."""
    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """Data with labels."""
    test: Path | None = None
    """Data to score on; none: DATA's own test or validation part, what the run held out of it, or a fifth."""
    max_samples: int = 10_000
    """Samples of each part to use, evenly spread."""
    seed: int = 0
    """Decides the split and the random initialisation."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    json: bool = False
    """Print the scores as JSON."""


@dataclass(kw_only=True)
class Doctor:
    """Say what this machine can do."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    json: bool = False
    """Print JSON."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code (0 done, 1 failed, 2 usage, 3 alarm, 75 interrupted, 130 Ctrl-C)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage(), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else USAGE
    if arguments[0] == "--version":
        print(f"data2vec2 {__version__}")
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        return _fail(f"unknown command {verb!r}; there are {', '.join(VERBS)}", USAGE)
    try:
        return VERBS[verb](rest)
    except UserError as error:
        return _fail(str(error), FAILED)
    except ValueError as error:
        if os.environ.get("DATA2VEC2_TRACEBACK"):
            raise
        return _fail(str(error), USAGE)
    except BrokenPipeError:
        return FAILED
    except KeyboardInterrupt:
        return _fail("stopped", ABORTED)


def _pretrain(rest: list[str]) -> int:
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


def _demo(rest: list[str]) -> int:
    if rest and not rest[0].startswith("-"):
        if rest[0] != "image":
            return _fail(f"unknown demo {rest[0]!r}; there is: image", USAGE)
        rest = rest[1:]
    default = get_recipe("image_tiny")
    args = _parse(Demo, "demo", rest, default)
    from data2vec2.commands.demo import demo
    from data2vec2.commands.evaluate import format_scores

    result = demo(_configured(default, args.config), args.out)
    if args.json:
        scores = result.scores.to_dict() if result.scores else None
        print(json.dumps({"run": str(result.run), "scores": scores, **asdict(result.outcome)}))
    elif result.scores:
        print(f"\nAccuracy on 2,000 test pictures, in percent:\n\n{format_scores(result.scores)}\n")
        print(f"report: {result.run / 'report.html'}")
    return STATES[result.outcome.state]


def _evaluate(rest: list[str]) -> int:
    args = tyro.cli(Evaluate, args=rest, prog="data2vec2 evaluate")
    from data2vec2.commands.evaluate import evaluate, format_scores

    scores = evaluate(
        args.model, args.data, test=args.test, max_samples=args.max_samples, seed=args.seed, device=args.device
    )
    print(json.dumps(scores.to_dict()) if args.json else format_scores(scores))
    return 0


def _doctor(rest: list[str]) -> int:
    args = tyro.cli(Doctor, args=rest, prog="data2vec2 doctor")
    from data2vec2.commands.doctor import doctor

    found = doctor(args.device)
    width = max(map(len, found))
    print(json.dumps(found) if args.json else "\n".join(f"{name:<{width}}  {value}" for name, value in found.items()))
    return 0


VERBS: dict[str, Callable[[list[str]], int]] = {
    "demo": _demo,
    "pretrain": _pretrain,
    "evaluate": _evaluate,
    "doctor": _doctor,
}


def _usage() -> str:
    summaries = {"demo": Demo, "pretrain": Pretrain, "evaluate": Evaluate, "doctor": Doctor}
    lines = [f"  {verb:<10} {(kind.__doc__ or '').strip()}" for verb, kind in summaries.items()]
    return (
        "usage: data2vec2 COMMAND [...]\n\n"
        + "\n".join(lines)
        + ("\n\n  data2vec2 COMMAND --help shows a command's arguments; data2vec2 --version the version\n")
    )


def _first_config(rest: list[str]) -> RunConfig:
    """The configuration that the first word names, a recipe or a file that holds one: flags default to its values."""
    if {"-h", "--help"} & set(rest) and (not rest or rest[0].startswith("-")):
        return get_recipe("image_base")
    if not rest or rest[0].startswith("-"):
        raise ValueError("the recipe comes first: data2vec2 pretrain RECIPE DATA --out RUN [...]")
    name = rest[0]
    if name not in RECIPES and name.endswith((".yaml", ".yml")):
        try:
            return from_dict(RunConfig, yaml.safe_load(Path(name).read_text()))
        except (OSError, yaml.YAMLError) as error:
            raise UserError(f"{name} can't be read: {error}") from error
    return get_recipe(name)


def _parse(kind: type[Any], verb: str, rest: list[str], config: RunConfig) -> Any:
    """Arguments of a verb whose flags default to a configuration."""
    flags = Overrides(model=config.model, optim=config.optim, ema=config.ema, data=config.data, train=config.train)
    arguments: dict[str, Any] = {"config": flags}
    if kind is Pretrain:
        arguments.update(recipe=tyro.MISSING, data=tyro.MISSING, out=tyro.MISSING)
    return tyro.cli(kind, args=rest, default=kind(**arguments), prog=f"data2vec2 {verb}")


def _configured(default: RunConfig, flags: Overrides) -> RunConfig:
    return RunConfig(
        recipe=default.recipe,
        model=flags.model,
        optim=flags.optim,
        ema=flags.ema,
        data=flags.data,
        train=flags.train,
    )


def _fail(message: str, code: int) -> int:
    print(f"data2vec2: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
