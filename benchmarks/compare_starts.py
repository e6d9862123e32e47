"""Is fine-tuning a model ever worse than training from scratch? `compare_starts.py TASK RUN DATA --out OUT`.

DATA, one or several, have a training and a test part, as finetune knows them. For each of them, each number of labels
a class and each seed, RUN is fine-tuned, and a model of its shape is trained from random weights with the same
settings. Scores on the test part are printed as a Markdown table: accuracy, or for `ctc` the character error rate; mean
over the seeds, and of several half of its 95 % interval. Seeds decide labels, initialisation and order.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from data2vec2 import finetune
from data2vec2.commands.finetune import Finetuning
from data2vec2.config.run import FinetuneConfig
from data2vec2.errors import UserError
from data2vec2.evaluation.probes import interval
from data2vec2.files import read_json, read_yaml
from data2vec2.modalities import get_finetune_recipe, read_finetune_config


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=("classify", "ctc"))
    parser.add_argument("run", type=Path, help="a pre-trained run")
    parser.add_argument("data", nargs="+", type=Path, help="with a training and a test part")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs; finished ones are kept")
    parser.add_argument("--recipe", required=True, help="of fine-tuning")
    parser.add_argument("--labels", default="all", help="a class, as in 5,25,all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, help="none: the recipe's")
    parser.add_argument("--rate", type=float, help="none: the recipe's")
    args = parser.parse_args()
    recipe = get_finetune_recipe(args.recipe)
    measure = "cer" if args.task == "ctc" else "accuracy"
    lines = [f"| {measure}, % | pre-trained | from scratch |", "|---|---|---|"]
    for data in args.data:
        name = "-".join(data.resolve().parts[-2:])  # parts of corpora can have the same last name
        for labels in args.labels.split(","):
            cells = []
            for start in ("pretrained", "scratch"):
                scores = []
                for seed in range(args.seeds):
                    run = args.out / f"{name}-{labels}-{start}-{seed}"
                    config = replace(
                        recipe,
                        optim=replace(recipe.optim, lr=args.rate or recipe.optim.lr),
                        train=replace(
                            recipe.train, seed=seed, updates=args.updates or recipe.train.updates, processes=1
                        ),
                        data=replace(recipe.data, labels_per_class=None if labels == "all" else int(labels)),
                    )
                    scores.append(score(args, run, data, config, start)[measure])
                    print(f"{run}: {scores[-1]:.4f}", file=sys.stderr, flush=True)
                cells.append(in_words(scores))
            lines.append(f"| {name}, {labels} | {' | '.join(cells)} |")
    print("\n".join(lines))


def score(args: argparse.Namespace, run: Path, data: Path, config: FinetuneConfig, start: str) -> dict[str, float]:
    """What a fine-tuned run has on the test part; one that is finished is not trained again."""
    if (run / "exported").is_dir():
        kept = read_yaml(run / "config.yaml", read_finetune_config)
        known = start == "scratch" or kept.weights == Finetuning(str(args.run), args.task).weights
        made, asked = ((one.recipe, one.train.updates, one.optim.lr) for one in (kept, config))
        if not known or made != asked:
            raise UserError(f"{run} was made from another model or with other settings; give another --out")
    else:
        how = {"task": args.task, "config": config, "from_scratch": start == "scratch", "overwrite": run.exists()}
        outcome = finetune(args.run, data, run, **how)
        if outcome.state != "finished":
            raise UserError(f"{run} {outcome.state}: {outcome.message}")
    return read_json(run / "scores.json")


def in_words(scores: list[float]) -> str:
    """Mean in percent, and half of the interval."""
    mean, low, high = interval(scores)
    return f"{100 * mean:.1f} ± {50 * (high - low):.1f}" if len(scores) > 1 else f"{100 * mean:.1f}"


if __name__ == "__main__":
    main()
