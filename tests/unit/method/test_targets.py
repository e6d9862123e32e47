"""Targets: normalisations, padding, and which layers are averaged."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from data2vec2.config.model import TargetConfig
from data2vec2.method.losses import build_targets, instance_norm, layer_norm


def layers(count: int = 4, shape: tuple[int, int, int] = (2, 7, 12)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator) * (i + 1) + i for i in range(count)]


def test_instance_norm_has_zero_mean_and_unit_variance_over_time() -> None:
    x = instance_norm(layers()[3])
    assert x.mean(1).abs().max() < 1e-5
    assert (x.var(1, correction=0) - 1).abs().max() < 1e-4


@pytest.mark.parametrize("kind", ["instance", "layer"])
def test_the_norms_are_torchs(kind: str) -> None:
    x = layers()[2]
    ours = instance_norm(x) if kind == "instance" else layer_norm(x)
    theirs = (
        torch.nn.functional.instance_norm(x.transpose(1, 2)).transpose(1, 2)
        if kind == "instance"
        else torch.nn.functional.layer_norm(x, (12,))
    )
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_instance_norm_with_padding_is_that_of_the_unpadded() -> None:
    x = layers(shape=(3, 9, 12))[1]
    lengths = [9, 6, 2]
    padding = torch.arange(9) >= torch.tensor(lengths)[:, None]
    x[padding] = 1e4
    padded = instance_norm(x, padding)
    for row, length in enumerate(lengths):
        alone = instance_norm(x[row : row + 1, :length])
        assert torch.allclose(padded[row : row + 1, :length], alone, atol=1e-4)


def test_targets_with_padding_are_those_of_the_unpadded() -> None:
    config = TargetConfig(average_layers=3, final_norm="instance")
    padding = torch.arange(7) >= torch.tensor([7, 4])[:, None]
    x = [layer.masked_fill(padding[..., None], 77.0) for layer in layers()]
    padded = build_targets(config, x, padding)
    alone = build_targets(config, [layer[1:, :4] for layer in x])
    assert torch.allclose(padded[1:, :4], alone, atol=1e-4)


@pytest.mark.parametrize("average_layers", [1, 2, 4])
@pytest.mark.parametrize("norm", ["instance", "layer"])
@pytest.mark.parametrize("final", ["none", "instance", "layer"])
def test_targets_are_the_formula(average_layers: int, norm: str, final: str) -> None:
    norms: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "instance": instance_norm,
        "layer": layer_norm,
        "none": lambda x: x,
    }
    config = TargetConfig(average_layers=average_layers, layer_norm=norm, final_norm=final)  # type: ignore[arg-type]
    x = layers()
    expected = norms[final](torch.stack([norms[norm](layer) for layer in x[4 - average_layers :]]).mean(0))
    assert torch.allclose(build_targets(config, x), expected, atol=1e-5)


def test_layers_before_the_last_k_do_not_matter() -> None:
    config, x = TargetConfig(average_layers=2), layers()
    before = build_targets(config, x)
    x[0], x[1] = x[0] + 5, torch.full_like(x[1], float("nan"))
    assert torch.equal(build_targets(config, x), before)
    x[2] = x[2] * (0.5 + torch.rand(12))
    assert torch.allclose(build_targets(config, x), before, atol=1e-3)  # scale and shift of a layer do not matter
    x[3] = torch.roll(x[3], 1, dims=1)
    assert not torch.allclose(build_targets(config, x), before, atol=1e-1)


def test_half_precision_layers_give_float32_targets() -> None:
    config, x = TargetConfig(average_layers=4), [layer.bfloat16() for layer in layers()]
    targets = build_targets(config, x)
    assert targets.dtype == torch.float32
    assert torch.equal(targets, build_targets(config, [layer.float() for layer in x]))
