"""What a person sees while it trains, and how they stop it: a bar or plain lines, TensorBoard, signals."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def console() -> Console:
    """The console for messages: stderr, without wrapping or markup (NO_COLOR is honoured by rich)."""
    return Console(file=sys.stderr, soft_wrap=True, markup=False, highlight=False)


class TrainingBar:
    """Updates done, rate and time left."""

    def __init__(self, total: int) -> None:
        self._console = console()
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task("training", total=total, note="")

    def __enter__(self) -> TrainingBar:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, done: int, note: str | None = None) -> None:
        """Move the bar; `note` stays beside it until the next one."""
        if self._bar:
            self._bar.update(self._task, completed=done)
            if note is not None:
                self._bar.update(self._task, note=note)

    def line(self, message: str) -> None:
        """A line above the bar."""
        self._console.print(message)

    @property
    def plain(self) -> bool:
        """True off a terminal, where lines are the only sign of life."""
        return self._bar is None


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


class Tracker:
    """Writes scalars to a folder of TensorBoard events, or does nothing without the extra."""

    def __init__(self, folder: Path) -> None:
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._writer = SummaryWriter(folder)

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        """One scalar a figure."""
        if self._writer:
            for name, value in figures.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close."""
        if self._writer:
            self._writer.close()
