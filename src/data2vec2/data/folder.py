"""Finding files in a folder, with labels from the sub-folders or from metadata.csv or metadata.jsonl."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar

import numpy as np
from numpy.typing import NDArray

from data2vec2.data.content import PICTURES, Content
from data2vec2.data.metadata import METADATA, Described, read_metadata
from data2vec2.data.source import PART_NAMES, BadSample, Found, Part
from data2vec2.errors import UserError

EXTENSIONS = PICTURES.extensions
"""Names of pictures end in one of these, in any case."""


@dataclass(frozen=True, eq=False)
class Files:
    """Files below a folder."""

    in_memory: ClassVar[bool] = False
    root: Path
    names: tuple[str, ...]

    def read(self, index: int) -> bytes:
        """Content of one file; raises `BadSample`."""
        try:
            with self.open(index) as file:
                return file.read()
        except OSError as error:
            raise BadSample("unreadable") from error
        except MemoryError as error:
            raise BadSample("too large") from error

    def open(self, index: int) -> BinaryIO:
        """One file; raises `BadSample`."""
        path = self.root / self.names[index]
        try:
            if not path.is_file():  # opening a pipe would wait for ever
                raise BadSample("unreadable")
            return path.open("rb")
        except (OSError, ValueError) as error:
            raise BadSample("unreadable") from error

    def select(self, places: NDArray[np.int64]) -> Files:
        """The files at `places`."""
        return Files(self.root, tuple(self.names[place] for place in places.tolist()))

    def content(self) -> Iterator[bytes | memoryview]:
        """Sizes in bytes."""
        yield np.array([_size(self.root / name) for name in self.names], dtype=np.int64).data


def scan(root: Path) -> dict[str, list[str]]:
    """Names of all files below `root` (posix, sorted) by extension in small letters, "no extension" being one.

    Hidden files and folders are skipped. Links are followed, except a link to a folder that holds it. A link to
    nothing counts as a file, so that it is reported when it is read. `UserError` for a folder that can't be listed.
    """
    files: dict[str, list[str]] = defaultdict(list)
    todo = [(root, "", frozenset((os.path.realpath(root),)))]
    while todo:
        folder, prefix, ancestors = todo.pop()
        try:
            entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
        except OSError as error:
            raise UserError(f"can't list the folder {folder}: {error.strerror}") from error
        for entry in entries:
            name = prefix + entry.name
            if entry.is_dir():
                real = os.path.realpath(entry.path)
                if real not in ancestors:
                    todo.append((Path(entry.path), name + "/", ancestors | {real}))
            elif entry.is_file() or not Path(entry.path).exists():
                files[Path(entry.name).suffix.lower() or "no extension"].append(name)
    return {extension: sorted(names) for extension, names in sorted(files.items())}


def counts(files: Mapping[str, list[str]], without: Collection[str] = ()) -> dict[str, int]:
    """How many files there are of each extension that is not among `without`."""
    return {extension: len(names) for extension, names in files.items() if extension not in without and names}


def read(root: Path, files: Mapping[str, list[str]], content: Content = PICTURES) -> Found:
    """The pictures or recordings among the scanned `files`, in their parts.

    Where there is a metadata file with labels, it alone gives the labels; else a label is the first folder below the
    part. Files that only a metadata file names are taken as they are.
    """
    described = [name for names in files.values() for name in names if name.rpartition("/")[2].lower() in METADATA]
    table = read_metadata(root, described, content.texts)
    samples = {name for extension in content.extensions for name in files.get(extension, [])} | table.names
    parts, beside = _split(root, sorted(samples), table)
    folders = {label for part in parts.values() for label in part.labels if label} if table.labels is None else set()
    left = {extension: [name for name in names if name not in described] for extension, names in files.items()}
    stray = f"left out beside the parts: {beside:,} {content.files}" if beside else ""
    note = f"labels from {', '.join(described)}" if table.labels is not None else ""
    classes = tuple(sorted(folders)) if len(folders) > 1 else None
    return Found(f"folder of {content.files}", parts, classes, (stray, note), counts(left, content.extensions))


def _split(root: Path, names: list[str], table: Described) -> tuple[dict[str, Part], int]:
    """Parts of the names, with labels of the table or else of the folders, and how many names are beside the parts.

    Where the sub-folders with samples are train and any of val, valid, validation, dev and test (any case), they are
    the parts; else all is "train". `UserError` for two folders of one part.
    """
    tops = {name.split("/")[0] for name in names if "/" in name}
    part_of = {top: PART_NAMES[top.lower()] for top in sorted(tops) if top.lower() in PART_NAMES}
    if len(part_of) < len(tops) or "train" not in part_of.values():
        return {"train": _part(root, names, table, 0)}, 0
    parts: dict[str, Part] = {}
    for top, part in part_of.items():
        if part in parts:
            same = " and ".join(name for name, other in part_of.items() if other == part)
            raise UserError(f"{root} has more than one {part} part: {same}; keep one, or name a folder inside")
        parts[part] = _part(root, [name for name in names if name.startswith(top + "/")], table, 1)
    return parts, sum("/" not in name for name in names)


def _part(root: Path, names: list[str], table: Described, depth: int) -> Part:
    """One part, with labels from the table or from the folder names at `depth`."""
    if table.labels is not None:
        labels = [table.labels.get(name) for name in names]
    else:
        folders = [name.split("/")[:-1] for name in names]
        labels = [path[depth] if len(path) > depth else "" for path in folders]
    texts = None if table.texts is None else [table.texts.get(name) for name in names]
    return Part(tuple(names), labels, Files(root, tuple(names)), texts)


def _size(path: Path) -> int:
    """Bytes of a file; -1 if it can't be told."""
    try:
        return path.stat().st_size
    except OSError:
        return -1
