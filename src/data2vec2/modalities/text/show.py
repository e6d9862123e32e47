"""What a report shows of texts: masks on tokens, nearest neighbours and a map; and counted words, the raw baseline.

Shapes: `S` samples, `N` blocks, `T` tokens, `M` masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data2vec2.errors import UserError
from data2vec2.evaluation.features import LabelledFeatures
from data2vec2.modalities.show import Arrays, Show

CHARACTERS = 240
"""So much of a text is shown."""
TERMS = 50_000
"""The most frequent words and pairs of words are counted."""
TOKENS_SHOWN = 96
"""Tokens shown of each block, from its beginning."""


def tfidf(
    train: Sequence[str], train_labels: NDArray[np.int64], test: Sequence[str], test_labels: NDArray[np.int64]
) -> tuple[LabelledFeatures, LabelledFeatures]:
    """Texts as frequencies of their words and pairs of neighbouring words, rare ones weighing more (TF-IDF).

    Sparse rows of unit length; terms and weights are those of the training texts. A term counts by one plus the
    logarithm of its frequency. `UserError` if no text has a word of two letters.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=TERMS, dtype=np.float32)
    try:
        known = vectorizer.fit_transform(train)
    except ValueError as error:
        raise UserError(f"the texts have no words to count: {error}") from error
    return LabelledFeatures(known, train_labels), LabelledFeatures(vectorizer.transform(test), test_labels)


def shortened(texts: Sequence[str]) -> list[str]:
    """As much of each text as is shown; what is cut off is an ellipsis."""
    return [text if len(text) <= CHARACTERS else text[: CHARACTERS - 1] + "…" for text in texts]


class TextShow(Show):
    """Blocks of tokens, and texts with their neighbours."""

    template = ("data2vec2.modalities.text", "text.html.j2")
    sample = {"name": "texts"}  # noqa: RUF012
    neighbour = {"name": "neighbour_texts"}  # noqa: RUF012

    def masks(self, arrays: Arrays) -> dict[str, Any]:
        """Blocks under each mask: (token, whether the student sees it)."""
        seen_NMT, counts = self.seen(arrays["keep_ids"], arrays["tokens"].shape[1])
        shown_NT, seen_NMT = arrays["tokens"][:, :TOKENS_SHOWN].tolist(), seen_NMT[..., :TOKENS_SHOWN]
        rows = zip(shown_NT, seen_NMT.tolist(), strict=True)
        blocks = [[list(zip(tokens, seen, strict=True)) for seen in masks] for tokens, masks in rows]
        return {"blocks": blocks, "shown": min(counts["tokens"], TOKENS_SHOWN), **counts}
