"""What a person sees while it trains: a bar on a terminal, plain lines elsewhere. Everything goes to stderr."""

from __future__ import annotations

import sys
from types import TracebackType

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
