"""Contextualised targets from the teacher's layers (paper, section 3.1).

Shapes: `B` samples, `T` tokens, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from data2vec2.config.model import TargetConfig

EPS = 1e-5


def instance_norm(x_BTD: Tensor, padding_BT: Tensor | None = None) -> Tensor:
    """Normalise every channel of every sample over its tokens; padded tokens (True) are left out of the statistics."""
    if padding_BT is None:  # two means: several times faster than one `var_mean` over an inner axis
        centred_BTD = x_BTD - x_BTD.mean(dim=1, keepdim=True)
        var = centred_BTD.square().mean(dim=1, keepdim=True)
    else:
        real_BT1 = (~padding_BT).unsqueeze(-1).to(x_BTD.dtype)
        count = real_BT1.sum(1, keepdim=True)
        centred_BTD = x_BTD - (x_BTD * real_BT1).sum(1, keepdim=True) / count
        var = (centred_BTD.square() * real_BT1).sum(1, keepdim=True) / count
    return centred_BTD * torch.rsqrt(var + EPS)


def layer_norm(x_BTD: Tensor) -> Tensor:
    """Normalise every token over its channels, without learned scale."""
    return F.layer_norm(x_BTD, x_BTD.shape[-1:], eps=EPS)


def build_targets(config: TargetConfig, layers: Sequence[Tensor], padding_BT: Tensor | None = None) -> Tensor:
    """Targets `BTD` in float32 from the FFN outputs `BTD` of the trunk, first layer first.

    The last `average_layers` are normalised one by one, averaged, and normalised again as configured.
    """

    def normalise(kind: str, x_BTD: Tensor) -> Tensor:
        if kind == "none":
            return x_BTD
        return instance_norm(x_BTD, padding_BT) if kind == "instance" else layer_norm(x_BTD)

    last = layers[-config.average_layers :]
    mean_BTD = normalise(config.layer_norm, last[0].float())
    for layer_BTD in last[1:]:
        mean_BTD = mean_BTD + normalise(config.layer_norm, layer_BTD.float())
    mean_BTD = mean_BTD / len(last)
    return normalise(config.final_norm, mean_BTD)
