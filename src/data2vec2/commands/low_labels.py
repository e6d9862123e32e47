"""Low-label curves of fine-tuning."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from data2vec2.commands.finetune import finetune
from data2vec2.commands.jobs import JOBS
from data2vec2.commands.jobs.base import AnyConfig
from data2vec2.config import TextFinetuneConfig
from data2vec2.errors import UserError
from data2vec2.evaluation.low_labels import Curve, low_label_curve
from data2vec2.evaluation.scores import MODEL, RANDOM


def of_columns(config: AnyConfig | None, texts: Sequence[str], label: str | None) -> AnyConfig | None:
    """The configuration with the columns of tables of texts, where they are given."""
    if not isinstance(config, TextFinetuneConfig) or not (texts or label):
        return config
    data = replace(config.data, text_columns=tuple(texts), label_column=label)
    return replace(config, data=data)


def check_curves(config: AnyConfig, kind: str, data: Path, part: str) -> None:
    """`ValueError` for a recipe that is not for classes of what the model is of; `UserError` for another part."""
    recipes = JOBS["classify", kind].recipes if ("classify", kind) in JOBS else {}
    if config.recipe not in recipes:
        raise ValueError(
            f"--finetune {config.recipe} is not for classes of {kind}; there are {', '.join(recipes) or 'none'}"
        )
    if part != "test":
        raise UserError(f"--finetune scores on the test part of DATA, which {data} has not; leave --finetune out")


def finetune_curves(
    model: Path,
    data: Path,
    config: AnyConfig,
    labels: Sequence[int],
    seeds: Sequence[int],
    device: str,
    log: Callable[[str], None],
) -> list[Curve]:
    """The curves from `model` and from scratch."""
    return [
        finetune_curve(name, model, data, replace(config, from_scratch=name == RANDOM), labels, seeds, device, log)
        for name in (MODEL, RANDOM)
    ]


def finetune_curve(
    name: str,
    model: Path,
    data: Path,
    config: AnyConfig,
    labels: Sequence[int],
    seeds: Sequence[int],
    device: str,
    log: Callable[[str], None],
) -> Curve:
    """Accuracy on DATA's test part after fine-tuning with few labels a class.

    `config` says whether `model` gives its weights or only its shape. The last model is scored, not the best on a
    validation part: that would need more labels. Seeds decide which labels are drawn, initialisation and order.
    """

    def accuracy(count: int, seed: int) -> float:
        log(f"fine-tuning from {name}: {count} labels a class, seed {seed}")
        train = replace(config.train, seed=seed, device=device, eval_every=0)
        data_config: Any = replace(config.data, labels_per_class=count)
        limited = replace(config, train=train, data=data_config)
        with TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            outcome = finetune(model, data, run, config=limited)
            if outcome.state == "interrupted":
                raise KeyboardInterrupt
            if outcome.state != "finished":
                raise UserError(f"fine-tuning with {count} labels a class {outcome.state}: {outcome.message}")
            return float(json.loads((run / "scores.json").read_text("utf-8"))["accuracy"])

    return low_label_curve(name, "finetune", labels, seeds, accuracy)
