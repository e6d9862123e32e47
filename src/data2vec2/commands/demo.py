"""demo [image|audio|text]."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from data2vec2.commands.evaluate import evaluate
from data2vec2.commands.options import Demo, Evaluate, Pretrain
from data2vec2.commands.pretrain import pretrain
from data2vec2.commands.runner import read_yaml
from data2vec2.errors import UsageError
from data2vec2.evaluation.scores import Scores
from data2vec2.modalities import read_run_config, spec_of
from data2vec2.training.loop import Outcome
from data2vec2.training.progress import console
from data2vec2.training.run import CONFIG


@dataclass(frozen=True)
class DemoResult:
    """What the demo learned."""

    outcome: Outcome
    run: Path
    scores: Scores | None
    """Missing if the run did not finish."""


def demo(given: Demo) -> DemoResult:
    """Pre-train on bundled data, then score the features on data that were not seen."""
    shown = spec_of(given.kind).demo
    if shown is None:
        raise UsageError(f"there is no demonstration of {given.kind}")
    run = Path(given.out) if given.out else _new_folder(Path("runs"), f"demo-{given.kind}")
    console().print(f"data2vec 2.0 learns from {shown.about}")
    data = shown.data()
    outcome = pretrain(Pretrain(given.config or shown.recipe, data, run, flags=given.flags))
    if outcome.state != "finished":
        return DemoResult(outcome, run, None)
    seed = read_yaml(run / CONFIG, read_run_config).train.seed
    return DemoResult(outcome, run, evaluate(Evaluate(run, data, seed=seed, **shown.evaluation)))


def _new_folder(parent: Path, name: str) -> Path:
    """`parent/name`, or `name-2`, `name-3`, ... if that exists."""
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(parent / candidate for candidate in names if not (parent / candidate).exists())
