"""The losses: regression in pre-training, classification in fine-tuning."""

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


def classification(logits_BC: Tensor, targets_BC: Tensor, multi_label: bool) -> Tensor:
    """Cross-entropy with soft targets, summed over samples; float32 scalar.

    With several labels a sample: binary cross-entropy, mean over the classes.
    """
    logits_BC = logits_BC.float()
    if multi_label:
        return F.binary_cross_entropy_with_logits(logits_BC, targets_BC, reduction="sum") / logits_BC.shape[1]
    return F.cross_entropy(logits_BC, targets_BC, reduction="sum")
