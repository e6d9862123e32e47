"""Word and character error rates: how many edits turn what was said into what was heard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Unit = Literal["word", "character"]


class Edit(NamedTuple):
    """One step from reference to hypothesis."""

    op: Literal["equal", "substitute", "insert", "delete"]
    reference: str
    """Word or character of the reference; empty where one is inserted."""
    hypothesis: str
    """Word or character of the hypothesis; empty where one is deleted."""


@dataclass(frozen=True)
class ErrorRate:
    """Edits over all texts, and how many words or characters the references have."""

    substitutions: int
    insertions: int
    deletions: int
    length: int

    @property
    def errors(self) -> int:
        """All edits."""
        return self.substitutions + self.insertions + self.deletions

    @property
    def rate(self) -> float:
        """Errors by length; above 1 where much is inserted, and infinite if there is nothing in the references."""
        return self.errors / self.length if self.length else float("inf") if self.errors else 0.0


def error_rate(references: Iterable[str], hypotheses: Iterable[str], unit: Unit = "word") -> ErrorRate:
    """The rate over all texts, each reference against its hypothesis; of characters, spaces count too.

    Texts are compared as they are, so both should be normalised alike (`data.letters.normalise`).
    """
    counts = Counter(
        edit.op
        for reference, hypothesis in zip(references, hypotheses, strict=True)
        for edit in align_texts(reference, hypothesis, unit)
    )
    length = counts["equal"] + counts["substitute"] + counts["delete"]
    return ErrorRate(counts["substitute"], counts["insert"], counts["delete"], length)


def align_texts(reference: str, hypothesis: str, unit: Unit = "word") -> list[Edit]:
    """The fewest edits from reference to hypothesis, in order, kept words or characters among them.

    Where several ways are equally short, substitutions stand as late as they can.
    """
    a, b = (text.split() if unit == "word" else " ".join(text.split()) for text in (reference, hypothesis))
    costs = _costs(a, b)
    edits: list[Edit] = []
    i, j = len(a), len(b)
    while i or j:
        if i and j and costs[i, j] == costs[i - 1, j - 1] + (a[i - 1] != b[j - 1]):
            i, j = i - 1, j - 1
            edits.append(Edit("equal" if a[i] == b[j] else "substitute", a[i], b[j]))
        elif i and costs[i, j] == costs[i - 1, j] + 1:
            i -= 1
            edits.append(Edit("delete", a[i], ""))
        else:
            j -= 1
            edits.append(Edit("insert", "", b[j]))
    return edits[::-1]


def _costs(a: Sequence[str], b: Sequence[str]) -> NDArray[np.int64]:
    """Edits from the first i of `a` to the first j of `b` (Levenshtein's table)."""
    ids: dict[str, int] = {}
    a_ids, b_ids = (np.array([ids.setdefault(x, len(ids)) for x in text], dtype=np.int64) for text in (a, b))
    places = np.arange(len(b) + 1)
    costs = np.empty((len(a) + 1, len(b) + 1), dtype=np.int64)
    costs[0] = places
    for i, x in enumerate(a_ids):
        row = costs[i] + 1  # a deletion
        row[1:] = np.minimum(row[1:], costs[i, :-1] + (b_ids != x))
        costs[i + 1] = np.minimum.accumulate(row - places) + places  # then insertions, any number of them
    return costs
