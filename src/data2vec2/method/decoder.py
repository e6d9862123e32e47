"""The convolutional decoder (paper, section 3.2). Shapes: `N` student rows, `T` tokens, `U` places, `D` width."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from data2vec2.config.model import DecoderConfig
from data2vec2.method.convolution import conv_norm_gelu
from data2vec2.method.encoder import initialise
from data2vec2.method.masking import put, take


class Decoder(nn.Module):
    """Layers of [convolution, LayerNorm over channels without scale, GELU] over the tokens' grid, then a projection."""

    def __init__(self, config: DecoderConfig, embed_dim: int, num_axes: int) -> None:
        super().__init__()
        self.config, dim, kernel = config, config.dim, config.kernel
        conv = {1: nn.Conv1d, 2: nn.Conv2d}[num_axes]
        self.dropout = nn.Dropout(config.input_dropout)
        widths = [embed_dim, *[dim] * (config.depth - 1)]
        self.convs = nn.ModuleList(
            conv(width, dim, kernel, padding=kernel // 2, groups=config.groups) for width in widths
        )
        self.proj: nn.Module = nn.Linear(dim, embed_dim)
        if config.projection_depth == 2:
            self.proj = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, embed_dim))
            initialise(self.proj)

    def reset_parameters(self) -> None:
        """PyTorch's default; a projection of two layers (text) as every other Linear."""
        for part in self.modules():
            if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Linear):
                part.reset_parameters()
        if isinstance(self.proj, nn.Sequential):
            initialise(self.proj)

    def restore(self, x_NKD: Tensor, keep_ids_NK: Tensor, num_tokens: int) -> Tensor:
        """The student's outputs back at their places, noise everywhere else: `NTD`."""
        N, _, D = x_NKD.shape
        noise_NTD = torch.randn(N, num_tokens, D, device=x_NKD.device, dtype=x_NKD.dtype) * self.config.noise_std
        return put(noise_NTD, keep_ids_NK, self.dropout(x_NKD))

    def forward(self, x_NTD: Tensor, grid: tuple[int, ...], places_NU: Tensor | None = None) -> Tensor:
        """Predictions `NUD` at `places_NU`, or `NTD` at all places."""
        x = x_NTD.view(len(x_NTD), *grid, -1) if len(grid) > 1 else x_NTD  # a view of one axis can't be compiled
        for conv in self.convs:
            y = conv_norm_gelu(conv, x)
            x = x + y if self.config.residual and x.shape[-1] == y.shape[-1] else y
        x = x.flatten(1, -2)
        return self.proj(x if places_NU is None else take(x, places_NU))  # type: ignore[no-any-return]
