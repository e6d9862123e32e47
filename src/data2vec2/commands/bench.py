"""bench: what training reaches of this machine's limit, on made-up samples, and where its time goes."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data2vec2.commands.estimate import outlined
from data2vec2.commands.fitting import placed, suited
from data2vec2.commands.flags import applied
from data2vec2.commands.options import Bench
from data2vec2.config.run import RunConfig
from data2vec2.data.batch import Batch
from data2vec2.method.compiling import compile_blocks
from data2vec2.method.masking import draw_keep_ids
from data2vec2.method.pretraining import Data2Vec2
from data2vec2.modalities import recipes, run_config, spec_of, specs
from data2vec2.modalities.tools import tools_of
from data2vec2.tasks.pretrain import PretrainTask
from data2vec2.training import device as devices
from data2vec2.training.loop import Trainer
from data2vec2.training.measure import most_memory, product_rate
from data2vec2.training.optim import Ema
from data2vec2.training.parallel import ALONE, local_device
from data2vec2.training.run import RunFolder
from data2vec2.training.task import Sums


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What updates of a recipe reach in one process."""

    recipe: str
    device: str
    precision: str
    compiled: bool
    threads: int
    processes: int
    """The recipe's; one was measured, with its share of a batch."""
    batch: int
    """Samples of an update."""
    at_once: int
    """Samples that go through the model at once."""
    updates: int
    """As many were timed, each on fresh samples, after two that warm up."""
    update_s: float
    """Seconds of an update, without reading its samples; median. On a processor with one thread, the thread's own."""
    update_middle_s: tuple[float, float]
    """From the fastest tenth to the slowest."""
    samples_per_s: float
    units_per_s: float
    """Of what a batch size counts."""
    tokens_per_s: float
    """Of samples of the largest size, masked ones included."""
    update_flops: float
    """Floating-point operations of an update."""
    flops_per_s: float
    product_flops_per_s: float
    """What products of matrices reach on this device in this precision: the mean of before and after the updates."""
    share: float
    """`flops_per_s` of that."""
    peak_memory: int
    """Largest use of memory, in bytes: of the device, or on a processor of the process."""
    kept_per_sample: int
    """Bytes that are kept of a sample for the backward pass."""
    parts_s: dict[str, float]
    """Where an update's time goes; medians."""


class Stopwatch:
    """Time between marks: on CUDA the device's own, for which nothing waits; of one thread on a processor, its time."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.marks = device, list[tuple[str, Any]]()
        alone = device.type == "cpu" and torch.get_num_threads() == 1
        self.clock = time.process_time if alone else time.perf_counter  # other programs take none of the former

    def mark(self, name: str) -> None:
        """What was done since the last mark has this name; "" begins an update."""
        if self.device.type == "cuda":
            now: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            now.record()
        else:
            devices.synchronise(self.device)
            now = self.clock()
        self.marks.append((name, now))

    def updates(self) -> list[dict[str, float]]:
        """Seconds of each part of every update since this was asked last."""
        devices.synchronise(self.device)
        found: list[dict[str, float]] = []
        for (_, before), (name, now) in pairwise([("", None), *self.marks]):
            if not name:
                found.append({})
                continue
            seconds = before.elapsed_time(now) / 1e3 if self.device.type == "cuda" else now - before
            found[-1][name] = found[-1].get(name, 0.0) + seconds
        self.marks.clear()
        return found

    def after(self, owner: Any, method: str, name: str, gradient: tuple[str, Callable[[Any], Tensor]] | None) -> None:
        """Mark the end of a method, and that of what is done until its result's gradient is there."""
        run = getattr(owner, method)

        def marked(*values: Any, **named: Any) -> Any:
            found = run(*values, **named)
            self.mark(name)
            if gradient:
                reached = gradient[1](found)
                reached.register_hook(lambda _: self.mark(f"{gradient[0]}, backward"))  # type: ignore[no-untyped-call]
            return found

        setattr(owner, method, marked)

    def attach(self, model: Data2Vec2, optimizer: torch.optim.Optimizer) -> None:
        """Mark the parts of an update."""
        modality = model.student.modality
        self.after(modality, "tokens", "stem", ("arrange", lambda found: found.tokens_BTD))
        self.after(modality, "arrange", "arrange", ("student", lambda found: found.rows_NLD))
        self.after(model.student, "forward", "student", ("decoder", lambda found: found.x_NLD))
        self.after(model.teacher, "forward", "teacher", None)
        self.after(model, "targets", "targets and loss", None)
        self.after(model, "decode", "decoder", ("targets and loss", lambda found: found))
        self.after(model, "loss", "targets and loss", None)
        for parameter in modality.stem.parameters() if modality.stem else ():
            parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                lambda _: self.mark("stem, backward")
            )
        optimizer.register_step_pre_hook(lambda *_: self.mark("clip"))
        optimizer.register_step_post_hook(lambda *_: self.mark("optimiser"))


class MadeUpTask(PretrainTask):
    """The objective on samples that nobody reads."""

    def __init__(self, model: Data2Vec2, config: RunConfig, watch: Stopwatch) -> None:
        self.model, self.watch, self.normalise = model, watch, lambda inputs: inputs
        self.ema = Ema(model.teacher, model.student, **asdict(config.ema))

    def loss(self, model: nn.Module, batch: Batch) -> Sums:
        """That of pre-training."""
        self.watch.mark("batch")
        return super().loss(model, batch)


def bench(given: Bench) -> list[Speed]:
    """What updates of a recipe, or of each modality's first one, reach here."""
    asked = [next(iter(spec.recipes.values()))() for spec in specs().values()]
    if given.config is not None:
        asked = [run_config(given.config) if isinstance(given.config, str) else given.config]
    return [measured(applied(config, given.flags), given.seconds) for config in asked]


def measured(config: RunConfig, seconds: float) -> Speed:
    """What one process reaches with its share of a batch, or with less where that would take long."""
    train, masks, tools = placed(config.train), config.model.masks, tools_of(config.model.modality.kind)
    device, processes = local_device(torch.device(train.device)), train.processes or 1
    _, grid, size = tools.largest(config.model, config.data)
    with devices.computing(train.threads):
        torch.manual_seed(train.seed)
        model = Data2Vec2(config.model, tools.build(config.model)).to(device)
        model.student.gradient_checkpointing = train.checkpoint_activations
        train = replace(train, processes=1, batch_size=train.batch_size // processes)
        train = suited(train, partial(tools.sized, model, config), device)
        half = train.precision == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            kept = devices.activation_bytes(tools.sized(model, config).loss)
        watch, flops = Stopwatch(device), outlined(config)[2] * size
        limit = partial(product_rate, device, torch.bfloat16 if half else torch.float32, watch.clock)
        limits = [limit()]
        quick = max(1, int(seconds / 8 * 0.3 * limits[0] / flops))  # samples of an update that takes an eighth
        at_once = min(quick, max(1, int((train.micro_batch or 1) / size)))
        batch = at_once * max(1, min(quick, int(train.batch_size / size)) // at_once)
        units = math.ceil(at_once * size)
        train = replace(train, micro_batch=units, batch_size=units * (batch // at_once))
        if train.compile:
            compile_blocks(model)
        task = MadeUpTask(model, config, watch)
        trainer = Trainer(task, replace(config, train=train), RunFolder(Path()), print, device, "", ALONE)
        watch.attach(model, trainer.optimizer)

        def update(step: int) -> None:
            keep_ids = draw_keep_ids(masks, grid, train.seed, np.full(batch, step), np.arange(batch))
            inputs = tools.noise(config, batch, device)
            made = Batch(inputs=inputs, keep_ids_NK=torch.from_numpy(keep_ids).to(device), size=size)
            watch.mark("")
            trainer.update(step, made)
            watch.mark("EMA")

        update(0)
        update(1)
        warm = sum(watch.updates()[1].values())
        most_memory(device, reset=True)
        for step in range(count := min(50, max(3, int(seconds / warm)))):
            update(2 + step)
        found = watch.updates()
        memory = most_memory(device)
        limits.append(limit())
    times = [sum(parts.values()) for parts in found]
    tenths, middle, rate = statistics.quantiles(times, n=10), statistics.median(times), statistics.mean(limits)
    return Speed(
        recipe=config.recipe,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        precision=train.precision,
        compiled=bool(train.compile),
        threads=train.threads or 1,
        processes=processes,
        batch=batch,
        at_once=at_once,
        updates=count,
        update_s=middle,
        update_middle_s=(tenths[0], tenths[-1]),
        samples_per_s=batch / middle,
        units_per_s=batch * size / middle,
        tokens_per_s=batch * math.prod(grid) / middle,
        update_flops=batch * flops,
        flops_per_s=batch * flops / middle,
        product_flops_per_s=rate,
        share=batch * flops / middle / rate,
        peak_memory=memory,
        kept_per_sample=kept,
        parts_s={name: statistics.median(parts[name] for parts in found) for name in found[0]},
    )


def format_speeds(found: list[Speed]) -> str:
    """A few lines a recipe."""
    return "\n\n".join("\n".join(_lines(speed)) for speed in found)


def _lines(speed: Speed) -> Iterator[str]:
    words = spec_of(recipes()[speed.recipe]().model.modality.kind).words
    how = f"{speed.precision}, compiled" if speed.compiled else speed.precision
    each = f", one of {speed.processes} processes" if speed.processes > 1 else ""
    low, high = (1e3 * seconds for seconds in speed.update_middle_s)
    units = f"{speed.units_per_s:,.4g} {words.unit}, " if speed.units_per_s != speed.samples_per_s else ""
    yield f"{speed.recipe} on {speed.device} in {how}, {speed.threads} thread{'s'[: speed.threads - 1]}{each}"
    yield (
        f"update  {1e3 * speed.update_s:,.4g} ms ({low:,.4g} to {high:,.4g}) for {speed.batch} {words.many}, "
        f"{speed.at_once} at once; {speed.updates} updates, reading not counted"
    )
    yield f"rate    {speed.samples_per_s:,.4g} {words.many}, {units}{speed.tokens_per_s:,.4g} tokens a second"
    yield (
        f"FLOP/s  {speed.flops_per_s:.3g}, {speed.share:.0%} of the {speed.product_flops_per_s:.3g} that products of "
        f"matrices reach here ({speed.update_flops:.3g} an update)"
    )
    kept = speed.kept_per_sample / 2**20
    yield f"memory  {speed.peak_memory / 2**20:,.0f} MiB at most; {kept:,.1f} MiB a sample kept for the backward pass"
    for name in dict.fromkeys(name.removesuffix(", backward") for name in speed.parts_s):
        forward, backward = (speed.parts_s.get(name + end, 0.0) / speed.update_s for end in ("", ", backward"))
        yield f"  {name:<17}{forward:6.1%}" + (f" + {backward:5.1%} backward" if backward else "")
