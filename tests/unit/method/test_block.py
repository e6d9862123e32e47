"""Drop path: which rows lose a branch, how often, and what is left of the others; what an MLP keeps."""

from __future__ import annotations

import pytest
import torch

from data2vec2.config.model import EncoderConfig
from data2vec2.method import block as blocks
from data2vec2.method.block import MLP, Block, DropPath, recomputed
from data2vec2.training.device import activation_bytes


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_rows_are_left_out_at_the_rate_and_the_mean_stays(rate: float) -> None:
    drop = DropPath(rate).train()
    out_NLD = drop(torch.ones(20_000, 2, 3))
    kept_N = out_NLD[:, 0, 0] > 0
    assert torch.equal(out_NLD, (kept_N / (1 - rate))[:, None, None].expand(-1, 2, 3))  # whole rows, all scaled alike
    assert (~kept_N).float().mean().item() == pytest.approx(rate, abs=0.015)  # 4 standard deviations
    assert out_NLD.mean().item() == pytest.approx(1, abs=0.03)


def test_nothing_is_left_out_in_eval_mode_or_at_rate_zero() -> None:
    x_NLD = torch.randn(50, 2, 3)
    assert torch.equal(DropPath(0.9).eval()(x_NLD), x_NLD)
    assert torch.equal(DropPath(0.0).train()(x_NLD), x_NLD)


def test_a_block_without_both_branches_is_its_norms() -> None:
    block = Block(EncoderConfig(embed_dim=8, num_heads=2)).train()
    block.drop_path.rate = 0.5
    x_NLD = torch.randn(400, 3, 8)
    out = block(x_NLD)
    bare_NLD = block.norm2(block.norm1(x_NLD))
    bare_N = (out.x_NLD - bare_NLD).abs().amax(dim=(1, 2)) < 1e-6
    assert bare_N.float().mean().item() == pytest.approx(0.25, abs=0.09)  # the two branches are drawn apart
    assert (out.ffn_NLD[bare_N].abs() > 0).any()  # what targets are made of is there all the same


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_an_mlp_keeps_less_and_learns_the_same(dropout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its hidden layer once, not before and after GELU; with dropout the same numbers fall out again."""
    mlp, x = MLP(8, 64), torch.randn(2, 5, 8)
    mlp.dropout.p = dropout
    results = []
    for run in (recomputed, lambda run, x, random: run(x)):
        monkeypatch.setattr(blocks, "recomputed", run)
        mlp.zero_grad()
        torch.manual_seed(1)
        mlp(x).square().sum().backward()
        gradients = [parameter.grad.clone() for parameter in mlp.parameters()]
        results.append((activation_bytes(lambda: mlp(x)), gradients))
    (fewer, found), (kept, expected) = results
    assert kept - fewer >= 2 * 5 * 64 * 4
    assert all(map(torch.equal, found, expected))
