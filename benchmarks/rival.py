"""How the models that data2vec2 is compared with are trained: one thread, for a time or a number of steps."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from data2vec2.commands.pretrain import Pretraining
from data2vec2.commands.training import Opened
from data2vec2.config.run import OptimConfig, RunConfig
from data2vec2.files import read_yaml
from data2vec2.modalities import get_recipe, read_run_config
from data2vec2.modalities.tools import tools_of
from data2vec2.training.device import computing
from data2vec2.training.optim import build_optimizer, set_learning_rate
from data2vec2.training.run import CONFIG

WARMUP = 0.1
"""Share of the training that the learning rate rises over."""


def train(
    model: nn.Module,
    loss: Callable[[int], Tensor],
    *,
    seconds: float | None,
    updates: int | None,
    lr: float,
    say: Callable[[str], None],
) -> int:
    """Train on the `loss` of each step for so many seconds, or updates; returns the updates that were done.

    Seconds are processor time, which with one thread is the wall-clock time of a machine that does nothing else. The
    learning rate (cosine, to zero) follows them, so that it ends at zero wherever the machine gets to.
    """
    with computing(1):
        optimizer = build_optimizer(model, OptimConfig(lr=lr))
        started, step, mean_loss = time.process_time(), 0, 0.0
        while True:
            share = step / updates if updates else (time.process_time() - started) / (seconds or 1)
            if share >= 1:
                return step
            rate = lr * min(1, share / WARMUP) * 0.5 * (1 + math.cos(math.pi * share))
            set_learning_rate(optimizer, rate)
            value = loss(step)
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            mean_loss += (value.item() - mean_loss) * max(0.01, 1 / step)
            if step % 500 == 0:
                say(f"{type(model).__name__}: update {step:,}, {100 * share:.0f} %, loss {mean_loss:.4f}")


def saved_config(run: Path) -> RunConfig:
    """The configuration of a run, with what its folder keeps (a tokenizer); `UserError` if it can't be read."""
    config = read_yaml(run / CONFIG, read_run_config)
    return tools_of(config.model.modality.kind).resumed(config, run)


def opened(config: RunConfig, data: Path, say: Callable[[str], None]) -> Opened[RunConfig]:
    """Data as `pretrain` opens them, and the configuration that they complete."""
    training = Pretraining()
    return training.opened(training.started(config, [str(data)], say), [str(data)], None, say)


def main(pretrain: Callable[..., int], doc: str, like: str, batch_size: int, lr: float) -> None:
    """Command line of a rival."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("data", type=Path, help="as for data2vec2 pretrain")
    parser.add_argument("out", type=Path, help="exported model to write")
    parser.add_argument(
        "--like", default=like, help="recipe or run folder whose encoder, data settings and split to use"
    )
    parser.add_argument("--seed", type=int, help="instead of the recipe's or the run's")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--seconds", type=float, help="processor time, of the only thread")
    length.add_argument("--updates", type=int)
    parser.add_argument("--batch-size", type=int, default=batch_size)
    parser.add_argument("--lr", type=float, default=lr, help="peak learning rate")
    args = parser.parse_args()
    config = saved_config(Path(args.like)) if Path(args.like).is_dir() else get_recipe(args.like)
    if args.seed is not None:
        config = replace(config, train=replace(config.train, seed=args.seed))
    lengths = {"seconds": args.seconds, "updates": args.updates}
    torch.manual_seed(config.train.seed)
    done = pretrain(config, args.data, args.out, **lengths, batch_size=args.batch_size, lr=args.lr)
    print(f"{done:,} updates of {args.batch_size} samples; {args.out}")
