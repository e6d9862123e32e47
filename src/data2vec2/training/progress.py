"""What a person sees of training: a bar, TensorBoard; and what stops it: signals, alarms (docs/troubleshooting.md)."""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

DIVERGED = "diverged"
COLLAPSED = "collapsed"
# A figure below its floor at PATIENCE checks in a row is a collapse. The standard deviations' floors are the original's
# limits, the others come from runs that were made to collapse (docs/collapse.md).
FLOORS = {"target_std": 0.1, "prediction_std": 0.01, "unexplained": 0.1} | dict.fromkeys(
    ("rank_stem", "rank_encoder", "rank_target"), 1.5
)
AFTER_ITS_RISE = "prediction_std"
"""A figure that begins near 0 in narrow models: its floor counts from the first check that is above it."""
PATIENCE = 3
SHARES = {"rank_encoder": 1 / 8, "val_knn": 0.6}
"""Figures with a floor that is a share of their value before training, if that is the higher one."""


class Alarm(Exception):
    """The run should stop: `kind` is "diverged" or "collapsed", the message says what was seen and what to change."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Alarms:
    """Looks at the figures of every log line, in order; knows nothing but what it has been shown."""

    def __init__(self) -> None:
        self._first: dict[str, float] = {}
        self._low: dict[str, int] = {}
        self._risen = False

    def check(self, step: int, figures: Mapping[str, float]) -> None:
        """Raise `Alarm` for a loss or gradient that is not finite, or a figure that stayed below its floor."""
        for name in ("loss", "grad_norm"):
            if name in figures and not math.isfinite(figures[name]):
                raise Alarm(
                    DIVERGED,
                    f"{name} is {figures[name]} at update {step}: training diverged. Lower --optim.lr (halve it), "
                    "lengthen --optim.warmup-updates, or lower --optim.clip-norm",
                )
        self._first = {**figures, **self._first}
        for name, floor in floors(self._first).items():
            if name not in figures:
                continue
            if name == AFTER_ITS_RISE and not self._risen:
                self._risen = figures[name] >= floor
                continue
            self._low[name] = self._low.get(name, 0) + 1 if not figures[name] >= floor else 0
            if self._low[name] >= PATIENCE:
                is_low = "the outputs hardly depend on the input any more, or are trivial to predict"
                meaning = "the features are worse than before training" if name == "val_knn" else is_low
                raise Alarm(
                    COLLAPSED,
                    f"{name} is {figures[name]:.3g} at update {step}, below {floor:.3g} for {PATIENCE} checks: "
                    f"{meaning}. Lower --optim.lr, bring --ema.start and --ema.end closer to 1, or use a larger "
                    "--train.batch-size",
                )


def floors(first: Mapping[str, float]) -> dict[str, float]:
    """The floor of each figure, from a run's first ones; scores may be lower by twice their error (`val_knn_error`)."""
    shares = {name: share * first[name] for name, share in SHARES.items() if name in first}
    lowest = {name: floor - 2 * first.get(f"{name}_error", 0.0) for name, floor in shares.items()}
    return FLOORS | {name: max(floor, FLOORS.get(name, floor)) for name, floor in lowest.items()}


def console() -> Console:
    """The console for messages: stderr, without wrapping or markup (NO_COLOR is honoured by rich)."""
    return Console(file=sys.stderr, soft_wrap=True, markup=False, highlight=False)


class TrainingBar(Progress):
    """Updates done, rate and time left; disabled off a terminal, where lines are the only sign of life."""

    def __init__(self, total: int) -> None:
        to = console()
        columns = TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        note = TextColumn("{task.fields[note]}")
        super().__init__(*columns, note, console=to, transient=True, disable=not to.is_terminal)
        self.task = self.add_task("training", total=total, note="")

    def stop(self) -> None:
        """Take the bar away, if there is one; rich 13 would write an empty line where there is none."""
        if not self.disable:
            super().stop()


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """A function that says whether the process has been asked to stop; handlers are restored on leaving."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            os._exit(130)
        asked = True

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def tensorboard(folder: Path) -> Any:
    """What writes TensorBoard events to a folder; None without the extra."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder)
