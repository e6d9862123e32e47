"""The run folder: who may write to it, and what is written line by line."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from data2vec2.errors import UserError
from data2vec2.files import WriteError, masked, parse_json, remove_leftovers, whole_file
from data2vec2.training.progress import console

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK = "lock"
ACCOUNT = "data.json"
SCORES, OTHER_SCORES = "scores.json", "other_scores.json"
CONFIG = "config.yaml"
SPLIT = "split.json"
STATUS = "status.json"
METRICS, ODD = "metrics.jsonl", "odd_updates.jsonl"


class RunFolder:
    """RUN/{config.yaml, train.log, metrics.jsonl, checkpoints/, ...}; one writer at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics_path = path / METRICS
        self._metrics, self._log, self._odd = (_Lines(path / name) for name in (METRICS, "train.log", ODD))
        self._say: Callable[[str], object] = console().print
        self.cleared = False

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Refuse (`UserError`) a folder that this run would damage, or that holds nothing to resume; writes nothing."""
        try:
            there = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
            content = {entry.name for entry in self.path.iterdir()} - {LOCK} if self.path.is_dir() else set()
        except OSError as error:
            raise UserError(f"--out {self.path} can't be used: {error.strerror}; give another folder") from error
        if not there.is_dir():
            below = "" if there == self.path else f" is below {there}, which"
            raise UserError(f"--out {self.path}{below} is a file; give a folder that does not exist yet")
        if not os.access(there, os.W_OK):
            raise UserError(f"--out {self.path} can't be written: {there} is read-only; give another folder")
        if any("\udc80" <= one <= "\udcff" for one in str(self.path.resolve())):
            raise UserError(
                f"--out {self.path} is not valid UTF-8, so no model can be written there; give another folder"
            )
        is_run = CONFIG in content
        if resume and not is_run:
            raise UserError(f"nothing to resume: {self.path} holds no run (no {CONFIG}); leave --resume out")
        if content and not resume and not overwrite:
            is_what = "already holds a run; --resume continues it, --overwrite deletes it"
            raise UserError(f"{self.path} {is_what if is_run else 'is not empty; give another folder'}")
        if content and not is_run:
            raise UserError(f"--overwrite only deletes runs, and {self.path} holds none (no {CONFIG}); give another")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock, which ends with the process, killed or not; `UserError` if another process has it.

        What a killed holder has left unfinished is removed.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            opened = (self.path / LOCK).open("a+")
        except OSError as error:
            raise UserError(f"--out {self.path} can't be written: {error.strerror}; give another folder") from error
        with opened as file:
            try:
                _lock(file)
            except OSError:
                file.seek(0)
                holder = file.read().strip() or "?"
                raise UserError(f"{self.path} is in use by process {holder}; wait for it or stop it") from None
            try:
                file.truncate(0)
                os.write(file.fileno(), str(os.getpid()).encode())
            except OSError as error:
                raise WriteError(self.path / LOCK, error.errno or 0) from error
            for folder in (self.path, self.checkpoints, self.path / "best"):
                remove_leftovers(folder)
            yield

    def clear(self) -> None:
        """Delete everything but the lock; the configuration last, so that until then the folder is known as a run's."""
        for entry in sorted(self.path.iterdir(), key=lambda entry: entry.name == CONFIG):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != LOCK:
                entry.unlink()
        self.cleared = True

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add one JSON object to metrics.jsonl; training goes on where that can't be written, which is said."""
        self._metrics.add(json.dumps(line) + "\n", self._say)

    def append_odd(self, line: dict[str, Any]) -> None:
        """Add one JSON object to odd_updates.jsonl, as to metrics.jsonl."""
        self._odd.add(json.dumps(line) + "\n", self._say)

    def finish_lines(self) -> None:
        """Write the lines that still wait in memory; `WriteError` if that can't be."""
        for lines in (self._metrics, self._odd, self._log):
            lines.finish(self._say)

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl that hold a step and numbers; what else stands there is left out, and said.

        But for a last line that a killed process cut short.
        """
        if not self.metrics_path.exists():
            return []
        texts = self.metrics_path.read_text("utf-8", errors="replace").split("\n")
        lines = [_figures(text) for text in texts]
        if odd := [place for place, line in enumerate(lines[:-1], start=1) if line is None]:
            places = ", ".join(map(str, odd[:3])) + (", ..." if len(odd) > 3 else "")
            self._say(f"{self.metrics_path}: what is no line of figures is left out: line {places}")
        return [line for line in lines if line is not None]

    def cut_metrics(self, step: int) -> list[dict[str, Any]]:
        """Drop the lines after `step`, which a resumed run writes again; returns what is left."""
        kept = [line for line in self.read_metrics() if line["step"] <= step]
        write_text(self.metrics_path, "".join(json.dumps(line) + "\n" for line in kept))
        return kept

    def write_json(self, name: str, value: Any) -> None:
        """Write RUN/name as JSON, whole or not at all."""
        write_text(self.path / name, json.dumps(value, indent=1) + "\n")

    def note_json(self, name: str, value: Any) -> None:
        """The same while the run goes on, which it does where that can't be; what is wrong is said."""
        try:
            self.write_json(name, value)
        except WriteError as error:
            self._say(str(error))

    def logger(self, echo: Callable[[str], None]) -> Callable[[str], None]:
        """A function that writes a line to `echo` and, with the time and as far as it can, to train.log (`masked`)."""

        def log(message: str) -> None:
            self._log.add(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {masked(message)}\n", echo)
            echo(message)

        self._say = log
        return log


class _Lines:
    """A file that grows by lines. What can't be written waits for the next line, which is said once."""

    def __init__(self, path: Path) -> None:
        self.path, self.waiting, self.failed, self.number = path, b"", False, errno.EIO

    def add(self, line: str, say: Callable[[str], object]) -> None:
        """Write all that waits and a line, whole or not at all."""
        self.waiting += line.encode("utf-8", "backslashreplace")
        try:
            with self.path.open("ab", buffering=0) as file:
                end, left = file.seek(0, os.SEEK_END), self.waiting
                try:
                    while left:
                        left = left[file.write(left) :]
                except OSError:
                    file.truncate(end)
                    raise
        except OSError as error:
            self.number = error.errno or errno.EIO
            if not self.failed:
                self.failed = True
                say(f"{WriteError(self.path, self.number)}; its lines wait in memory, and the run goes on")
            return
        self.waiting = b""
        if self.failed:
            self.failed = False
            say(f"{self.path} has the lines that waited")

    def finish(self, say: Callable[[str], object]) -> None:
        """Write what still waits; `WriteError` if that can't be."""
        if self.waiting:
            self.add("", say)
        if self.waiting:
            raise WriteError(self.path, self.number)


def _figures(text: str) -> dict[str, Any] | None:
    """What a line of metrics.jsonl holds; None for one without a step, or with anything but numbers."""
    with suppress(ValueError):
        line = parse_json(text)
        if isinstance(line, dict) and type(line.get("step")) is int and all(map(_is_figure, line.values())):
            return line
    return None


def _is_figure(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 63)


def write_text(path: Path, text: str, *, errors: str = "strict") -> None:
    """Write a UTF-8 file (`errors` as in `str.encode`) into a folder that is there; `WriteError` if that can't be."""
    if not path.parent.is_dir():
        raise WriteError(path, errno.ENOENT, f"; there is no folder {path.parent}")
    with whole_file(path) as file:
        file.write(text.encode("utf-8", errors))


def _lock(file: TextIO) -> None:
    """Take the operating system's lock on an open file without waiting; `OSError` if another process has it."""
    if sys.platform == "win32":
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        # Not flock: reader processes that outlive a killed run for some seconds would inherit that lock.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
