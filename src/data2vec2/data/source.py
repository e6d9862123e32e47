"""What any kind of data becomes first: parts, each with names, labels and samples that are read one at a time."""

from __future__ import annotations

import io
import os
import posixpath
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
from numpy.typing import NDArray

from data2vec2.data.account import Account
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


PART_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing", "t10k"), "test"),
}
"""What parts are called in the names of folders, files and splits, and what they are called here."""
_WORD = re.compile(r"t10k|[^\W\d_]+|\d+")
_PACKED_TAR = re.compile(r"\.(tar\.(gz|bz2|xz|zst)|t(gz|bz2?|xz|zst))$", re.IGNORECASE)


class BadSample(Exception):
    """A sample that can't be used; `reason` is a short category that files are counted by."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


def extension_of(name: str) -> str:
    """What a file's name ends in, from the last dot and in small letters; ".tar" for a compressed one; "" for none."""
    return ".tar" if _PACKED_TAR.search(name) else Path(name).suffix.lower()


@contextmanager
def readable() -> Iterator[None]:
    """Raise `BadSample` for a file that can't be read inside the block."""
    try:
        yield
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        raise BadSample("unreadable") from error
    except MemoryError as error:
        raise BadSample("too large") from error


class Source(ABC):
    """The samples of one part, one read at a time, from any thread. Can be pickled. Has `read`, `open`, or both."""

    in_memory: ClassVar[bool] = False
    """Whether reading costs next to nothing."""

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """Content of the sample's file, or a picture's array `HW` or `HWC`; raises `BadSample`."""
        with readable(), self.open(index) as file:
            return file.read()

    def open(self, index: int) -> BinaryIO:
        """The sample's file, which is not read as a whole where it lies on a disk; raises `BadSample`."""
        return io.BytesIO(bytes(self.read(index)))

    @abstractmethod
    def select(self, places: NDArray[np.int64]) -> Source:
        """The samples at `places`, in that order."""

    @abstractmethod
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
    """What was recognised: parts ("train", "val", "test"), class names that the data give, and the account so far."""

    kind: str
    parts: Mapping[str, Split]
    classes: tuple[str, ...] | None = None
    account: Account = field(default_factory=Account)


def _words(name: str) -> list[str]:
    """Words and numbers of a name, those of `PART_NAMES` as parts are called here: "ValSet-01.csv" is val, 01, csv."""
    return [PART_NAMES.get(word.removesuffix("set"), word) for word in _WORD.findall(name.lower())]


def part_of(name: str) -> str | None:
    """The part that a folder, file or split is called after, by any of its words ("wiki.test.txt"); None: none.

    Of a path, the outermost folder that is called so decides. A name of more than two words with spaces between them
    is a title ("test of time"), and says nothing.
    """
    for one in name.split("/"):
        stem = one.rpartition(".")[0] or one
        title = sum(any(map(str.isalpha, word)) for word in stem.split()) > 2
        if found := next((word for word in _words(one) if word in PART_NAMES and not title), None):
            return found
    return None


def by_part(names: Sequence[str], where: str) -> dict[str, list[str]]:
    """Names of files or splits by part, "train" where they name none or only one.

    Folders that all have in common say nothing. `UserError` if none has the name of the training part, and for two
    that are called the same but for the spelling of the part ("val.csv", "valid.csv").
    """
    parts: dict[str, list[str]] = {}
    common = len(os.path.commonpath([posixpath.dirname(name) for name in names])) if names else 0
    for name in names:
        parts.setdefault(part_of(name[common:]) or "train", []).append(name)
    if len(parts) == 1:
        return {"train": list(names)}
    check_parts(parts, where)
    return parts


def check_parts(parts: Mapping[str, Sequence[str]], where: str) -> None:
    """Raise `UserError` if there is nothing to train on, or if two of a part are called the same but for its spelling.

    Names are those of files, folders or splits.
    """
    if "train" not in parts:
        raise UserError(f"{where} has {' and '.join(sorted(parts))} parts, none to train on; name one of them itself")
    for part, names in parts.items():
        spelled: dict[tuple[str, ...], str] = {}
        for name in names:
            if (other := spelled.setdefault(tuple(_words(name)), name)) != name and part_of(name):
                raise UserError(
                    f"{where} has more than one {part} part: {other} and {name}; keep one, or name it itself"
                )


def parts_by_name(parts: Mapping[str, Sequence[str]]) -> list[str]:
    """For `Account.choices`: which files, folders or splits make which part; nothing if there is one part only."""
    shown = [
        f"{part} is {', '.join(parts[part][:2])}"
        + (f" and {more:,} more" if (more := len(parts[part]) - 2) > 0 else "")
        for part in ("train", "val", "test")
        if part in parts
    ]
    return [f"parts by name: {'; '.join(shown)}"] if len(parts) > 1 else []


@dataclass(frozen=True, eq=False)
class Spans(Source):
    """Stretches of bytes in files, read in place."""

    paths: tuple[Path, ...]
    places_N3: NDArray[np.int64]
    """Of each of the N samples the file, as a place in `paths`, where it begins, and how many bytes it has."""

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """Content of one stretch; raises `BadSample`."""
        content = super().read(index)
        if len(content) < self.places_N3[index, 2]:
            raise BadSample("truncated")
        return content

    def open(self, index: int) -> BinaryIO:
        """One stretch as a file; raises `BadSample`."""
        file, start, size = self.places_N3[index].tolist()
        with readable():
            return io.BufferedReader(_Stretch(self.paths[file], start, size))

    def select(self, places: NDArray[np.int64]) -> Spans:
        """The stretches at `places`."""
        return Spans(self.paths, self.places_N3[places])

    def content(self) -> Iterator[bytes | memoryview]:
        """Places and sizes."""
        files, starts, sizes = self.places_N3.T
        yield from (files.astype(np.int32).tobytes(), starts.tobytes(), sizes.tobytes())


class _Stretch(io.FileIO):
    """A part of a file as a file."""

    def __init__(self, path: Path, start: int, size: int) -> None:
        super().__init__(path)
        self.start, self.size = start, size
        self.seek(0)

    def tell(self) -> int:
        return super().tell() - self.start

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        place = (0, self.tell(), self.size)[whence] + offset
        if place < 0:
            raise ValueError(f"no place {place} in the file")
        return super().seek(self.start + place) - self.start

    def readinto(self, buffer: Any) -> int:
        return super().readinto(memoryview(buffer)[: max(0, self.size - self.tell())]) or 0

    def readall(self) -> bytes:
        return self.read(max(0, self.size - self.tell())) or b""
