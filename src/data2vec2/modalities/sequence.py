"""Sequences: positions from neighbours, and distances in the attention. For audio, and for series of any kind.

Shapes: `B` samples, `N` student rows, `T` tokens, `K` kept tokens, `E` extra tokens, `D` width, `H` heads.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data2vec2.method.block import AttentionBias, alibi_slopes
from data2vec2.method.convolution import conv_norm_gelu
from data2vec2.method.encoder import Modality, Rows, Tokens
from data2vec2.method.masking import put, take


class SequenceModality(Modality):
    """Convolutions over the tokens make positions, and symmetric ALiBi knows distances (paper, section 3.3).

    A modality brings the stem, and says how many tokens are real. The teacher starts from the student's tokens.
    """

    teacher_owns = frozenset({"context", "trunk"})
    num_axes = 1
    slopes_H: Tensor

    def __init__(
        self,
        stem: nn.Module,
        embed_dim: int,
        num_heads: int,
        *,
        depth: int,
        kernel: int,
        groups: int,
        norm: bool = True,
        alibi: bool = True,
        num_extra_tokens: int = 0,
    ) -> None:
        """`stem` makes tokens `BTD` and has `reset_parameters`; `depth` to `norm` are of `ConvPositions`."""
        super().__init__()
        self.stem: nn.Module | None = stem
        self.positions = ConvPositions(embed_dim, depth, kernel, groups, norm)
        self.alibi = alibi
        if alibi:
            self.alibi_scale_H = nn.Parameter(torch.empty(num_heads))
            self.register_buffer("slopes_H", alibi_slopes(num_heads), persistent=False)
        self.num_extra_tokens = self.num_summary_tokens = num_extra_tokens
        if num_extra_tokens:
            self.extra_tokens_1ED = nn.Parameter(torch.empty(1, num_extra_tokens, embed_dim))

    @abstractmethod
    def real_tokens(self, lengths_B: Tensor) -> Tensor:
        """How many tokens inputs make, of which so many values are real."""

    def embedded(self, inputs: Tensor, lengths_B: Tensor | None) -> Tensor:
        """What the stem makes of inputs, `BTD`; one that must know how much of them is real overrides this."""
        assert self.stem is not None
        return self.stem(inputs)  # type: ignore[no-any-return]

    def tokens(self, inputs: Tensor, lengths_B: Tensor | None = None) -> Tokens:
        """What the stem makes of inputs, and which of that is padding."""
        tokens_BTD = self.embedded(inputs, lengths_B)
        num_tokens, padding_BT = tokens_BTD.shape[1], None
        if lengths_B is not None:
            padding_BT = torch.arange(num_tokens, device=inputs.device) >= self.real_tokens(lengths_B)[:, None]
        return Tokens(tokens_BTD, (num_tokens,), padding_BT)

    def arrange(self, tokens: Tokens, keep_ids_NK: Tensor | None = None) -> Rows:
        """Add positions, take the kept tokens, put the extra ones in front; the attention's bias knows where they were.

        The positions of a student row are made of its kept tokens alone: masked and padded ones are zero.
        """
        x_BTD, padding_BT = tokens.tokens_BTD, tokens.padding_BT
        T, D = x_BTD.shape[1:]
        if padding_BT is not None:
            x_BTD = x_BTD.masked_fill(padding_BT[..., None], 0.0)
        if keep_ids_NK is None:
            places_1T = torch.arange(T, device=x_BTD.device)[None]
            return self._rows(x_BTD + self.positions(x_BTD, padding_BT), places_1T, padding_BT)
        kept_NKD = take(x_BTD, keep_ids_NK)
        sparse_NTD = put(kept_NKD.new_zeros(len(keep_ids_NK), T, D), keep_ids_NK, kept_NKD)
        padding_NT = padding_NK = None
        if padding_BT is not None:
            padding_NT = padding_BT.repeat_interleave(len(keep_ids_NK) // len(padding_BT), dim=0)
            padding_NK = padding_NT.gather(1, keep_ids_NK)
        positions_NKD = take(self.positions(sparse_NTD, padding_NT), keep_ids_NK)
        return self._rows(kept_NKD + positions_NKD, keep_ids_NK, padding_NK)

    def _rows(self, x_NKD: Tensor, places_NK: Tensor, padding_NK: Tensor | None) -> Rows:
        """With the extra tokens, and what attention is told of places and padding, if anything."""
        extra, padding_NL = self.num_extra_tokens, padding_NK
        if extra:
            x_NKD = torch.cat([self.extra_tokens_1ED.to(x_NKD.dtype).expand(x_NKD.shape[0], -1, -1), x_NKD], dim=1)
            padding_NL = None if padding_NK is None else F.pad(padding_NK, (extra, 0))
        if self.alibi:
            return Rows(x_NKD, AttentionBias(places_NK, self.slopes_H, self.alibi_scale_H, padding_NL, extra))
        return Rows(x_NKD, None if padding_NL is None else AttentionBias(padding_NL=padding_NL))

    def reset_parameters(self) -> None:
        """Stem and positions as PyTorch or they themselves say, extra tokens N(0, 1), ALiBi scales 1, slopes anew."""
        for part in (self.stem, *self.positions.convs):
            if part is not None:
                part.reset_parameters()
        if self.num_extra_tokens:
            nn.init.normal_(self.extra_tokens_1ED)
        if not self.alibi:
            return
        nn.init.ones_(self.alibi_scale_H)
        with torch.no_grad():
            self.slopes_H.copy_(alibi_slopes(len(self.slopes_H)))


class ConvPositions(nn.Module):
    """Positions from neighbours: convolutions, each with LayerNorm without scale and GELU (paper, section 3.3)."""

    def __init__(self, dim: int, depth: int, kernel: int, groups: int, norm: bool = True) -> None:
        """`groups` divides `dim`; without `norm` there is no LayerNorm."""
        super().__init__()
        self.norm, self.even = norm, kernel % 2 == 0
        self.convs = nn.ModuleList(
            nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=groups) for _ in range(depth)
        )

    def forward(self, x_NTD: Tensor, padding_NT: Tensor | None = None) -> Tensor:
        """Positions `NTD`, to be added to the tokens; the same as if the padded tokens (True) were not there."""
        for conv in self.convs:
            if padding_NT is not None:
                x_NTD = x_NTD.masked_fill(padding_NT[..., None], 0.0)
            x_NTD = conv_norm_gelu(conv, x_NTD, self.norm)
            x_NTD = x_NTD[:, :-1] if self.even else x_NTD
        return x_NTD
