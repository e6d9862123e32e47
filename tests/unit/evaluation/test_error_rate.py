"""Error rates against counts made by hand and against the textbook's recursion."""

from __future__ import annotations

import functools
import random

import pytest

from data2vec2.evaluation.error_rate import Edit, ErrorRate, align_texts, error_rate


def test_words_counted_by_hand() -> None:
    references = ["the cat sat on the mat", "yes", "", "never again"]
    hypotheses = ["the cat sit on mat", "oh yes", "well", ""]
    # sat->sit, the deleted; oh inserted; well inserted; two deleted
    assert error_rate(references, hypotheses) == ErrorRate(substitutions=1, insertions=2, deletions=3, length=9)
    assert error_rate(references, hypotheses).errors == 6
    assert error_rate(references, hypotheses).rate == pytest.approx(6 / 9)


def test_characters_counted_by_hand() -> None:
    assert error_rate(["kitten"], ["sitting"], "character") == ErrorRate(2, 1, 0, 6)
    assert error_rate(["a b"], ["ab"], "character") == ErrorRate(0, 0, 1, 3)  # spaces count
    assert error_rate(["a  b "], [" a b"], "character") == ErrorRate(0, 0, 0, 3)  # but one between words is enough


def test_rates_of_nothing() -> None:
    assert error_rate([], []).rate == 0
    assert error_rate([""], [""]).rate == 0
    assert error_rate([""], ["a"]).rate == float("inf")
    with pytest.raises(ValueError, match="zip"):
        error_rate(["a"], [])


def test_the_edits_are_shown() -> None:
    assert align_texts("the cat sat on the mat", "now the cat sit on mat") == [
        Edit("insert", "", "now"),
        Edit("equal", "the", "the"),
        Edit("equal", "cat", "cat"),
        Edit("substitute", "sat", "sit"),
        Edit("equal", "on", "on"),
        Edit("delete", "the", ""),
        Edit("equal", "mat", "mat"),
    ]


def slow(a: str, b: str) -> int:
    @functools.cache
    def cost(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(cost(i - 1, j - 1) + (a[i - 1] != b[j - 1]), cost(i - 1, j) + 1, cost(i, j - 1) + 1)

    return cost(len(a), len(b))


def test_against_the_textbook() -> None:
    draw = random.Random(0)
    for _ in range(300):
        a, b = ("".join(draw.choices("abc", k=draw.randrange(12))) for _ in range(2))
        edits = align_texts(a, b, "character")
        assert "".join(edit.reference for edit in edits) == a
        assert "".join(edit.hypothesis for edit in edits) == b
        assert sum(edit.op != "equal" for edit in edits) == slow(a, b)
        assert all((edit.reference == edit.hypothesis) == (edit.op == "equal") for edit in edits)
