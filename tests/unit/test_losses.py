"""The regression loss against the obvious double loop."""

from __future__ import annotations

import pytest
import torch

from data2vec2.losses import regression


def slow(prediction: torch.Tensor, target: torch.Tensor, scale: float, beta: float) -> float:
    total = 0.0
    width = target.shape[-1]
    for p_row, t_row in zip(prediction.reshape(-1, width), target.reshape(-1, width), strict=True):
        for p, t in zip(p_row.tolist(), t_row.tolist(), strict=True):
            difference = abs(p - t)
            if beta == 0:
                total += difference**2
            elif difference < beta:
                total += 0.5 * difference**2 / beta
            else:
                total += difference - 0.5 * beta
    return scale * total


@pytest.mark.parametrize("beta", [0.0, 0.5, 2.0])
def test_regression_is_the_double_loop(beta: float) -> None:
    prediction, target = torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(1)).unbind()
    loss = regression(prediction, target, 0.25, beta)
    assert loss.item() == pytest.approx(slow(prediction, target, 0.25, beta), rel=1e-5)


def test_one_target_serves_many_rows() -> None:
    prediction = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(2))
    target = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(3))
    loss = regression(prediction, target, 1.0)
    assert loss.item() == pytest.approx(slow(prediction, target.expand(2, 4, 8), 1.0, 0.0), rel=1e-5)


def test_half_precision_is_summed_in_float32() -> None:
    loss = regression(torch.ones(100, 100, dtype=torch.bfloat16), torch.zeros(100, 100), 1.0)
    assert loss.dtype == torch.float32
    assert loss.item() == 10_000
