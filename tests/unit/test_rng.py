"""Counter-based draws are uniform, independent, and depend on their counters alone."""

from __future__ import annotations

import numpy as np
import pytest

from data2vec2 import rng
from data2vec2.rng import Stream


def draws(*counters: int | np.ndarray, stream: Stream = Stream.MASK, count: int = 1) -> np.ndarray:
    return rng.uniforms(rng.keys(stream, *counters), count)


def kolmogorov(x: np.ndarray) -> float:
    """Largest distance of the empirical distribution from the uniform one, times sqrt(n); above 2 has p < 0.001."""
    ordered = np.sort(x.ravel())
    n = ordered.size
    places = np.arange(n)
    return float(max((ordered - places / n).max(), ((places + 1) / n - ordered).max()) * np.sqrt(n))


@pytest.mark.parametrize(
    "numbers",
    [
        draws(0, np.arange(20_000)),
        draws(0, count=20_000),
        draws(np.arange(200)[:, None], np.arange(100)[None]),
        draws(7, 3, 2**40 + np.arange(2_000), count=10),
    ],
    ids=["by counter", "by place", "by two counters", "large counters"],
)
def test_draws_are_uniform(numbers: np.ndarray) -> None:
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert kolmogorov(numbers) < 2
    assert len(np.unique(numbers)) == numbers.size


def test_streams_seeds_counters_and_places_are_independent() -> None:
    series = [draws(0, np.arange(10_000), stream=stream).ravel() for stream in Stream]
    series += [draws(1, np.arange(10_000)).ravel(), draws(np.arange(10_000), 0).ravel()]
    series += [
        draws(0, 5, count=10_000).ravel(),
        draws(0, 6, count=10_000).ravel(),
        draws(0, np.arange(1, 10_001)).ravel(),
    ]
    correlation = np.corrcoef(series) - np.eye(len(series))
    assert np.abs(correlation).max() < 5 / np.sqrt(10_000)
    neighbours = np.corrcoef(series[0][1:], series[0][:-1])[0, 1]
    assert abs(neighbours) < 5 / np.sqrt(10_000)


def test_arrays_and_single_counters_agree() -> None:
    together = draws(3, np.arange(5)[:, None], np.arange(4)[None], count=6)
    assert together.shape == (5, 4, 6)
    assert np.array_equal(together[2, 3], draws(3, 2, 3, count=6)[0])
    assert np.array_equal(together[..., :2], draws(3, np.arange(5)[:, None], np.arange(4)[None], count=2))


def test_the_order_of_counters_matters() -> None:
    assert draws(1, 2) != draws(2, 1)
    assert draws(1) != draws(1, 0)


def test_permutation_is_one_and_every_place_is_equally_likely() -> None:
    orders = np.stack([rng.permutation(rng.keys(Stream.ORDER, 0, epoch), 10) for epoch in range(3_000)])
    assert (np.sort(orders, axis=1) == np.arange(10)).all()
    counts = np.stack([np.bincount(orders[:, place], minlength=10) for place in range(10)])
    assert np.abs(counts - 300).max() < 5 * np.sqrt(300)
    assert len(np.unique(orders, axis=0)) > 2_990


def test_seeds_fit_a_generator() -> None:
    seeds = [rng.seed_of(rng.keys(Stream.STEP, 0, step, 0, 0)) for step in range(1_000)]
    assert len(set(seeds)) == 1_000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_draws_stay_what_they_are() -> None:
    """Changed numbers would change every run and break its resumption; these were computed with Python integers."""

    def mix(x: int) -> int:
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    golden = 0x9E3779B97F4A7C15
    key = mix(int(Stream.CROP) * golden % 2**64)
    for counter in (11, 22, 33):
        key = mix(((key ^ counter) + golden) % 2**64)
    expected = [(mix((key + place * golden) % 2**64) >> 11) / 2**53 for place in (1, 2, 3)]
    assert draws(11, 22, 33, stream=Stream.CROP, count=3)[0].tolist() == expected
