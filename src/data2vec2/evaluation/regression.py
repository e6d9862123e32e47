"""How well a model gives numbers: error, correlations, and its worst mistakes.

Shapes: `N` samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from data2vec2.data.reader import Reader
from data2vec2.evaluation.classification import Gives, outputs, shown


@dataclass(frozen=True)
class Numbers:
    """What a model gives for samples with numbers; those that could not be read are not among them."""

    given_N: NDArray[np.float64]
    truth_N: NDArray[np.float64]
    samples_N: NDArray[np.int64]
    """Places in the records."""

    def rescaled(self, mean: float, deviation: float) -> Numbers:
        """The same where the model gives (number - mean) / deviation."""
        return Numbers(self.given_N * deviation + mean, self.truth_N, self.samples_N)


def predict_numbers(model: Gives, reader: Reader, device: torch.device) -> Numbers:
    """Numbers for all samples as evaluation sees them. The model should be in eval mode."""
    given_N1, samples_N = outputs(model, reader, lambda inputs: inputs, device)
    assert reader.records.numbers is not None
    return Numbers(given_N1[:, 0].astype(np.float64), reader.records.numbers[samples_N], samples_N)


def correlations(numbers: Numbers) -> dict[str, float]:
    """Mean squared error, Pearson's and Spearman's correlation (0 where one side is the same for all samples)."""
    given_N, truth_N = numbers.given_N, numbers.truth_N
    varied = len(given_N) > 1 and np.ptp(given_N) > 0 and np.ptp(truth_N) > 0
    pearson, spearman = (
        float(measure(given_N, truth_N).statistic) if varied else 0.0 for measure in (stats.pearsonr, stats.spearmanr)
    )
    return {"mse": float(np.square(given_N - truth_N).mean()), "pearson": pearson, "spearman": spearman}


def worst_numbers(numbers: Numbers, reader: Reader, limit: int = 24) -> dict[str, NDArray[Any]]:
    """The samples whose number is furthest off, worst first: `truth`, `predicted`, `names`, and `texts` of text."""
    worst = np.argsort(-np.abs(numbers.given_N - numbers.truth_N), kind="stable")[:limit]
    return {
        "truth": numbers.truth_N[worst],
        "predicted": numbers.given_N[worst],
        **shown(reader, numbers.samples_N[worst]),
    }
