"""From raw inputs to tokens.

Shapes: `B` samples, `C` channels, `T` tokens, `D` width.
"""

from __future__ import annotations

from torch import Tensor, nn


class PatchEmbed(nn.Conv2d):
    """Pictures `BCHW` to one token a patch, `BTD`, row by row."""

    def __init__(self, num_channels: int, patch_size: int, dim: int) -> None:
        super().__init__(num_channels, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """`BCHW` to `BTD`."""
        return super().forward(pixels_BCHW).flatten(2).transpose(1, 2)
