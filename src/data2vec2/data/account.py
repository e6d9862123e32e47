"""The account of a data set: what was found, what is used, what was mended, and what is left out, and why.

It adds up: in every part, found = used + left out. Every sample that is left out has a name and a reason, but for those
that the user asked to leave out, which are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from data2vec2.errors import UserError

MAX_EXAMPLES = 3
"""So many samples are named in a remark."""


class Bad(NamedTuple):
    """A sample that could not be used, and why."""

    name: str
    reason: str


@dataclass
class PartAccount:
    """What became of the samples of one part, by name."""

    found: int = 0
    max_bad: float = 1.0
    """The share of those looked at that may be bad."""
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
        self.left_out.update(item for item in items if item.name not in self.bad)

    def mend(self, items: Iterable[Bad]) -> None:
        """Note what was done to samples that are used."""
        for item in items:
            self.mended[item.name] = "; ".join(filter(None, (self.mended.get(item.name), item.reason)))

    def add(self, bad: Iterable[Bad], checked: int | None = None) -> list[Bad]:
        """Note bad samples among `checked` (none: all); returns new ones. `UserError` if there are too many of all."""
        new = [item for item in bad if item.name not in self.bad]
        for item in new:
            self.left_out.pop(item.name, None)
        self.bad.update(new)
        count, looked_at = (len(self.bad), self.found) if checked is None else (len(new), checked)
        if count > self.max_bad * looked_at:
            raise UserError(
                f"{count} of {looked_at} samples can't be used ({self.summary()}), which is more than "
                f"--data.max-bad {self.max_bad:g} allows; fix or remove them, or raise the limit:{self.listed()}"
            )
        return new

    def summary(self) -> str:
        """Counts of what can't be used by reason, as in "12 truncated, 3 empty file"."""
        return counted(self.bad.values())

    def listed(self, limit: int = 100) -> str:
        """A line for each of the first samples that can't be used, behind a line end."""
        lines = [f"\n  {name}: {reason}" for name, reason in self.bad.items()]
        return "".join(lines[:limit]) + (f"\n  and {len(lines) - limit} more" if len(lines) > limit else "")

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

    def part(self, name: str) -> PartAccount:
        """That of one part, begun where there is none."""
        return self.parts.setdefault(name, PartAccount())

    def limit(self, max_bad: float) -> None:
        """Allow that share of bad samples in every part; where few are only scored on, a single one stops no run."""
        for name, part in self.parts.items():
            part.max_bad = max_bad if name == "train" or not max_bad else max(max_bad, 1.5 / max(1, part.found))

    def hold_out(self, count: int) -> None:
        """Note that so many samples of the training part are kept for validation."""
        if count:
            self.part("train").found -= count
            self.part("val").found += count

    def join_val(self, other: Account) -> None:
        """Take what another data set has to train on for the validation part of this one."""
        if "val" in self.parts:
            self.remarks.append(
                f"{self.parts['val'].found:,} val samples of the data set are not used, because --val is given"
            )
        self.parts["val"] = other.part("train")
        self.beside |= other.beside
        self.choices += [f"--val: {one}" for one in other.choices]
        self.remarks += [f"--val: {one}" for one in other.remarks]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Account:
        """What `to_dict` made."""
        found = cls(values["kind"], {}, values["no_samples"], values["choices"], values["remarks"])
        for name, of in values["parts"].items():
            part = PartAccount(of["found"], bad=of["bad"], left_out=of["left_out"], mended=of["mended"])
            part.asked.update(of["left_out_as_asked"])
            found.parts[name] = part
        return found

    def lines(self) -> list[str]:
        """Remarks, and what of each part is mended or not used, for the user; empty where nothing is odd."""
        found = list(self.remarks)
        for name, part in self.parts.items():
            for what, items in (("can't be used", part.bad), ("left out", part.left_out), ("repaired", part.mended)):
                if items:
                    some = ", ".join(list(items)[:MAX_EXAMPLES]) + (", ..." if len(items) > MAX_EXAMPLES else "")
                    share = f"{len(items):,} of {part.found:,} {name} samples"
                    found.append(f"{share} {what}: {counted(items.values())} ({some})")
            found += [f"{count:,} {name} samples left out by {option}" for option, count in part.asked.items()]
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
