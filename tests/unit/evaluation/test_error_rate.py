"""Error rates against counts made by hand and against the textbook's recursion."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence

import pytest

from data2vec2.evaluation.recognition import Edit, ErrorRate, Unit, align_texts, error_rate


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


def slow(a: Sequence[str], b: Sequence[str]) -> int:
    """The fewest edits, as the textbook has them."""

    @functools.cache
    def cost(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(cost(i - 1, j - 1) + (a[i - 1] != b[j - 1]), cost(i - 1, j) + 1, cost(i, j - 1) + 1)

    return cost(len(a), len(b))


@pytest.mark.parametrize("unit", ["word", "character"])
def test_against_the_textbook(unit: Unit) -> None:
    draw, total, length, symbols = random.Random(0), 0, 0, "aab  é漢🙂\u0301\u3000"
    texts = [["".join(draw.choices(symbols, k=draw.randrange(16))) for _ in range(2)] for _ in range(300)]
    texts += [["", ""], ["", "a b"], ["a b", ""], [" \t", "\n"], ["a\u00a0b", "a b"]]
    for pair in texts:
        a, b = (text.split() if unit == "word" else list(" ".join(text.split())) for text in pair)
        edits, fewest = align_texts(*pair, unit), slow(a, b)
        assert [edit.reference for edit in edits if edit.op != "insert"] == a
        assert [edit.hypothesis for edit in edits if edit.op != "delete"] == b
        assert all(edit.reference == "" for edit in edits if edit.op == "insert")
        assert all(edit.hypothesis == "" for edit in edits if edit.op == "delete")
        assert all((edit.reference == edit.hypothesis) == (edit.op == "equal") for edit in edits)
        assert sum(edit.op != "equal" for edit in edits) == fewest
        total, length = total + fewest, length + len(a)
    found = error_rate(*zip(*texts, strict=True), unit)
    assert (found.errors, found.length, found.rate) == (total, length, total / length)
