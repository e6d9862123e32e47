"""Contextualised targets (paper, section 3.1), and the losses of pre-training and fine-tuning.

Shapes: `B` samples, `T` tokens, `D` width, `C` classes, `h` and `w` rows and columns of patches, `H` and `W` pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from data2vec2.config.model import TargetConfig
from data2vec2.data.labels import IGNORED


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
    """Cross-entropy with soft targets, or binary (mean over classes), summed over samples; float32 scalar."""
    logits_BC = logits_BC.float()
    if multi_label:
        return F.binary_cross_entropy_with_logits(logits_BC, targets_BC, reduction="sum") / logits_BC.shape[1]
    return F.cross_entropy(logits_BC, targets_BC, reduction="sum")


def squared_error(outputs_B1: Tensor, targets_B1: Tensor) -> Tensor:
    """Squared error of one number a sample, summed over samples; float32 scalar."""
    return F.mse_loss(outputs_B1.float(), targets_B1, reduction="sum")


def dense(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy of the class at each place, a mean over those of a sample, summed over samples; float32 scalar.

    Logits `BTC` for classes `BT`, or `BChw` of patches for classes `BHW` of pixels, to whose size they are brought
    bilinearly. Every sample weighs the same, as in `ctc`; one whose places are all `IGNORED` counts 0.
    """
    logits = logits.float().transpose(1, 2) if classes.ndim == 2 else upsampled(logits, classes.shape[1:])
    losses_BP = F.cross_entropy(logits, classes, ignore_index=IGNORED, reduction="none").flatten(1)
    return (losses_BP.sum(1) / (classes != IGNORED).flatten(1).sum(1).clamp(min=1)).sum()


def spans(logits_BT2: Tensor, marks_BT2: Tensor) -> Tensor:
    """Cross-entropy over tokens of where spans start and end, mean of the two, summed over samples; float32 scalar.

    Marks are 1 at a span's first token (first of the last axis) and at its last, `IGNORED` at padding, which can be
    neither, and else 0; a sample without a 1 counts 0.
    """
    logs_BT2 = logits_BT2.float().masked_fill(marks_BT2 == IGNORED, float("-inf")).log_softmax(dim=1)
    return -logs_BT2.masked_fill(marks_BT2 != 1, 0.0).sum() / 2


def upsampled(logits_BChw: Tensor, size: Sequence[int]) -> Tensor:
    """Logits of patches as those of pixels, `BCHW` float32, bilinearly."""
    return F.interpolate(logits_BChw.float(), tuple(size), mode="bilinear", align_corners=False)


class CtcLoss(NamedTuple):
    """What `ctc` computes."""

    loss: Tensor
    """Sum over samples of -log p(target); a mean over samples is what is minimised, see `ctc`."""
    num_impossible: Tensor
    """Samples with more letters than frames allow; they count 0 in the loss."""


def ctc(
    logits_BTV: Tensor, num_tokens_B: Tensor, targets_BL: Tensor, target_lengths_B: Tensor, blank: int = 0
) -> CtcLoss:
    """Connectionist temporal classification (Graves et al., ICML 2006), with symbol `blank`; float32 scalars.

    Of `targets_BL` the first `target_lengths_B` letters are each sample's. The authors divide the sum by the batch's
    number of letters; here every sample weighs the same, so that a mean over micro-batches and processes is exact.
    Adam makes the scale of the loss nearly immaterial. On a GPU, PyTorch's kernel waits for the device.
    """
    log_probs_TBV = logits_BTV.float().log_softmax(dim=-1).transpose(0, 1)
    if logits_BTV.device.type == "mps":  # where PyTorch has no CTC
        log_probs_TBV, targets_BL = log_probs_TBV.cpu(), targets_BL.cpu()
        num_tokens_B, target_lengths_B = num_tokens_B.cpu(), target_lengths_B.cpu()
    loss = F.ctc_loss(
        log_probs_TBV, targets_BL, num_tokens_B, target_lengths_B, blank=blank, reduction="sum", zero_infinity=True
    )
    places_L = torch.arange(1, targets_BL.shape[1], device=targets_BL.device)
    repeats_BL = (targets_BL[:, 1:] == targets_BL[:, :-1]) & (places_L < target_lengths_B[:, None])
    impossible_B = target_lengths_B + repeats_BL.sum(dim=1) > num_tokens_B
    return CtcLoss(loss.to(logits_BTV.device), impossible_B.sum().to(logits_BTV.device))


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
    sum_BTD = reduce(torch.add, (normalise(config.layer_norm, layer_BTD.float()) for layer_BTD in last))
    return normalise(config.final_norm, sum_BTD / len(last))
