"""Choice of device, precision and micro-batch."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch import nn

from data2vec2.training.device import (
    activation_bytes,
    choose_device,
    choose_precision,
    fit_micro_batch,
    free_memory,
)


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    for name in ("cuda:99", "mps:7", "abacus", ""):
        with pytest.raises(ValueError, match=f"--device is '{name}', which is not available on this machine"):
            choose_device(name)


def test_a_named_precision_is_not_measured() -> None:
    def never(count: int) -> Callable[[], torch.Tensor]:
        raise AssertionError("measured")

    assert choose_precision("float32", never, 1, torch.device("cpu")) == "float32"
    assert choose_precision("bfloat16", never, 1, torch.device("cpu")) == "bfloat16"


def test_precision_is_measured_with_as_many_samples_as_go_through_at_once() -> None:
    layer, counts = nn.Linear(16, 16), list[int]()

    def loss_of(count: int) -> Callable[[], torch.Tensor]:
        counts.append(count)
        return lambda: layer(torch.ones(count, 16)).sum()

    assert choose_precision("auto", loss_of, 7, torch.device("cpu")) in ("float32", "bfloat16")
    assert counts == [1, 7]


def test_precision_is_measured_with_fewer_samples_where_they_take_long() -> None:
    weight, counts = torch.ones((), requires_grad=True), list[int]()

    def loss_of(count: int) -> Callable[[], torch.Tensor]:
        counts.append(count)

        def loss() -> torch.Tensor:
            time.sleep(0.3)
            return weight * 2

        return loss

    choose_precision("auto", loss_of, 100, torch.device("cpu"))
    assert counts[0] == 1
    assert counts[1] in (1, 2, 3)


def test_activations_are_counted_once_and_parameters_not() -> None:
    x = torch.randn(10, 100, requires_grad=True)
    weight = nn.Parameter(torch.randn(100, 100))

    def forward() -> torch.Tensor:
        h = (x @ weight).exp()  # keeps x, a leaf, and weight, a parameter (neither counts); exp keeps its result
        return (h * h).sum()  # keeps h twice, which is the same memory

    assert activation_bytes(forward) == 10 * 100 * 4


def test_activations_grow_with_the_batch() -> None:
    model = nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 8))

    def needed(batch: int) -> int:
        return activation_bytes(lambda: model(torch.ones(batch, 8)).sum())

    assert needed(1) >= 2 * 64 * 4
    assert needed(64) == pytest.approx(64 * needed(1), rel=0.05)


@pytest.mark.parametrize(
    ("batch", "each", "free", "expected"),
    [
        (32, 100, 10**9, 32),
        (32, 100, 6_400, 32),
        (32, 100, 6_399, 16),
        (30, 100, 2_500, 10),
        (7, 100, 1_300, 6),
        (1, 1, 2, 1),
    ],
)
def test_what_fits_half_of_the_memory_is_rather_a_divisor(batch: int, each: int, free: int, expected: int) -> None:
    assert fit_micro_batch(batch, each, free) == expected


def test_a_sample_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"needs about 100 MiB .* 150 MiB are free; use --train.checkpoint-act"):
        fit_micro_batch(32, 100 * 2**20, 150 * 2**20)


def test_free_memory_is_below_what_the_machine_has() -> None:
    assert 0 < free_memory(torch.device("cpu")) < 2**50
