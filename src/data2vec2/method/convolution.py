"""The layer that decoder and convolutional positions are made of (paper, sections 3.2 and 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recomputed(run: Callable[[Tensor], Tensor], x: Tensor, random: bool = False) -> Tensor:
    """`run(x)`, of which only `x` is kept for the backward pass: for what is cheap to compute again.

    The last operation is not computed again, only what enters it. `random`: whether `run` draws numbers.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():  # a compiler decides by itself what to keep
        return run(x)
    return checkpoint(run, x, use_reentrant=False, preserve_rng_state=random)


class FixedFilters(nn.Module):
    """A stem of filters that do not learn: buffers that stay float32, and take float32, whatever its weights become.

    In fewer bits loud sounds would cover quiet ones.
    """

    def _apply(self, *arguments: Any, **more: Any) -> Self:
        """As of every module, but for the type of the buffers."""
        filters = dict(self._buffers)
        super()._apply(*arguments, **more)  # type: ignore[no-untyped-call]
        for name, old in filters.items():
            new = self._buffers[name]
            if old is not None and new is not None and new.dtype != old.dtype:
                self._buffers[name] = old.to(new.device)
        return self


def conv_norm_gelu(conv: nn.Module, x: Tensor, norm: bool = True) -> Tensor:
    """Convolution, LayerNorm over channels without scale, GELU: `N x ... x C`, as many axes between as `conv` has.

    Without `norm` there is no LayerNorm.

    Channels stay the last axis in memory; the convolution sees a channels-first view of it. One axis is convolved as
    two, the first of length 1: processors have fast kernels for two only.
    """
    if isinstance(conv, nn.Conv1d):
        weight, padding = conv.weight.unsqueeze(2), (0, int(conv.padding[0]))
        y = F.conv2d(x[:, None].movedim(-1, 1), weight, conv.bias, padding=padding, groups=conv.groups)[:, :, 0]
    else:
        y = conv(x.movedim(-1, 1))
    return recomputed(lambda y: F.gelu(F.layer_norm(y, y.shape[-1:]) if norm else y), y.movedim(1, -1))
