"""The post-norm Transformer block, which shows its feed-forward output.

Shapes: `N` rows, `L` tokens of a row, `D` width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from data2vec2.method.attention import Attention, AttentionBias


class BlockOutput(NamedTuple):
    """What a block computed."""

    x_NLD: Tensor
    """The block's output."""
    ffn_NLD: Tensor
    """The feed-forward network's output before the last residual addition: what the targets are made of."""


class MLP(nn.Module):
    """Two linear layers with exact GELU between them, and a dropout that only fine-tuning sets (`dropout.p`)."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.dropout = nn.Dropout(0.0)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x_NLD: Tensor) -> Tensor:
        """`NLD` to `NLD`."""
        return self.fc2(self.dropout(self.act(self.fc1(x_NLD))))  # type: ignore[no-any-return]


class DropPath(nn.Module):
    """In training, leave a residual branch out of some rows (stochastic depth, Huang et al., ECCV 2016)."""

    def __init__(self, rate: float = 0.0) -> None:
        """`rate` is the share of rows left out; the others are scaled by `1 / (1 - rate)`. It may be changed later."""
        super().__init__()
        self.rate = rate

    def forward(self, x_NLD: Tensor) -> Tensor:
        """`NLD` to `NLD`."""
        if not self.training or self.rate == 0:
            return x_NLD
        kept_N11 = torch.empty(len(x_NLD), 1, 1, dtype=x_NLD.dtype, device=x_NLD.device).bernoulli_(1 - self.rate)
        return x_NLD * kept_N11 / (1 - self.rate)


class Block(nn.Module):
    """`x = norm1(x + attention(x)); x = norm2(x + mlp(x))`; only fine-tuning sets `drop_path.rate`."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        norm_eps: float = 1e-6,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attn = Attention(dim, num_heads, dropout=attention_dropout, proj_dropout=dropout)
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = MLP(dim, int(dim * mlp_ratio))
        self.dropout = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.drop_path = DropPath()

    def forward(self, x_NLD: Tensor, bias: AttentionBias | None = None) -> BlockOutput:
        """`NLD` to `NLD`, with the feed-forward output beside it."""
        x_NLD = self.norm1(x_NLD + self.drop_path(self.attn(x_NLD, bias)))
        ffn_NLD = self.mlp(x_NLD)
        return BlockOutput(self.norm2(x_NLD + self.drop_path(self.dropout(ffn_NLD))), ffn_NLD)
