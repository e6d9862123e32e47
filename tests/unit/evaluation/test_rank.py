"""Collapse figures of features whose rank is known."""

from __future__ import annotations

import math

import pytest
import torch

from data2vec2.evaluation.rank import effective_rank, mean_std


def test_a_full_spectrum_has_full_rank() -> None:
    x = torch.randn(2_000, 16, generator=torch.Generator().manual_seed(0))
    assert 15.5 < effective_rank(x) <= 16
    assert effective_rank(x.view(20, 100, 16)) == pytest.approx(effective_rank(x))


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_equal_directions_are_counted(rank: int) -> None:
    directions = torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64)).Q[:rank]
    signs = torch.cat([torch.eye(rank), -torch.eye(rank)]).double()
    assert effective_rank(signs @ directions + 7) == pytest.approx(rank, rel=1e-4)  # the mean does not count


def test_it_is_the_entropy_of_the_singular_values() -> None:
    x = torch.randn(50, 6, dtype=torch.float64) * torch.tensor([1.0, 2.0, 3.0, 0.1, 5.0, 0.5])
    singular = torch.linalg.svdvals(x - x.mean(0))
    p = singular / singular.sum()
    assert effective_rank(x) == pytest.approx(math.exp(-(p * p.log()).sum()), rel=1e-6)


def test_collapse_and_what_is_not_finite() -> None:
    assert effective_rank(torch.full((10, 8), 3.0)) == 1.0
    assert math.isnan(effective_rank(torch.tensor([[1.0, float("inf")], [0.0, 1.0]])))
    assert math.isnan(effective_rank(torch.tensor([[1.0, float("nan")], [0.0, 1.0]])))


def test_few_rows_are_looked_at() -> None:
    x = torch.randn(10_000, 4, generator=torch.Generator().manual_seed(0))
    assert effective_rank(x, limit=100) == pytest.approx(effective_rank(x), rel=0.05)


def test_mean_std() -> None:
    x = torch.randn(5_000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 2.0, 3.0]) + 10
    assert mean_std(x) == pytest.approx(2, rel=0.05)
    assert mean_std(x.view(50, 100, 3)) == pytest.approx(mean_std(x), rel=1e-6)
    assert mean_std(torch.ones(10, 3)) == pytest.approx(1e-3)
