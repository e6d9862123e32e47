"""finetune TASK MODEL DATA --out OUT --sweep LR,LR --seeds N: the same fine-tuning at several rates and seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from data2vec2.commands.finetune import Finetuning, check_data
from data2vec2.commands.finetune import finetune as once
from data2vec2.commands.flags import fields_of
from data2vec2.commands.options import Finetune
from data2vec2.commands.training import CHOSEN, asked_for, keep_started, quiet
from data2vec2.config.run import FinetuneConfig
from data2vec2.config.tree import to_dict
from data2vec2.errors import UsageError, UserError
from data2vec2.files import read_json, read_yaml
from data2vec2.modalities import read_finetune_config
from data2vec2.training.checkpoint import Best
from data2vec2.training.parallel import under_torchrun
from data2vec2.training.progress import console
from data2vec2.training.run import CONFIG, RunFolder, write_text
from data2vec2.training.task import Outcome

SWEEP = "sweep.yaml"
MAIN = ("entity_f1", "miou", "macro_f1", "map", "accuracy", "pearson", "wer")
"""Which of a run's scores is shown: the first that it has."""


@dataclass(frozen=True)
class Row:
    """One rate, over the seeds."""

    lr: float
    median: float | None
    """Of the best validation scores of its runs; none if one of them failed."""
    best: float | None
    run: str | None
    """The run with the best one, by the name of its folder."""
    tested: dict[str, float]
    """Score on the test part: the median over runs, and that of `run`; empty without a test part."""


def finetune(given: Finetune) -> Outcome:
    """Fine-tune once, or at several rates and seeds."""
    return once(given) if not given.sweep and given.seeds == 1 else sweep(given)


def sweep(given: Finetune) -> Outcome:
    """Fine-tune at each rate with `seeds` seeds from train.seed on, into OUT/lr-RATE-seed-SEED; scores.json has all.

    The best rate is that with the highest median over seeds of the best validation score; the test part decides
    nothing. With `resume` finished runs are kept (DATA must be what they have learned from) and others gone on with.
    Returns how it ended, with the run of the best rate, if there is one, and what scores.json has (nothing if
    interrupted). Raises as `finetune` does, and `UserError` if there is no validation part.
    """
    for flag in ("overwrite", "dry_run"):
        if getattr(given, flag):
            raise UsageError(f"--{flag.replace('_', '-')} can't be combined with --sweep or --seeds")
    model, data, out, seeds, task = Path(given.model), str(given.data), Path(given.out), given.seeds, given.task
    val, training = str(given.val) if given.val else None, Finetuning(str(model), task, given.from_scratch)
    if given.sweep and "optim.lr" in fields_of(given.flags):
        raise UsageError("--sweep and --optim.lr both say the peak learning rate; give one of them")
    goes_on, flags = given.resume and given.config is None and (out / SWEEP).is_file(), tuple(given.flags)
    asked = read_yaml(out / SWEEP, _read)[0] if goes_on else training.named(given.config or training.default_recipe)
    config = asked_for(training, asked, flags, val)
    rates = list(given.sweep) or [config.optim.lr]
    named = {f"{rate:g}" for rate in rates if 0 < rate < math.inf}
    if not rates or seeds < 1 or len(named) < len(rates):
        raise UsageError(
            f"--sweep {','.join(f'{rate:g}' for rate in rates)} with --seeds {seeds}; rates must be above 0 and "
            "finite, and all different, and seeds at least 1"
        )
    if under_torchrun():
        raise UsageError("a sweep starts its processes itself (--train.processes); run it without torchrun")
    # what is wrong with MODEL has been said before anything is written
    config = replace(training.started(config, (data,), quiet, flags), weights=training.weights)
    config, flags = _started(out, config, flags, given.resume)
    runs: list[dict[str, Any]] = []
    for rate in rates:
        for seed in range(config.train.seed, config.train.seed + seeds):
            run = out / f"lr-{rate:g}-seed-{seed}"
            if _state(run) not in ("finished", "diverged", "collapsed"):
                console().print(f"{run.name}:")
                one = replace(given, out=run, config=config, resume=(run / CONFIG).is_file(), from_scratch=False)
                own = ("--optim.lr", repr(float(rate)), "--train.seed", str(seed))
                outcome = once(replace(one, flags=(*flags, *own)))
                if outcome.state == "interrupted":
                    return replace(outcome, run=None, scores={})
            else:
                check_data(run, task, model, data, val)
            best = Best(run).load() if _state(run) == "finished" else None
            validation = float(best.state["score"]) if best else None
            if _state(run) == "finished" and validation is None:
                raise UserError(f"{run} has no validation scores to compare; give --val or --data.val-fraction")
            scores = read_json(run / "scores.json") if validation is not None else {}
            runs.append({"run": run.name, "lr": rate, "seed": seed, "validation": validation, "scores": scores})
    rows = [_row(rate, runs) for rate in rates]
    rows.sort(key=lambda row: float("-inf") if row.median is None else row.median, reverse=True)
    found = {"kind": "sweep", "task": task, "rates": [vars(row) for row in rows], "runs": runs}
    RunFolder(out).write_json("scores.json", found)
    best_run = out / rows[0].run if rows[0].run else None
    return Outcome("finished", config.train.updates, run=best_run, scores=found)


def format_sweep(scores: Mapping[str, Any]) -> str:
    """The rates as plain text, best first."""
    rows = [Row(**rate) for rate in scores["rates"]]

    def cells(*values: float | None) -> str:
        return "  ".join("failed" if value is None else f"{value:6.4f}" for value in values)

    lines = ["            validation", "      rate  median    best"]
    if any(row.tested for row in rows):
        lines = [f"{lines[0]}      test", f"{lines[1]}    median    best"]
    for row in rows:
        test = f"    {cells(*row.tested.values())}" if row.tested else ""
        lines.append(f"{row.lr:>10g}  {cells(row.median, row.best)}{test}")
    return "\n".join(lines)


def _read(values: Any) -> tuple[FinetuneConfig, tuple[str, ...]]:
    """The configuration in `SWEEP`, and the flags that are in it already."""
    config = {name: value for name, value in values.items() if name != "flags"} if isinstance(values, dict) else values
    return read_finetune_config(config), tuple(values.get("flags", ()))


def _started(
    out: Path, config: FinetuneConfig, flags: tuple[str, ...], resume: bool
) -> tuple[FinetuneConfig, tuple[str, ...]]:
    """The sweep's configuration and flags, kept in OUT; `UserError` if OUT holds another, or something else."""
    path = out / SWEEP
    if resume:
        if not path.is_file():
            raise UserError(f"nothing to resume: {out} holds no sweep (no {SWEEP}); leave --resume out")
        saved, first = read_yaml(path, _read)
        if saved.recipe != config.recipe:
            raise UserError(f"{out} holds a sweep of {saved.recipe}, not of {config.recipe}")
        if saved.from_scratch != config.from_scratch:
            start = "from random weights" if config.from_scratch else "from MODEL's weights"
            raise UserError(f"{out} holds a sweep that can't continue {start}, because it was started differently")
        if saved.weights != config.weights:
            raise UserError(f"the sweep in {out} was started from a different MODEL; resume with that one")
        return keep_started(saved, config, config, fields_of(flags) - CHOSEN), (*first, *flags)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty; give another folder, or --resume to continue a sweep")
    out.mkdir(parents=True, exist_ok=True)
    write_text(path, yaml.safe_dump({**to_dict(config), "flags": [*flags]}, sort_keys=False))
    return config, flags


def _state(run: Path) -> str:
    """How a run ended; empty if it did not, or there is none."""
    status = run / "status.json"
    return str(read_json(status).get("state")) if status.is_file() else ""


def _row(rate: float, runs: Sequence[dict[str, Any]]) -> Row:
    """What became of a rate."""
    own = [run for run in runs if run["lr"] == rate]
    known = [run for run in own if run["validation"] is not None]
    if not known:
        return Row(rate, None, None, None, {})
    best = max(known, key=lambda run: float(run["validation"]))
    main = next((name for name in MAIN if name in best["scores"]), None)
    tested = {}
    if main and best["scores"]["part"] == "test":
        values = [float(run["scores"][main]) for run in known]
        tested = {f"median {main}": median(values), main: float(best["scores"][main])}
    middle = median(float(run["validation"]) for run in known) if len(known) == len(own) else None
    return Row(rate, middle, float(best["validation"]), str(best["run"]), tested)
