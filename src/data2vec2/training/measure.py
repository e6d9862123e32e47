"""What an update takes on this machine: a few real ones are made, and where they are too long, parts of one."""

from __future__ import annotations

import os
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from data2vec2.config.run import FinetuneConfig, RunConfig
from data2vec2.training.device import synchronise
from data2vec2.training.optim import build_optimizer
from data2vec2.training.task import Task

_READ = 32
"""Samples that are read to be measured, or a micro-batch if that is more."""


@dataclass(frozen=True)
class Cost:
    """What an update takes in one process."""

    seconds: float
    """Of an update, reading and all that belongs to it."""
    reading_s: float
    """That one process needs to read its samples."""
    samples: int
    """Samples of an update, over all processes; of batches with different numbers the mean."""
    at_once: int
    """Samples that go through the model at once."""
    measured: int
    """As many as were measured at once; where fewer, all figures are computed from them."""
    memory: int
    """Largest use of memory, in bytes: of the device, or on a processor of the process."""


def measure_update(
    task: Task, dataset: Any, config: RunConfig | FinetuneConfig, device: torch.device, budget_s: float
) -> Cost:
    """Time reading, loss and gradients, optimiser and teacher for `budget_s` seconds; the task's model is spent then.

    `dataset` has the global batches (`data.batch.Batches`). An update's time is that of computing, or of reading where
    that takes longer; on a processor they also share its cores.
    """
    train, share = config.train, copy(dataset)
    processes, workers = train.processes or 1, config.data.workers or 0
    counts = {step: len(share.order(step).samples_B) for step in range(1, 16)}
    typical = sorted(counts, key=counts.__getitem__)[7]  # of sequences, batches of long ones have few samples
    total = counts[typical]
    micro_batch = train.micro_batch or train.batch_size
    share.rank, share.size = 0, processes * max(1, total // processes // _READ)
    most = max(_READ, int(micro_batch / max(share[0].size, 1e-9)))  # the first has caches and files to open
    share.size = processes * max(1, total // processes // most)
    batch, reading = _timed(lambda: share[typical])
    at_once = min(max(1, int(micro_batch / max(batch.size, 1e-9))), len(batch))
    reading_s = reading / len(batch) * total / processes
    model, count, times = task.model.train(), 1, list[float]()
    half = torch.autocast(device.type, torch.bfloat16) if train.precision == "bfloat16" else nullcontext()
    optimizer = build_optimizer(model, config.optim)

    def gradients() -> None:
        micro = next(iter(batch.split(count * batch.size)))
        with half:
            sums = task.loss(model, micro.to(device))
        (sums.loss / sums.count).backward()  # type: ignore[no-untyped-call]
        synchronise(device)

    def update() -> None:
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], config.optim.clip_norm or 1e9)
        optimizer.step()
        if task.ema:
            task.ema.update(1)
        synchronise(device)

    before = most_memory(device, reset=True)
    _, longest = _timed(gradients)  # the first prepares kernels and memory, and counts only where it takes too long
    end = time.perf_counter() + budget_s
    if longest > budget_s:
        times.append(longest)
    else:
        _, longest = _timed(gradients)
    update()
    update_s = _timed(update)[1]
    half_as_many = 0.0
    while count < at_once and time.perf_counter() + 4 * longest < end:
        half_as_many, count = longest, min(2 * count, at_once)
        before, longest = most_memory(device, reset=True), _timed(gradients)[1]
    while not times or (time.perf_counter() + longest < end and len(times) < 20):
        times.append(_timed(gradients)[1])
    grown = max(0, most_memory(device) - before)
    once = statistics.median(times)
    each = once / count if not half_as_many else min(once / count, max(0.0, once - half_as_many) / (count / 2))
    once += each * (at_once - count)  # the rest of a micro-batch costs what the second half did, at most as the first
    compute_s = once / at_once * total / processes + update_s
    seconds = compute_s + reading_s
    if workers:
        shared_s = processes * (compute_s * (train.threads or 1) + reading_s) / (os.cpu_count() or 1)
        seconds = max(compute_s, reading_s / workers, shared_s if device.type == "cpu" else 0.0)
    samples = round(statistics.mean(counts.values()))
    return Cost(seconds, reading_s, samples, at_once, count, before + int(grown * at_once / count))


def _timed(run: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> tuple[Any, float]:
    started = clock()
    found = run()
    return found, clock() - started


def most_memory(device: torch.device, reset: bool = False) -> int:
    """Most bytes in use at a time since the last `reset`; with it, those in use now."""
    if device.type == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError):  # Linux
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(status["VmHWM"].split()[0]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)


def update_flops(model: nn.Module, loss: Callable[[], Tensor]) -> float:
    """Floating-point operations of an update of `model` with this loss: a multiplication with its addition is two.

    Matrix products, convolutions and attention of the forward pass as PyTorch counts them; the backward pass is twice
    that, and the teacher, which is a module of that name, has none. (Of a backward pass PyTorch counts grouped
    convolutions' gradients of weights too often, and attention's scores, which are made again, as well.) Blocks that
    layer-drop leaves out count by their chance.
    """
    training, attention = model.training, torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    left_out = {attention: lambda *shapes, **_: sdpa_flop_count(*shapes[:3])}  # type: ignore[no-untyped-call]
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=left_out) as counted:
        model.eval()
        loss()
        model.train(training)
    every = {name: sum(found.values()) for name, found in counted.get_flop_counts().items()}
    teacher = sum(flops for name, flops in every.items() if name.endswith(".teacher"))
    dropped = 0.0
    for name, part in model.named_modules():
        blocks = ".".join(filter(None, (type(model).__name__, name, "blocks.")))
        if rate := 0 if ".teacher." in blocks else getattr(part, "layer_drop", 0):
            dropped += rate * sum(flops for block, flops in every.items() if re.fullmatch(rf"{blocks}\d+", block))
    return float(3 * (counted.get_total_flops() - dropped) - 2 * teacher)


def product_rate(device: torch.device, dtype: torch.dtype, clock: Callable[[], float] = time.perf_counter) -> float:
    """Floating-point operations a second that products of matrices of this type reach."""
    side = 4096 if device.type == "cuda" else 1024
    x = torch.randn(side, side, device=device, dtype=dtype)

    def products() -> None:
        for _ in range(8):
            x @ x
        synchronise(device)

    times = [_timed(products, clock)[1] for _ in range(6)][1:]
    return 8 * 2 * side**3 / statistics.median(times)
