"""Fixed positions and their interpolation."""

from __future__ import annotations

import pytest
import torch

from data2vec2.nn.positions import resize_positions, sincos_2d


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
