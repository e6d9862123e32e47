"""demo [image|audio|sound|text]."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data2vec2.commands.evaluate import evaluate
from data2vec2.commands.options import Demo, Evaluate, Pretrain
from data2vec2.commands.pretrain import pretrain
from data2vec2.errors import UsageError
from data2vec2.evaluation.scores import MODEL, Scores
from data2vec2.files import read_yaml
from data2vec2.modalities import read_run_config, spec_of
from data2vec2.training.progress import console
from data2vec2.training.run import CONFIG
from data2vec2.training.task import Outcome


@dataclass(frozen=True)
class DemoResult:
    """What the demo learned."""

    outcome: Outcome
    run: Path
    scores: Scores | None
    """Missing if the run did not finish."""
    longer: Scores | None = None
    """Of the bundled model that was trained for longer, beside the same baselines; missing if there is none."""
    how_long: str = ""


def demo(given: Demo) -> DemoResult:
    """Pre-train on bundled data, then score the features on data that were not seen."""
    shown = spec_of(given.kind).demo
    if shown is None:
        raise UsageError(f"there is no demonstration of {given.kind}")
    new = not (given.resume or given.overwrite)
    run = Path(given.out) if given.out else _folder(Path("runs"), f"demo-{given.kind}", new=new)
    console().print(f"data2vec 2.0 learns from {shown.about}")
    data = shown.data()
    how = Pretrain(
        given.config or shown.recipe,
        data,
        run,
        resume=given.resume,
        overwrite=given.overwrite,
        flags=given.flags,
    )
    outcome = pretrain(how)
    if outcome.state != "finished":
        return DemoResult(outcome, run, None)
    seed = read_yaml(run / CONFIG, read_run_config).train.seed
    scores = evaluate(Evaluate(run, data, seed=seed, **shown.evaluation))
    if shown.longer is None:
        return DemoResult(outcome, run, scores)
    how_long, model = shown.longer
    console().print(f"a bundled model of the same recipe that was trained for longer: {how_long}")
    longer = evaluate(Evaluate(model(), data, seed=seed, baselines=False, **shown.evaluation))
    return DemoResult(outcome, run, scores, beside_baselines(longer, scores), how_long)


def beside_baselines(longer: Scores, scores: Scores) -> Scores:
    """The model's own row and curves of `longer` with the baselines of `scores`, made of the same samples."""

    def together(of_model: Sequence[Any], all_: Sequence[Any]) -> tuple[Any, ...]:
        own = [one for one in of_model if one.features == MODEL]
        return *own, *(one for one in all_ if one.features != MODEL)

    intervals = longer.intervals[:1] + scores.intervals[1:]
    rows, curves = together(longer.rows, scores.rows), together(longer.curves, scores.curves)
    return replace(longer, rows=rows, curves=curves, intervals=intervals)


def _folder(parent: Path, name: str, *, new: bool) -> Path:
    """The first of `parent/name`, `name-2`, `name-3`, ... that does not exist; if not `new`, the last that does."""
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    there = list(itertools.takewhile(Path.exists, (parent / candidate for candidate in names)))
    if new:
        return parent / (name if not there else f"{name}-{len(there) + 1}")
    if not there:
        raise UsageError(f"there is no {parent / name} to continue or replace; leave --resume and --overwrite out")
    return there[-1]
