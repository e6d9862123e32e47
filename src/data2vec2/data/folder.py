"""Finding files in a folder, with labels from the sub-folders or from metadata.csv or metadata.jsonl."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, ClassVar

import numpy as np
from numpy.typing import NDArray

from data2vec2.data.labels import COLUMNS
from data2vec2.data.source import PART_NAMES, BadSample, Content, Listing, Split
from data2vec2.data.tables import listed, read_table
from data2vec2.errors import UserError


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


def read(root: Path, files: Mapping[str, list[str]], content: Content) -> Listing:
    """The pictures or recordings among the scanned `files`, in their parts.

    Where there is a metadata file with labels, it alone gives the labels; else a label is the first folder below the
    part. Files that only a metadata file names are taken as they are.
    """
    described = [name for names in files.values() for name in names if name.rpartition("/")[2].lower() in METADATA]
    table = read_metadata(root, described, content.texts)
    found = {name for extension in content.extensions for name in files.get(extension, [])}
    samples = (found - set(described)) | table.names
    parts, beside = _split(root, sorted(samples), table)
    folders = {label for part in parts.values() for label in part.labels if label} if table.labels is None else set()
    left = {extension: [name for name in names if name not in described] for extension, names in files.items()}
    stray = f"left out beside the parts: {beside:,} {content.files}" if beside else ""
    note = f"labels from {', '.join(described)}" if table.labels is not None else ""
    odd = f"{listed(table.remarks)} in {', '.join(described)}" if any(table.remarks.values()) else ""
    classes = tuple(sorted(folders)) if len(folders) > 1 else None
    return Listing(f"folder of {content.files}", parts, classes, (stray, note, odd), counts(left, content.extensions))


def _split(root: Path, names: list[str], table: Described) -> tuple[dict[str, Split], int]:
    """Parts of the names, with labels of the table or else of the folders, and how many names are beside the parts.

    Where the sub-folders with samples are train and any of val, valid, validation, dev and test (any case), they are
    the parts; else all is "train". `UserError` for two folders of one part.
    """
    tops = {name.split("/")[0] for name in names if "/" in name}
    part_of = {top: PART_NAMES[top.lower()] for top in sorted(tops) if top.lower() in PART_NAMES}
    if len(part_of) < len(tops) or "train" not in part_of.values():
        return {"train": _part(root, names, table, 0)}, 0
    parts: dict[str, Split] = {}
    for top, part in part_of.items():
        if part in parts:
            same = " and ".join(name for name, other in part_of.items() if other == part)
            raise UserError(f"{root} has more than one {part} part: {same}; keep one, or name a folder inside")
        parts[part] = _part(root, [name for name in names if name.startswith(top + "/")], table, 1)
    return parts, sum("/" not in name for name in names)


def _part(root: Path, names: list[str], table: Described, depth: int) -> Split:
    """One part, with labels from the table or from the folder names at `depth`."""
    if table.labels is not None:
        labels = [table.labels.get(name) for name in names]
    else:
        folders = [name.split("/")[:-1] for name in names]
        labels = [path[depth] if len(path) > depth else "" for path in folders]
    texts = None if table.texts is None else [table.texts.get(name) for name in names]
    return Split(tuple(names), labels, Files(root, tuple(names)), texts)


def _size(path: Path) -> int:
    """Bytes of a file; -1 if it can't be told."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


METADATA = frozenset(("metadata.csv", "metadata.jsonl"))
"""The names of such files."""


@dataclass(frozen=True)
class Described:
    """What metadata files say, by name of the sample (posix, below the folder)."""

    names: frozenset[str]
    labels: Mapping[str, Any] | None
    """None: no file has a column of labels."""
    texts: Mapping[str, Any] | None
    """Transcripts, likewise."""
    remarks: Mapping[str, int]
    """What is odd in the files, and how often."""


def read_metadata(root: Path, described: Sequence[str], text_columns: Sequence[str] = ()) -> Described:
    """Labels and transcripts of the samples.

    Every row names a sample in `file_name`, relative to the metadata file's own folder. In a CSV file, several labels
    are separated by "|". Raises `UserError` for a file that is not a table, and for rows without `file_name` or with
    one that leads out of the folder.
    """
    names: set[str] = set()
    labels: dict[str, Any] = {}
    texts: dict[str, Any] = {}
    remarks: Counter[str] = Counter()
    for name in described:
        path = root / name
        table = read_table(path, name, strict=True)
        remarks.update(table.remarks)
        label, text = (
            next((known for known in among if known in table.columns), None) for among in (COLUMNS, text_columns)
        )
        given = [row.get(label or "") for row in table.rows()]
        if path.suffix.lower() == ".csv" and (label in ("labels", "tags") or any("|" in (one or "") for one in given)):
            given = [[word.strip() for word in (one or "").split("|") if word.strip()] for one in given]
        for place, (row, value) in enumerate(zip(table.rows(), given, strict=True), 1):
            file_name = row.get("file_name")
            if not isinstance(file_name, str) or not file_name:
                raise UserError(f"{path}: row {place} has no file_name; it has {', '.join(row) or 'nothing'}")
            below = PurePosixPath(file_name.replace("\\", "/"))
            if below.is_absolute() or ".." in below.parts:
                raise UserError(f"{path}: row {place} names {file_name}, which is not below the folder of the table")
            sample = str(PurePosixPath(name).parent / below)
            names.add(sample)
            if label:
                labels[sample] = value
            if text:
                texts[sample] = row[text]
    return Described(frozenset(names), labels or None, texts or None, remarks)
