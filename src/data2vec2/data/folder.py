"""Finding files in a folder, with labels from the sub-folders or from metadata.csv or metadata.jsonl."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from data2vec2.data.account import Account
from data2vec2.data.labels import COLUMNS
from data2vec2.data.source import PART_NAMES, BadSample, Content, Listing, Source, Split, readable
from data2vec2.data.tables import listed, read_table
from data2vec2.errors import UserError


@dataclass(frozen=True, eq=False)
class Files(Source):
    """Files below a folder."""

    root: Path
    names: tuple[str, ...]

    def open(self, index: int) -> BinaryIO:
        """One file; raises `BadSample`."""
        path = self.root / self.names[index]
        with readable():
            if not path.is_file():  # opening a pipe would wait for ever
                raise BadSample("unreadable")
            return path.open("rb")

    def select(self, places: NDArray[np.int64]) -> Files:
        """The files at `places`."""
        return Files(self.root, tuple(self.names[place] for place in places.tolist()))

    def content(self) -> Iterator[bytes | memoryview]:
        """Sizes in bytes, -1 of those that can't be told."""
        sizes = np.full(len(self.names), -1, dtype=np.int64)
        for place, name in enumerate(self.names):
            with suppress(OSError, ValueError):
                sizes[place] = (self.root / name).stat().st_size
        yield sizes.data


def scan(root: Path) -> dict[str, list[str]]:
    """Names of all files below `root` (posix, sorted) by extension in small letters, "no extension" being one.

    Hidden ones are skipped. Links are followed, except to a folder that holds them; a link to nothing is a file, which
    is reported when it is read. `UserError` for a folder that can't be listed.
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


def samples_in(files: Mapping[str, list[str]], content: Content) -> list[str]:
    """Names of the samples among scanned files, sorted; metadata files are none."""
    names = (name for extension in content.extensions for name in files.get(extension, []))
    return sorted(name for name in names if not _is_metadata(name))


def counts(files: Mapping[str, list[str]]) -> dict[str, int]:
    """How many files there are of each extension."""
    return {extension: len(names) for extension, names in files.items() if names}


def others(files: Mapping[str, list[str]], without: Collection[str]) -> dict[str, str]:
    """Files of extensions that are not among `without`, each with its extension, for `Account.beside`."""
    return {name: extension for extension, names in files.items() if extension not in without for name in names}


def read(root: Path, files: Mapping[str, list[str]], content: Content) -> Listing:
    """The samples among the scanned `files`, and those that a metadata file names, in their parts.

    A metadata file with labels alone gives the labels; without one, a label is the first folder below the part.
    """
    described = [name for names in files.values() for name in filter(_is_metadata, names)]
    table = _read_metadata(root, described, content.texts)
    samples = sorted({*samples_in(files, content), *table.names})
    by_part = _by_part(root, samples)
    depth = 1 if by_part else 0
    parts = {part: _part(root, names, table, depth) for part, names in (by_part or {"train": samples}).items()}
    in_parts = {name for part in parts.values() for name in part.names}
    folders = {label for part in parts.values() for label in part.labels if label} if not table.labels else set()
    account = Account(beside=others(files, content.extensions))
    account.beside |= {name: "in no part" for name in samples if name not in in_parts}
    account.beside = {name: why for name, why in account.beside.items() if name not in described}
    if table.labels:
        account.choices.append(f"labels from {', '.join(described)}")
    if any(table.remarks.values()):
        account.remarks.append(f"{listed(table.remarks)} in {', '.join(described)}")
    classes = tuple(sorted(folders)) if len(folders) > 1 else None
    return Listing(f"folder of {content.files}", parts, classes, account)


def _by_part(root: Path, names: list[str]) -> dict[str, list[str]]:
    """Names in each part, where all folders are called after parts, with a train part; `UserError` for two of one."""
    tops = sorted({name.split("/")[0] for name in names if "/" in name})
    part_of = {top: PART_NAMES.get(top.lower(), "") for top in tops}
    if "" in part_of.values() or "train" not in part_of.values():
        return {}
    for part, folders in Counter(part_of.values()).items():
        if folders > 1:
            same = " and ".join(top for top in tops if part_of[top] == part)
            raise UserError(f"{root} has more than one {part} part: {same}; keep one, or name a folder inside")
    return {part: [name for name in names if name.startswith(top + "/")] for top, part in part_of.items()}


def _part(root: Path, names: list[str], table: _Described, depth: int) -> Split:
    """One part, with labels from the table or from the folder names at `depth`."""
    if table.labels:
        labels = [table.labels.get(name) for name in names]
    else:
        folders = [name.split("/")[:-1] for name in names]
        labels = [path[depth] if len(path) > depth else "" for path in folders]
    texts = [table.texts.get(name) for name in names] if table.texts else None
    return Split(tuple(names), labels, Files(root, tuple(names)), texts)


def _is_metadata(name: str) -> bool:
    return name.rpartition("/")[2].lower() in ("metadata.csv", "metadata.jsonl")


@dataclass(frozen=True)
class _Described:
    """What metadata files say, by name of the sample (posix, below the folder); nothing where no file has a column."""

    names: set[str] = field(default_factory=set)
    labels: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, Any] = field(default_factory=dict)
    remarks: Counter[str] = field(default_factory=Counter)


def _read_metadata(root: Path, described: Sequence[str], text_columns: Sequence[str]) -> _Described:
    """Labels and transcripts of the samples that rows name in `file_name`, relative to the metadata file's own folder.

    In a CSV file, several labels are separated by "|". `UserError` for no table, and for a name that leads elsewhere.
    """
    found = _Described()
    for name in described:
        path = root / name
        table = read_table(path, name, strict=True)
        found.remarks.update(table.remarks)
        label, text = (next(filter(table.columns.__contains__, among), None) for among in (COLUMNS, text_columns))
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
            found.names.add(sample)
            if label:
                found.labels[sample] = value
            if text:
                found.texts[sample] = row[text]
    return found
