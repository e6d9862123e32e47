"""Optimiser and learning rate."""

from __future__ import annotations

import math

import torch
from torch import nn

from data2vec2.config import OptimConfig


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over the model's trainable parameters: one group with weight decay, one without.

    Tensors with fewer than two axes (biases, norms, ALiBi scales) are exempt from decay unless `decay_all`.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [p for p in trainable if config.decay_all or p.ndim > 1]
    exempt = [p for p in trainable if not config.decay_all and p.ndim <= 1]
    assert sorted(map(id, trainable)) == sorted(map(id, decayed + exempt)), "each parameter in exactly one group"
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": exempt, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=trainable[0].device.type in ("cpu", "cuda"),
    )


def peak_lr(config: OptimConfig, batch_size: int) -> float:
    """The peak learning rate after the rule for the global batch."""
    ratio = batch_size / config.lr_batch
    return config.lr * {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[config.lr_rule]


def learning_rate(step: int, *, peak: float, warmup: int, updates: int) -> float:
    """Rate of step 0, 1, ...: linear from 0 to `peak` over `warmup` steps, then half a cosine to 0 at `updates`."""
    if step < warmup:
        return peak * step / warmup
    progress = (step - warmup) / max(1, updates - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimiser's state as flat tensors named `STATE.PARAMETER`."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{key}.{names[id(parameter)]}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def load_optimizer_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]
) -> None:
    """Put back what `optimizer_tensors` gave; `ValueError` if names differ from the model's."""
    parameters = dict(model.named_parameters())
    state: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        kind, name = key.split(".", 1)
        if name not in parameters:
            raise ValueError(f"the optimiser's state has {name!r}, which the model has not")
        # Adam's step count stays where the optimiser keeps it; moments go to their parameter's device.
        target = torch.device("cpu") if kind == "step" and not _fused(optimizer) else parameters[name].device
        state.setdefault(name, {})[kind] = tensor.to(target).clone()
    for name, values in state.items():
        optimizer.state[parameters[name]] = values


def _fused(optimizer: torch.optim.Optimizer) -> bool:
    return bool(optimizer.param_groups[0].get("fused"))
