"""What was found in folders of very many files, kept in the cache folder and mapped into memory.

It is used as long as nothing says that a listing would find something else: every folder, and every file that is no
sample, has the inode and the times that it had, and files their sizes. That costs a look at each folder, not at each
sample; sizes of samples are part of the fingerprint, for which all are looked at. What changed less than two seconds
before it was listed is not trusted, as it could change again without another time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data2vec2.data.kept import say
from data2vec2.errors import UserError
from data2vec2.files import CACHE_HINT, cache_folder, parse_json, whole_folder

LEAST = 20_000
"""Samples that are listed quickly enough each time."""
FORMAT = 5
_SETTLED_NS = 2_000_000_000
_WEEK_S = 7 * 24 * 3600
_CHUNK = 10_000


class Strings(Sequence[Any]):
    """Strings in a mapped file, or some of them; "" is None. Pickled as the path of the file and the places."""

    def __init__(self, path: Path, places: NDArray[np.int64] | None = None) -> None:
        """`path` is without the endings of the two files."""
        self.path, self.places = path, places

    @cached_property
    def _mapped(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Where each string ends (after a 0), and their bytes."""
        try:
            ends, content = (np.load(f"{self.path}.{what}.npy", mmap_mode="r") for what in ("ends", "bytes"))
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path}.*.npy can't be read ({error}); start again, a run by --resume") from error
        return ends, content

    def __len__(self) -> int:
        return len(self._mapped[0]) - 1 if self.places is None else len(self.places)

    def __getitem__(self, place: Any) -> Any:
        at = range(len(self))[place]
        return self._string(at if self.places is None else int(self.places[at]))

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self), _CHUNK):
            some = slice(start, min(start + _CHUNK, len(self)))
            places = range(some.start, some.stop) if self.places is None else self.places[some].tolist()
            yield from map(self._string, places)

    def _string(self, place: int) -> str | None:
        ends, content = self._mapped
        return content[ends[place] : ends[place + 1]].tobytes().decode("utf-8", "surrogateescape") or None

    def select(self, places: NDArray[np.int64]) -> Strings:
        """Those at `places`."""
        return Strings(self.path, places if self.places is None else self.places[places])

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "places": self.places}


def chosen(values: Sequence[Any], places: NDArray[np.int64]) -> Sequence[Any]:
    """Those of some values that are at `places`, without making them where they are made when asked for."""
    if hasattr(values, "select"):
        found: Sequence[Any] = values.select(places)
        return found
    return tuple(values[place] for place in places.tolist())


@dataclass
class State:
    """What a listing depends on, by path relative to the root: inode, times, of files size."""

    seen: dict[str, list[int]] = field(default_factory=dict)
    exact: bool = True
    """Whether that is all."""

    def see(self, root: Path, name: str) -> None:
        """Note a folder or a file, before it is looked into."""
        with suppress(OSError, ValueError):
            self.seen[name] = _told(root / name)
            return
        self.exact = False

    @property
    def settled(self) -> bool:
        """Whether nothing has changed just now."""
        return self.exact and time.time_ns() - max(max(one[1:3]) for one in self.seen.values()) > _SETTLED_NS


def _told(path: Path) -> list[int]:
    told = path.stat()
    return [told.st_ino, told.st_mtime_ns, told.st_ctime_ns, 0 if stat.S_ISDIR(told.st_mode) else told.st_size]


@dataclass(frozen=True)
class Index:
    """What is kept of a listing."""

    folder: Path
    about: Mapping[str, Any]

    def array(self, name: str) -> NDArray[Any] | None:
        """An array by its name, if there is one."""
        path = self.folder / f"{name}.npy"
        return np.load(path, allow_pickle=False) if path.is_file() else None

    def strings(self, name: str) -> Strings | None:
        """Strings by their name, if there are any."""
        return Strings(self.folder / name) if (self.folder / f"{name}.ends.npy").is_file() else None


def load(root: Path, key: str) -> Index | None:
    """What was kept of a root under a key, if a listing would find the same."""
    for folder in sorted(cache_folder().glob(f"listing-{_digest(root, key)}-*")):
        with suppress(OSError, ValueError, KeyError, AttributeError):
            about = parse_json((folder / "about.json").read_bytes())
            whole = all((folder / name).stat().st_size == size for name, size in about["sizes"].items())
            if whole and all(_told(root / name) == told for name, told in about["seen"].items()):
                os.utime(folder / "about.json")
                return Index(folder, about)
    return None


def save(root: Path, key: str, state: State, about: dict[str, Any], fields: Mapping[str, Any]) -> Index | None:
    """Keep arrays and strings by their names, and what else (JSON) is to be known; None if that can't be."""
    if not state.settled:
        return None
    digest = _digest(root, key)
    target = cache_folder() / f"listing-{digest}-{hashlib.sha256(json.dumps(state.seen).encode()).hexdigest()[:16]}"
    try:
        with whole_folder(target, hint=CACHE_HINT) as new:
            for name, values in fields.items():
                if isinstance(values, np.ndarray):
                    np.save(new / f"{name}.npy", values)
                else:
                    encoded = [(value or "").encode("utf-8", "surrogateescape") for value in values]
                    np.save(new / f"{name}.ends.npy", np.cumsum([0, *map(len, encoded)], dtype=np.int64))
                    np.save(new / f"{name}.bytes.npy", np.frombuffer(b"".join(encoded), dtype=np.uint8))
            sizes = {path.name: path.stat().st_size for path in new.iterdir()}
            (new / "about.json").write_text(json.dumps({**about, "seen": state.seen, "sizes": sizes}), encoding="utf-8")
        say(f"what is in {root} is kept in {target}, for later starts")
    except UserError as error:
        if not target.is_dir():  # else another process was faster
            say(f"what is in {root} is listed at each start: {error}")
            return None
    for other in cache_folder().glob(f"listing-{digest}-*"):  # of earlier states; runs may still use newer ones
        with suppress(OSError):
            if other != target and (other / "about.json").stat().st_mtime < time.time() - _WEEK_S:
                shutil.rmtree(other)
    return load(root, key)


def _digest(root: Path, key: str) -> str:
    return hashlib.sha256(f"{FORMAT}\0{root.resolve()}\0{key}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
