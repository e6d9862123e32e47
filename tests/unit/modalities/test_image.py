"""The image modality at sizes other than its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from data2vec2.config import EncoderConfig, ImageConfig
from data2vec2.modalities.image import ImageModality
from data2vec2.models import Encoder
from data2vec2.nn.positions import resize_positions, sincos_2d

OWN = ImageConfig(image_size=32, patch_size=8, num_channels=1)


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
