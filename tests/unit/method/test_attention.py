"""Attention and its bias against the written-out formula."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from data2vec2.config.model import EncoderConfig
from data2vec2.method.block import Attention, AttentionBias, Block, quick_attention

N, L, D, H = 3, 6, 8, 2
SHAPE = EncoderConfig(embed_dim=D, num_heads=H)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(N, L, D, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def attention() -> Attention:
    torch.manual_seed(0)
    return Attention(D, H).eval()


def slow(attention: Attention, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Row by row and head by head; `bias` is `NHLL`."""
    q, k, v = (x @ attention.qkv.weight.T + attention.qkv.bias).tensor_split(3, dim=-1)
    rows = []
    for row in range(len(x)):
        heads = []
        for head in range(H):
            part = slice(head * D // H, (head + 1) * D // H)
            scores = q[row, :, part] @ k[row, :, part].T / (D // H) ** 0.5
            if bias is not None:
                scores = scores + bias[row, head]
            heads.append(scores.softmax(-1) @ v[row, :, part])
        rows.append(torch.cat(heads, -1))
    return torch.stack(rows) @ attention.proj.weight.T + attention.proj.bias


def test_against_the_formula(attention: Attention, x: torch.Tensor) -> None:
    assert torch.allclose(attention(x), slow(attention, x), atol=1e-6)


def test_alibi_is_minus_slope_times_scale_times_distance(attention: Attention, x: torch.Tensor) -> None:
    positions = torch.tensor([[0, 1, 2, 3, 4, 5], [0, 2, 4, 7, 9, 30], [5, 4, 3, 2, 1, 0]])
    slopes, scale = torch.tensor([0.5, 0.25]), torch.tensor([2.0, -1.0])
    expected = torch.zeros(N, H, L, L)
    for row in range(N):
        for i in range(L):
            for j in range(L):
                expected[row, 0, i, j] = -0.5 * 2 * abs(int(positions[row, i] - positions[row, j]))
    bias = AttentionBias(positions_NL=positions, slopes_H=slopes, scale_H=scale)  # a negative scale counts as 0
    assert torch.allclose(attention(x, bias.dense(torch.float32)), slow(attention, x, expected), atol=1e-6)
    unscaled = AttentionBias(positions_NL=positions, slopes_H=slopes)
    assert torch.equal(unscaled.dense(torch.float32)[:, 0] * 2, bias.dense(torch.float32)[:, 0])


def test_padded_tokens_change_nothing(attention: Attention, x: torch.Tensor) -> None:
    padding = torch.arange(L) >= torch.tensor([6, 4, 1])[:, None]
    poisoned = x.masked_fill(padding[..., None], 1e3)
    for extra in ({}, {"positions_NL": torch.arange(L).expand(N, L), "slopes_H": torch.tensor([0.5, 0.1])}):
        out = attention(poisoned, AttentionBias(padding_NL=padding, **extra).dense(torch.float32))
        for row, length in enumerate((6, 4, 1)):
            cut = {k: v[row : row + 1, :length] if k == "positions_NL" else v for k, v in extra.items()}
            alone = attention(x[row : row + 1, :length], AttentionBias(**cut).dense(torch.float32) if extra else None)
            assert torch.allclose(out[row, :length], alone[0], atol=1e-5)


def test_an_empty_bias_is_refused() -> None:
    with pytest.raises(ValueError, match="positions and slopes, or padding"):
        AttentionBias().dense(torch.float32)


def test_dropout_of_attention_only_works_in_training(x: torch.Tensor) -> None:
    attention = Attention(D, H, dropout=0.5)
    assert torch.equal(attention.eval()(x), attention(x))
    assert not torch.equal(attention.train()(x), attention(x))


def test_a_block_is_post_norm_and_shows_its_ffn(x: torch.Tensor) -> None:
    torch.manual_seed(1)
    block = Block(SHAPE).eval()
    middle = block.norm1(x + block.attn(x))
    ffn = torch.nn.functional.gelu(middle @ block.mlp.fc1.weight.T + block.mlp.fc1.bias)
    ffn = ffn @ block.mlp.fc2.weight.T + block.mlp.fc2.bias
    out = block(x)
    assert torch.allclose(out.ffn_NLD, ffn, atol=1e-6)
    assert torch.allclose(out.x_NLD, block.norm2(middle + ffn), atol=1e-6)


def test_the_target_is_taken_before_dropout(x: torch.Tensor) -> None:
    torch.manual_seed(1)
    block = Block(replace(SHAPE, dropout=0.5)).train()
    block.attn.eval()
    first, second = block(x), block(x)
    assert torch.equal(first.ffn_NLD, second.ffn_NLD)
    assert not torch.equal(first.x_NLD, second.x_NLD)


def test_on_cuda_rows_of_a_bias_begin_at_multiples_of_eight_numbers() -> None:
    with FakeTensorMode():  # no such device is needed
        places = torch.zeros(3, 13, dtype=torch.int64, device="cuda")
        slopes = torch.ones(4, device="cuda", requires_grad=True)
        bias = AttentionBias(positions_NL=places, slopes_H=slopes, padding_NL=places > 0).dense(torch.bfloat16)
        assert bias.shape == (3, 4, 13, 13)
        assert bias.stride() == (4 * 13 * 16, 13 * 16, 16, 1)
        only_padding = AttentionBias(padding_NL=places > 0).dense(torch.float32)
        assert (only_padding.shape, only_padding.stride(0)) == ((3, 1, 1, 13), 16)


def test_the_bias_in_bfloat16_is_that_in_float32_rounded() -> None:
    slopes, scale = torch.rand(12) + 0.1, torch.rand(12, requires_grad=True)
    places = torch.randint(0, 1_500, (2, 40)).sort(dim=1).values
    exact, rounded = (AttentionBias(places, slopes, scale).dense(dtype) for dtype in (torch.float32, torch.bfloat16))
    assert ((rounded - exact).abs() <= 3.1 * 2**-8 * exact.abs()).all()  # factor, distance and product
    assert torch.allclose(
        torch.autograd.grad(rounded.float().square().sum(), scale)[0],
        torch.autograd.grad(exact.square().sum(), scale)[0],
        rtol=0.01,
    )


@pytest.mark.parametrize("with_bias", [False, True])
def test_quick_attention_in_bfloat16_against_fused_attention_in_float32(with_bias: bool) -> None:
    """Forward and backward; on a processor this is by products in memory."""
    torch.manual_seed(0)
    exact = [torch.randn(2, 3, 20, 32, requires_grad=True) for _ in range(3)]
    bias = torch.randn(2, 3, 20, 20) if with_bias else None
    half = [one.detach().bfloat16().requires_grad_() for one in exact]
    expected = F.scaled_dot_product_attention(*exact, attn_mask=bias)
    found = quick_attention(*half, None if bias is None else bias.bfloat16())
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), expected, atol=0.05)
    expected.square().sum().backward()
    found.float().square().sum().backward()
    for one, other in zip(half, exact, strict=True):
        assert torch.allclose(one.grad.float(), other.grad, atol=0.15)
