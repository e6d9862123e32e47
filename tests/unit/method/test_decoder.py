"""The decoder, its noise, and the positions."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from data2vec2.config.model import DecoderConfig
from data2vec2.method.decoder import Decoder
from data2vec2.method.masking import complement, take
from data2vec2.modalities.image.model import sincos_2d

KEEP = torch.tensor([[0, 3, 5, 11], [1, 2, 7, 8]])


def decoder(num_axes: int = 2, **options: object) -> Decoder:
    torch.manual_seed(0)
    sizes = {"dim": 8, "depth": 2, "kernel": 3, "groups": 2, **options}
    return Decoder(DecoderConfig(**sizes), 8, num_axes)  # type: ignore[arg-type]


@pytest.mark.parametrize("noise_std", [0.0, 0.01, 3.0])
def test_restore_puts_outputs_at_their_places_and_noise_elsewhere(noise_std: float) -> None:
    x = torch.randn(2, 4, 8)
    full = decoder(noise_std=noise_std).restore(x, KEEP, 12)
    assert torch.equal(take(full, KEEP), x)
    noise = take(full, complement(KEEP, 12))
    assert noise.std().item() == pytest.approx(noise_std, rel=0.25)
    assert not noise_std or not torch.equal(noise[0], noise[1])


def test_input_dropout_hits_visible_outputs_only() -> None:
    full = decoder(noise_std=1.0, input_dropout=0.5).restore(torch.ones(2, 4, 8), KEEP, 12)
    assert set(take(full, KEEP).flatten().tolist()) == {0.0, 2.0}
    assert (take(full, complement(KEEP, 12)) != 0).all()


@pytest.mark.parametrize(("num_axes", "grid"), [(2, (3, 4)), (1, (12,))])
def test_predictions_at_places_are_those_of_all_places(num_axes: int, grid: tuple[int, ...]) -> None:
    model, x = decoder(num_axes), torch.randn(2, 12, 8)
    everywhere = model(x, grid)
    assert everywhere.shape == (2, 12, 8)
    assert torch.allclose(model(x, grid, KEEP), take(everywhere, KEEP), atol=1e-6)


@pytest.mark.parametrize(("num_axes", "grid", "reach"), [(2, (5, 5), 1), (1, (25,), 1)])
def test_a_layer_sees_its_neighbourhood_and_no_more(num_axes: int, grid: tuple[int, ...], reach: int) -> None:
    model, x = decoder(num_axes, depth=1), torch.randn(1, 25, 8, requires_grad=True)
    model(x, grid)[0, 12].sum().backward()
    assert x.grad is not None
    seen = x.grad.abs().sum(-1)[0].view(grid).nonzero()
    centre = torch.tensor([12]) if num_axes == 1 else torch.tensor([2, 2])
    assert (seen - centre).abs().max() == reach
    assert len(seen) == 3**num_axes


def test_residual_only_where_channels_agree() -> None:
    x = torch.randn(2, 12, 8)
    model = decoder(dim=8)
    with torch.no_grad():
        for parameter in model.convs.parameters():
            parameter.zero_()
    project = model.get_submodule("proj")
    assert torch.equal(
        model(x, (3, 4)), model.get_submodule("proj")(x)
    )  # GELU(LayerNorm(0)) is 0: only the residual is left
    model.config = replace(model.config, residual=False)
    assert torch.equal(model(x, (3, 4)), project(torch.zeros_like(x)))
    assert decoder(dim=16)(x, (3, 4)).shape == (2, 12, 8)


def test_two_projection_layers() -> None:
    model = decoder(projection_depth=2)
    assert [tuple(p.shape) for p in model.proj.parameters()] == [(16, 8), (16,), (8, 16), (8,)]
    assert model(torch.randn(2, 12, 8), (3, 4)).shape == (2, 12, 8)


def test_positions_are_the_formula() -> None:
    table = sincos_2d(16, (3, 5))
    assert table.shape == (15, 16)
    for token in range(15):
        row, column = divmod(token, 5)
        for half, place in enumerate((column, row)):
            for i in range(4):
                angle = place / 10_000 ** (i / 4)
                assert table[token, 8 * half + i].item() == pytest.approx(math.sin(angle), abs=1e-6)
                assert table[token, 8 * half + 4 + i].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_positions_need_a_multiple_of_four() -> None:
    with pytest.raises(ValueError, match=r"model\.encoder\.embed_dim is 18"):
        sincos_2d(18, (2, 2))
