"""The convolutional decoder (paper, section 3.2).

Shapes: `N` student rows, `T` tokens on their grid, `U` places to predict, `D` width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data2vec2.method.masking import put, take


class Decoder(nn.Module):
    """Layers of [convolution, LayerNorm over channels without scale, GELU] over the tokens' grid, then a projection.

    The number of axes of `grid` (2 for images, 1 for sequences) chooses the convolution.
    """

    def __init__(
        self,
        embed_dim: int,
        num_axes: int,
        *,
        dim: int,
        depth: int,
        kernel: int,
        groups: int,
        input_dropout: float = 0.0,
        noise_std: float = 0.01,
        residual: bool = True,
        projection_depth: int = 1,
    ) -> None:
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d}[num_axes]
        self.noise_std = noise_std
        self.residual = residual
        self.dropout = nn.Dropout(input_dropout)
        self.convs = nn.ModuleList(
            conv(embed_dim if i == 0 else dim, dim, kernel, padding=kernel // 2, groups=groups) for i in range(depth)
        )
        self.proj: nn.Module = nn.Linear(dim, embed_dim)
        if projection_depth == 2:
            self.proj = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, embed_dim))

    def restore(self, x_NKD: Tensor, keep_ids_NK: Tensor, num_tokens: int) -> Tensor:
        """The student's outputs back at their places, noise everywhere else: `NTD`."""
        N, _, D = x_NKD.shape
        noise_NTD = torch.randn(N, num_tokens, D, device=x_NKD.device, dtype=x_NKD.dtype) * self.noise_std
        return put(noise_NTD, keep_ids_NK, self.dropout(x_NKD))

    def forward(self, x_NTD: Tensor, grid: tuple[int, ...], places_NU: Tensor | None = None) -> Tensor:
        """Predictions `NUD` at `places_NU`, or `NTD` at all places."""
        x = x_NTD.view(x_NTD.shape[0], *grid, -1)
        for conv in self.convs:
            # Channels stay the last axis in memory; the convolution sees a channels-first view of it.
            y = conv(x.movedim(-1, 1)).movedim(1, -1)
            y = F.gelu(F.layer_norm(y, y.shape[-1:]))
            x = x + y if self.residual and x.shape[-1] == y.shape[-1] else y
        x = x.flatten(1, -2)
        return self.proj(x if places_NU is None else take(x, places_NU))  # type: ignore[no-any-return]
