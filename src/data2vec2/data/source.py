"""What any kind of data becomes first: parts, each with names, labels and samples that are read one at a time."""

from __future__ import annotations

import io
import os
import posixpath
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
from numpy.typing import NDArray

from data2vec2.data.account import Account
from data2vec2.data.kept import Remote
from data2vec2.errors import UserError
from data2vec2.files import cache_folder


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
    raw: Callable[[Any], bytes | NDArray[Any]] | None = None
    """What makes a Python object what `Source.read` returns, or raises `BadSample`; none: only files and bytes."""


PART_NAMES = {
    **dict.fromkeys(("train", "training", "trainval", "trn"), "train"),
    **dict.fromkeys(
        ("val", "valid", "validation", "validate", "dev", "devel", "development", "eval", "evaluation"), "val"
    ),
    **dict.fromkeys(("test", "testing", "tst", "t10k"), "test"),
}
"""What parts are called in the names of folders, files and splits, and what they are called here."""
_WORD = re.compile(r"t10k|[^\W\d_]+|\d+")
_JOINED = re.compile(r"(?<=[a-z])(?=[A-Z])")
"""Where a word begins inside of another ("dogsTrain")."""
_AFTER = re.compile(r"(data)?(set|data|images?|imgs?)$")
"""What may follow the name of a part ("trainset")."""
_PACKED_TAR = re.compile(r"\.(tar\.(gz|bz2|xz|zst)|t(gz|bz2?|xz|zst))$", re.IGNORECASE)
_PACKED_TEXT = re.compile(r"(\.(txt|csv|tsv|jsonl?|conllu?))\.(gz|bz2|xz|zst)$", re.IGNORECASE)


class BadSample(Exception):
    """A sample that can't be used; `reason` is a short category that files are counted by."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


def extension_of(name: str) -> str:
    """What a file's name ends in, from the last dot and in small letters; "" for none.

    Of compressed archives, texts and tables that of what is in them: ".tar", ".csv".
    """
    if _PACKED_TAR.search(name):
        return ".tar"
    if packed := _PACKED_TEXT.search(name):
        return packed[1].lower()
    name = name.rpartition("/")[2]  # many names are looked at: pathlib takes seven times as long
    place = name.rfind(".")
    return name[place:].lower() if 0 < place < len(name) - 1 else ""


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

    def files(self) -> Iterable[str]:
        """Files whose sizes and times tell, with `content`, whether samples have changed; empty: no files do."""
        return ()

    def copies(self) -> list[Path]:
        """The files in the cache folder that it reads, written when the data were opened."""
        return []


@dataclass(frozen=True, eq=False)
class Objects(Source):
    """Python objects: paths, bytes, and what else `Content.raw` knows."""

    in_memory: ClassVar[bool] = True  # or at least of this process alone
    items: Any
    """Gives an item by its number."""
    of: Content
    rows: NDArray[np.int64]
    sample: Callable[[Any], Any] | None = None
    """What takes the sample out of an item; none: the item is one."""

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """What a sample's file would hold; raises `BadSample`."""
        return self._raw(self._item(index))

    def open(self, index: int) -> BinaryIO:
        """A file, if the sample is a path; raises `BadSample`."""
        item = self._item(index)
        if isinstance(item, str | Path):
            with readable():
                return Path(item).open("rb")
        return io.BytesIO(bytes(self._raw(item)))

    def _item(self, index: int) -> Any:
        try:
            with _ONE_AT_A_TIME:
                item = self.items[int(self.rows[index])]
        except Exception as error:  # any of other people's
            raise BadSample(type(error).__name__) from error
        item = self.sample(item) if self.sample else item
        if isinstance(item, Mapping) and {"bytes", "path"} & set(item):  # as `datasets` stores them
            return item.get("bytes") or item.get("path") or b""
        return item

    def _raw(self, item: Any) -> bytes | NDArray[Any]:
        if isinstance(item, str | Path):
            with readable():
                return Path(item).read_bytes()
        if isinstance(item, bytes):
            return item
        if self.of.raw is None:
            raise BadSample(f"no {self.of.one} but a {type(item).__name__}")
        return self.of.raw(item)

    def select(self, places: NDArray[np.int64]) -> Objects:
        """The samples at `places`."""
        return replace(self, rows=self.rows[places])

    def content(self) -> Iterator[bytes | memoryview]:
        """What they are, and how many; reading them could take hours."""
        yield f"{type(self.items).__qualname__} {len(self.items)}".encode()
        yield self.rows.tobytes()


_ONE_AT_A_TIME = threading.Lock()  # other people's data sets may not be made for threads


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
    groups: NDArray[np.int64] | None = None
    """Where samples share what they are of, the number of that; none: each stands for itself."""


def numbered(keys: Iterable[str]) -> NDArray[np.int64]:
    """For `Split.groups`: of each key, which one of all that differ it is."""
    place_of: dict[str, int] = {}
    return np.array([place_of.setdefault(key, len(place_of)) for key in keys], dtype=np.int64)


@dataclass(frozen=True)
class Listing:
    """What was recognised: parts ("train", "val", "test"), class names that the data give, and the account so far."""

    kind: str
    parts: Mapping[str, Split]
    classes: tuple[str, ...] | None = None
    account: Account = field(default_factory=Account)


def _words(name: str) -> list[str]:
    """Words and numbers of a name, those of `PART_NAMES` as parts are called here: "valset-01.csv" is val, 01, csv."""
    return [PART_NAMES.get(_AFTER.sub("", word), word) for word in _WORD.findall(_JOINED.sub(" ", name).lower())]


@lru_cache(10_000)
def part_of(name: str) -> str | None:
    """The part that a folder, file or split is called after, by any of its words ("wiki.test.txt"); None: none.

    Of a path, the outermost folder that is called so decides. A name of more than two words with spaces between them
    is a title ("test of time", "TestOfTime"), and says nothing.
    """
    for one in name.split("/"):
        stem = _JOINED.sub(" ", one.rpartition(".")[0] or one)
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
        raise UserError(
            f"{where} has {' and '.join(sorted(parts))} parts, but none to train on; give one of them directly"
        )
    for part, names in parts.items():
        spelled: dict[tuple[str, ...], str] = {}
        for name in names:
            if (other := spelled.setdefault(tuple(_words(name)), name)) != name and part_of(name):
                raise UserError(
                    f"{where} has more than one {part} part: {other} and {name}; keep one, or give it directly"
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

    paths: tuple[Path | Remote, ...]
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
        if not isinstance(path := self.paths[file], Path):
            return io.BytesIO(path.read(start, start + size))  # whole: decoders take a server's silence for an end
        with readable():
            return io.BufferedReader(_Stretch(path, start, size))

    def select(self, places: NDArray[np.int64]) -> Spans:
        """The stretches at `places`."""
        return Spans(self.paths, self.places_N3[places])

    def content(self) -> Iterator[bytes | memoryview]:
        """Places and sizes."""
        files, starts, sizes = self.places_N3.T
        yield from (files.astype(np.int32).tobytes(), starts.tobytes(), sizes.tobytes())

    def files(self) -> list[str]:
        """All of them; of remote ones what else tells it."""
        return [str(path.absolute()) if isinstance(path, Path) else path.key for path in self.paths]

    def copies(self) -> list[Path]:
        """Those of the files that are copies."""
        return [path for path in self.paths if isinstance(path, Path) and path.is_relative_to(cache_folder())]


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
