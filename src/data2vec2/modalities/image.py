"""Images: patches, fixed 2-D positions, one CLS token.

Shapes: `B` samples, `N` student rows, `T` patches, `K` kept patches, `D` width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from data2vec2.config import ImageConfig
from data2vec2.modalities.base import Modality, Rows, Tokens
from data2vec2.nn.gather import take
from data2vec2.nn.positions import resize_positions, sincos_2d
from data2vec2.nn.stems import PatchEmbed


class ImageModality(Modality):
    """The stem is a linear patch embedding; the teacher has its own copy of everything."""

    teacher_owns = frozenset({"stem", "context", "trunk"})
    num_axes = 2
    num_extra_tokens = 1
    positions_TD: Tensor

    def __init__(self, config: ImageConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.stem = PatchEmbed(config.channels, config.patch_size, embed_dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.register_buffer("positions_TD", sincos_2d(embed_dim, config.position_grid), persistent=False)

    def tokens(self, inputs: Tensor, lengths_B: Tensor | None = None) -> Tokens:
        """Patches of normalised pictures `BCHW` of any H and W that are multiples of the patch size.

        `ValueError` for others and for another number of channels.
        """
        patch, channels = self.config.patch_size, self.config.channels
        height, width = inputs.shape[-2:]
        if inputs.ndim != 4 or inputs.shape[1] != channels or height % patch or width % patch or not height * width:
            expected = f"(batch, {channels}, height, width), height and width multiples of {patch}"
            raise ValueError(f"pictures of shape {tuple(inputs.shape)} for a model of {expected}")
        assert self.stem is not None
        return Tokens(self.stem(inputs), (height // patch, width // patch))

    def arrange(self, tokens: Tokens, keep_ids_NK: Tensor | None = None) -> Rows:
        """Add positions, take the kept patches, put the CLS token in front.

        Whole pictures may have any size; masks are made for the configured one (`ValueError` for another).
        """
        rows, columns = tokens.grid
        if keep_ids_NK is not None and (rows, columns) != self.config.grid:
            raise ValueError(f"masks for {self.config.grid} patches and pictures of {(rows, columns)}")
        positions_TD = resize_positions(self.positions_TD, self.config.position_grid, (rows, columns))
        x = tokens.tokens_BTD + positions_TD.to(tokens.tokens_BTD.dtype)
        x_NKD = x if keep_ids_NK is None else take(x, keep_ids_NK)
        cls_N1D = self.cls_token.to(x_NKD.dtype).expand(x_NKD.shape[0], -1, -1)
        return Rows(torch.cat([cls_N1D, x_NKD], dim=1))

    def reset_parameters(self) -> None:
        """Patch embedding Xavier uniform on the flattened kernel, its bias as PyTorch; CLS token N(0, 1)."""
        if isinstance(self.stem, PatchEmbed):
            self.stem.reset_parameters()
            fan_out, fan_in = self.stem.weight.shape[0], self.stem.weight[0].numel()
            bound = math.sqrt(6 / (fan_in + fan_out))  # Xavier's, of the kernel as a matrix
            nn.init.uniform_(self.stem.weight, -bound, bound)
        nn.init.normal_(self.cls_token)
        with torch.no_grad():
            self.positions_TD.copy_(sincos_2d(self.positions_TD.shape[-1], self.config.position_grid))
