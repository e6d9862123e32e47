"""Words that are counted: what a probe can do with texts without a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer

from data2vec2.errors import UserError
from data2vec2.evaluation.probes import Part

TERMS = 50_000
"""The most frequent words and pairs of words are counted."""


def tfidf(
    train: Sequence[str], train_labels: NDArray[np.int64], test: Sequence[str], test_labels: NDArray[np.int64]
) -> tuple[Part, Part]:
    """Texts as frequencies of their words and pairs of neighbouring words, rare ones weighing more (TF-IDF).

    Sparse rows of unit length; terms and weights are those of the training texts. A term counts by one plus the
    logarithm of its frequency. `UserError` if no text has a word of two letters.
    """
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=TERMS, dtype=np.float32)
    try:
        known = vectorizer.fit_transform(train)
    except ValueError as error:
        raise UserError(f"the texts have no words to count: {error}") from error
    return Part(known, train_labels), Part(vectorizer.transform(test), test_labels)
