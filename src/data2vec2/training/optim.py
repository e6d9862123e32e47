"""Optimiser, learning rate, and the teacher's exponential moving average."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from data2vec2.config.run import FinetuneOptimConfig, OptimConfig, Schedule
from data2vec2.training.parallel import local, spread_as


class Ema:
    """Moves a teacher's float32 parameters towards a student's after every optimiser step."""

    def __init__(
        self, teacher: nn.Module, student: nn.Module, *, start: float, end: float, anneal_updates: int
    ) -> None:
        """The teacher's parameters are matched to the student's by name; `ValueError` if one has no match."""
        source, named = dict(student.named_parameters()), dict(teacher.named_parameters())
        if missing := [name for name in named if name not in source]:
            raise ValueError(f"the student has no parameters {missing}")
        self._teacher = [local(parameter.data) for parameter in named.values()]
        self._student = [local(source[name].data) for name in named]
        if any(tensor.dtype != torch.float32 for tensor in self._teacher):
            raise ValueError("the teacher must be kept in float32")
        self.start, self.end, self.anneal_updates = start, end, anneal_updates

    def decay(self, update: int) -> float:
        """Decay of update number `update` (1 after the first optimiser step): linear from start to end."""
        if update >= self.anneal_updates:
            return self.end
        return self.start + (self.end - self.start) * update / self.anneal_updates

    @torch.no_grad()
    def update(self, update: int, skip: torch.Tensor | None = None) -> None:
        """`teacher = d * teacher + (1 - d) * student`, all tensors in one call; not at all where `skip` is true."""
        share = 1 - self.decay(update)
        if skip is None:
            torch._foreach_lerp_(self._teacher, self._student, share)
        else:  # told on the device, so that nothing waits for it
            shares = [torch.where(skip, 0.0, share).float()] * len(self._teacher)
            torch._foreach_lerp_(self._teacher, self._student, shares)


def step_unless(skip: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    """The optimiser's step, but where `skip` is true; without waiting for the device where that can be."""
    if optimizer.param_groups[0].get("fused"):
        optimizer.found_inf = skip.float()  # type: ignore[attr-defined]  # as gradient scaling tells it
        optimizer.step()
    elif not skip:
        optimizer.step()


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over the model's trainable parameters, in groups by weight decay and `lr_scale` (1 without layer decay).

    Tensors with fewer than two axes (biases, norms, ALiBi scales) are exempt from weight decay unless `decay_all`.
    """
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    scales = _layer_scales(named, config.layer_decay if isinstance(config, FinetuneOptimConfig) else 1.0)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in named.items():
        weight_decay = config.weight_decay if config.decay_all or parameter.ndim > 1 else 0.0
        empty = {"params": [], "weight_decay": weight_decay, "lr_scale": scales[name]}
        groups.setdefault((weight_decay, scales[name]), empty)["params"].append(parameter)
    trainable = list(named.values())
    grouped = [parameter for group in groups.values() for parameter in group["params"]]
    assert sorted(map(id, trainable)) == sorted(map(id, grouped)), "each parameter in exactly one group"
    betas, fused = (config.beta1, config.beta2), trainable[0].device.type in ("cpu", "cuda")
    return torch.optim.AdamW(list(groups.values()), lr=config.lr, betas=betas, eps=config.eps, fused=fused)


def _layer_scales(names: Iterable[str], decay: float) -> dict[str, float]:
    """Factor of each parameter's rate: decay ** (n + 1 - i) in block i of n (from 1), prenet first; 1 elsewhere."""
    found = {name: re.search(r"(?:^|\.)blocks\.(\d+)\.", name) for name in names}
    count = 1 + max((int(match[1]) for match in found.values() if match), default=-1)
    return {name: decay ** (count - int(match[1])) if match else 1.0 for name, match in found.items()}


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of the schedule's rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def peak_lr(config: OptimConfig, batch_size: int) -> float:
    """The peak learning rate after the rule for the global batch."""
    ratio = batch_size / config.lr_batch
    return config.lr * {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[config.lr_rule]


def schedule_of(config: OptimConfig) -> Schedule:
    """The course of the learning rate; only fine-tuning can choose it."""
    return config.schedule if isinstance(config, FinetuneOptimConfig) else "cosine"


def learning_rate(step: int, *, peak: float, warmup: int, updates: int, schedule: Schedule = "cosine") -> float:
    """Rate of step 0, 1, ...: linear from 0 to `peak` over `warmup` steps, then down until `updates`.

    cosine: half a cosine to 0. linear: a line to 0. tri_stage (fairseq's): from 1 % of the peak up to it, held until
    half of the updates, then exponentially down to 5 % of it.
    """
    if step < warmup:
        start = 0.01 if schedule == "tri_stage" else 0.0
        return peak * (start + (1 - start) * step / warmup)
    turn = max(warmup, updates // 2) if schedule == "tri_stage" else warmup
    progress = min(1.0, max(0.0, (step - turn) / max(1, updates - turn)))
    if schedule == "tri_stage":
        return peak * float(0.05**progress)
    return peak * (1 - progress if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress)))


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimiser's state as flat tensors named `STATE.PARAMETER`."""
    names: dict[torch.Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    states = ((names[parameter], state) for parameter, state in optimizer.state.items())
    return {f"{key}.{name}": value for name, state in states for key, value in state.items()}


def load_optimizer_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]
) -> None:
    """Put back what `optimizer_tensors` gave; `ValueError` if names differ from the model's."""
    parameters, fused = dict(model.named_parameters()), optimizer.param_groups[0].get("fused")
    for key, tensor in tensors.items():
        kind, name = key.split(".", 1)
        if name not in parameters:
            raise ValueError(f"the optimiser's state has {name!r}, which the model lacks")
        # Adam's step count stays where the optimiser keeps it; moments go to their parameter's device.
        target = torch.device("cpu") if kind == "step" and not fused else parameters[name].device
        whole = kind == "step"
        placed = tensor if whole else spread_as(tensor, parameters[name])
        optimizer.state[parameters[name]][kind] = placed.to(target).clone()
