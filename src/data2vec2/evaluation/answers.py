"""How well answers to questions agree with true ones, as SQuAD has it (Rajpurkar et al., 2016 and 2018).

Shapes: `N` questions, `T` tokens, `L` the most tokens of an answer.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from data2vec2.evaluation import intervals

MOST_TOKENS = 30
"""Tokens of an answer, at most."""
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def words_of(text: str) -> list[str]:
    """Words of a text in small letters, without punctuation (ASCII) and English articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def agreement(said: str, true: Sequence[str]) -> tuple[float, float]:
    """Exact match (0 or 1) and F1 of words, each with the true answer that it is best with; none: there is no answer.

    What has no words, such as an article, agrees with what has none, and with nothing else.
    """
    ours, theirs = words_of(said), [words for one in true if (words := words_of(one))] or [[]]
    return float(ours in theirs), max(_f1(ours, words) for words in theirs)


def _f1(ours: list[str], theirs: list[str]) -> float:
    if not ours or not theirs:
        return float(ours == theirs)
    return 2 * (Counter(ours) & Counter(theirs)).total() / (len(ours) + len(theirs))


@dataclass(frozen=True)
class Agreement:
    """What answers to questions are worth."""

    exact_N: NDArray[np.float64]
    f1_N: NDArray[np.float64]

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, Sequence[str]]]) -> Self:
        """Of answers, each with the true ones."""
        exact_N, f1_N = np.array([agreement(*pair) for pair in pairs], dtype=np.float64).reshape(-1, 2).T
        return cls(exact_N, f1_N)

    def scores(self) -> dict[str, float]:
        """`word_f1` and `exact_match`, means over questions."""
        return {"word_f1": float(self.f1_N.mean()), "exact_match": float(self.exact_N.mean())}

    def intervals(self) -> dict[str, intervals.Interval]:
        """Their 95 % intervals, by a bootstrap over questions."""
        ones_N = np.ones_like(self.f1_N)
        return {
            "word_f1": intervals.of_ratio(self.f1_N, ones_N),
            "exact_match": intervals.of_ratio(self.exact_N, ones_N),
        }


class Span(NamedTuple):
    """First and last token, and the sum of their logits."""

    first: int
    last: int
    score: float


def best_span(logits_T2: NDArray[np.float32], inside_T: NDArray[np.bool_]) -> Span | None:
    """The span of at most `MOST_TOKENS` tokens of the context, which are `inside`, with the largest score; or none."""
    if not inside_T.any():
        return None
    start_T, end_T = np.where(inside_T, logits_T2.T, -np.inf)
    ends_TL = sliding_window_view(np.pad(end_T, (0, MOST_TOKENS - 1), constant_values=-np.inf), MOST_TOKENS)
    scores_TL = start_T[:, None] + ends_TL
    first, more = divmod(int(scores_TL.argmax()), MOST_TOKENS)
    return Span(first, first + more, float(scores_TL[first, more]))


def likely_sentence(question: str, context: str) -> str:
    """The sentence of a context that shares most words with a question, the first of several: a baseline."""
    asked = set(words_of(question))
    return max(_SENTENCE_END.split(context), key=lambda sentence: len(asked & set(words_of(sentence))))
