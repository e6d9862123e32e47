"""What any kind of data becomes first: parts, each with names, labels and samples that are read one at a time."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from data2vec2.errors import UserError


@dataclass(frozen=True)
class Content:
    """One kind of samples."""

    one: str
    many: str
    files: str
    """What a folder of them is said to hold."""
    feature: str
    """The class of `datasets` that such columns have."""
    extensions: frozenset[str]
    """Names of their files end in one of these, in any case."""
    columns: tuple[str, ...]
    """Names under which tables keep them; the first that is there is taken."""
    texts: tuple[str, ...] = ()
    """Names of columns of transcripts, likewise; empty: samples have none."""


PART_NAMES = {"train": "train", "test": "test", "t10k": "test"} | dict.fromkeys(
    ("val", "valid", "validation", "dev"), "val"
)
"""What parts are called in the names of folders, files and splits, and what they are called here."""


class BadSample(Exception):
    """A sample that can't be used; `reason` is a short category that files are counted by."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class Source(Protocol):
    """The samples of one part, one read at a time, from any thread. Can be pickled."""

    in_memory: ClassVar[bool]
    """Whether reading costs next to nothing."""

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """Content of the sample's file, or a picture's array `HW` or `HWC`; raises `BadSample`."""

    def select(self, places: NDArray[np.int64]) -> Source:
        """The samples at `places`, in that order."""

    def content(self) -> Iterator[bytes | memoryview]:
        """What tells these samples from others of the same names: sizes, or all of the bytes."""


@dataclass(frozen=True)
class Split:
    """Names, labels and samples of one part. A label is a whole number, a string, a list of these, or None."""

    names: Sequence[str]
    labels: Sequence[Any]
    source: Source
    texts: Sequence[Any] | None = None
    """Transcripts, where the data have any: strings, or None."""
    seconds: NDArray[np.float64] | None = None
    """Lengths of recordings, where the data say them."""
    numbers: NDArray[np.float64] | None = None
    """Labels that are numbers to be predicted, NaN for none; `labels` are then all None."""


@dataclass(frozen=True)
class Listing:
    """What was recognised: parts ("train", "val", "test"), class names that the data give, and notes for the user."""

    kind: str
    parts: Mapping[str, Split]
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    """Files that were left out, by extension."""


def part_of(name: str) -> str | None:
    """The part that a folder, file or split is called after ("test-00001.parquet" is "test"); None: none."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    return next((PART_NAMES[word] for word in words if word in PART_NAMES), None)


def by_part(names: Sequence[str], where: str) -> dict[str, list[str]]:
    """File or split names of each part; those that name no part are "train", and so are all where there is one part.

    Raises `UserError` if there is none to train on.
    """
    parts: dict[str, list[str]] = {}
    for name in names:
        parts.setdefault(part_of(name) or "train", []).append(name)
    if len(parts) == 1:
        return {"train": list(names)}
    if "train" not in parts:
        raise UserError(f"{where} has {' and '.join(sorted(parts))} parts, none to train on; name one of them itself")
    return parts


@dataclass(frozen=True, eq=False)
class Spans:
    """Stretches of bytes in files, read in place."""

    in_memory: ClassVar[bool] = False
    paths: tuple[Path, ...]
    files: NDArray[np.int32]
    """The file of each sample, as a place in `paths`."""
    offsets: NDArray[np.int64]
    """Where each sample begins."""
    sizes: NDArray[np.int64]
    """How many bytes each sample has."""

    def read(self, index: int) -> bytes:
        """Content of one stretch; raises `BadSample`."""
        size = int(self.sizes[index])
        try:
            with self.paths[self.files[index]].open("rb", buffering=0) as file:
                file.seek(int(self.offsets[index]))
                content: bytes = file.read(size)
        except OSError as error:
            raise BadSample("unreadable") from error
        except MemoryError as error:
            raise BadSample("too large") from error
        if len(content) < size:
            raise BadSample("truncated")
        return content

    def open(self, index: int) -> BinaryIO:
        """One stretch as a file; raises `BadSample`."""
        try:
            file = self.paths[self.files[index]].open("rb", buffering=0)
        except OSError as error:
            raise BadSample("unreadable") from error
        return io.BufferedReader(_Stretch(file, int(self.offsets[index]), int(self.sizes[index])))

    def select(self, places: NDArray[np.int64]) -> Spans:
        """The stretches at `places`."""
        return Spans(self.paths, self.files[places], self.offsets[places], self.sizes[places])

    def content(self) -> Iterator[bytes | memoryview]:
        """Places and sizes."""
        yield from (self.files.tobytes(), self.offsets.tobytes(), self.sizes.tobytes())


class _Stretch(io.RawIOBase):
    """A part of a file as a file, which closes the whole."""

    def __init__(self, file: io.FileIO, start: int, size: int) -> None:
        self.file, self.start, self.size, self.place = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        place = (0, self.place, self.size)[whence] + offset
        if place < 0:
            raise ValueError(f"no place {place} in the file")
        self.place = place
        return place

    def readinto(self, buffer: Any) -> int:
        self.file.seek(self.start + self.place)
        content = self.file.read(max(0, min(len(buffer), self.size - self.place)))
        buffer[: len(content)] = content
        self.place += len(content)
        return len(content)

    def close(self) -> None:
        self.file.close()
        super().close()
