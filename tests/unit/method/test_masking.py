"""Masks: exact counts, visible blocks, and nothing but (seed, epoch, sample, mask) decides them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from data2vec2.config.model import MaskConfig
from data2vec2.method.masking import draw_keep_ids, draw_spans, num_kept
from data2vec2.modalities import recipes
from data2vec2.modalities.text.config import TextConfig
from data2vec2.rng import Stream

GRIDS = [(14, 14), (7, 7), (16, 16), (5, 9), (3, 3), (50,), (499,), (7,), (512,)]
RATIOS = [0.2, 0.48, 0.5, 0.6, 0.75, 0.8]


def draw(
    config: MaskConfig, grid: tuple[int, ...], count: int = 8, seed: int = 0, epoch: int = 0, first: int = 0
) -> np.ndarray:
    samples = np.arange(first, first + count)
    return draw_keep_ids(config, grid, seed, np.full(count, epoch), samples)


def kept_maps(config: MaskConfig, grid: tuple[int, ...], count: int) -> np.ndarray:
    """True at kept tokens, rows x grid."""
    keep_ids = draw(config, grid, count)
    kept = np.zeros((len(keep_ids), math.prod(grid)), dtype=bool)
    np.put_along_axis(kept, keep_ids, True, axis=1)
    return kept.reshape(-1, *grid)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("inverse", [True, False])
@pytest.mark.parametrize("block_length", [1, 2, 3, 5])
def test_every_row_keeps_the_exact_count(grid: tuple[int, ...], inverse: bool, block_length: int) -> None:
    total = math.prod(grid)
    for ratio in RATIOS:
        for adjust in (0.0, 0.1):
            config = MaskConfig(
                num_masks=3, mask_ratio=ratio, adjust=adjust, block_length=block_length, inverse=inverse
            )
            expected = int(total * (1 - ratio)) if inverse else total - int(total * ratio)
            keep_ids = draw(config, grid, 4)
            assert keep_ids.shape == (12, expected)
            assert keep_ids.shape[1] == num_kept(config, total)
            assert (np.diff(keep_ids, axis=1) > 0).all()  # ascending, and none twice
            assert keep_ids.min() >= 0
            assert keep_ids.max() < total


@pytest.mark.parametrize("name", recipes())
def test_recipes_keep_what_the_paper_keeps(name: str) -> None:
    model = recipes()[name]().model
    kept = {"image_base": 39, "image_large": 49, "image_huge14": 64, "image_tiny": 19, "image_small": 16}
    kept |= {"audio_base": 500, "audio_large": 450, "audio_tiny": 500, "audio_mel_tiny": 500, "audio_mel_base": 500}
    kept |= {"audio_small": 500, "audio_mel_small": 500, "text_small": 133}
    kept |= {"text_base": 266, "text_large": 256, "text_tiny": 51, "sound_base": 99, "sound_tiny": 28}
    if isinstance(model.modality, TextConfig):
        grid = (model.modality.max_tokens,)
    else:
        seconds = {"sound_base": 10, "sound_tiny": 1.5}.get(name, 20)
        grid = getattr(model.modality, "grid", None) or model.modality.grid_of(round(16_000 * seconds))
    assert draw(model.masks, grid, 2).shape == (2 * model.masks.num_masks, kept[name])


@pytest.mark.parametrize(
    ("ratio", "grid", "inverse"), [(0.9, (3, 3), True), (0.01, (7, 7), False), (0.99, (7, 7), True)]
)
def test_a_ratio_that_keeps_or_masks_nothing_is_refused(ratio: float, grid: tuple[int, ...], inverse: bool) -> None:
    config = MaskConfig(mask_ratio=ratio, inverse=inverse)
    with pytest.raises(ValueError, match=rf"model\.masks\.mask_ratio is {ratio}"):
        draw(config, grid)


def test_a_mask_depends_on_seed_epoch_sample_and_number_alone() -> None:
    config, grid = MaskConfig(num_masks=4), (14, 14)
    many = draw(config, grid, 32).reshape(32, 4, -1)
    alone = draw(config, grid, 1, first=17)
    assert np.array_equal(many[17], alone)
    shuffled = np.random.default_rng(0).permutation(32)
    again = draw_keep_ids(config, grid, 0, np.zeros(32, np.int64), shuffled).reshape(32, 4, -1)
    assert np.array_equal(again, many[shuffled])
    fewer = draw(MaskConfig(num_masks=2), grid, 32).reshape(32, 2, -1)
    assert np.array_equal(fewer, many[:, :2])
    mixed_epochs = draw_keep_ids(config, grid, 0, np.array([0, 1]), np.array([17, 17]))
    assert np.array_equal(mixed_epochs[:4], alone)
    assert np.array_equal(mixed_epochs[4:], draw(config, grid, 1, first=17, epoch=1))


def test_seed_epoch_sample_and_number_each_change_a_mask() -> None:
    config, grid = MaskConfig(num_masks=16), (14, 14)
    rows = np.concatenate([draw(config, grid, 8, seed=s, epoch=e) for s in (0, 1) for e in (0, 1)])
    assert len(np.unique(rows, axis=0)) == len(rows) == 512


@pytest.mark.parametrize("inverse", [True, False])
def test_blocks_are_visible(inverse: bool) -> None:
    """With blocks, tokens of the chosen kind have far more neighbours of their kind than single random tokens have."""
    grid = (14, 14)

    def agreement(block_length: int) -> float:
        config = MaskConfig(
            num_masks=16, mask_ratio=0.8 if inverse else 0.2, block_length=block_length, inverse=inverse
        )
        chosen = kept_maps(config, grid, 20) == inverse
        pairs = (
            np.logical_and(chosen[:, 1:], chosen[:, :-1]).sum()
            + np.logical_and(chosen[:, :, 1:], chosen[:, :, :-1]).sum()
        )
        return float(pairs / chosen.sum())

    assert agreement(3) > 2.5 * agreement(1)


def test_blocks_of_length_one_choose_every_token_equally_often() -> None:
    counts = kept_maps(MaskConfig(num_masks=16, mask_ratio=0.5, block_length=1), (10, 10), 250).sum(axis=0)
    expected = 4_000 * 0.5
    assert np.abs(counts - expected).max() < 5 * math.sqrt(4_000 * 0.25)


@pytest.mark.parametrize(
    ("config", "grid"),
    [
        (MaskConfig(num_masks=16), (14, 14)),
        (MaskConfig(num_masks=16, mask_ratio=0.75, adjust=0.1, block_length=3), (7, 9)),
        (MaskConfig(num_masks=16, mask_ratio=0.6, adjust=0.1, block_length=2), (7, 7)),
        (MaskConfig(num_masks=16, mask_ratio=0.5, adjust=0.05, block_length=5, inverse=False), (60,)),
        (MaskConfig(num_masks=16, mask_ratio=0.3, adjust=0.05, block_length=4, inverse=False), (6, 8)),
    ],
    ids=["base", "large", "tiny", "sequence", "even blocks"],
)
def test_against_a_slow_version(config: MaskConfig, grid: tuple[int, ...]) -> None:
    """The distribution is that of the obvious per-row code: how often a token, or a pair of neighbours, is kept."""
    rows, ours = 3_200, kept_maps(config, grid, 200)
    generator = np.random.default_rng(5)
    slow = np.stack([slow_mask(config, grid, generator) for _ in range(rows)])
    both = [statistics(kept) for kept in (ours, slow)]
    for name in both[0]:
        a, b = both[0][name], both[1][name]
        spread = np.sqrt(np.maximum(a * (1 - a) + b * (1 - b), 1e-3) / rows)
        assert (np.abs(a - b) / spread).max() < 5, name


def statistics(kept: np.ndarray) -> dict[str, np.ndarray]:
    """Rates over rows of each token being kept, and of each being kept with its neighbour along each axis."""
    found = {"kept": kept.mean(axis=0)}
    for axis in range(1, kept.ndim):
        pairs = np.take(kept, range(1, kept.shape[axis]), axis) & np.take(kept, range(kept.shape[axis] - 1), axis)
        found[f"pairs along axis {axis}"] = pairs.mean(axis=0)
    return found


def slow_mask(config: MaskConfig, grid: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """One row as the text describes it: True at kept tokens."""
    total, length = math.prod(grid), config.block_length
    share = 1 - config.mask_ratio if config.inverse else config.mask_ratio
    wanted = int(total * (1 - config.mask_ratio)) if config.inverse else int(total * config.mask_ratio)
    chosen = np.zeros(grid, dtype=bool)
    for _ in range(int(total * (share + config.adjust) / length ** len(grid))):
        centre = np.unravel_index(generator.integers(total), grid)
        starts = [int(c) - length // 2 for c in centre]
        chosen[tuple(slice(max(0, start), start + length) for start in starts)] = True  # what the border leaves of it
    flat = chosen.reshape(-1)
    while flat.sum() > wanted:
        flat[generator.choice(np.flatnonzero(flat))] = False
    while flat.sum() < wanted:
        flat[generator.choice(np.flatnonzero(~flat))] = True
    return (flat if config.inverse else ~flat).reshape(grid)


def spans(share: float, length: int, sizes: np.ndarray, seed: int = 0, epoch: int = 0, first: int = 0) -> np.ndarray:
    samples = np.arange(first, first + len(sizes))
    return draw_spans(Stream.TIME_SPANS, share, length, sizes, seed, np.full(len(sizes), epoch), samples)


@pytest.mark.parametrize(("share", "length", "size"), [(0.65, 10, 499), (0.5, 10, 100), (0.25, 64, 768), (0.3, 5, 33)])
def test_spans_hide_the_share_that_random_starts_give(share: float, length: int, size: int) -> None:
    """Against the obvious code: the rate at which each place is hidden, and how many spans there are."""
    rows = 4_000
    ours = spans(share, length, np.full(rows, size))
    generator = np.random.default_rng(3)
    slow = np.zeros((rows, size), dtype=bool)
    for row in slow:
        for _ in range(int(share * size / length + generator.random())):
            start = generator.integers(size - length + 1)
            row[start : start + length] = True
    a, b = ours.mean(axis=0), slow.mean(axis=0)
    spread = np.sqrt(np.maximum(a * (1 - a) + b * (1 - b), 1e-3) / rows)
    assert (np.abs(a - b) / spread).max() < 5
    counts_a, counts_b = ours.sum(axis=1), slow.sum(axis=1)
    assert counts_a.mean() == pytest.approx(counts_b.mean(), abs=5 * (2 * counts_b.var() / rows) ** 0.5 + 1e-9)
    assert counts_a.std() == pytest.approx(counts_b.std(), rel=0.1)
    runs = np.diff(np.pad(ours[0].astype(int), 1))
    assert (np.flatnonzero(runs == -1) - np.flatnonzero(runs == 1) >= length).all()


def test_spans_of_a_long_recording_hide_what_the_docstring_says() -> None:
    assert spans(0.65, 10, np.full(200, 5_000)).mean() == pytest.approx(1 - np.exp(-0.65), abs=0.005)


def test_spans_depend_on_seed_epoch_sample_and_own_size_alone() -> None:
    sizes = np.array([100, 40, 333, 7])
    together = spans(0.65, 10, sizes)
    assert together.shape == (4, 333)
    for row, size in enumerate(sizes):
        alone = spans(0.65, 10, sizes[row : row + 1], first=row)
        assert np.array_equal(together[row, :size], alone[0])
        assert not together[row, size:].any()
    same = np.full(8, 200)
    drawn = [spans(0.65, 10, same, seed=seed, epoch=epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len(np.unique(np.concatenate(drawn), axis=0)) == 32
    other = draw_spans(Stream.CHANNEL_SPANS, 0.65, 10, same, 0, np.zeros(8, np.int64), np.arange(8))
    assert not np.array_equal(other, drawn[0])


def test_spans_of_nothing_and_longer_than_a_recording() -> None:
    assert not spans(0.0, 10, np.array([50, 20])).any()
    whole = spans(1.0, 10, np.full(400, 4))  # .4 spans of 10 in 4 tokens
    assert set(whole.sum(axis=1).tolist()) == {0, 4}
    assert whole.mean() == pytest.approx(0.4, abs=0.12)
