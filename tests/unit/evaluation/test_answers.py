"""Agreement of answers against values worked out by hand, and the best span against all spans."""

from __future__ import annotations

import numpy as np
import pytest

from data2vec2.evaluation.answers import MOST_TOKENS, Agreement, agreement, best_span, likely_sentence, words_of


def test_words_of_a_text() -> None:
    assert words_of("The  Cat's, an \tA-team!") == ["cats", "ateam"]
    assert words_of("the a AN") == []
    assert words_of("theatre and anthem") == ["theatre", "and", "anthem"]


@pytest.mark.parametrize(
    ("said", "true", "exact", "f1"),
    [
        ("the Cat sat.", ["cat sat"], 1.0, 1.0),
        ("cat sat down", ["the cat sat"], 0.0, 0.8),  # two of three, two of two
        ("cat cat", ["cat"], 0.0, 2 / 3),  # a word counts as often as it is in both
        ("dog", ["cat"], 0.0, 0.0),
        ("black cat", ["cat", "a black cat", "dog"], 1.0, 1.0),
        ("black cat", ["cat", "black dog bites"], 0.0, 2 / 3),
        ("", [], 1.0, 1.0),
        ("cat", [], 0.0, 0.0),
        ("", ["cat"], 0.0, 0.0),
        ("the", ["The"], 1.0, 1.0),
        ("!", ["cat", "..."], 0.0, 0.0),
    ],
)
def test_agreement_by_hand(said: str, true: list[str], exact: float, f1: float) -> None:
    assert agreement(said, true) == pytest.approx((exact, f1))


def test_means_and_intervals_are_over_questions() -> None:
    pairs = [("cat", ["cat"]), ("cat sat down", ["the cat sat"]), ("dog", ["cat"]), ("", [])] * 20
    found = Agreement.of(pairs)
    assert found.scores() == pytest.approx({"word_f1": 0.7, "exact_match": 0.5})
    (low, high), (exact_low, exact_high) = (found.intervals()[key] for key in ("word_f1", "exact_match"))
    assert 0.58 < low < 0.64 < 0.76 < high < 0.82
    assert 0.36 < exact_low < 0.42 < 0.58 < exact_high < 0.64


def test_the_best_span_is_the_best_of_all() -> None:
    draws = np.random.default_rng(3)
    for count in (1, 5, 80):
        logits_T2 = draws.normal(size=(count + 6, 2)).astype(np.float32)
        logits_T2[:5] += 10  # outside
        inside_T = (np.arange(count + 6) >= 5) & (np.arange(count + 6) < count + 5)
        spans = [(a, b) for a in np.flatnonzero(inside_T) for b in range(a, min(a + MOST_TOKENS, count + 5))]
        best = max(spans, key=lambda span: logits_T2[span[0], 0] + logits_T2[span[1], 1])
        found = best_span(logits_T2, inside_T)
        assert found is not None
        assert (found.first, found.last) == best
        assert found.score == pytest.approx(logits_T2[best[0], 0] + logits_T2[best[1], 1], rel=1e-6)
    far_T2 = np.zeros((60, 2), np.float32)
    far_T2[[3, 3 + MOST_TOKENS], [0, 1]] = 5  # one token too long
    found = best_span(far_T2, np.ones(60, bool))
    assert found is not None
    assert found.last - found.first < MOST_TOKENS
    assert found.score == 5
    assert best_span(far_T2, np.zeros(60, bool)) is None


def test_the_likely_sentence() -> None:
    context = "Ada wrote it. It was Charles who built the engine! Nobody else did."
    assert likely_sentence("Who built the engine?", context) == "It was Charles who built the engine!"
    assert likely_sentence("Why?", context) == "Ada wrote it."
