"""How soon data2vec 2.0 is as good as its rivals: `python benchmarks/time_to_accuracy.py image --out compared/image`.

Same data, encoder, batches, evaluation and machine for all (objectives.py). Each method first gets its peak rate (at
its published mask ratio) and then its mask ratio from the same small sweep, scored on a validation part of the training
data: all rates for a quarter of the time, the best three of them and then the mask ratios for all of it and with two
seeds. Then it is trained anew for the whole time and for a half, a quarter, an eighth and a sixteenth of it, with as
many seeds as asked for, and every run is scored on the test part. From the mean curves comes the time that each rival
needs for its final score, divided by the time in which data2vec 2.0 has that score, and the reverse; intervals are
percentiles of curves of seeds drawn again with replacement, so they know of seeds and not of test samples.

A run has one thread of a processor, or a GPU. Its length counts its own processor time, which is wall-clock time where
nothing else runs; on a GPU wall-clock time. Writes OUT/runs/*.json, from which the same command goes on, results.json,
table.md and curves.png.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import torch
from objectives import SUPERVISED, Labels, methods

from data2vec2.commands.pretrain import Pretraining
from data2vec2.commands.training import Opened
from data2vec2.config.run import OptimConfig, RunConfig
from data2vec2.data.batch import Batches, iterate
from data2vec2.data.records import held_out
from data2vec2.errors import UserError
from data2vec2.evaluation.features import labelled
from data2vec2.evaluation.scores import MODEL, Samples, score
from data2vec2.modalities import get_recipe
from data2vec2.modalities.data import Columns
from data2vec2.modalities.fields import build_encoder
from data2vec2.modalities.tools import tools_of
from data2vec2.tasks.pretrain import Masks
from data2vec2.training.device import computing
from data2vec2.training.optim import build_optimizer, set_learning_rate
from data2vec2.training.run import RunFolder
from data2vec2.version import __version__

RECIPES = {"image": "image_tiny", "audio": "audio_mel_tiny", "text": "text_tiny"}
GPU_RECIPES = {"image": "image_small", "audio": "audio_mel_small", "text": "text_small"}
PROBES = {"image": ("linear", "knn"), "audio": ("phones",), "text": ("linear",)}
"""Their mean decides about rates and mask ratios. Among texts, an untrained network's nearest neighbours are right more
often than those of every model of a few thousand updates (LOG.md), so they would choose what learns least."""
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
"""Of the whole time: a run of its own for each, since rates fall to zero by the end."""
SEARCH, FINALISTS, TRIALS = 1 / 4, 3, 2
"""Share of the whole time in which every rate is tried; how many are tried for all of it, and with how many seeds."""
WARMUP = 0.1
"""Share of a run that the rate rises over."""
MOST = 2_000
"""Samples of each part that probes see."""
SCORING_S = 10
"""What a run takes besides training."""
CLIP = 1.0
UNTRAINED = "untrained"
RESAMPLED = 2_000


@dataclass(frozen=True)
class Run:
    """One training and its scores, or those of an untrained network (of no seconds)."""

    recipe: str
    data: str
    device: str
    method: str
    seconds: float
    seed: int
    part: str
    """Scored on: validation (a sweep) or test."""
    rate: float = 0.0
    mask: int = 0
    """Which of the method's mask ratios."""
    precision: str = "float32"

    @property
    def name(self) -> str:
        """Of its file."""
        method = "".join(letter if letter.isalnum() else "-" for letter in self.method)
        return f"{method}-{self.seconds:.1f}s-{self.part}-{self.seed}-{self.rate:g}-{self.mask}.json"


def perform(run: Run, out: Path) -> dict[str, Any]:
    """Train and score; what is in the folder already is not done again."""
    path = out / "runs" / run.name
    if path.is_file():
        kept = json.loads(path.read_text("utf-8"))
        settings = ("recipe", "data", "device", "precision")  # all that its name does not say
        if differ := [key for key in settings if kept.get(key) != getattr(run, key)]:
            raise UserError(f"{path} is of another {' and '.join(differ)}; give another --out")
        return kept
    with computing(1 if run.device == "cpu" else None):
        found = {**vars(run), **trained_and_scored(run)}
    RunFolder(path.parent).write_json(run.name, found)
    return found


@dataclass(frozen=True)
class Material:
    """A data set, opened, and how it is read and scored."""

    config: RunConfig
    opened: Opened[RunConfig]
    samples: tuple[Samples, Samples]
    """That probes learn from, and that they are asked about."""
    normalise: Callable[..., Any]
    tools: Any


def material(config: RunConfig, data: str, part: str, device: torch.device) -> Material:
    """A recipe's configuration as it is for the data, and what is scored: the validation part, or the test part."""
    training, says = Pretraining(), lambda _: None
    opened = training.opened(training.started(config, [data], says), [data], None, says)
    config, tools = opened.config, tools_of(opened.config.model.modality.kind)
    parts = tools.open_labelled(data, Columns(), "classes")
    learned, held = held_out(parts, None, config.data.val_fraction, config.train.seed)
    if part == "test":
        if parts.test is None:
            raise UserError(f"{data} has no test part to score on")
        held = parts.test
    assert held is not None
    readers = [tools.reader(one, config.model, config.data, config.train.seed) for one in (learned, held)]
    samples = tuple((reader, labelled(reader.records.labels, MOST)) for reader in readers)
    return Material(config, opened, samples, tools.normalise(config.data, device), tools)


def trained_and_scored(run: Run) -> dict[str, Any]:
    """Figures of a run."""
    device, config = torch.device(run.device), get_recipe(run.recipe)
    found = material(replace(config, train=replace(config.train, seed=run.seed)), run.data, run.part, device)
    config, train_part = found.config, found.opened.train
    torch.manual_seed(run.seed)
    figures: dict[str, Any] = {"updates": 0, "cpu_seconds": 0.0, "wall_seconds": 0.0}
    if run.method == UNTRAINED:
        encoder = build_encoder(config.model).to(device)
    else:
        method = methods(config, len(train_part.records.classes))[run.method]
        model = method.build(config).to(device).train()
        order = train_part.order(max(1, round(config.train.batch_size * method.batch)))
        mask = method.masks[run.mask]
        additions = [Masks(mask, train_part)]
        if run.method == SUPERVISED:  # of pictures, whose places are those of the records
            additions.append(Labels(train_part.records.labels))
        batches = Batches(train_part, order, additions)
        optim = replace(config.optim, lr=run.rate, lr_rule="none")
        figures |= {"mask_ratio": mask.mask_ratio, **train(model, optim, batches, found.normalise, run)}
        encoder = model.encoder
    return figures | scored(encoder.eval(), found, device, run.data, run.part, run.seed)


def train(model: Any, optim: OptimConfig, batches: Batches, normalise: Callable[..., Any], run: Run) -> dict[str, Any]:
    """Train until the time is over; the rate (a warm-up, then half a cosine to zero) follows the time."""
    device, on_cpu = torch.device(run.device), run.device == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    optimizer, step, losses = build_optimizer(model, optim), 0, []
    readers = 0 if on_cpu else min(8, os.cpu_count() or 1)
    wall, cpu, started = time.perf_counter(), time.process_time(), clock()
    for batch in iterate(batches, 0, 10**9, workers=readers, pin_memory=not on_cpu):
        share = (clock() - started) / run.seconds
        if share >= 1:
            break
        rate = run.rate * min(1, share / WARMUP) * 0.5 * (1 + math.cos(math.pi * share))
        set_learning_rate(optimizer, rate)
        batch = batch.to(device)
        with torch.autocast(device.type, torch.bfloat16) if run.precision == "bfloat16" else nullcontext():
            loss = model(normalise(batch.inputs), batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        model.follow(share)
        step += 1
        if step % 20 == 0 or step == 1:
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                break
    took = {"cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - wall}
    return {"updates": step, "first_loss": losses[0], "last_loss": float(np.mean(losses[-5:])), **took}


def scored(encoder: Any, found: Material, device: torch.device, data: str, part: str, seed: int) -> dict[str, float]:
    """Accuracies of probes on frozen features, 0 to 1; 0 where weights or features are not finite."""
    started, (learned, asked), tools = time.process_time(), found.samples, found.tools
    probes = PROBES[tools.spec.name]
    if not all(parameter.isfinite().all() for parameter in encoder.parameters()):
        return dict.fromkeys(probes, 0.0)
    phones = tools.token_probe(data, learned[0], asked[0]) if "phones" in probes else None
    how = {"raw": (tools.words.raw, tools.raw_features), "phones": phones, "probes": probes, "seed": seed}
    rows = score(encoder, None, learned, asked, found.normalise, device, part, **how).rows
    row = next(row for row in rows if row.features == MODEL)
    return {probe: getattr(row, probe) for probe in probes} | {"scoring_seconds": time.process_time() - started}


def all_runs(runs: Sequence[Run], out: Path, jobs: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Figures of all runs, `jobs` at a time (0: in this process)."""
    found: list[dict[str, Any]] = []

    def finished() -> Iterator[dict[str, Any]]:
        if not jobs:
            yield from (perform(run, out) for run in runs)
            return
        with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
            yield from pool.map(perform, runs, [out] * len(runs))

    for one in finished():
        found.append(one)
        figures = " ".join(f"{key} {100 * one[key]:.1f}" for key in ("linear", "knn", "phones") if key in one)
        say(
            f"{len(found)} of {len(runs)}: {one['method']}, {one['seconds']:.0f} s ({one['wall_seconds']:.0f} s), "
            f"{one['part']}, seed {one['seed']}, rate {one['rate']:g}, mask {one['mask']}: {figures}"
        )
    return found


def ranked(found: Sequence[dict[str, Any]], probes: Sequence[str]) -> dict[str, list[tuple[float, int]]]:
    """Rates and masks of each method, those with the best mean of their scores first."""
    scores: dict[tuple[str, float, int], list[float]] = {}
    for one in found:
        tried = scores.setdefault((one["method"], one["rate"], one["mask"]), [])
        tried.append(float(np.mean([one[probe] for probe in probes])))
    by: dict[str, list[tuple[float, int]]] = {}
    for method, rate, mask in sorted(scores, key=lambda key: -float(np.mean(scores[key]))):
        by.setdefault(method, []).append((rate, mask))
    return by


def best_rates(found: Sequence[dict[str, Any]], probes: Sequence[str]) -> list[tuple[str, float]]:
    """Methods, each with FINALISTS of its rates."""
    return [(method, rate) for method, settings in ranked(found, probes).items() for rate, _ in settings[:FINALISTS]]


def chosen(found: Sequence[dict[str, Any]], probes: Sequence[str]) -> dict[str, tuple[float, int]]:
    """Rate and mask of each method with the best mean of its scores in the sweep."""
    return {method: settings[0] for method, settings in ranked(found, probes).items()}


Curve = list[tuple[float, list[float]]]
"""Seconds, and the scores of the seeds."""


def curves_of(found: Sequence[dict[str, Any]], probe: str, clock: str) -> dict[str, Curve]:
    """Scores over time of each method, from the untrained network on."""
    by: dict[str, dict[float, list[dict[str, Any]]]] = {}
    for one in found:
        by.setdefault(one["method"], {}).setdefault(one["seconds"], []).append(one)
    start = [one[probe] for one in by.pop(UNTRAINED)[0.0]]
    return {
        method: [
            (0.0, start),
            *(
                (float(np.mean([one[clock] for one in runs])), [one[probe] for one in runs])
                for _, runs in sorted(lengths.items())
            ),
        ]
        for method, lengths in by.items()
    }


def reached(times: Sequence[float], scores: Sequence[float], goal: float) -> float:
    """The first time at which the line through the points has the goal; infinite if it never has."""
    above = np.flatnonzero(np.asarray(scores) >= goal)
    if not len(above):
        return math.inf
    if not (place := int(above[0])):
        return times[0]
    share = (goal - scores[place - 1]) / (scores[place] - scores[place - 1])
    return times[place - 1] + share * (times[place] - times[place - 1])


def ratio(rival: Curve, ours: Curve) -> tuple[float, float, float]:
    """The rival's whole time divided by ours for its final score, and the ends of its 95 % interval.

    0: ours never gets there. It is at most that of the longest to the shortest run.
    """
    rng = np.random.default_rng(0)

    def once(draw: Callable[[list[float]], float]) -> float:
        goal, times = draw(rival[-1][1]), [seconds for seconds, _ in ours]
        needed = reached(times, [draw(scores) for _, scores in ours], goal)
        return rival[-1][0] / max(needed, times[1])  # shorter runs were not made

    def again(scores: list[float]) -> float:
        return float(np.mean(rng.choice(scores, len(scores))))

    drawn = [once(again) for _ in range(RESAMPLED)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return once(lambda scores: float(np.mean(scores))), float(low), float(high)


def tables(found: Sequence[dict[str, Any]], probes: Sequence[str], clock: str) -> tuple[str, dict[str, Any]]:
    """Scores and ratios as Markdown, and the ratios for JSON."""
    lines, ratios = [], {}
    for probe in probes:
        curves = curves_of(found, probe, clock)
        times = [seconds for seconds, _ in next(iter(curves.values()))]
        lines += [f"{probe}, mean of seeds (lowest to highest), after so many seconds:", ""]
        lines += [f"| | {' | '.join(f'{seconds:.0f}' for seconds in times)} |", "|---" * (len(times) + 1) + "|"]
        for method, curve in curves.items():
            cells = (f"{100 * np.mean(s):.1f} ({100 * min(s):.1f} to {100 * max(s):.1f})" for _, s in curve)
            lines.append(f"| {method} | {' | '.join(cells)} |")
        mine = [method for method in curves if method.startswith("data2vec 2.0")]
        others = [method for method in curves if method not in mine]
        said = "Time of a rival for its final score, divided by ours for the same (0: never reached):"
        reverse = "The reverse: our time for our final score, divided by the rival's for the same:"
        for title, key, backwards in ((said, probe, False), (reverse, f"{probe}, reverse", True)):
            lines += ["", title, "", f"| {probe} | {' | '.join(mine)} |", "|---" * (len(mine) + 1) + "|"]
            for other in others:
                both = {own: (curves[other], curves[own]) for own in mine}
                pairs = {own: ratio(*(two[::-1] if backwards else two)) for own, two in both.items()}
                ratios[f"{key}: {other}"] = pairs
                lines.append(f"| {other} | {' | '.join(map(in_words, pairs.values()))} |")
        lines.append("")
    return "\n".join(lines), ratios


def in_words(value: tuple[float, float, float]) -> str:
    """A ratio and its interval."""
    return f"{value[0]:.1f} ({value[1]:.1f} to {value[2]:.1f})"


def plot(found: Sequence[dict[str, Any]], probes: Sequence[str], clock: str, path: Path, title: str) -> None:
    """Curves with a point for each seed over the time that counts; above, the wall-clock time that it took here."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    trained = [one for one in found if one["wall_seconds"]]
    longer = sum(one["wall_seconds"] for one in trained) / sum(one[clock] for one in trained)
    counted = "processor seconds of training" if clock == "cpu_seconds" else "seconds of training (wall clock)"
    figure, axes = pyplot.subplots(1, len(probes), figsize=(7 * len(probes), 5), squeeze=False, layout="constrained")
    for axis, probe in zip(axes[0], probes, strict=True):
        for place, (method, curve) in enumerate(curves_of(found, probe, clock).items()):
            own = method.startswith("data2vec 2.0")
            how = {"color": f"C{place}", "linewidth": 2.5 if own else 1.2, "linestyle": "-" if own else "--"}
            times, means = zip(*((seconds, 100 * float(np.mean(scores))) for seconds, scores in curve[1:]), strict=True)
            axis.plot(times, means, label=method, **how)
            for seconds, scores in curve[1:]:
                axis.plot([seconds] * len(scores), [100 * one for one in scores], ".", color=f"C{place}", alpha=0.5)
        axis.axhline(100 * float(np.mean(curve[0][1])), color="grey", linestyle=":", label=UNTRAINED)
        axis.set(xscale="log", xlabel=counted, ylabel=f"{probe} (%)", title=title)
        if clock == "cpu_seconds":
            wall = axis.secondary_xaxis("top", functions=(lambda x: x * longer, lambda x: x / longer))
            wall.set_xlabel("wall-clock seconds here")
        axis.grid(alpha=0.3)
    axes[0][0].legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def default_data(modality: str) -> Path:
    """Bundled data."""
    if modality == "image":
        from data2vec2.modalities.image import fashion_mnist

        return fashion_mnist()
    if modality == "audio":
        from data2vec2.modalities.audio import english_prompts

        return english_prompts()
    from data2vec2.modalities.text import wordnet_glosses

    return wordnet_glosses()


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modality", choices=RECIPES)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs; finished ones are kept")
    parser.add_argument("--data", type=Path, help="data with labels and a test part; none: bundled ones")
    parser.add_argument(
        "--recipe", help="whose encoder and data settings to use; none: a tiny one, on a GPU a small one"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"), help="none: float32, on a GPU bfloat16; pretrain says its own"
    )
    parser.add_argument("--hours", type=float, help="for all of it; none: 2, on a GPU 8 minutes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, help="runs at a time (0: in this process); none: a run for each core")
    parser.add_argument("--only", nargs="+", help="methods, by the beginnings of their names")
    args = parser.parse_args()
    started, cpu = time.time(), args.device == "cpu"
    jobs = args.jobs if args.jobs is not None else (len(os.sched_getaffinity(0)) if cpu else 0)
    recipe = args.recipe or (RECIPES if cpu else GPU_RECIPES)[args.modality]
    data = str(args.data or default_data(args.modality))
    precision = args.precision or ("float32" if cpu else "bfloat16")
    probes, known = PROBES[args.modality], methods(get_recipe(recipe), num_classes=2)
    names = [name for name in known if not args.only or name.startswith(tuple(args.only))]
    if not names:
        parser.error(f"--only names none of the methods: {', '.join(known)}")
    total = (args.hours or (2 if cpu else 8 / 60)) * 3600 * max(1, jobs)
    tried = sum(len(known[name].rates) for name in names)
    again = sum(FINALISTS + len(known[name].masks) - 1 for name in names) * TRIALS
    count = tried + again + len(names) * args.seeds * len(SHARES) + args.seeds
    scoring = SCORING_S if cpu else SCORING_S / 10
    length = (total - count * scoring) / (tried * SEARCH + again + len(names) * args.seeds * sum(SHARES))
    kept = args.out / "length.json"
    if kept.is_file():  # a run that goes on keeps its length
        length = json.loads(kept.read_text("utf-8"))
    if length <= 0:
        raise SystemExit(f"scoring {count} runs takes longer than that; give more --hours, fewer --seeds or --only")
    (args.out / "runs").mkdir(parents=True, exist_ok=True)
    results = RunFolder(args.out)
    results.write_json(kept.name, length)

    def say(text: str) -> None:
        print(f"{time.time() - started:.0f} s: {text}", file=sys.stderr, flush=True)

    def run(method: str, seconds: float, seed: int, part: str, rate: float = 0.0, mask: int = 0) -> Run:
        return Run(recipe, data, args.device, method, seconds, seed, part, rate, mask, precision)

    say(f"{count} runs of {', '.join(names)}; the longest take {length:.0f} s")

    def searched(name: str, rate: float, mask: int = 0, share: float = 1, trial: int = 0) -> Run:
        return run(name, share * length, args.seeds + trial, "validation", rate, mask)

    def tried_again(settings: Sequence[tuple[str, float, int]]) -> list[dict[str, Any]]:
        return all_runs(
            [searched(*one, trial=trial) for one in settings for trial in range(TRIALS)], args.out, jobs, say
        )

    sweep = all_runs(
        [searched(name, rate, share=SEARCH) for name in names for rate in known[name].rates], args.out, jobs, say
    )
    final = tried_again([(name, rate, 0) for name, rate in best_rates(sweep, probes)])
    best = chosen(final, probes)
    final += tried_again([(name, best[name][0], mask) for name in names for mask in range(1, len(known[name].masks))])
    best = chosen(final, probes)
    sweep += final
    say(f"best on the validation part: {best}")
    tests = [run(UNTRAINED, 0.0, seed, "test") for seed in range(args.seeds)]
    tests += [
        run(name, share * length, seed, "test", *best[name])
        for share in reversed(SHARES)  # the longest first: then the cores end together
        for seed in range(args.seeds)
        for name in names
    ]
    found = all_runs(tests, args.out, jobs, say)
    clock = "cpu_seconds" if cpu else "wall_seconds"
    text, ratios = tables(found, probes, clock)
    about = {"version": __version__, "torch": torch.__version__}
    about |= {"device": args.device, "precision": precision, "recipe": recipe}
    results.write_json("results.json", {**about, "best": best, "ratios": ratios, "sweep": sweep, "runs": found})
    (args.out / "table.md").write_text(text, encoding="utf-8")
    plot(found, probes, clock, args.out / "curves.png", f"{args.modality}: {Path(data).name}")
    print(text)


if __name__ == "__main__":
    main()
