"""kNN and linear probe on frozen features, both from scikit-learn.

Shapes: `N` samples, `F` features.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Features = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """Features `NF` and labels `N` of one part of the data; labels are 0 or above."""

    x: Features
    y: Labels


def knn_accuracy(train: Part, test: Part, neighbours: int = 10) -> float:
    """Accuracy of a kNN classifier: cosine similarity, neighbours weighted by the inverse of their distance."""

    def unit(x: Features) -> Features:
        scaled: Features = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        return scaled

    classifier = KNeighborsClassifier(min(neighbours, len(train.y)), weights="distance", algorithm="brute")
    return float(classifier.fit(unit(train.x), train.y).score(unit(test.x), test.y))


def linear_accuracy(train: Part, test: Part, strength: float = 1.0) -> float:
    """Accuracy of multinomial logistic regression on standardised features; `strength` is scikit-learn's `C`."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 300 iterations are the definition of this probe
        return float(probe.fit(train.x, train.y).score(test.x, test.y))


def majority_accuracy(train: Part, test: Part) -> float:
    """Accuracy of always answering the training part's most frequent class."""
    return float((test.y == np.bincount(train.y).argmax()).mean())
