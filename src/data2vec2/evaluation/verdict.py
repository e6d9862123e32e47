"""What a table of scores says in words: how far the model is ahead of the same network untrained and of raw inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data2vec2.evaluation.intervals import Interval, of_difference
from data2vec2.evaluation.scores import MAJORITY, RANDOM

PROBES = {
    "knn": "kNN",
    "linear": "linear probe",
    "attentive": "attentive probe",
    "phones": "phone probe",
    "finetune": "fine-tuned",
}
UNTRAINED, SCRATCH = "the same network untrained", "the same network trained from scratch"
TRY = ": train longer or on more data"


@dataclass(frozen=True)
class Gain:
    """How far a score, 0 to 1, is above a baseline's."""

    over: str
    value: float
    interval: Interval | None
    """95 %; none where one of the two scores has none."""
    errors: bool = False
    """The score is an error rate: above is worse."""

    @property
    def behind(self) -> bool:
        """Whether the baseline does better, by more than chance."""
        return self.clear and (self.value > 0 if self.errors else self.value < 0)

    @property
    def clear(self) -> bool:
        """Whether zero is outside the interval."""
        return self.interval is None or not self.interval[0] <= 0 <= self.interval[1]

    @property
    def points(self) -> str:
        """In percentage points, with half of the interval: "+25.0 ±1.2"."""
        return f"{100 * self.value:+.1f}{self._half}"

    @property
    def _half(self) -> str:
        return "" if self.interval is None else f" ±{50 * (self.interval[1] - self.interval[0]):.1f}"

    def __str__(self) -> str:
        """In words."""
        half = f",{self._half}" if self._half else ""
        if not self.clear:
            return f"no clear difference from {self.over} ({self.points} points)"
        if self.behind:
            return f"behind {self.over} by {100 * abs(self.value):.1f} points{half}"
        if self.errors:
            return f"{-100 * self.value:.1f} points fewer than {self.over}{half}"
        return f"{100 * self.value:+.1f} points over {self.over}{half}"


def gain(over: str, ours: tuple[float, Any], theirs: tuple[float, Any], errors: bool = False) -> Gain:
    """One score against another, each with its interval, or with none."""
    interval = of_difference(ours, theirs) if ours[1] and theirs[1] else None
    return Gain(over, ours[0] - theirs[0], interval, errors)


def rows_of(scores: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """The rows of what `Scores.to_dict` gives, each with its intervals by probe, if there are any."""
    return list(zip(scores["rows"], scores.get("intervals") or [{}] * len(scores["rows"]), strict=True))


def gains(scores: Mapping[str, Any]) -> dict[str, list[Gain]]:
    """Gains over each baseline by what was measured, of what `Scores.to_dict` gives; none without a baseline.

    The majority class is a baseline where there is no other. Of low-label curves it is the one of fine-tuning that
    counts, with the fewest labels.
    """
    found, table = {}, rows_of(scores)
    others = [pair for pair in table[1:] if pair[0]["features"] != MAJORITY]
    for probe, name in PROBES.items() if table else ():
        shown = [*table[:1], *(others or table[1:])]
        rows = [(row["features"], row.get(probe), bars.get(probe)) for row, bars in shown]
        found[name] = _over(rows, UNTRAINED)
    if curves := [curve for curve in scores.get("curves") or () if curve["probe"] == "finetune"]:
        bars = [(curve["low"][0], curve["high"][0]) if curve.get("draws") != 1 else None for curve in curves]
        points = [(curve["features"], curve["mean"][0], bar) for curve, bar in zip(curves, bars, strict=True)]
        found[f"fine-tuned with {curves[0]['labels'][0]:,} labels per class"] = _over(points, SCRATCH)
    return {name: over for name, over in found.items() if over}


def _over(rows: Sequence[tuple[str, Any, Any]], random: str) -> list[Gain]:
    """Of the first row over each of the others."""
    (_, ours, our_bar), *others = rows
    return [
        gain(random if name == RANDOM else name, (ours, our_bar), (value, bar))
        for name, value, bar in others
        if isinstance(ours, float) and isinstance(value, float)
    ]


def verdict(scores: Mapping[str, Any]) -> list[str]:
    """A sentence for each way of measuring, of what `Scores.to_dict` gives, as in

    kNN: +25.0 points over the same network untrained, ±1.2; behind raw pixels by 2.0 points, ±1.8: train longer or on
    more data
    """
    return in_words(gains(scores))


def in_words(found: Mapping[str, Sequence[Gain]]) -> list[str]:
    """A sentence for each way of measuring, of its gains."""
    return [
        f"{name}: {'; '.join(map(str, over))}" + (TRY if any(one.behind for one in over) else "")
        for name, over in found.items()
    ]
