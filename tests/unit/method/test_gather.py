"""Taking, putting and the complement, and where their gradients go."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data2vec2.config.model import MaskConfig
from data2vec2.method.masking import complement, draw_keep_ids, put, take

B, M, T, D = 3, 4, 10, 5


@pytest.fixture
def keep_ids() -> torch.Tensor:
    config = MaskConfig(num_masks=M, mask_ratio=0.6, block_length=2)
    return torch.from_numpy(draw_keep_ids(config, (T,), 0, np.zeros(B, np.int64), np.arange(B)))


def test_take_reads_each_row_from_its_own_sample(keep_ids: torch.Tensor) -> None:
    x = torch.randn(B, T, D)
    taken = take(x, keep_ids)
    for row in range(B * M):
        for place, token in enumerate(keep_ids[row].tolist()):
            assert torch.equal(taken[row, place], x[row // M, token])


def test_complement_and_kept_partition_the_tokens(keep_ids: torch.Tensor) -> None:
    masked = complement(keep_ids, T)
    assert masked.shape == (B * M, T - keep_ids.shape[1])
    assert (masked.diff(dim=1) > 0).all()
    for row in range(B * M):
        assert sorted(keep_ids[row].tolist() + masked[row].tolist()) == list(range(T))
    assert torch.equal(complement(masked, T), keep_ids)


def test_put_inverts_take(keep_ids: torch.Tensor) -> None:
    x = torch.randn(B * M, T, D)
    masked = complement(keep_ids, T)
    whole = put(put(torch.full_like(x, float("nan")), keep_ids, take(x, keep_ids)), masked, take(x, masked))
    assert torch.equal(whole, x)
    values = torch.randn(B * M, keep_ids.shape[1], D)
    assert torch.equal(take(put(x, keep_ids, values), keep_ids), values)
    assert torch.equal(take(put(x, keep_ids, values), masked), take(x, masked))


def test_gradients_reach_the_tokens_they_came_from(keep_ids: torch.Tensor) -> None:
    x = torch.randn(B, T, D, requires_grad=True)
    weight = torch.randn(B * M, keep_ids.shape[1], D)
    torch.autograd.backward((take(x, keep_ids) * weight).sum())
    expected = torch.zeros(B, T, D)
    for row in range(B * M):
        for place, token in enumerate(keep_ids[row].tolist()):
            expected[row // M, token] += weight[row, place]
    assert x.grad is not None
    assert torch.allclose(x.grad, expected)


def test_gradients_of_put(keep_ids: torch.Tensor) -> None:
    base = torch.randn(B * M, T, D, requires_grad=True)
    values = torch.randn(B * M, keep_ids.shape[1], D, requires_grad=True)
    weight = torch.randn(B * M, T, D)
    torch.autograd.backward((put(base, keep_ids, values) * weight).sum())
    assert base.grad is not None
    assert values.grad is not None
    assert torch.equal(values.grad, take(weight, keep_ids))
    assert (take(base.grad, keep_ids) == 0).all()
    assert torch.equal(take(base.grad, complement(keep_ids, T)), take(weight, complement(keep_ids, T)))
