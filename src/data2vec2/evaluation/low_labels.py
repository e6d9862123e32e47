"""Low-label curves: accuracy against the number of labels a class, over several draws of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from data2vec2 import rng
from data2vec2.evaluation.probes import Part


@dataclass(frozen=True)
class Curve:
    """Accuracy, 0 to 1, of one probe on one kind of features: mean over seeds and 95 % confidence interval."""

    features: str
    probe: str
    labels: tuple[int, ...]
    """Labels a class."""
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    draws: int
    """Of labels, for each point; of one draw there is no interval."""


def low_label_curve(
    features: str, probe: str, labels: Sequence[int], seeds: Sequence[int], accuracy: Callable[[int, int], float]
) -> Curve:
    """The curve of `accuracy(labels a class, seed)` over `seeds`."""
    rows = [interval([accuracy(count, seed) for seed in seeds]) for count in labels]
    mean, low, high = zip(*rows, strict=True)
    return Curve(features, probe, tuple(labels), mean, low, high, len(seeds))


def draws(count: int, seed: int) -> range:
    """The seeds of `count` draws of labels; another `seed` has none of them."""
    return range(count * seed, count * (seed + 1))


def draw_labels(part: Part, per_class: int, seed: int) -> Part:
    """`per_class` samples of each class, or all of a smaller class. Of one seed, a larger draw contains a smaller."""
    shuffled = rng.permutation(rng.keys(rng.Stream.LABELS, seed), len(part.y))
    drawn = [shuffled[part.y[shuffled] == label][:per_class] for label in np.unique(part.y)]
    return part.select(np.sort(np.concatenate(drawn)))


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and the ends of its 95 % confidence interval by Student's t, kept within 0 to 1; of one value, itself."""
    mean = float(np.mean(values))
    if len(values) == 1:
        return mean, mean, mean
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, max(0.0, mean - half), min(1.0, mean + half)
