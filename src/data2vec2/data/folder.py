"""Finding files in a folder, with labels from the sub-folders or from metadata.csv, .jsonl or .parquet."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from data2vec2.data import hub
from data2vec2.data.account import Account, Bad
from data2vec2.data.index import State, chosen
from data2vec2.data.labels import COLUMNS, some
from data2vec2.data.lines import JSON
from data2vec2.data.source import (
    BadSample,
    Content,
    Listing,
    Source,
    Split,
    check_parts,
    extension_of,
    part_of,
    parts_by_name,
    readable,
)
from data2vec2.data.tables import TABLES, parts_unread, read_table
from data2vec2.errors import UserError


@dataclass(frozen=True, eq=False)
class Files(Source):
    """Files below a folder."""

    root: Path
    names: Sequence[str]

    def open(self, index: int) -> BinaryIO:
        """One file; raises `BadSample`."""
        path = self.root / self.names[index]
        with readable():
            if not path.is_file():  # opening a pipe would wait for ever
                raise BadSample("unreadable")
            return path.open("rb")

    def select(self, places: NDArray[np.int64]) -> Files:
        """The files at `places`."""
        return Files(self.root, chosen(self.names, places))

    def files(self) -> Iterator[str]:
        """All of them."""
        root = self.root.absolute()
        return (os.path.join(root, name) for name in self.names)  # noqa: PTH118  (many)

    def content(self) -> Iterator[bytes | memoryview]:
        """Sizes in bytes, -1 of those that can't be told."""
        sizes = np.full(len(self.names), -1, dtype=np.int64)
        for place, name in enumerate(self.names):
            with suppress(OSError, ValueError):
                sizes[place] = os.stat(os.path.join(self.root, name)).st_size  # noqa: PTH116, PTH118  (many)
        yield sizes.data


_HIDDEN = (".", "__MACOSX", "@eaDir", "@Recycle", "#recycle", "#snapshot", "$RECYCLE.BIN", "lost+found")


def scan(root: Path, state: State | None = None) -> dict[str, list[str]]:
    """Names of all files below `root` (posix, sorted) by extension in small letters, "no extension" being one.

    Hidden ones, and folders of Macs', Windows' and file servers' own, are skipped. Links are followed, except to a
    folder that holds them; a link to nothing or to itself is a file, which is reported when it is read. `state` notes
    all folders. `UserError` for a folder that can't be listed.
    """
    files: dict[str, list[str]] = defaultdict(list)
    todo = [(root, "", frozenset((os.path.realpath(root),)))]
    while todo:
        folder, prefix, ancestors = todo.pop()
        if state:
            state.see(root, prefix)
        try:
            entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(_HIDDEN)]
        except OSError as error:
            raise UserError(f"can't list the folder {folder}: {error.strerror}") from error
        for entry in entries:
            name = prefix + entry.name
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError:  # a link to itself
                is_folder = is_file = False
            if is_folder:
                real = os.path.realpath(entry.path)
                if real not in ancestors:
                    todo.append((Path(entry.path), name + "/", ancestors | {real}))
            elif is_file or not Path(entry.path).exists():
                if state and not is_file:
                    state.exact = False  # what it leads to may come
                files[extension_of(entry.name) or "no extension"].append(name)
    return {extension: sorted(names) for extension, names in sorted(files.items())}


def samples_in(files: Mapping[str, list[str]], content: Content) -> list[str]:
    """Names of the samples among scanned files, sorted; metadata files are none."""
    names = (name for extension in content.extensions for name in files.get(extension, []))
    return sorted(name for name in names if not is_metadata(name))


def held(path: Path, files: Mapping[str, list[str]], hint: str = "") -> str:
    """What a folder holds, for a message, with a hint at its end, or with another if `datasets` saved it."""
    found = ", ".join(f"{extension} ({len(names):,})" for extension, names in files.items())
    hint = f"; if it was saved by datasets, name it as {hub.PREFIX}{path}" if ".arrow" in files else hint
    return f"it holds files of type {found}{hint}" if found else "it is empty"


def others(files: Mapping[str, list[str]], without: Collection[str]) -> dict[str, str]:
    """Files of extensions that are not among `without`, each with its extension, for `Account.beside`."""
    return {name: extension for extension, names in files.items() if extension not in without for name in names}


def read(root: Path, files: Mapping[str, list[str]], content: Content, table: Described | None = None) -> Listing:
    """The samples among the scanned `files`, with what a `table`, or else metadata files, say of them, in their parts.

    A metadata file with labels alone gives the labels; without one, a label is the first folder below the part, and
    below folders in which all lie. Files that a metadata file names and that are not there are bad samples.
    """
    described = metadata_in(files)
    samples = samples_in(files, content)
    everything = {name for names in files.values() for name in names}
    table = _read_metadata(root, described, content, everything) if table is None else table
    samples = sorted({*samples, *table.names})
    by_part = _by_part(root, samples)
    tops = {part: _tops(names, depth - 1) for part, (names, depth) in by_part.items()}
    inside = len(tops) > 1 and len(set(map(tuple, tops.values()))) == 1  # parts in the folders of classes
    if inside:
        tops = {part: _tops(names, depth + 1) for part, (names, depth) in by_part.items()}
    account = Account(beside=others(files, content.extensions), remarks=table.remarks)
    placed, parts = _classed(by_part or {"train": (samples, 0)}), {}
    for part, (names, depth) in placed.items():
        missing = [name for name in names if name in table.missing]
        parts[part] = _part(root, [name for name in names if name not in table.missing], table, depth)
        of_part = account.part(part)
        of_part.bad.update(dict.fromkeys(missing, MISSING))
        of_part.mend(Bad(name, table.mended[name]) for name in names if name in table.mended)
    in_parts = {name for names, _ in placed.values() for name in names}
    folders = {label for part in parts.values() for label in part.labels if label} if not table.labels else set()
    account.beside |= {name: "in no part" for name in samples if name not in in_parts}
    account.beside = {name: why for name, why in account.beside.items() if name not in described}
    account.choices += parts_by_name(tops)
    if folders and all(map(_FOLD.fullmatch, folders)):
        account.remarks.append(f"folders taken as folds, not as classes: {some(sorted(folders))}")
        folders = set()
    levels = [(samples, depth) for _, depth in placed.values()] if inside else placed.values()
    if folders and (empty := sorted({one for names, depth in levels for one in _empty(root, names, depth)})):
        account.remarks.append(f"folders without {content.many}: {', '.join(empty)}")
    if folders and (
        none := sorted({one for names, depth in levels for one in _tops(names, depth) if _unlabelled(one)})
    ):
        account.remarks.append(f"folders taken as {content.many} without a label: {', '.join(none)}")
    deeper = sorted({one for names, depth in levels for one in _tops(names, depth + 1 + inside)}) if folders else []
    if deeper:
        account.choices.append(f"sub-folders of class folders belong to the class ({some(deeper)})")
    classed = {top for top in _tops(samples, 0) if part_of(top)} if not by_part and folders else set()
    if classed:
        account.remarks.append(f"folders taken as classes, not as parts: {', '.join(sorted(classed))}")
    if table.labels:
        account.choices.append(f"labels from {', '.join(described)}")
    classes = tuple(sorted(folders)) if len(folders) > 1 else None
    lists = [extension for extension in TABLES if extension != JSON]  # which may be of anything
    tables = [name for extension in lists for name in files.get(extension, ()) if name not in described]
    if tables and not (table.labels or table.texts or classes):
        what = f"tables that describe none of the {content.many} here: {some(tables)}"
        account.remarks.append(f"{what}; only metadata.csv, .jsonl and .parquet with a column file_name are read")
    if not table.labels and not classes:  # the samples' only folder says nothing
        parts = {part: replace(one, labels=[None] * len(one.names)) for part, one in parts.items()}
    return Listing(f"folder of {content.files}", parts, classes, account)


_FOLD = re.compile(r"fold[ _-]?\d+", re.IGNORECASE)
"""Folders for cross-validation."""
_UNLABELLED = ("unsup", "unsupervised", "unlabeled", "unlabelled")
"""Folders beside those of classes, whose samples have none, in small letters."""


def _unlabelled(top: str) -> bool:
    return top.rpartition("/")[2].lower() in _UNLABELLED


def _empty(root: Path, names: Sequence[str], depth: int) -> Iterator[str]:
    """Folders beside those that are labels, in which none of the named files stands."""
    full = set(_tops(names, depth))
    for parent in _tops(names, depth - 1) if depth else [""]:
        for entry in os.scandir(root / parent) if (root / parent).is_dir() else ():
            name = f"{parent}/{entry.name}".removeprefix("/")
            if not entry.name.startswith(".") and Path(entry.path).is_dir() and name not in full:
                yield name


def _tops(names: Sequence[str], level: int) -> list[str]:
    """Folders so many below the first that names stand in."""
    return sorted({"/".join(path[: level + 1]) for name in names if len(path := name.split("/")[:-1]) > level})


def _by_part(root: Path, names: list[str]) -> dict[str, tuple[list[str], int]]:
    """Names in each part, where folders are called after parts, and the level of the folders that are labels.

    Either all folders are called so, or at least one for training and one of another part; all may lie in one. A part's
    folder may hold another of its name ("seg_train/seg_train"). Where all folders but those in them are called
    otherwise, these can be the parts ("cat/train"). `UserError` if there is nothing to train on.
    """
    level, tops = 0, _tops(names, 0)
    while len(tops) == 1 and not part_of(tops[0]) and all(name.startswith(tops[0] + "/") for name in names):
        level, tops = level + 1, _tops(names, level + 1)
    of = {top: part_of(top.rpartition("/")[2]) for top in tops}
    if not any(of.values()):
        below = {name: part_of("/".join(name.split("/")[level + 1 : -1][:1])) for name in names}
        kinds = set(below.values())
        if None not in kinds and "train" in kinds and len(kinds) > 1:
            return {part: ([name for name in names if below[name] == part], level) for part in kinds if part}
    found: dict[str, list[str]] = {}
    for top, part in of.items():
        if part:
            found.setdefault(part, []).append(top)
    if not found or (None in of.values() and not ("train" in found and len(found) > 1)):
        return {}
    if len(found) == 1:
        found = {"train": tops}
    check_parts(found, str(root))
    parts = {}
    for part, tops in found.items():
        inside, depth = [name for name in names if name.startswith(tuple(top + "/" for top in tops))], level + 1
        while len(inner := _tops(inside, depth)) == 1 and part_of(inner[0].rpartition("/")[2]) == of[tops[0]]:
            depth += 1
        parts[part] = inside, depth
    return parts


def _classed(parts: Mapping[str, tuple[list[str], int]]) -> dict[str, tuple[list[str], int]]:
    """Parts with the level of labels below the folder, if there is one, in which all of each lie ("train/images")."""

    def folders(name: str, depth: int) -> str | None:
        return next(iter(name.split("/")[depth:-1]), None)

    found = dict(parts)
    while len(tops := {folders(name, depth) for names, depth in found.values() for name in names}) == 1 and any(tops):
        found = {part: (names, depth + 1) for part, (names, depth) in found.items()}
    return found


def _part(root: Path, names: list[str], table: Described, depth: int) -> Split:
    """One part, with labels from the table or from the folder names at `depth`."""
    if table.labels:
        labels = [table.labels.get(name) for name in names]
    else:
        folders = [name.split("/")[:-1] for name in names]
        tops = (path[depth] if len(path) > depth else "" for path in folders)
        labels = [None if _unlabelled(top) else nfc(top) for top in tops]
    texts = [table.texts.get(name) for name in names] if table.texts else None
    return Split(tuple(names), labels, Files(root, tuple(names)), texts)


def metadata_in(files: Mapping[str, list[str]]) -> list[str]:
    """Those among scanned files that describe samples."""
    return [name for names in files.values() for name in filter(is_metadata, names)]


def is_metadata(name: str) -> bool:
    """Whether a file describes samples of its folder."""
    return name.rpartition("/")[2].lower() in ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def nfc(name: str) -> str:
    """A name as it is compared: a Mac writes its letters in parts."""
    return unicodedata.normalize("NFC", name)


_PLACES = ("start", "start_time", "start_s", "begin", "begin_time", "offset", "onset")
"""Columns that say where in a file a sample begins."""


def _is_place(value: Any) -> bool:
    """Whether it is a number, and not 0."""
    with suppress(TypeError, ValueError):
        return float(value) != 0
    return False


MISSING = "missing, though metadata names it"


@dataclass(frozen=True)
class Described:
    """What is said of samples, by name (posix, below the folder): by metadata files what they have columns for."""

    names: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    """Those of `names` that are no file."""
    labels: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, Any] = field(default_factory=dict)
    mended: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def below_table(table: Path, file_name: str) -> PurePosixPath:
    """A name as a table has it, relative to the table's folder, as far as it leads into that."""
    name = PurePosixPath(file_name.replace("\\", "/"))
    folder = table.parent.absolute().as_posix()
    return name.relative_to(folder) if name.is_relative_to(folder) else name


def _read_metadata(root: Path, described: Sequence[str], content: Content, there: Collection[str]) -> Described:
    """Labels and transcripts of the samples that rows name in `file_name`, relative to the metadata file's own folder.

    In a CSV file, several labels are separated by "|". A file of which two rows say different things has none of them.
    `UserError` for no table, and for a name that leads elsewhere.
    """
    found, spelled = Described(), {nfc(name): name for name in there} if described else {}
    said: dict[str, dict[str, Any]] = {}
    for name in described:
        path = root / name
        table = read_table(path, name, strict=True, free=content.texts)
        if table.bad:
            bad = "; ".join(f"{row.where}: {row.reason}" for row in table.bad)
            found.remarks.append(
                f"{len(table.bad):,} of {len(table) + len(table.bad):,} rows of {name} left out: {bad}"
            )
        file_column, label, text = (table.column(among) for among in (["file_name"], COLUMNS, content.texts))
        if not file_column:
            raise UserError(f"{path}: row 1 has no file_name; it has {', '.join(table.columns) or 'nothing'}")
        if not label and not text:
            others = ", ".join(column for column in table.columns if column != file_column) or "nothing else"
            found.remarks.append(f"{name} has no column label; it has {others}")
        given = [row.get(label or "") for row in table.rows()]
        several = label and label.lower() in ("labels", "tags")
        if path.suffix.lower() == ".csv" and (several or any("|" in (one or "") for one in given)):
            words = ([word.strip() for word in (one or "").split("|") if word.strip()] for one in given)
            given = [row[0] if len(row) == 1 and row[0].startswith("[") else row for row in words]
        found.remarks.extend(parts_unread(table.name, table.columns))
        if (places := table.column(_PLACES)) and any(map(_is_place, table.columns[places])):
            found.remarks.append(f"column {places!r} of {name} is not read: a row describes a whole {content.one}")
        for place, row, value in zip(table.places, table.rows(), given, strict=True):
            file_name = row.get(file_column or "")
            if not isinstance(file_name, str) or not file_name:
                raise UserError(f"{path}: row {place + 1} has no file_name; it has {', '.join(row) or 'nothing'}")
            below = below_table(path, file_name)
            if below.is_absolute() or ".." in below.parts:
                raise UserError(f"{path}: row {place + 1} names {file_name}, which is outside the folder of the table")
            sample = str(PurePosixPath(name).parent / below)
            if sample not in there:
                sample = spelled.get(nfc(sample.strip()), sample)
            if sample not in there and not (root / sample).exists():
                found.missing.add(sample)
            found.names.add(sample)
            says = ({"labels": value} if label else {}) | ({"texts": row[text]} if text else {})
            earlier = said.get(sample, {})
            differ = [what for what in says if what in earlier and earlier[what] != says[what]]
            said[sample] = {**earlier, **says, **dict.fromkeys(differ)}
            if differ:
                found.mended[sample] = f"rows of {name} that contradict each other ignored"
            elif place in table.mended:
                found.mended[sample] = table.mended[place]
    for sample, says in said.items():
        for what, value in says.items():
            getattr(found, what)[sample] = value
    return found
