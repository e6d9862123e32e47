"""The account of a data set: what was found, what is used, what was mended, and what is left out, and why.

It adds up: in every part, found = used + left out. Every sample that is left out has a name and a reason, but for those
that the user asked to leave out, which are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from data2vec2.errors import UserError

MAX_LISTED = 100
"""So many samples are named in a message."""
MAX_EXAMPLES = 3
"""So many samples are named in a remark."""


@dataclass(frozen=True)
class Bad:
    """A sample that could not be used, and why."""

    name: str
    reason: str


@dataclass
class PartAccount:
    """What became of the samples of one part, by name."""

    found: int
    bad: dict[str, str] = field(default_factory=dict)
    """Those that can't be used, and why."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Those that are not used though nothing is wrong with them, and why."""
    mended: dict[str, str] = field(default_factory=dict)
    """Those that are used as something else than they are written, and what was done."""
    asked: Counter[str] = field(default_factory=Counter)
    """How many are not used because the user asked so, by option."""

    @property
    def used(self) -> int:
        """Samples that take part."""
        return self.found - len(self.bad) - len(self.left_out) - sum(self.asked.values())

    def leave_out(self, items: Iterable[Bad]) -> None:
        """Note samples that are not used though nothing is wrong with them; they count towards no limit."""
        self.left_out.update((item.name, item.reason) for item in items if item.name not in self.bad)

    def mend(self, items: Iterable[Bad]) -> None:
        """Note what was done to samples that are used."""
        for item in items:
            self.mended[item.name] = "; ".join(filter(None, (self.mended.get(item.name), item.reason)))

    def add(self, bad: Iterable[Bad], max_bad: float = 1.0, checked: int | None = None) -> list[Bad]:
        """Note samples that were found bad among `checked` (none: all); returns those not seen before.

        Raises `UserError` with the list if more than a share `max_bad` is bad.
        """
        new = [item for item in bad if item.name not in self.bad]
        for item in new:
            self.left_out.pop(item.name, None)
            self.bad[item.name] = item.reason
        looked_at = self.found if checked is None else checked
        if new and len(self.bad) > max_bad * looked_at:
            raise UserError(
                f"{len(self.bad)} of {looked_at} samples can't be used ({self.summary()}), which is more than "
                f"--data.max-bad {max_bad:g} allows; mend or remove them, or raise the limit:{listed(self.bad)}"
            )
        return new

    def summary(self) -> str:
        """Counts of what can't be used by reason, as in "12 truncated, 3 empty file"."""
        return counted(self.bad.values())

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "found": self.found,
            "used": self.used,
            "bad": self.bad,
            "left_out": self.left_out,
            "left_out_as_asked": dict(self.asked),
            "mended": self.mended,
        }


@dataclass
class Account:
    """What a data set holds, and what became of it."""

    kind: str = ""
    """What was recognised, as in "folder of images"."""
    parts: dict[str, PartAccount] = field(default_factory=dict)
    """By name: "train", "val", "test"."""
    beside: dict[str, str] = field(default_factory=dict)
    """Files that are no samples and describe none, and why; they count in no part."""
    choices: list[str] = field(default_factory=list)
    """What was chosen for the user, as in "labels from category"."""
    remarks: list[str] = field(default_factory=list)
    """What the user should know before training."""

    def lines(self) -> list[str]:
        """Remarks, and what is mended or left out of each part, for the user; empty where nothing is odd."""
        found = list(self.remarks)
        for name, part in self.parts.items():
            for what, items in (("can't be used", part.bad), ("left out", part.left_out), ("mended", part.mended)):
                if items:
                    examples = ", ".join(list(items)[:MAX_EXAMPLES]) + (", ..." if len(items) > MAX_EXAMPLES else "")
                    found.append(f"{len(items):,} of {part.found:,} {name} samples {what}: {counted(items.values())} ({examples})")
            found += [f"{count:,} of {part.found:,} {name} samples left out by {option}" for option, count in part.asked.items()]
        if self.beside:
            found.append(f"files that are no samples: {counted(self.beside.values())}")
        return found

    def to_dict(self) -> dict[str, Any]:
        """For data.json."""
        return {
            "kind": self.kind,
            "parts": {name: part.to_dict() for name, part in self.parts.items()},
            "no_samples": self.beside,
            "choices": self.choices,
            "remarks": self.remarks,
        }


def counted(reasons: Iterable[str]) -> str:
    """Counts by reason, most frequent first, as in "12 truncated, 3 empty file"."""
    return ", ".join(f"{count:,} {reason}" for reason, count in Counter(reasons).most_common())


def listed(samples: Mapping[str, str]) -> str:
    """The first samples with their reasons, each on a line of its own."""
    lines = [f"\n  {name}: {reason}" for name, reason in list(samples.items())[:MAX_LISTED]]
    return "".join(lines) + (f"\n  and {len(samples) - MAX_LISTED:,} more" if len(samples) > MAX_LISTED else "")
