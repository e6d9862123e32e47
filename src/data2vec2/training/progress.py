"""What a person sees of training: a bar, tables; and what stops it: signals, alarms (docs/troubleshooting.md)."""

from __future__ import annotations

import html
import math
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from types import FrameType
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from data2vec2.errors import Stopped

DIVERGED = "diverged"
LOWER = "Lower --optim.lr (halve it), lengthen --optim.warmup-updates, or lower --optim.clip-norm"
COLLAPSED = "collapsed"
# A figure below its floor at PATIENCE checks in a row is a collapse. The standard deviations' floors are the original's
# limits, the others come from runs that were made to collapse (docs/collapse.md).
FLOORS = {"target_std": 0.1, "prediction_std": 0.01, "unexplained": 0.1} | dict.fromkeys(
    ("rank_stem", "rank_encoder", "rank_target"), 1.5
)
AFTER_ITS_RISE = "prediction_std"
"""A figure that may first fall to nearly 0, while a model learns the mean: its floor counts once it has risen above."""
PATIENCE = 3
SHARES = {"rank_encoder": 1 / 8, "val_knn": 0.6}
"""Figures with a floor that is a share of their value before training, if that is the higher one."""
SHARE_BEFORE_LEARNING = 1 / 4
"""That of `rank_encoder` while predictions hardly differ (`prediction_std` below .05) and explain nothing of what is to
be predicted (`unexplained` above .95). A healthy model may do either for a while, but not while its ranks fall."""


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
        self._risen, self._before = False, math.inf

    def check(self, step: int, figures: Mapping[str, float]) -> None:
        """Raise `Alarm` for a loss or gradient that is not finite, or a figure that stayed below its floor."""
        for name in ("loss", "grad_norm", "val_loss"):
            if name in figures and not math.isfinite(figures[name]):
                raise Alarm(
                    DIVERGED,
                    f"{name} is {figures[name]} at update {step}: training diverged. {LOWER}",
                )
        self._first = {**figures, **self._first}
        for name, floor in floors(self._first, figures).items():
            if name not in figures:
                continue
            if name == AFTER_ITS_RISE and not self._risen:
                self._risen = figures[name] >= max(floor, self._before)
                self._before = figures[name]
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


def floors(first: Mapping[str, float], now: Mapping[str, float] | None = None) -> dict[str, float]:
    """The floor of each figure, from a run's first ones and how it is `now`.

    Scores may be lower by twice their error (`val_knn_error`).
    """
    shares = dict(SHARES)
    if now and now.get("unexplained", 0.0) > 0.95 and now.get("prediction_std", 1.0) < 0.05:
        shares["rank_encoder"] = SHARE_BEFORE_LEARNING
    lowest = {
        name: share * first[name] - 2 * first.get(f"{name}_error", 0) for name, share in shares.items() if name in first
    }
    return FLOORS | {name: max(floor, FLOORS.get(name, floor)) for name, floor in lowest.items()}


def console() -> Console:
    """The console for messages: stderr, without wrapping or markup (NO_COLOR is honoured by rich)."""
    return Console(file=sys.stderr, soft_wrap=True, markup=False, highlight=False)


def shows_bars(to: Console) -> bool:
    """Whether it is a terminal, or a notebook with the widgets that a bar needs."""
    return to.is_terminal or (to.is_jupyter and find_spec("ipywidgets") is not None)


class TrainingBar(Progress):
    """Updates done and time left, below them the last figures; disabled where only lines can tell of both."""

    def __init__(self, total: int) -> None:
        to, updates, left = console(), (MofNCompleteColumn(), TextColumn("updates,")), TimeRemainingColumn()
        columns = TextColumn("training"), BarColumn(), *updates, left, TextColumn("left")
        # The time left follows the last minutes: slow updates and pauses for scores would leave a shorter period empty.
        super().__init__(*columns, console=to, transient=True, disable=not shows_bars(to), speed_estimate_period=300)
        self.task = self.add_task("training", total=total, note="")

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bar, and the line below it."""
        yield from super().get_renderables()
        for task in self.tasks:
            yield Text(task.fields["note"], no_wrap=True, overflow="ellipsis")

    def stop(self) -> None:
        """Take the bar away, if there is one; rich 13 would write an empty line where there is none."""
        if not self.disable:
            super().stop()


def catch_stops(handler: Callable[[int, FrameType | None], object]) -> dict[int, Any]:
    """Let a function handle Ctrl-C, SIGTERM, SIGUSR1 (SLURM's warning) and a terminal that is closed.

    The last not where `nohup` has it ignored. Returns the handlers that there were, by the signal's number.
    """
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")  # Windows has the first two
    numbers = [int(getattr(signal, name)) for name in names if hasattr(signal, name)]
    ignored = [number for number in numbers[2:] if signal.getsignal(number) is signal.SIG_IGN]

    def handle(number: int, frame: FrameType | None) -> None:
        for stream in (1, 2):
            with suppress(OSError):  # it is closed
                if stat.S_ISCHR(os.fstat(stream).st_mode) and not os.isatty(stream):  # a terminal that is gone
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        handler(number, frame)

    return {number: signal.signal(number, handle) for number in numbers if number not in ignored}


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """A function that says whether the process has been asked to stop; handlers are restored on leaving.

    A second Ctrl-C raises KeyboardInterrupt, a third does what one would do without this.
    """
    asked = False
    interrupts = 0

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked, interrupts
        asked = True
        interrupts += number == signal.SIGINT
        usual = previous[number]
        if interrupts > 1 and number == signal.SIGINT and callable(usual):
            usual(number, frame)

    previous = catch_stops(ask)
    try:
        yield lambda: asked
        if interrupts > 1:
            raise KeyboardInterrupt  # it was lost in a destructor
    except Stopped:
        raise KeyboardInterrupt from None  # nothing is to be saved
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def html_table(rows: Iterable[Sequence[object]], titles: Sequence[str] = ()) -> str:
    """A table for notebooks; fractions are rounded."""

    def line(cells: Iterable[object], tag: str) -> str:
        shown = (f"{cell:.4g}" if isinstance(cell, float) else "" if cell is None else str(cell) for cell in cells)
        return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in shown)}</tr>"

    return f"<table>{line(titles, 'th') if titles else ''}{''.join(line(row, 'td') for row in rows)}</table>"
