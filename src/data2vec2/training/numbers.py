"""Losses of single updates: which are skipped, which stand out, and when to go back."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

PATIENCE, AT_THE_END = 10, 3
"""Updates in a row without finite numbers, after which a run goes back to its last checkpoint; if it ends with them."""
KNOWN, AT_LEAST = 100, 20
"""A loss is held against so many before it, once there are so many."""
OUTLIER, SHARE = 10.0, 0.5
"""It stands out if it is above their median by so many deviations, and by such a share of it."""


class Relapse(Exception):
    """Numbers were not finite in `count` updates from update `first` (0 is the first) on."""

    def __init__(self, first: int, count: int) -> None:
        super().__init__(first, count)
        self.first, self.count = first, count


@dataclass
class Numbers:
    """Looks at every update's loss, NaN where the update was skipped, as soon as it is known."""

    wait: int
    """How many updates later it is known without waiting for the device."""
    ahead: deque[tuple[int, Callable[[], list[float]]]] = field(default_factory=deque)
    known: deque[float] = field(default_factory=lambda: deque(maxlen=KNOWN))
    skipped: int = 0
    """Updates in a row."""
    quiet_until: int = 0

    def add(self, step: int, loss_and_stop: Callable[[], list[float]]) -> None:
        """Update `step` (0 is the first) has been asked for."""
        self.ahead.append((step, loss_and_stop))

    def look(self, last: bool = False) -> tuple[bool, list[tuple[int, float, float]]]:
        """Whether the processes were asked to stop; and updates whose loss is not finite or stands out.

        Of each the step, the loss, and what is usual.
        """
        stop, odd = False, []
        while len(self.ahead) > (0 if last else self.wait):
            step, values = self.ahead.popleft()
            loss, asked = values()
            stop = stop or asked > 0
            usual = statistics.median(self.known) if self.known else math.nan
            if not math.isfinite(loss):
                self.skipped += 1
                odd.append((step, loss, usual))
                continue
            self.skipped = 0
            if self._stands_out(loss, usual) and step >= self.quiet_until:
                self.quiet_until = step + KNOWN
                odd.append((step, loss, usual))
            self.known.append(loss)
        return stop, odd

    def _stands_out(self, loss: float, usual: float) -> bool:
        if len(self.known) < AT_LEAST:
            return False
        deviation = 1.4826 * statistics.median(abs(one - usual) for one in self.known)
        return loss - usual > max(OUTLIER * deviation, SHARE * abs(usual))
