"""kNN and linear probe on frozen features, both from scikit-learn, and their low-label curves.

scikit-learn takes seconds to import, so it is imported where it is needed: models load without it.

Shapes: `N` samples, `F` features.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data2vec2 import rng
from data2vec2.data.sampler import split_validation

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression


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


def draw_labels(part: LabelledFeatures, per_class: int, seed: int) -> LabelledFeatures:
    """`per_class` samples of each class, or all of a smaller class. Of one seed, a larger draw contains a smaller."""
    shuffled = rng.permutation(rng.keys(rng.Stream.LABELS, seed), len(part.y))
    drawn = [shuffled[part.y[shuffled] == label][:per_class] for label in np.unique(part.y)]
    return part.select(np.sort(np.concatenate(drawn)))


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and the ends of its 95 % confidence interval by Student's t, kept within 0 to 1; of one value, itself."""
    mean = float(np.mean(values))
    if len(values) == 1:
        return mean, mean, mean
    from scipy import stats

    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, max(0.0, mean - half), min(1.0, mean + half)


Features = NDArray[np.float32]
Labels = NDArray[np.int64]
Scaling = Callable[[Features], Features]
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
"""Values of scikit-learn's `C` (large: little regularisation) that the linear probe chooses from."""
ITERATIONS = 100
"""Of LBFGS for each of them, each going on from the one before."""
CHOOSING = 2_000
"""Of so many labels one split decides about the strength; of fewer, several (up to ten) do together."""


@dataclass(frozen=True)
class LabelledFeatures:
    """Features `NF` (dense, or a SciPy matrix of sparse rows) and labels `N`, 0 or above, of one part of the data."""

    x: Features
    y: Labels

    @classmethod
    def none(cls) -> LabelledFeatures:
        """No samples."""
        return cls(np.zeros((0, 0), np.float32), np.zeros(0, np.int64))

    def select(self, places: NDArray[np.int64]) -> LabelledFeatures:
        """Some of the samples."""
        return LabelledFeatures(self.x[places], self.y[places])


def knn_accuracy(train: LabelledFeatures, test: LabelledFeatures, neighbours: int = 10) -> float:
    """Accuracy of a kNN classifier: cosine similarity, neighbours weighted by the inverse of their distance."""
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import normalize

    if 0 < np.count_nonzero(real := np.asarray(abs(train.x).sum(axis=1)).ravel() > 0) < len(real):
        train = train.select(np.flatnonzero(real))  # a row of zeros is similar to nothing, yet nearer than most
    classifier = KNeighborsClassifier(min(neighbours, len(train.y)), weights="distance", algorithm="brute")
    return float(classifier.fit(normalize(train.x), train.y).score(normalize(test.x), test.y))


def linear_accuracy(train: LabelledFeatures, test: LabelledFeatures, seed: int = 0) -> float:
    """Accuracy of multinomial logistic regression, its scaling and strength chosen on a fifth of the training part.

    The features are scaled to unit variance in each channel or in each principal direction, whichever does better:
    features whose channels say nearly the same (an untrained network's) need the second, pixels the first. Sparse ones
    are taken as they are. `seed` decides what is split off. With fewer than 20 samples nothing is: unit variance in
    each channel, `C` 1.
    """
    from sklearn.linear_model import LogisticRegression

    tried: dict[tuple[int, float], list[tuple[float, LogisticRegression]]] = {}
    scalings = _scalings(train.x)
    both = [LabelledFeatures(scale(train.x), train.y) for scale in scalings]
    splits = min(10, max(1, CHOOSING // len(train.y)))
    for which, split in product(range(len(both)), range(splits)):
        kept, held = split_validation(train.y, 0.2, seed + split)
        if len(held):
            for strength, accuracy, probe in _path(both[which].select(kept), both[which].select(held)):
                tried.setdefault((which, strength), []).append((accuracy, probe))
    # Where a path stopped early in one split, what it left out is not chosen.
    complete = {key: found for key, found in tried.items() if len(found) == max(map(len, tried.values()))}
    which, strength = max(
        complete, key=lambda key: np.mean([accuracy for accuracy, _ in complete[key]]), default=(0, 1.0)
    )
    probe = complete[which, strength][0][1] if complete else LogisticRegression(C=strength, max_iter=3 * ITERATIONS)
    return float(fit(probe, both[which]).score(scalings[which](test.x), test.y))


def majority_accuracy(train: LabelledFeatures, test: LabelledFeatures) -> float:
    """Accuracy of always answering the training part's most frequent class."""
    return float((test.y == np.bincount(train.y).argmax()).mean())


def _scalings(x: Features) -> tuple[Scaling, ...]:
    """Centred features with unit variance in each channel, and nearly so in each principal direction of those.

    Sparse ones as they are: they would not stay sparse.
    """
    from scipy.sparse import issparse

    if issparse(x):
        return (lambda x: x,)
    mean, std = x.mean(0), x.std(0)
    std = np.where(std > 1e-6 * std.max(initial=0), std, 1)

    def channels(x: Features) -> Features:
        return np.asarray((x - mean) / std, dtype=np.float32)

    scaled = channels(x)
    variances, directions = np.linalg.eigh(scaled.T @ scaled / len(x))
    # A thousandth of the mean keeps directions that hold only noise small.
    turn = (directions / np.sqrt(np.maximum(variances, 0) + 1e-3 * variances.mean() + 1e-12)).astype(np.float32)
    return channels, lambda x: channels(x) @ turn


def _path(train: LabelledFeatures, held: LabelledFeatures) -> Iterator[tuple[float, float, LogisticRegression]]:
    """Strength, accuracy on `held` and the fitted probe, strongest regularisation first, until it gets worse twice."""
    from sklearn.linear_model import LogisticRegression

    probe = LogisticRegression(warm_start=True, max_iter=ITERATIONS)
    accuracies: list[float] = []
    for strength in STRENGTHS:
        fit(probe.set_params(C=strength), train)
        accuracies.append(float(probe.score(held.x, held.y)))
        yield strength, accuracies[-1], copy.deepcopy(probe)
        if len(accuracies) > 2 and max(accuracies[-2:]) < max(accuracies[:-2]):
            return


def fit(probe: LogisticRegression, part: LabelledFeatures) -> LogisticRegression:
    """Fit without a warning where it stops early: the number of iterations is part of the probe."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return probe.fit(part.x, part.y)
