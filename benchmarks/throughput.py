"""Speed of a pre-training step on made-up pictures: `python benchmarks/throughput.py --recipe image_base`.

A step is all that the loop does for one micro-batch: forward, backward, clipping, optimiser and EMA. Reading and
decoding pictures is not in it. Prints a row of a Markdown table.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from data2vec2.config.model import ModelConfig
from data2vec2.config.run import RunConfig
from data2vec2.method.masking import draw_keep_ids
from data2vec2.method.pretraining import Data2Vec2
from data2vec2.modalities import get_recipe, spec_of
from data2vec2.modalities.tools import tools_of
from data2vec2.training.device import activation_bytes, choose_device, fit_micro_batch, free_memory, synchronise
from data2vec2.training.optim import Ema, build_optimizer

WINDOWS = 5
HEADER = (
    "| recipe | device | precision | compiled | batch | pictures/s | student rows/s | TFLOP/s | share of peak | "
    "peak memory (GiB) |\n|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Throughput:
    """What was measured."""

    recipe: str
    device: str
    precision: str
    compiled: bool
    batch: int
    """Pictures in a step."""
    samples_per_s: float
    """Pictures a second: the median of WINDOWS windows of steps."""
    rows_per_s: float
    """Student rows a second, `num_masks` times as many."""
    tflops: float
    """Arithmetic of the model, estimated by `step_flops`, in 10^12 operations a second."""
    memory_gib: float
    """Most memory in use: the allocator's on a GPU, the process's on a CPU."""

    def row(self, peak_tflops: float | None = None) -> str:
        """One row of the table that HEADER begins."""
        share = f"{100 * self.tflops / peak_tflops:.0f} % of {peak_tflops:g}" if peak_tflops else ""
        compiled = "yes" if self.compiled else "no"
        return (
            f"| {self.recipe} | {self.device} | {self.precision} | {compiled} | {self.batch} | "
            f"{self.samples_per_s:,.1f} | {self.rows_per_s:,.1f} | {self.tflops:,.3g} | {share} | "
            f"{self.memory_gib:.1f} |"
        )


def step_flops(config: ModelConfig) -> int:
    """Floating-point operations of a training step for one picture.

    Matrix products, convolutions and attention, counted by PyTorch on tensors without memory: 1 MAC = 2 FLOP, the
    backward pass twice the forward one, the teacher forward only.
    """
    modality, zero = config.modality, np.zeros(1, dtype=np.int64)
    with torch.device("meta"):
        model = _model(config)
        picture = torch.zeros(1, modality.channels, modality.image_size, modality.image_size)
    keep_ids = torch.from_numpy(draw_keep_ids(config.masks, modality.grid, 0, zero, zero)).to("meta")
    with FlopCounterMode(display=False) as whole:
        student = model(picture, keep_ids).student
    with FlopCounterMode(display=False) as teacher:
        model.targets(picture, student.tokens)
    all_forward, teacher_forward = int(whole.get_total_flops()), int(teacher.get_total_flops())
    return 3 * (all_forward - teacher_forward) + teacher_forward


def measure(
    config: RunConfig,
    device: torch.device,
    *,
    batch: int | None = None,
    precision: str = "float32",
    compiled: bool = False,
    window: int = 10,
) -> Throughput:
    """Time WINDOWS windows of `window` steps each, after one that warms up (and compiles).

    `batch` pictures a step; none: as many as a run would put through the model at once.
    """
    torch.manual_seed(0)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    model = _model(config.model).to(device).train()
    batch = batch or _fitting_batch(config, model, device)
    pictures, keep_ids = _inputs(config.model, batch, device)
    optimizer = build_optimizer(model, config.optim)
    ema = Ema(model.teacher, model.student, start=0.999, end=0.999, anneal_updates=0)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for group in optimizer.param_groups:
        group["lr"] = 1e-6  # the work is the same at any rate, and nothing diverges
    if compiled:
        model.compile()

    def step() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            out = model(pictures, keep_ids)
        (out.loss.float() / out.num_rows).backward()
        nn.utils.clip_grad_norm_(parameters, config.optim.clip_norm or float("inf"))
        optimizer.step()
        optimizer.zero_grad()
        ema.update(1)

    seconds = statistics.median([_seconds(step, window, device) for _ in range(WINDOWS + 1)][1:]) / window
    flops = step_flops(config.model) * batch / seconds
    return Throughput(
        recipe=config.recipe,
        device=torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device} ({torch.get_num_threads()} threads)",
        precision=precision,
        compiled=compiled,
        batch=batch,
        samples_per_s=batch / seconds,
        rows_per_s=batch * config.model.masks.num_masks / seconds,
        tflops=flops / 1e12,
        memory_gib=_peak_memory(device) / 2**30,
    )


def _model(config: ModelConfig) -> Data2Vec2:
    return Data2Vec2(config, tools_of(config.modality.kind).build(config))


def _inputs(config: ModelConfig, batch: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise pictures and their kept tokens, on the device."""
    modality = config.modality
    pictures = torch.randn(batch, modality.channels, modality.image_size, modality.image_size, device=device)
    samples = np.arange(batch)
    keep_ids = draw_keep_ids(config.masks, modality.grid, 0, np.zeros_like(samples), samples)
    return pictures, torch.from_numpy(keep_ids).to(device)


def _fitting_batch(config: RunConfig, model: Data2Vec2, device: torch.device) -> int:
    """The micro-batch that `pretrain` would choose."""
    pictures, keep_ids = _inputs(config.model, 1, device)
    needed = activation_bytes(lambda: model(pictures, keep_ids).loss)
    return fit_micro_batch(config.train.batch_size, needed, free_memory(device))


def _seconds(step: Callable[[], None], repeats: int, device: torch.device) -> float:
    """Time of `repeats` steps, the device's queue emptied before and after."""
    synchronise(device)
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    synchronise(device)
    return time.perf_counter() - start


def _peak_memory(device: torch.device) -> int:
    """Bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=list(spec_of("image").recipes), default="image_tiny")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--batch", type=int, help="pictures a step; default: as many as fit, as in a run")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--steps", type=int, default=10, help="steps in each of the windows that are timed")
    parser.add_argument("--peak-tflops", type=float, help="what the device can do, for the share of peak")
    args = parser.parse_args()
    found = measure(
        get_recipe(args.recipe),
        choose_device(args.device),
        batch=args.batch,
        precision=args.precision,
        compiled=args.compile,
        window=args.steps,
    )
    print(HEADER)
    print(found.row(args.peak_tflops))


if __name__ == "__main__":
    main()
