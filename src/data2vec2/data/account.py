"""Samples that could not be read: counted by reason, listed, and too many of them stop a run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from data2vec2.data.reader import Bad
from data2vec2.errors import UserError

MAX_LISTED = 100


class Skipped:
    """Every sample that was replaced, once."""

    def __init__(self, total: int, max_bad: float) -> None:
        """`total` samples are there; more than a share `max_bad` of them must not be bad."""
        self.total, self.max_bad = total, max_bad
        self.reasons: dict[str, str] = {}
        self.left_out: dict[str, str] = {}

    def leave_out(self, items: Iterable[Bad]) -> None:
        """Note samples that are not used though nothing is wrong with them; they count towards no limit."""
        self.left_out.update((item.name, item.reason) for item in items)

    def add(self, bad: Iterable[Bad], checked: int | None = None) -> list[Bad]:
        """Note samples that were found bad among `checked` (none: all); returns those not seen before.

        Raises `UserError` with the list if their share is too large.
        """
        new = [item for item in bad if item.name not in self.reasons]
        self.reasons.update((item.name, item.reason) for item in new)
        looked_at = self.total if checked is None else checked
        if new and len(self.reasons) > self.max_bad * looked_at:
            listed = "\n".join(f"  {name}: {reason}" for name, reason in list(self.reasons.items())[:MAX_LISTED])
            more = f"\n  and {len(self.reasons) - MAX_LISTED} more" if len(self.reasons) > MAX_LISTED else ""
            raise UserError(
                f"{len(self.reasons)} of {looked_at} samples can't be used ({self.summary()}), which is more than "
                f"--data.max-bad {self.max_bad:g} allows; mend or remove them, or raise the limit:\n{listed}{more}"
            )
        return new

    def summary(self) -> str:
        """Counts by reason, as in "12 truncated, 3 empty file"."""
        counts = Counter(self.reasons.values()).most_common()
        return ", ".join(f"{count} {reason}" for reason, count in counts)

    def write(self, path: Path) -> None:
        """One JSON object a sample."""
        found = self.reasons | self.left_out
        path.write_text("".join(json.dumps({"name": name, "reason": reason}) + "\n" for name, reason in found.items()))
