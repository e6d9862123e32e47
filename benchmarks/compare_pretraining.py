"""data2vec 2.0 beside masked modelling, random initialisation and raw inputs: `compare_pretraining.py DATA RUN...`.

Each RUN is a finished data2vec2 run of another seed, on pictures or text. For each, a masked autoencoder (of text: a
masked language model) of the same encoder and seed is trained on the same data for as long (a run of several processes:
for their seconds together; `--seconds` instead of the run's wall-clock time where the machine was busy with other
things). Both are scored on DATA's test part by `data2vec2 evaluate`, with low-label curves. The run's seed decides the
random initialisation and which labels are drawn, and these are the same for all features. `--finetune` adds fine-tuning
from both and from scratch, one draw of labels a run. Prints a Markdown table: mean over the runs and, of several,
half of its 95 % interval, which so counts in seeds and labels.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import masked_autoencoder
import masked_language_model
from rival import saved_config

from data2vec2 import evaluate
from data2vec2.commands.evaluate import finetune_curve
from data2vec2.errors import UserError
from data2vec2.evaluation.probes import Curve, interval
from data2vec2.evaluation.scores import MODEL, RANDOM, Scores
from data2vec2.modalities import finetune_config

RIVALS = {
    "image": ("masked autoencoder", masked_autoencoder.pretrain),
    "text": ("masked language model", masked_language_model.pretrain),
}
Key = tuple[str, str]
"""Features, and what was measured of them."""


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="data with a test part to score on")
    parser.add_argument("--unlabelled", type=Path, help="what the runs were trained on, if it is not DATA")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders of data2vec2 pretrain, one for each seed")
    parser.add_argument("--out", type=Path, required=True, help="folder for the rivals")
    parser.add_argument("--seconds", type=float, help="processor time of each run, if the machine did other things too")
    parser.add_argument("--labels", default="10,100,1000", help="labels per class of the low-label curves")
    parser.add_argument("--seeds", type=int, default=3, help="draws of labels for each point and run")
    parser.add_argument("--max-samples", type=int, default=10_000, help="samples of each part to score with")
    parser.add_argument("--finetune", help="recipe or config.yaml: add curves of fine-tuning")
    parser.add_argument("--finetune-labels", default="10,100", help="labels per class of these")
    args = parser.parse_args()
    options = {"labels": counts(args.labels), "seeds": args.seeds, "max_samples": args.max_samples}
    found: dict[Key, list[float]] = {}
    for run in args.runs:
        config, folder = saved_config(run), args.out / run.name
        trained = wall_clock(run) * (config.train.processes or 1)
        seconds = args.seconds or trained
        rival, pretrain = RIVALS[config.model.modality.kind]
        say(f"{run}: {rival} for {seconds:.0f} s")
        updates = pretrain(config, args.unlabelled or args.data, folder, seconds=seconds, say=say)
        say(f"{run}: {updates:,} updates")
        for name, model in ((MODEL, run / "exported"), (rival, folder)):
            scores = evaluate(model, args.data, seed=config.train.seed, baselines=name == MODEL, **options)
            if scores.part != "test":
                raise UserError(f"{args.data} has no test part; a run would be scored on what it was trained on")
            for (features, measure), value in measured(scores):
                if features == MODEL or name == MODEL:  # the majority class once
                    found.setdefault((name if features == MODEL else features, measure), []).append(value)
        if args.finetune:
            models = {MODEL: run, rival: folder, RANDOM: run}
            for curve in finetuned(models, args.data, args.finetune, counts(args.finetune_labels), config.train.seed):
                for key, value in points(curve):
                    found.setdefault(key, []).append(value)
        say(table(found))
    print(table(found))


def counts(text: str) -> list[int]:
    """Comma-separated numbers."""
    return [int(count) for count in text.split(",")]


def say(text: str) -> None:
    """To stderr."""
    print(text, file=sys.stderr, flush=True)


def finetuned(models: dict[str, Path], data: Path, recipe: str, labels: Sequence[int], seed: int) -> list[Curve]:
    """Fine-tuning from each model (of the random one: its shape), with labels drawn by the run's seed."""
    config = finetune_config(recipe)
    config = replace(config, train=replace(config.train, device="cpu"))
    return [
        finetune_curve(name, model, data, replace(config, from_scratch=name == RANDOM), labels, [seed], say)
        for name, model in models.items()
    ]


def wall_clock(run: Path) -> float:
    """Seconds that a finished run took to train."""
    status = json.loads((run / "status.json").read_text())
    if status["state"] != "finished":
        raise UserError(f"{run} has not finished: {status['state']}")
    return float(json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["elapsed_s"])


def measured(scores: Scores) -> list[tuple[Key, float]]:
    """Every figure of an evaluation."""
    rows = [((row.features, probe), getattr(row, probe)) for row in scores.rows for probe in scores.probes]
    rows += [point for curve in scores.curves for point in points(curve)]
    return [(key, value) for key, value in rows if value is not None]


def points(curve: Curve) -> list[tuple[Key, float]]:
    """The means of a curve."""
    names = [(curve.features, f"{curve.probe}, {count:,} a class") for count in curve.labels]
    return list(zip(names, curve.mean, strict=True))


def table(found: dict[Key, Sequence[float]]) -> str:
    """A row for each measure, a column for each kind of features, in percent."""
    names = list(dict.fromkeys(features for features, _ in found))
    names.sort(key=[MODEL, *(name for name, _ in RIVALS.values())].__contains__, reverse=True)
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for measure in dict.fromkeys(measure for _, measure in found):
        cells = []
        for name in names:
            values = found.get((name, measure))
            cells.append(percent(values) if values else "n/a")
        lines.append(f"| {measure} | {' | '.join(cells)} |")
    return "\n".join(lines)


def percent(values: Sequence[float]) -> str:
    """Mean in percent and, of several values, half of its 95 % interval."""
    mean, low, high = interval(values)
    return f"{100 * mean:.1f}" + (f" ± {50 * (high - low):.1f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
