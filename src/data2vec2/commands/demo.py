"""demo [image|audio|text]."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from data2vec2.commands.evaluate import evaluate
from data2vec2.commands.pretrain import pretrain
from data2vec2.config import RunConfig
from data2vec2.data.samples import english_prompts, fashion_mnist, wordnet_glosses
from data2vec2.evaluation.scores import Scores
from data2vec2.recipes import DEMO_RECIPES, get_recipe
from data2vec2.recipes.text_finetune import text_finetune_tiny
from data2vec2.training.loop import Outcome
from data2vec2.training.progress import console

DemoKind = Literal["image", "audio", "text"]

TUNING = text_finetune_tiny()
FEW_LABELS: dict[str, Any] = {
    "labels": (10, 100),
    "seeds": 1,
    "finetune": replace(TUNING, optim=replace(TUNING.optim, lr=2e-3), train=replace(TUNING.train, updates=150)),
}
"""What the text demo asks beside probes: 100 and 1,000 labels in all, for probes and for a short fine-tuning."""
DEMOS: dict[str, tuple[Callable[[], Path], str, dict[str, Any]]] = {
    "image": (fashion_mnist, "10,000 small pictures of clothes, without their labels", {}),
    "audio": (english_prompts, "15 minutes of one voice, without a transcript", {"probes": ("phones", "linear")}),
    "text": (wordnet_glosses, "110,806 explanations of words, without labels", FEW_LABELS),
}
"""Of each kind the data, what they are, and what is evaluated."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo learned."""

    outcome: Outcome
    run: Path
    scores: Scores | None
    """Missing if the run did not finish."""


def demo(kind: DemoKind = "image", config: RunConfig | None = None, out: str | Path | None = None) -> DemoResult:
    """Pre-train on bundled data without their labels, then score the features on data that were not seen.

    "image": 10,000 Fashion-MNIST pictures, scored on 2,000 others. "audio": 15 minutes of one voice's prompts, scored
    on the phones of 9 others. "text": 110,806 WordNet glosses, scored on what 6,222 others are about, with all labels,
    and with 100 and 1,000 of them, also fine-tuned. `config` is the kind's recipe unless given; `out` a new folder
    under runs/ unless given.
    """
    config = config or get_recipe(DEMO_RECIPES[kind])
    run = Path(out) if out else _new_folder(Path("runs"), f"demo-{kind}")
    data, what, asked = DEMOS[kind]
    console().print(f"data2vec 2.0 learns from {what}")
    outcome = pretrain(config, data(), run)
    scores = evaluate(run, data(), seed=config.train.seed, **asked) if outcome.state == "finished" else None
    return DemoResult(outcome, run, scores)


def _new_folder(parent: Path, name: str) -> Path:
    """`parent/name`, or `name-2`, `name-3`, ... if that exists."""
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(parent / candidate for candidate in names if not (parent / candidate).exists())
