"""Low-label curves of fine-tuning."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from data2vec2.commands.finetune import finetune
from data2vec2.config import FinetuneConfig, from_dict
from data2vec2.errors import UserError
from data2vec2.evaluation.low_labels import Curve, low_label_curve
from data2vec2.evaluation.scores import MODEL, RANDOM
from data2vec2.recipes.finetune import get_finetune_recipe


def finetune_config(name: str) -> FinetuneConfig:
    """The configuration of a recipe, or the one in the config.yaml of a fine-tuning run."""
    if not name.endswith((".yaml", ".yml")):
        config = get_finetune_recipe(name)
        if not isinstance(config, FinetuneConfig):
            raise ValueError(f"--finetune {name} is for audio, and curves of fine-tuning are for pictures")
        return config
    try:
        return from_dict(FinetuneConfig, yaml.safe_load(Path(name).read_text("utf-8")))
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise UserError(f"{name} can't be read as the configuration of a fine-tuning run: {error}") from error


def finetune_curves(
    model: Path,
    data: Path,
    config: FinetuneConfig,
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
    config: FinetuneConfig,
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
        limited = replace(config, train=train, data=replace(config.data, labels_per_class=count))
        with TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            outcome = finetune(model, data, run, config=limited)
            if outcome.state == "interrupted":
                raise KeyboardInterrupt
            if outcome.state != "finished":
                raise UserError(f"fine-tuning with {count} labels a class {outcome.state}: {outcome.message}")
            return float(json.loads((run / "scores.json").read_text("utf-8"))["accuracy"])

    return low_label_curve(name, "finetune", labels, seeds, accuracy)
