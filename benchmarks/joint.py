"""One trunk for pictures, speech and text, beside a trunk for each: `python benchmarks/joint.py --out joint`.

All have the same blocks, and every modality has its own stem, positions and decoder. The joint model makes its updates
in turn: always for the modality that had the least time. So a modality has as much time in it as alone, and the trunk
is trained three times as long. Bundled data, tiny recipes, one thread; scores on the test parts by the probes of
time_to_accuracy.py. Writes OUT/runs/*.json, from which the same command goes on, and prints a table.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import torch
from objectives import Ours
from time_to_accuracy import CLIP, PROBES, RECIPES, WARMUP, Material, default_data, material, scored
from torch import nn

from data2vec2.config.model import EncoderConfig
from data2vec2.data.batch import Batch, Batches, iterate
from data2vec2.modalities import get_recipe
from data2vec2.tasks.pretrain import Masks
from data2vec2.training.device import computing
from data2vec2.training.optim import build_optimizer, set_learning_rate
from data2vec2.training.run import RunFolder

TRUNK = EncoderConfig(embed_dim=96, num_heads=4, prenet_depth=0, depth=4, norm_eps=1e-5)
CPU = torch.device("cpu")


def share_blocks(models: list[Ours], found: list[Material]) -> None:
    """Give all the first one's blocks, those of its teacher included."""
    first = models[0].model
    for ours, one in zip(models[1:], found[1:], strict=True):
        ours.encoder.blocks, ours.model.teacher.blocks = first.student.blocks, first.teacher.blocks
        ours.average(ours.model.teacher, ours.encoder, one.config)


def endless(one: Material) -> Iterator[Batch]:
    """Batches of a modality with its masks."""
    config, part = one.config, one.opened.train
    batches = Batches(part, part.order(config.train.batch_size), [Masks(config.model.masks, part)])
    return iterate(batches, 0, 10**9, workers=0, pin_memory=False)


def train(models: list[Ours], found: list[Material], seconds: float) -> list[int]:
    """Train each modality for so many processor seconds, by its own rate; returns the updates of each."""
    optimizer = build_optimizer(nn.ModuleList(models), found[0].config.optim)
    readers, spent, updates = [endless(one) for one in found], [0.0] * len(models), [0] * len(models)
    while min(spent) < seconds:
        now = int(np.argmin(spent))
        started, share = time.process_time(), spent[now] / seconds
        rate = found[now].config.optim.lr * min(1, share / WARMUP) * 0.5 * (1 + math.cos(math.pi * share))
        set_learning_rate(optimizer, rate)
        batch = next(readers[now])
        models[now](found[now].normalise(batch.inputs), batch).backward()
        nn.utils.clip_grad_norm_(models[now].parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()  # to none: the others' parameters stay as they are
        models[now].follow(share)
        updates[now] += 1
        spent[now] += time.process_time() - started
    return updates


def run(kinds: list[str], seconds: float, seed: int) -> dict[str, Any]:
    """Scores of one model of some modalities."""
    torch.manual_seed(seed)
    found = []
    for kind in kinds:
        config = get_recipe(RECIPES[kind])
        model, train_config = replace(config.model, encoder=TRUNK), replace(config.train, seed=seed)
        data = str(default_data(kind))
        found.append(material(replace(config, model=model, train=train_config), data, "test", CPU))
    models = [Ours(one.config).train() for one in found]
    share_blocks(models, found)
    updates = train(models, found, seconds) if seconds else [0] * len(models)
    return {
        kind: {"updates": count, **scored(ours.encoder.eval(), one, CPU, str(default_data(kind)), "test", seed)}
        for kind, ours, one, count in zip(kinds, models, found, updates, strict=True)
    }


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs; finished ones are kept")
    parser.add_argument("--seconds", type=float, default=90, help="of one core, for each modality")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", choices=RECIPES, default=list(RECIPES))
    args = parser.parse_args()
    runs = args.out / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    rows: dict[tuple[str, str], list[dict[str, float]]] = {}
    for seed in range(args.seeds):
        for how, seconds, models in (
            ("untrained", 0.0, [[kind] for kind in args.kinds]),
            ("alone", args.seconds, [[kind] for kind in args.kinds]),
            ("joint", args.seconds, [args.kinds]),
        ):
            for kinds in models:
                path = runs / f"{how}-{'-'.join(kinds)}-{seconds:g}s-{seed}.json"
                if not path.is_file():
                    with computing(1):
                        RunFolder(runs).write_json(path.name, run(kinds, seconds, seed))
                for kind, figures in json.loads(path.read_text("utf-8")).items():
                    rows.setdefault((kind, how), []).append(figures)
                    print(f"seed {seed}, {how}, {kind}: {figures}", file=sys.stderr, flush=True)
    print("| probe | untrained | alone | joint |\n|---|---|---|---|")
    for kind in args.kinds:
        for probe in PROBES[kind]:
            cells = []
            for how in ("untrained", "alone", "joint"):
                values = [100 * one[probe] for one in rows[kind, how]]
                cells.append(f"{np.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})")
            print(f"| {kind}, {probe} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
