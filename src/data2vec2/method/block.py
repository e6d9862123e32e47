"""The Transformer block, which shows its feed-forward output, and its attention, whose bias stays data.

Shapes: `N` rows, `L` tokens of a row (extra tokens included), `D` width, `H` heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data2vec2.config.model import EncoderConfig
from data2vec2.method.convolution import recomputed


@dataclass(frozen=True)
class AttentionBias:
    """What attention adds to its scores, as data rather than as an `N x H x L x L` tensor."""

    positions_NL: Tensor | None = None
    """Original position of every token but the extra ones; with `slopes_H` it makes a symmetric ALiBi."""
    slopes_H: Tensor | None = None
    """ALiBi slope of each head, positive."""
    scale_H: Tensor | None = None
    """Learned factor of each head's slope; negative values count as 0."""
    padding_NL: Tensor | None = None
    """True at padded tokens, which nobody attends to."""
    num_extra_tokens: int = 0
    """Tokens in front that have no position: ALiBi takes them to be everywhere."""

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The additive bias, broadcastable to `NHLL`."""
        places, extra, bias = self.positions_NL, self.num_extra_tokens, None
        if places is None:
            places, extra = self.padding_NL, 0
        if places is None or (self.padding_NL is None and self.slopes_H is None):
            raise ValueError("an AttentionBias needs positions and slopes, or padding")
        length = extra + places.shape[1]
        # CUDA's kernels want rows that begin at multiples of 8 numbers, and would copy another bias in every block.
        fill = (0, -length % 8 if places.is_cuda else 0)
        if self.positions_NL is not None and self.slopes_H is not None:
            # In `dtype` from the start: nothing larger than the result is made, or kept for the gradient of the scale.
            queries_NL, keys_NL = self.positions_NL.int(), F.pad(self.positions_NL.int(), fill)
            distance_NLL = (queries_NL[:, :, None] - keys_NL[:, None, :]).abs().to(dtype)
            if extra:
                distance_NLL = F.pad(distance_NLL, (extra, 0, extra, 0))
            slopes_H = self.slopes_H if self.scale_H is None else self.slopes_H * self.scale_H.clamp(min=0.0)
            bias = -slopes_H.to(dtype)[None, :, None, None] * distance_NLL[:, None]
        if self.padding_NL is not None:
            padded_NL = torch.zeros_like(self.padding_NL, dtype=dtype).masked_fill(self.padding_NL, float("-inf"))
            padded_NHLL = F.pad(padded_NL, fill)[:, None, None, :]
            bias = padded_NHLL if bias is None else bias + padded_NHLL
        assert bias is not None
        return bias[..., :length]


def alibi_slopes(num_heads: int) -> Tensor:
    """Slope of each head, positive (Press et al., ICLR 2022): 2^(-8/H), 2^(-16/H), ... for a power of two H.

    Other numbers of heads take those of the next lower power of two, then every other one of the next higher.
    """
    power = 2 ** (num_heads.bit_length() - 1)
    slopes = 2.0 ** (-8 / power * torch.arange(1, power + 1, dtype=torch.float64))
    between = 2.0 ** (-4 / power * torch.arange(1, 2 * power + 1, 2, dtype=torch.float64))
    return torch.cat([slopes, between])[:num_heads].float()


def eager_attention(
    q_NHLE: Tensor,
    k_NHLE: Tensor,
    v_NHLE: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    *,
    seen: list[Tensor] | None = None,
) -> Tensor:
    """PyTorch's `scaled_dot_product_attention` (`E`: a head's width) by products in memory.

    `seen` is given the weights `NHLL`.
    """
    scores_NHLL = (q_NHLE / math.sqrt(q_NHLE.shape[-1])) @ k_NHLE.transpose(-2, -1)
    weights_NHLL = (scores_NHLL if attn_mask is None else scores_NHLL + attn_mask).softmax(dim=-1)
    if seen is not None:
        seen.append(weights_NHLL)
    return F.dropout(weights_NHLL, dropout_p) @ v_NHLE


def quick_attention(
    q_NHLE: Tensor, k_NHLE: Tensor, v_NHLE: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0
) -> Tensor:
    """PyTorch's `scaled_dot_product_attention`, or products in memory where these are quicker.

    That is in bfloat16 on a processor, with a gradient (two to nine times as quick) or a bias (three times).
    """
    in_half = q_NHLE.device.type == "cpu" and q_NHLE.dtype == torch.bfloat16
    in_memory = in_half and (q_NHLE.requires_grad or attn_mask is not None)
    attend = eager_attention if in_memory else F.scaled_dot_product_attention
    return attend(q_NHLE, k_NHLE, v_NHLE, attn_mask, dropout_p)


class Attention(nn.Module):
    """Self-attention with one projection for query, key and value. `attend` may be replaced by another of its kind."""

    def __init__(self, dim: int, num_heads: int, *, dropout: float = 0.0, proj_dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.attend: Callable[..., Tensor] = quick_attention
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.proj_dropout = nn.Dropout(proj_dropout)

    def forward(self, x_NLD: Tensor, bias_NHLL: Tensor | None = None) -> Tensor:
        """`NLD` to `NLD`."""
        N, L, D = x_NLD.shape
        q, k, v = self.qkv(x_NLD).view(N, L, 3, self.num_heads, D // self.num_heads).permute(2, 0, 3, 1, 4)
        out = self.attend(q, k, v, attn_mask=bias_NHLL, dropout_p=self.dropout if self.training else 0.0)
        return self.proj_dropout(self.proj(out.transpose(1, 2).reshape(N, L, D)))  # type: ignore[no-any-return]


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
        random = self.training and self.dropout.p > 0
        return recomputed(lambda h_NLF: self.fc2(self.dropout(self.act(h_NLF))), self.fc1(x_NLD), random)


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


class LayerScale(nn.Module):
    """A learned factor for each channel, 1 at first (Touvron et al., ICCV 2021)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x_NLD: Tensor) -> Tensor:
        """`NLD` to `NLD`."""
        return x_NLD * self.weight

    def reset_parameters(self) -> None:
        """Factors 1."""
        nn.init.ones_(self.weight)


class Block(nn.Module):
    """`x = norm1(x + attention(x)); x = norm2(x + mlp(x))`; only fine-tuning sets `drop_path.rate`.

    With `pre_norm`: `x = x + attention(norm1(x)); x = x + mlp(norm2(x))`.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        dim, eps, dropout = config.embed_dim, config.norm_eps, config.dropout
        self.pre_norm = config.pre_norm
        self.attn = Attention(dim, config.num_heads, dropout=config.attention_dropout, proj_dropout=dropout)
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.mlp = MLP(dim, int(dim * config.mlp_ratio))
        self.dropout = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.scale1, self.scale2 = (LayerScale(dim) if config.layer_scale else nn.Identity() for _ in range(2))
        self.drop_path = DropPath()

    def forward(self, x_NLD: Tensor, bias_NHLL: Tensor | None = None) -> BlockOutput:
        """`NLD` to `NLD`, with the feed-forward output beside it, before any factor."""
        if self.pre_norm:
            x_NLD = x_NLD + self.drop_path(self.scale1(self.attn(self.norm1(x_NLD), bias_NHLL)))
            ffn_NLD = self.mlp(self.norm2(x_NLD))
            return BlockOutput(x_NLD + self.drop_path(self.scale2(self.dropout(ffn_NLD))), ffn_NLD)
        x_NLD = self.norm1(x_NLD + self.drop_path(self.scale1(self.attn(x_NLD, bias_NHLL))))
        ffn_NLD = self.mlp(x_NLD)
        return BlockOutput(self.norm2(x_NLD + self.drop_path(self.scale2(self.dropout(ffn_NLD)))), ffn_NLD)
