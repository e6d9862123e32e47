"""Images: patches, fixed or learned 2-D positions, one CLS token, registers.

Shapes: `B` samples, `N` student rows, `T` patches, `K` kept patches, `R` registers, `D` width, `C` channels.
"""

from __future__ import annotations

import math
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data2vec2.config.model import ArchitectureConfig
from data2vec2.errors import UsageError
from data2vec2.method.encoder import Modality, Rows, Tokens
from data2vec2.method.masking import take
from data2vec2.modalities.image.config import ImageConfig


class ImageModality(Modality):
    """The stem is a linear patch embedding; the teacher has its own copy of everything."""

    teacher_owns = frozenset({"stem", "context", "trunk"})
    num_axes = 2
    positions_TD: Tensor

    def __init__(self, config: ImageConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.stem = PatchEmbed(config.channels, config.patch_size, embed_dim)
        self.num_extra_tokens = 1 + config.num_registers
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        if config.num_registers:
            self.registers_1RD = nn.Parameter(torch.empty(1, config.num_registers, embed_dim))
        if config.positions == "learned":
            self.positions_TD = nn.Parameter(torch.empty(math.prod(config.position_grid), embed_dim))
        else:
            self.register_buffer("positions_TD", sincos_2d(embed_dim, config.position_grid), persistent=False)

    @classmethod
    def of(cls, model: ArchitectureConfig) -> Self:
        """Of a model's configuration."""
        assert isinstance(model.modality, ImageConfig)
        return cls(model.modality, model.encoder.embed_dim)

    def tokens(self, inputs: Tensor, lengths_B: Tensor | None = None) -> Tokens:
        """Patches of normalised pictures `BCHW`, H and W multiples of the patch size; `UsageError` for others."""
        patch, channels = self.config.patch_size, self.config.channels
        height, width = inputs.shape[-2:]
        if inputs.ndim != 4 or inputs.shape[1] != channels or height % patch or width % patch or not height * width:
            expected = f"(batch, {channels}, height, width), height and width multiples of {patch}"
            grey = inputs.ndim == 4 and (channels, inputs.shape[1]) == (1, 3)
            hint = "; colour needs a model pre-trained with --model.modality.num-channels 3" if grey else ""
            raise UsageError(f"pictures of shape {tuple(inputs.shape)} for a model of {expected}{hint}")
        assert self.stem is not None
        return Tokens(self.stem(inputs), (height // patch, width // patch))

    def arrange(self, tokens: Tokens, keep_ids_NK: Tensor | None = None) -> Rows:
        """Add positions, take the kept patches, put CLS token and registers in front.

        Masks are for the configured size alone.
        """
        rows, columns = tokens.grid
        if keep_ids_NK is not None and (rows, columns) != self.config.grid:
            raise UsageError(f"masks for {self.config.grid} patches and pictures of {(rows, columns)}")
        positions_TD = resize_positions(self.positions_TD, self.config.position_grid, (rows, columns))
        x = tokens.tokens_BTD + positions_TD.to(tokens.tokens_BTD.dtype)
        x_NKD = x if keep_ids_NK is None else take(x, keep_ids_NK)
        extra = [self.cls_token, self.registers_1RD] if self.config.num_registers else [self.cls_token]
        return Rows(torch.cat([*(one.to(x_NKD.dtype).expand(x_NKD.shape[0], -1, -1) for one in extra), x_NKD], dim=1))

    def reset_parameters(self) -> None:
        """Patch embedding Xavier uniform on the flattened kernel, its bias as PyTorch; CLS token N(0, 1).

        Registers and learned positions N(0, 0.02).
        """
        if isinstance(self.stem, PatchEmbed):
            self.stem.initialise()
        nn.init.normal_(self.cls_token)
        if self.config.num_registers:
            nn.init.normal_(self.registers_1RD, std=0.02)
        if self.config.positions == "learned":
            nn.init.normal_(self.positions_TD, std=0.02)
            return
        with torch.no_grad():
            self.positions_TD.copy_(sincos_2d(self.positions_TD.shape[-1], self.config.position_grid))


def sincos_2d(dim: int, grid: tuple[int, int]) -> Tensor:
    """Two-dimensional sine-cosine positions `TD` for a grid of (rows, columns), row by row.

    The layout is MAE's (He et al., 2021): the first half of the channels encodes the column, the second half the row;
    in each half, sines then cosines of the coordinate over 10000^(i / (D/4)). `dim` must be divisible by 4.
    """
    if dim % 4:
        raise UsageError(f"model.encoder.embed_dim is {dim}; 2-D positions need a multiple of 4")
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


class PatchEmbed(nn.Conv2d):
    """Pictures `BCHW` to one token a patch, `BTD`, row by row."""

    def __init__(self, num_channels: int, patch_size: int, dim: int) -> None:
        super().__init__(num_channels, dim, kernel_size=patch_size, stride=patch_size)

    def initialise(self) -> None:
        """Xavier uniform on the flattened kernel, the bias as PyTorch."""
        self.reset_parameters()
        bound = math.sqrt(6 / sum(self.weight.flatten(1).shape))  # Xavier's, of the kernel as a matrix
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """`BCHW` to `BTD`."""
        return super().forward(pixels_BCHW).flatten(2).transpose(1, 2)
