"""The regression loss."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def regression(prediction: Tensor, target: Tensor, scale: float, beta: float = 0.0) -> Tensor:
    """`scale` times the squared (or, with `beta` above 0, smooth-L1) error, summed over everything; float32 scalar.

    Prediction and target broadcast against each other; the last axis is the width D.
    """
    prediction = prediction.float()
    target = target.float().expand_as(prediction)
    if beta == 0:
        return F.mse_loss(prediction, target, reduction="sum") * scale
    return F.smooth_l1_loss(prediction, target, reduction="sum", beta=beta) * scale
