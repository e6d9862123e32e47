"""What a run will take: updates, memory, disk and time, from a few measured updates; and of which GPUs, computed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn

from data2vec2.commands.options import Recipes
from data2vec2.config.run import FinetuneConfig, RunConfig, TrainConfig
from data2vec2.config.tree import to_dict
from data2vec2.files import cache_folder
from data2vec2.method.encoder import Encoder
from data2vec2.method.pretraining import Data2Vec2
from data2vec2.modalities import get_recipe, specs
from data2vec2.modalities.tools import tools_of
from data2vec2.training.device import activation_bytes, choose_device
from data2vec2.training.measure import Cost, product_rate, update_flops

GPUS = {"L4": 121, "RTX 3090": 71, "RTX 4090": 165, "A100": 312, "H100": 989}
"""10^12 operations a second in dense bfloat16 products, by NVIDIA's data sheets."""
SHARE = 0.15
"""Of those, what training is taken to reach. The paper's own runs had 7 to 18 % of an A100's."""
SHARE_HERE = 0.4
"""Of the products that are measured on this machine, what training is taken to reach, by runs on two cores."""

LARGE = 2e8
"""Parameters from which on it is of interest what a GPU can hold."""
_SHORT = 1 / 12
"""Hours; computed times below that say little, as small models are bound by other things than arithmetic."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will take."""

    config: RunConfig | FinetuneConfig
    """Complete: with what data, machine and measurement decide."""
    data: str
    """What the data are."""
    samples: int
    """Samples to train on."""
    held_out: int
    many: str
    """What samples are called."""
    unit: str
    """What a batch size counts."""
    passes: float
    """How often all samples are gone through."""
    parameters: int
    """To train."""
    cost: Cost
    """Measured: what an update takes."""
    free_memory: int
    """Bytes."""
    checkpoint_bytes: int
    """Of one checkpoint."""
    cache_bytes: int
    """Of copies of the data in the cache folder."""
    sample_bytes: int
    """What the largest sample keeps for the backward pass, computed in float32."""
    update_flops: float
    """Floating-point operations of an update."""

    @property
    def seconds(self) -> float:
        """Of all updates on this machine, without validation and checkpoints."""
        return self.config.train.updates * self.cost.seconds

    @property
    def reading_seconds(self) -> float:
        """Of reading alone in all updates, at this machine's speed."""
        return self.config.train.updates * self.cost.reading_s / max(1, self.config.data.workers or 0)

    @property
    def state_bytes(self) -> int:
        """Of parameters, the teacher's too, gradients and moments."""
        return self.checkpoint_bytes + 4 * self.parameters

    def at_once(self, devices: int = 1) -> int:
        """Of the largest samples, so many go through the model at once on a device of 80 GiB.

        With several `devices` the model is sharded over them. Half of what the state leaves is for activations.
        """
        return max(0, int(((80 << 30) - self.state_bytes / devices) / 2 / self.sample_bytes))

    @property
    def gpu_hours(self) -> dict[str, float]:
        """Hours on one GPU of each kind, computed."""
        return gpu_hours(self.update_flops * self.config.train.updates)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        given = {name: value for name, value in vars(self).items() if name not in ("config", "cost")}
        names = "seconds", "reading_seconds", "gpu_hours"
        computed = {
            "updates": self.config.train.updates,
            "state_bytes": self.state_bytes,
            **{name: getattr(self, name) for name in names},
        }
        return {**given, **computed, "update": asdict(self.cost), "config": to_dict(self.config)}


def gpu_hours(flops: float) -> dict[str, float]:
    """Hours that so many operations take on one GPU of each kind, computed."""
    return {name: flops / (SHARE * peak * 1e12) / 3600 for name, peak in GPUS.items()}


def model_bytes(model: nn.Module) -> int:
    """Bytes of a checkpoint: parameters, the teacher's too, and two moments of those that are trained."""
    return sum(p.numel() * p.element_size() * (3 if p.requires_grad else 1) for p in model.parameters())


def format_length(samples: int, many: str, passes: float, train: TrainConfig, unit: str) -> str:
    """A length in words: "9,500 pictures x 120 passes = 4,453 updates of 256 pictures"."""
    times = f"{passes:,.1f}".removesuffix(".0")
    return f"{samples:,} {many} x {times} passes = {train.updates:,} updates of {train.batch_size:,} {unit}"


def format_plan(plan: Plan) -> str:
    """A plan in ten lines, of a large model eleven."""
    return "\n".join(f"{name:<8} {text}" for name, text in _lines(plan))


def _lines(plan: Plan) -> Iterator[tuple[str, str]]:
    train, cost, workers = plan.config.train, plan.cost, plan.config.data.workers or 0
    part = cost.measured < cost.at_once
    computed = f" (computed from a measured step with {cost.measured} at once)" if part else " (measured)"
    each = f"each of {train.processes} processes: " if (train.processes or 1) > 1 else ""
    yield "recipe", f"{plan.config.recipe}, {plan.parameters / 1e6:,.1f} million parameters to train"
    parts = f"; {plan.samples:,} {plan.many} to train on, {plan.held_out:,} held out"
    yield "data", shorten(plan.data.split("; ")[0], 110 - len(parts), placeholder=" ...") + parts
    yield "length", format_length(plan.samples, plan.many, plan.passes, train, plan.unit)
    yield "device", f"{train.device} in {train.precision}, {each}{cost.at_once} at once"
    free = f"{_size(plan.free_memory)} are free"
    yield "memory", f"{each}{_size(cost.memory)} at most{computed}; {free}"
    copies = f"; {_size(plan.cache_bytes)} for copies of the data in {cache_folder()}" if plan.cache_bytes else ""
    kept = f"{train.keep} checkpoint{'s' * (train.keep > 1)}, one being written"
    yield "disk", f"{_size((train.keep + 1) * plan.checkpoint_bytes)} for {kept}{copies}"
    yield "update", f"{_duration(cost.seconds)}, {cost.samples / cost.seconds:,.3g} {plan.many} a second{computed}"
    readers = f"with {workers or 'no separate'} reader{'s' * (workers != 1)}"
    yield "reading", f"{_duration(cost.reading_s)} an update in one process, {readers}"
    yield "time", f"{_duration(plan.seconds)} on this machine, without validation and checkpoints"
    hours = ", ".join(f"{name} {format_hours(value)}" for name, value in plan.gpu_hours.items())
    slow = plan.reading_seconds > 3600 * max(_SHORT, min(plan.gpu_hours.values()))
    reading = f"; reading at this machine's speed takes {_duration(plan.reading_seconds)}" if slow else ""
    yield "GPUs", f"{hours} (computed: operations at {SHARE:.0%} of each peak){reading}"

    if plan.parameters >= LARGE:
        most = f"{plan.at_once()} {plan.many} at once in 80 GiB, {plan.at_once(8)} with --train.shard over 8 GPUs"
        yield "large", f"{_size(plan.state_bytes)} and {_size(plan.sample_bytes)} for each of {most} (computed)"


def _size(count: float) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"


def format_hours(hours: float) -> str:
    """A computed duration."""
    return _duration(3600 * hours) if hours >= _SHORT else "under 5 min"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2g} s"
    for unit, length, longest in (("min", 60, 120), ("h", 3600, 72), ("days", 86_400, 730)):
        if seconds < longest * length:
            return f"{seconds / length:,.2g} {unit}" if seconds < 10 * length else f"{seconds / length:,.0f} {unit}"
    return f"{seconds / 31_557_600:,.0f} years"


@dataclass(frozen=True, kw_only=True)
class RecipeFacts:
    """What is known of a recipe before there are data."""

    name: str
    kind: str
    """The modality."""
    about: str
    parameters: int
    """Of the student with its decoder."""
    memory: int
    """Bytes with one sample at once in float32, computed."""
    updates: int
    """Where the data are many enough."""
    hours: float
    """On this machine, computed."""
    gpu_hours: dict[str, float]
    """On one GPU of each kind, computed."""


def recipes(given: Recipes) -> list[RecipeFacts]:
    """All recipes of pre-training; computed from their models without weights, and products measured here."""
    del given
    return recipe_facts(choose_device("auto"))


def recipe_facts(device: torch.device) -> list[RecipeFacts]:
    """Facts of all recipes, with times on a device."""
    rate = SHARE_HERE * product_rate(device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    return [_facts(name, kind, rate) for kind, spec in specs().items() for name in spec.recipes]


def outlined(config: RunConfig) -> tuple[nn.Module, Callable[[], Tensor], float]:
    """The model without weights, its loss of one sample, and the operations of training it on a unit of a batch."""
    tools = tools_of(config.model.modality.kind)
    with torch.device("meta"):
        model = Data2Vec2(config.model, tools.build(config.model))
    loss, size = tools.sized(model, config)
    return model, loss, update_flops(model, loss) / size


def _facts(name: str, kind: str, rate: float) -> RecipeFacts:
    config = get_recipe(name)
    depth = config.model.encoder.depth
    one, two = (_sizes(_with_depth(config, blocks)) for blocks in (1, 2))
    # Blocks are alike, so two models of few tell of one of many, in a fraction of the time.
    pairs = zip(one, two, strict=True)
    trained, memory, unit_flops = (first + (depth - 1) * (second - first) for first, second in pairs)
    flops = unit_flops * config.train.batch_size * config.train.updates
    about = " ".join((inspect.getdoc(specs()[kind].recipes[name]) or "").split("\n\n")[0].split())
    return RecipeFacts(
        name=name,
        kind=kind,
        about=about,
        parameters=int(trained),
        memory=int(memory),
        updates=config.train.updates,
        hours=flops / rate / 3600,
        gpu_hours=gpu_hours(flops),
    )


def _with_depth(config: RunConfig, blocks: int) -> RunConfig:
    encoder = replace(config.model.encoder, depth=blocks)
    return replace(
        config, model=replace(config.model, encoder=encoder, targets=replace(config.model.targets, average_layers=1))
    )


def _sizes(config: RunConfig) -> tuple[int, int, float]:
    """Parameters that are trained, bytes of memory for one sample, and operations of training on a unit of a batch."""
    model, loss, unit_flops = outlined(config)
    for part in model.modules():
        if isinstance(part, Encoder):
            part.layer_drop = 0.0  # memory must hold an update that leaves no block out
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return trained, model_bytes(model) + 4 * trained + 2 * activation_bytes(loss), unit_flops


def format_recipes(found: list[RecipeFacts]) -> str:
    """A table of recipes, and what the numbers are."""
    shown = ("RTX 4090", "A100")
    rows: list[tuple[str, ...]] = [("recipe", "parameters", "memory", "updates", "here", *shown, "made for")]
    for one in found:
        times = (one.hours, *(one.gpu_hours[name] for name in shown))
        size = f"{one.parameters / 1e6:,.1f} M"
        rows.append((one.name, size, _size(one.memory), f"{one.updates:,}", *map(format_hours, times), one.about))
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, [*widths, 0], strict=True)) for row in rows]
    note = (
        f"memory: for one sample at a time. Times: for all updates, computed from their operations at {SHARE:.0%} of a "
        f"GPU's peak and {SHARE_HERE:.0%} of this machine's.\nSmaller data sets need fewer updates; to measure with "
        "yours: data2vec2 estimate RECIPE DATA"
    )
    return "\n".join([*lines, "", note])
