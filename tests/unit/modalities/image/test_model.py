"""Fixed positions and their interpolation; the image modality at sizes other than its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from data2vec2.config.model import EncoderConfig
from data2vec2.method.encoder import Encoder
from data2vec2.modalities.image.config import ImageConfig
from data2vec2.modalities.image.model import ImageModality, resize_positions, sincos_2d

OWN = ImageConfig(image_size=32, patch_size=8, num_channels=1)


def test_columns_in_the_first_half_rows_in_the_second() -> None:
    table = sincos_2d(16, (3, 5)).view(3, 5, 16)
    assert torch.equal(table[0, :, :8], table[2, :, :8])
    assert torch.equal(table[:, 0, 8:], table[:, 4, 8:])
    assert torch.equal(table[:, 0, 8:], table[0, :3, :8])  # the same code of the same coordinate
    assert torch.equal(table[0, 0], torch.tensor([0.0] * 4 + [1.0] * 4).repeat(2))
    with pytest.raises(ValueError, match="multiple of 4"):
        sincos_2d(18, (2, 2))


def test_the_same_grid_keeps_the_positions_themselves() -> None:
    table = sincos_2d(16, (4, 6))
    assert resize_positions(table, (4, 6), (4, 6)) is table


@pytest.mark.parametrize("grid", [(8, 8), (3, 3), (2, 9), (6, 4)])
def test_each_channel_is_interpolated_alone_row_by_row(grid: tuple[int, int]) -> None:
    """A channel that is constant stays so, one that grows along an axis grows along it, and no other."""
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), indexing="ij")
    table = torch.stack([torch.full((24,), 7.0), rows.flatten(), columns.flatten()], dim=1)
    resized = resize_positions(table, (4, 6), grid).view(*grid, 3)
    torch.testing.assert_close(resized[..., 0], torch.full(grid, 7.0))
    for channel, axis in ((1, 0), (2, 1)):
        assert (resized[..., channel].diff(dim=axis) > 0).all()
        other = resized[..., channel].diff(dim=1 - axis)
        torch.testing.assert_close(other, torch.zeros_like(other), atol=1e-5, rtol=0)


def test_positions_follow_the_place_in_the_picture() -> None:
    """On a grid twice as fine a patch has the code of its centre, a quarter of a patch off the old centre."""
    table = sincos_2d(32, (12, 12))
    finer = resize_positions(table, (12, 12), (24, 24)).view(24, 24, 32)
    slow = torch.cat([torch.arange(2, 8), torch.arange(10, 16)])  # wave lengths of many patches, of the column's half
    columns = (torch.arange(24) + 0.5) / 2 - 0.5
    frequencies = 10_000.0 ** -(torch.arange(8) / 8)
    exact = torch.cat([(columns[:, None] * frequencies).sin(), (columns[:, None] * frequencies).cos()], dim=1)
    torch.testing.assert_close(finer[10, 4:20][:, slow], exact[4:20][:, slow], atol=0.01, rtol=0)


def test_half_precision_is_interpolated_in_full() -> None:
    table = sincos_2d(16, (4, 4))
    resized = resize_positions(table.bfloat16(), (4, 4), (5, 5))
    assert resized.dtype == torch.float32
    torch.testing.assert_close(resized, resize_positions(table, (4, 4), (5, 5)), atol=0.01, rtol=0)


def positions_added(config: ImageConfig, height: int, width: int) -> torch.Tensor:
    """What `arrange` adds to the tokens of a picture, `TD`."""
    modality = ImageModality(config, 16)
    modality.reset_parameters()
    tokens = modality.tokens(torch.randn(1, 1, height, width))
    assert tokens.grid == (height // 8, width // 8)
    return modality.arrange(tokens).rows_NLD[0, 1:] - tokens.tokens_BTD[0]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 64), (16, 40), (8, 8)])
def test_positions_are_those_of_the_own_grid_interpolated(height: int, width: int) -> None:
    expected = resize_positions(sincos_2d(16, (4, 4)), (4, 4), (height // 8, width // 8))
    torch.testing.assert_close(positions_added(OWN, height, width), expected)


@pytest.mark.parametrize("image_size", [16, 48])
def test_positions_made_for_another_size(image_size: int) -> None:
    """A model of another input size with `position_size` adds what the old model adds to such inputs."""
    moved = replace(OWN, image_size=image_size, position_size=32)
    assert (moved.grid, moved.position_grid) == ((image_size // 8,) * 2, (4, 4))
    added = positions_added(moved, image_size, image_size)
    torch.testing.assert_close(added, positions_added(OWN, image_size, image_size))
    own = sincos_2d(16, moved.grid)
    assert (added - own).abs().max() > 0.1  # not the table of the new size


def test_a_position_size_changes_no_parameter() -> None:
    encoder = EncoderConfig(embed_dim=16, num_heads=2, prenet_depth=0, depth=1)
    names = [
        set(Encoder(encoder, ImageModality(config, 16)).state_dict())
        for config in (OWN, replace(OWN, image_size=64, position_size=32))
    ]
    assert names[0] == names[1]


def test_half_precision_models_take_other_sizes() -> None:
    modality = ImageModality(OWN, 16).bfloat16()
    rows = modality.arrange(modality.tokens(torch.randn(2, 1, 48, 16).bfloat16())).rows_NLD
    assert rows.dtype == torch.bfloat16
    assert rows.shape == (2, 1 + 6 * 2, 16)


@pytest.mark.parametrize("size", [0, 30, -8])
def test_a_position_size_that_is_no_multiple_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=rf"model\.modality\.position_size is {size}; it must be a multiple"):
        replace(OWN, position_size=size)
