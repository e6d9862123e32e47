"""What was read from elsewhere, kept in pieces in `remote` of the cache folder: each is there whole or not at all.

Where the pieces take more than `DATA2VEC2_CACHE_GIB` (20) together, those that were not read for the longest time are
deleted.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from data2vec2.errors import UsageError, UserError
from data2vec2.files import cache_folder, whole_file

_ABANDONED_S = 3600  # who writes a piece needs no longer


class Remote(Protocol):
    """Bytes that are elsewhere. Can be pickled."""

    @property
    def key(self) -> str:
        """Another one for other bytes."""

    def read(self, start: int, stop: int) -> bytes:
        """Those from `start` to before `stop`; `UserError` if they can't be had."""


def say(text: str) -> None:
    """Tell the user, whichever process this is."""
    print(f"data: {text}", file=sys.stderr, flush=True)


def setting(name: str, default: float) -> float:
    """A number above 0 in the environment."""
    with suppress(ValueError):
        if (value := float(os.environ.get(name) or default)) > 0:
            return value
    raise UsageError(f"{name} is {os.environ[name]!r}; it must be a number above 0")


def kept(name: str, size: int, start: int = 0, stop: int | None = None) -> bytes | None:
    """From `start` to before `stop` of what was kept under a name; None if it is not there, or not `size` bytes."""
    with suppress(OSError), (_folder() / name).open("rb") as file:
        if os.fstat(file.fileno()).st_size == size:
            file.seek(start)
            content = file.read((size if stop is None else stop) - start)
            os.utime(_folder() / name)
            return content
    return None


def keep(name: str, content: bytes) -> None:
    """Keep something under a name, and delete what was not read for the longest time where it becomes too much."""
    try:
        with whole_file(_folder() / name, shared=True) as file:
            file.write(content)
    except UserError as error:
        if not _Kept.failed:
            say(f"{error}; everything is read from the server each time")
        _Kept.failed = True
        return
    with _Kept.lock:
        _Kept.new += len(content)
        limit = int(setting("DATA2VEC2_CACHE_GIB", 20) * 2**30)
        if _Kept.new > limit // 64:
            _Kept.new = 0
            _shrink(limit)


class _Kept:
    """What this process knows of its own writing."""

    lock = threading.Lock()
    new = sys.maxsize // 2  # bytes since the last look at all that is kept; the first look is at once
    failed = False


def _folder() -> Path:
    return cache_folder() / "remote"


def _shrink(limit: int) -> None:
    """Delete the oldest where there are more bytes than `limit`, so that a sixteenth of it is free."""
    found: list[tuple[float, int, str]] = []
    for folder in os.scandir(_folder()):
        with suppress(OSError):
            for entry in os.scandir(folder):
                with suppress(OSError):  # another process may delete, too
                    stat = entry.stat()
                    if not entry.name.endswith(".tmp") or stat.st_mtime < time.time() - _ABANDONED_S:
                        found.append((stat.st_mtime, stat.st_size, entry.path))
    total = sum(size for _, size, _ in found)
    if total <= limit:
        return
    for _, size, path in sorted(found):
        with suppress(OSError):
            Path(path).unlink()
        total -= size
        if total <= limit - limit // 16:
            return
