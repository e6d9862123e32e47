"""The run folder: who may write to it, and what is written line by line."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from data2vec2.errors import UserError
from data2vec2.files import whole_file

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK = "lock"
ACCOUNT = "data.json"
SCORES, OTHER_SCORES = "scores.json", "other_scores.json"
CONFIG = "config.yaml"
SPLIT = "split.json"


class RunFolder:
    """RUN/{config.yaml, train.log, metrics.jsonl, checkpoints/, ...}; one writer at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics_path = path / "metrics.jsonl"

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Refuse (`UserError`) a folder that this run would damage, or that holds nothing to resume; writes nothing."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--out {self.path} is a file; give a folder that does not exist yet")
        if any("\udc80" <= one <= "\udcff" for one in str(self.path.resolve())):
            raise UserError(
                f"--out {self.path} is no text in UTF-8, so no model can be written there; give another folder"
            )
        content = {entry.name for entry in self.path.iterdir()} - {LOCK} if self.path.exists() else set()
        is_run = CONFIG in content
        if resume and not is_run:
            raise UserError(f"nothing to resume: {self.path} holds no run (no {CONFIG}); leave --resume out")
        if content and not resume and not overwrite:
            is_what = "already holds a run; --resume goes on with it, --overwrite deletes it"
            raise UserError(f"{self.path} {is_what if is_run else 'is not empty; give another folder'}")
        if content and not is_run:
            raise UserError(f"--overwrite only deletes runs, and {self.path} holds none (no {CONFIG}); give another")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock, which ends with the process, killed or not; `UserError` if another process has it."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / LOCK).open("a+") as file:
            try:
                _lock(file)
            except OSError:
                file.seek(0)
                holder = file.read().strip() or "?"
                raise UserError(f"{self.path} is in use by process {holder}; wait for it or stop it") from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def clear(self) -> None:
        """Delete everything but the lock; the configuration last, so that until then the folder is known as a run's."""
        for entry in sorted(self.path.iterdir(), key=lambda entry: entry.name == CONFIG):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != LOCK:
                entry.unlink()

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Add one JSON object to metrics.jsonl."""
        with self.metrics_path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a last one that a killed process cut short is left out."""
        lines = []
        if self.metrics_path.exists():
            for text in self.metrics_path.read_text().splitlines():
                try:
                    lines.append(json.loads(text))
                except json.JSONDecodeError:
                    break
        return lines

    def cut_metrics(self, step: int) -> list[dict[str, Any]]:
        """Drop the lines after `step`, which a resumed run writes again; returns what is left."""
        kept = [line for line in self.read_metrics() if line["step"] <= step]
        write_text(self.metrics_path, "".join(json.dumps(line) + "\n" for line in kept))
        return kept

    def write_json(self, name: str, value: Any) -> None:
        """Write RUN/name as JSON, whole or not at all."""
        write_text(self.path / name, json.dumps(value, indent=1) + "\n")

    def logger(self, echo: Callable[[str], None]) -> Callable[[str], None]:
        """A function that writes a line to train.log with the time, and to `echo` without."""

        def log(message: str) -> None:
            with (self.path / "train.log").open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")
            echo(message)

        return log


def write_text(path: Path, text: str, *, errors: str = "strict") -> None:
    """Write a UTF-8 file (`errors` as in `str.encode`) into a folder that is there; `UserError` if that can't be."""
    if not path.parent.is_dir():
        raise UserError(f"can't write {path}: there is no folder {path.parent}")
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
