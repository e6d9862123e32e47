"""Positions: fixed ones of grids, and learned ones from a token's neighbours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sincos_2d(dim: int, grid: tuple[int, int]) -> Tensor:
    """Two-dimensional sine-cosine positions `TD` for a grid of (rows, columns), row by row.

    The layout is MAE's (He et al., 2021): the first half of the channels encodes the column, the second half the row;
    in each half, sines then cosines of the coordinate over 10000^(i / (D/4)). `dim` must be divisible by 4.
    """
    if dim % 4:
        raise ValueError(f"model.encoder.embed_dim is {dim}; 2-D positions need a multiple of 4")
    frequencies = 10_000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))

    def one_axis(coordinates_T: Tensor) -> Tensor:
        angles = coordinates_T.double()[:, None] * frequencies[None]
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    return torch.cat([one_axis(columns.flatten()), one_axis(rows.flatten())], dim=1).float()


def resize_positions(positions_TD: Tensor, grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
    """Positions made for `grid`, row by row, for another grid: the bicubic interpolation of every channel.

    Patches keep their share of the picture: the centre of the first patch of a grid twice as fine lies a quarter of an
    old patch from the edge. On the same grid the positions themselves are returned.
    """
    if grid == new_grid:
        return positions_TD
    table_1Dhw = positions_TD.float().view(1, *grid, -1).permute(0, 3, 1, 2)
    return F.interpolate(table_1Dhw, size=new_grid, mode="bicubic", align_corners=False).flatten(2)[0].T


class ConvPositions(nn.Module):
    """Positions from neighbours: convolutions, each with LayerNorm without scale and GELU (paper, section 3.3).

    Shapes: `N` rows, `T` tokens, `D` width.
    """

    def __init__(self, dim: int, depth: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=groups) for _ in range(depth)
        )

    def forward(self, x_NTD: Tensor, padding_NT: Tensor | None = None) -> Tensor:
        """Positions `NTD`, to be added to the tokens; the same as if the padded tokens (True) were not there."""
        for conv in self.convs:
            if padding_NT is not None:
                x_NTD = x_NTD.masked_fill(padding_NT[..., None], 0.0)
            x_NTD = conv(x_NTD.transpose(1, 2)).transpose(1, 2)
            x_NTD = F.gelu(F.layer_norm(x_NTD, x_NTD.shape[-1:]))
        return x_NTD

    def reset_parameters(self) -> None:
        """PyTorch's default."""
        for conv in self.convs:
            assert isinstance(conv, nn.Conv1d)
            conv.reset_parameters()
