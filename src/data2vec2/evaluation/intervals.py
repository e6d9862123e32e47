"""95 % intervals of scores: what another draw of as many samples could have given.

Of shares of samples they are Wilson's, of correlations Fisher's, and of all else those of a bootstrap over samples.

Shapes: `N` samples, `C` classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data2vec2 import rng

Interval = tuple[float, float]
"""Lower and upper end."""
LEVEL = 0.95
Z = 1.959964
"""Standard deviations of a normal distribution that hold so much of it."""
DRAWS = 1_000
_WORK = 100_000_000  # numbers that all draws look at; large data get fewer draws


def of_share(share: float, count: int) -> Interval:
    """Of a share of `count` samples (Wilson, 1927)."""
    from scipy.stats import binomtest

    found = binomtest(round(share * count), count).proportion_ci(LEVEL, "wilson")
    return float(found.low), float(found.high)


def of_difference(one: tuple[float, Interval], other: tuple[float, Interval]) -> Interval:
    """Of the difference of two scores, each with its interval, taken as independent (Newcombe, 1998).

    Of scores on the same samples this is conservative: what one model gets right, the other mostly does too, so that
    a paired estimate, which would need the results of each sample, would be narrower.
    """
    (a, (a_low, a_high)), (b, (b_low, b_high)) = one, other
    return a - b - math.hypot(a - a_low, b_high - b), a - b + math.hypot(a_high - a, b - b_low)


def of_correlation(value: float, count: int, ranks: bool = False) -> Interval:
    """Of Pearson's correlation (Fisher, 1921), or with `ranks` of Spearman's (Bonett and Wright, 2000)."""
    if count < 4 or abs(value) >= 1:
        return (-1.0, 1.0) if count < 4 else (value, value)
    half = Z * math.sqrt((1 + value**2 / 2 if ranks else 1) / (count - 3))
    return math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half)


def of_ratio(parts_N: ArrayLike, wholes_N: ArrayLike) -> Interval:
    """Of the sum of `parts_N` by that of `wholes_N`: errors by words, squares by samples."""
    parts, wholes = np.asarray(parts_N, dtype=np.float64), np.asarray(wholes_N, dtype=np.float64)
    (ratio,) = resampled(
        lambda weights_N: [float(weights_N @ parts) / max(float(weights_N @ wholes), 1e-12)], len(parts)
    )
    return ratio if any(ratio) else of_share(0.0, len(parts))


def of_confusion(confusion_CC: Callable[[NDArray[np.float64]], NDArray[np.float64]], count: int) -> list[Interval]:
    """Of F1 and Matthews' correlation, of what `confusion_CC` makes of the weights of samples."""
    return resampled(lambda weights_N: f1_and_matthews(confusion_CC(weights_N)), count)


def of_map(logits_NC: NDArray[np.float32], truth_NC: NDArray[np.bool_]) -> Interval:
    """Of the mean average precision, over the classes that occur in a draw."""
    order_NC = np.argsort(-logits_NC, axis=0, kind="stable")
    sorted_NC, true_NC = np.take_along_axis(logits_NC, order_NC, 0), np.take_along_axis(truth_NC, order_NC, 0)
    last_NC = np.concatenate([sorted_NC[1:] != sorted_NC[:-1], np.ones_like(truth_NC[:1])])  # of equal ones
    places_NC = np.where(last_NC, np.arange(len(last_NC))[:, None], len(last_NC))
    ends_NC = np.minimum.accumulate(places_NC[::-1], axis=0)[::-1]

    def mean_precision(weights_N: NDArray[np.float64]) -> list[float]:
        weights_NC = weights_N[order_NC]
        right_NC = weights_NC * true_NC
        found_NC, all_NC = (np.take_along_axis(of.cumsum(axis=0), ends_NC, 0) for of in (right_NC, weights_NC))
        occurs_C = (total_C := right_NC.sum(axis=0)) > 0
        precision_C = (right_NC * found_NC / np.maximum(all_NC, 1)).sum(axis=0)[occurs_C] / total_C[occurs_C]
        return [float(precision_C.mean()) if len(precision_C) else 0.0]

    return resampled(mean_precision, len(truth_NC), truth_NC.size)[0]


def f1_and_matthews(confusion_CC: NDArray[np.float64]) -> tuple[float, float]:
    """F1 (of the second class where there are two, else the mean over those that occur), Matthews' correlation."""
    right_C, true_C, said_C = np.diag(confusion_CC), confusion_CC.sum(axis=1), confusion_CC.sum(axis=0)
    total, occurs_C = confusion_CC.sum(), true_C + said_C > 0
    f1_C = 2 * right_C / np.maximum(true_C + said_C, 1e-12)
    f1 = f1_C[1] if len(f1_C) == 2 else f1_C[occurs_C].mean()
    roots = math.sqrt(max(0.0, total**2 - said_C @ said_C)) * math.sqrt(max(0.0, total**2 - true_C @ true_C))
    return float(f1), float((right_C.sum() * total - said_C @ true_C) / roots) if roots else 0.0


def resampled(
    statistics: Callable[[NDArray[np.float64]], ArrayLike], count: int, work: int | None = None
) -> list[Interval]:
    """Of each of the `statistics` of `count` samples, from how often each sample is in a draw with replacement.

    Further out than 95 % of the draws, as few samples vary less among themselves than others of their kind do: the
    expanded percentiles of Hesterberg (2015). `work` is how many numbers one draw looks at. What is perfect in all
    draws is no more certain than a share that is.
    """
    from scipy.stats import norm, t

    tail = norm.cdf(-math.sqrt(count / (count - 1)) * t.ppf((1 + LEVEL) / 2, count - 1)) if count > 1 else 0.0
    draws = int(np.clip(_WORK // max(1, work or count), 100, DRAWS))
    keys = rng.keys(rng.Stream.RESAMPLE, np.arange(draws))
    found = []
    for draw in range(draws):
        samples_N = (rng.uniforms(keys[draw : draw + 1], count)[0] * count).astype(np.int64)
        found.append(np.asarray(statistics(np.bincount(samples_N, minlength=count).astype(np.float64))))
    low, high = np.quantile(found, [tail, 1 - tail], axis=0)
    return [of_share(1.0, count) if bar == (1, 1) else bar for bar in zip(low.tolist(), high.tolist(), strict=True)]
