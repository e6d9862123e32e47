"""demo [image]."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from data2vec2.commands.evaluate import evaluate
from data2vec2.commands.pretrain import pretrain
from data2vec2.config import RunConfig
from data2vec2.data.samples import fashion_mnist
from data2vec2.evaluation.scores import Scores
from data2vec2.recipes import get_recipe
from data2vec2.training.loop import Outcome
from data2vec2.training.progress import console


@dataclass(frozen=True)
class DemoResult:
    """What the demo learned."""

    outcome: Outcome
    run: Path
    scores: Scores | None
    """Missing if the run did not finish."""


def demo(config: RunConfig | None = None, out: str | Path | None = None) -> DemoResult:
    """Pre-train on 10,000 bundled Fashion-MNIST pictures, then score the features on 2,000 others.

    `config` is recipe `image_tiny` unless given; `out` a new folder under runs/ unless given.
    """
    config = config or get_recipe("image_tiny")
    run = Path(out) if out else _new_folder(Path("runs"), "demo-image")
    console().print("data2vec 2.0 learns from 10,000 small pictures of clothes, without their labels")
    outcome = pretrain(config, fashion_mnist(), run)
    scores = evaluate(run, fashion_mnist(), seed=config.train.seed) if outcome.state == "finished" else None
    return DemoResult(outcome, run, scores)


def _new_folder(parent: Path, name: str) -> Path:
    """`parent/name`, or `name-2`, `name-3`, ... if that exists."""
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(parent / candidate for candidate in names if not (parent / candidate).exists())
