"""Pictures or recordings in Parquet files, which are copied to the cache folder for random access.

Of a remote file the groups of rows are copied that are asked for, and kept as long as there is room for them.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data2vec2.data import kept, remote
from data2vec2.data.account import Account
from data2vec2.data.kept import Remote
from data2vec2.data.labels import COLUMNS as LABEL_COLUMNS
from data2vec2.data.labels import some
from data2vec2.data.reading import column_of
from data2vec2.data.source import PART_NAMES, Content, Listing, Spans, Split, by_part, parts_by_name
from data2vec2.data.tables import SPLITS, class_names, described, parquet_file, parts_unread
from data2vec2.errors import UserError
from data2vec2.files import CACHE_HINT, cache_folder, whole_file

_ROWS = 64  # samples decoded at a time
_LONG = 1 << 30  # bytes to copy that the user is told of beforehand


@dataclass(frozen=True)
class Columns:
    """The column of samples (bytes, or a struct with a field `bytes`) and those of labels and transcripts, if any."""

    sample: str
    leaf: str
    """The column that holds the bytes, as Parquet calls it: "image" or "image.bytes"."""
    label: str | None
    classes: tuple[str, ...] | None
    """Names of the classes that whole numbers stand for, where the table gives them."""
    text: str | None = None
    split: str | None = field(default=None, compare=False)
    """That of parts, which is not read but said."""


def choose_columns(schema: pa.Schema, where: str, content: Content) -> Columns:
    """Find columns by Hugging Face's description, by name and by type; `UserError` unless one is clearly of samples."""
    features, named = described(schema), class_names(schema)
    able = {field.name: leaf for field in schema if (leaf := _leaf(field))}
    typed = [name for name in able if features.get(name, {}).get("_type") == content.feature]
    known = [name for one in content.columns if (name := column_of(able, [one]))]
    alone = next((names for names in (typed, [*able]) if len(names) == 1), [])
    sample = next(iter([one for one in known if one in typed] or alone or (known if not typed else [])), None)
    if sample is None:
        listing = ", ".join(f"{field.name} ({field.type})" for field in schema) or "no columns"
        raise UserError(
            f"{where} has no column of {content.many} under a known name; it has {listing}. They are encoded files as "
            f"bytes, or structs with a field bytes, in a column called {', '.join(content.columns)}"
        )
    types = {field.name: field.type for field in schema}
    of_parts = {name for name, classes in named.items() if PART_NAMES.keys() >= set(map(str.lower, classes))}
    labels = (name for name in types if _is_label(types[name]) and name not in of_parts)
    label = column_of(labels, (*LABEL_COLUMNS, *named))
    strings = [name for name in types if _is_string(types[name])]
    text, split = column_of(strings, content.texts), column_of(strings, SPLITS)
    return Columns(sample, able[sample], label, named.get(label) if label else None, text, split)


def _leaf(field: pa.Field) -> str | None:
    """Where the bytes of a column of samples are; None if it is of another type."""
    if _is_bytes(field.type):
        return str(field.name)
    of = {one.name: one.type for one in field.type} if pa.types.is_struct(field.type) else {}
    empty = "bytes" in of and pa.types.is_null(of["bytes"]) and _is_string(of.get("path", pa.null()))
    return f"{field.name}.bytes" if empty or _is_bytes(of.get("bytes", pa.null())) else None


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_label(kind: pa.DataType) -> bool:
    """Whether values are numbers, strings, or lists of these; floats are whole numbers where one row has none."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _is_label(kind.value_type) and not pa.types.is_list(kind.value_type)
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return _is_string(kind) or any(
        is_kind(kind) for is_kind in (pa.types.is_integer, pa.types.is_boolean, pa.types.is_floating)
    )


def _is_string(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):  # pandas's categories
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def read(root: Path | remote.RemoteFolder, names: Sequence[str], content: Content) -> Listing:
    """The rows of Parquet files below `root`, in the parts that these are called after ("test-00000.parquet").

    `UserError` for a file that is damaged or has other columns or classes than the rest, and if there is no room.
    """
    first: Columns | None = None
    of_part = by_part(names, str(root))
    parts, account = {}, Account(choices=parts_by_name(of_part))
    for part, files in of_part.items():
        rows: list[str] = []
        labels: list[Any] = []
        texts: list[Any] = []
        splits: list[Any] = []
        copies: list[Path | Remote] = []
        places: list[NDArray[np.int64]] = []
        for name in files:
            path = root / name
            try:
                with parquet_file(path) as file:
                    columns = choose_columns(file.schema_arrow, str(path), content)
                    first = _known(first, columns, path)
                    count = file.metadata.num_rows
                    rows += [f"{name}[{row}]" for row in range(count)]
                    given = _values(file, columns.label)
                    if any(isinstance(one, float) and one == one and not one.is_integer() for one in given):
                        account.remarks.append(f"{name}: {columns.label} holds numbers, not classes; it is not read")
                        given = [None] * count
                    labels += given
                    texts += _values(file, columns.text)
                    splits += _values(file, columns.split)
                    copy, ends = _copied(path, file, columns.leaf, content)
                    beside = _paths(file, columns.leaf)
            except pa.ArrowException as error:
                reason = str(error).split("\n", 1)[0]
                raise UserError(f"can't read {path} as Parquet; was the download interrupted? {reason}") from error
            except OSError as error:
                raise UserError(f"can't read {path}: {error}") from error
            of_file = np.stack([np.full(count, len(copies)), ends[:-1], np.diff(ends)], axis=1)
            copies.append(copy)
            for row, written in enumerate(beside):
                if written and not of_file[row, 2]:
                    found = _beside(path.parent, written) if isinstance(path, Path) else None
                    if found is None:
                        account.part(part).bad[f"{name}[{row}]"] = MISSING if isinstance(path, Path) else ELSEWHERE
                    else:
                        of_file[row] = len(copies), 0, found.stat().st_size
                        copies.append(found)
            places.append(of_file)
        if not rows:
            raise UserError(f"{', '.join(files)} in {root} has no rows; remove it")
        account.remarks += parts_unread(some(files, 3), {first.split: splits} if first and first.split else {})
        bad = account.part(part).bad
        kept = np.array([place for place, row in enumerate(rows) if row not in bad], dtype=np.int64)
        if not len(kept):
            raise UserError(
                f"no row of {', '.join(files)} in {root} has {content.many}: {account.part(part).listed(3)}"
            )
        source = Spans(tuple(copies), np.concatenate(places)[kept])
        names_of, labels_of, texts_of = ([values[place] for place in kept] for values in (rows, labels, texts))
        parts[part] = Split(tuple(names_of), labels_of, source, texts_of if first and first.text else None)
    return Listing("Parquet tables", parts, first.classes if first else None, account)


def _known(first: Columns | None, columns: Columns, path: Path | remote.RemoteFile) -> Columns:
    """The columns of files so far; one of them may have no labels. `UserError` if the others differ."""
    bare, of_first = (one and replace(one, label=None, classes=None) for one in (columns, first))
    if first and (bare != of_first or (first.label and columns.label and first != columns)):
        raise UserError(f"{path} has other columns than the files before it: {columns}, not {first}")
    return first if first and first.label else columns


MISSING = "no bytes, and no such file beside the table"
ELSEWHERE = "no bytes, and files beside a remote table are not read"


def _beside(folder: Path, written: str) -> Path | None:
    """The file that a row names, in the folder of the table: by its path, or by its name alone; None: not there."""
    below = PurePosixPath(written.replace("\\", "/"))
    inside = [] if below.is_absolute() or ".." in below.parts else [folder / below]
    with suppress(OSError, ValueError):
        return next((path for path in (*inside, folder / below.name) if path.is_file()), None)
    return None


def _values(file: pq.ParquetFile, column: str | None) -> list[Any]:
    """What a column holds, or so many times None; None also for what is not UTF-8."""
    values = file.read([column]).column(0) if column else None
    if values is None:
        return [None] * file.metadata.num_rows
    try:
        return list(values.to_pylist())
    except UnicodeDecodeError:
        return [_utf8(value) for value in values.cast(pa.binary()).to_pylist()]


def _utf8(value: bytes | None) -> str | None:
    with suppress(UnicodeDecodeError):
        return None if value is None else value.decode()
    return None


def _paths(file: pq.ParquetFile, leaf: str) -> list[str | None]:
    """The files that rows of structs name; nothing where samples have no such field."""
    column = leaf.removesuffix("bytes") + "path"
    if not leaf.endswith(".bytes") or column not in {one.path for one in file.schema}:
        return []
    return [row and row["path"] for row in file.read([column]).column(0).to_pylist()]


def _copied(
    path: Path | remote.RemoteFile, file: pq.ParquetFile, leaf: str, content: Content
) -> tuple[Path | Remote, NDArray[np.int64]]:
    """The copy of a file's samples, made if need be, and where each ends (after a 0); `UserError` if it can't be."""
    if isinstance(path, remote.RemoteFile):
        return _remote_copy(path, file, leaf)
    stat = path.stat()
    key = hashlib.sha256(f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0{leaf}".encode()).hexdigest()[:32]
    samples, index = (cache_folder() / f"{key}.{end}" for end in (content.many, "npy"))
    if samples.is_file() and index.is_file():
        kept: NDArray[np.int64] = np.load(index, allow_pickle=False)
        if samples.stat().st_size == kept[-1]:
            return samples, kept
    hint = f", where the {content.many} of {path} are copied for random access{CACHE_HINT}"
    ends = [0]
    with whole_file(samples, shared=True, hint=hint) as copy:
        needed, free = _sample_bytes(file, leaf), shutil.disk_usage(samples.parent).free
        if needed > free:
            raise UserError(
                f"the {content.many} of {path} must be copied to {samples.parent} for random access, which takes "
                f"{needed:,} bytes; {free:,} are free. Make room, or set XDG_CACHE_HOME to a larger disk"
            )
        if needed > _LONG:
            print(f"copying the {content.many} of {path} to {samples.parent} ({needed / 1e9:.1f} GB)", file=sys.stderr)
        for value in _samples(file, leaf):
            ends.append(ends[-1] + copy.write(value))
    with whole_file(index, shared=True, hint=hint) as saved:
        np.save(saved, np.array(ends, dtype=np.int64))
    return samples, np.array(ends, dtype=np.int64)


def _samples(file: pq.ParquetFile, leaf: str, **which: Any) -> Iterator[Any]:
    """What a column of samples holds, in all groups of rows or in `row_groups`; nothing of rows without any."""
    for batch in file.iter_batches(_ROWS, columns=[leaf], use_threads=False, **which):
        values = batch.column(0)
        for value in values.flatten()[0] if pa.types.is_struct(values.type) else values:
            yield value.as_buffer() if value.is_valid else b""


@lru_cache(1_000)
def _metadata(path: remote.RemoteFile) -> pq.FileMetaData:
    """What is at the end of a file."""
    with parquet_file(path) as file:
        return file.metadata


@dataclass(frozen=True)
class RemoteColumn:
    """The samples of a remote file one behind the other, of which whole groups of rows are read and kept."""

    file: remote.RemoteFile
    leaf: str
    ends: tuple[int, ...]
    """Where each group ends, after a 0."""

    @property
    def key(self) -> str:
        """That of the file, with the column."""
        return f"{self.file.key}-{hashlib.sha256(self.leaf.encode()).hexdigest()[:8]}"

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` to before `stop`; `UserError` if they can't be had."""
        found = b""
        for group, (first, last) in enumerate(pairwise(self.ends)):
            if first < stop and start < last:
                part = max(start, first) - first, min(stop, last) - first
                content = kept.kept(f"{self.key}/{group}", last - first, *part)
                found += self.group(group)[slice(*part)] if content is None else content
        return found

    def group(self, number: int) -> bytes:
        """The samples of a group, read from the server."""
        try:
            with parquet_file(self.file, metadata=_metadata(self.file)) as file:
                content = b"".join(map(bytes, _samples(file, self.leaf, row_groups=[number])))
        except pa.ArrowException as error:
            raise UserError(f"can't read {self.file} as Parquet: {error}") from error
        kept.keep(f"{self.key}/{number}", content)
        return content


def _remote_copy(path: remote.RemoteFile, file: pq.ParquetFile, leaf: str) -> tuple[RemoteColumn, NDArray[np.int64]]:
    """The samples of a remote file, and where each ends (after a 0), which is found once and kept."""
    groups = [file.metadata.row_group(place).num_rows for place in range(file.num_row_groups)]
    rows = np.cumsum([0, *groups])
    index = cache_folder() / f"index-{RemoteColumn(path, leaf, ()).key}.npy"
    with suppress(OSError, ValueError, EOFError):
        ends: NDArray[np.int64] = np.load(index, allow_pickle=False)
        if len(ends) == rows[-1] + 1:
            return RemoteColumn(path, leaf, tuple(ends[rows].tolist())), ends
    kept.say(f"{path} is read from end to end once, to find what is in it")
    sizes = [0]
    for number in range(len(groups)):
        values = [bytes(value) for value in _samples(file, leaf, row_groups=[number])]
        sizes += map(len, values)
        kept.keep(f"{RemoteColumn(path, leaf, ()).key}/{number}", b"".join(values))
    ends = np.cumsum(sizes)
    with whole_file(index, shared=True, hint=f", where what is in {path} is kept{CACHE_HINT}") as saved:
        np.save(saved, ends)
    return RemoteColumn(path, leaf, tuple(ends[rows].tolist())), ends


def _sample_bytes(file: pq.ParquetFile, leaf: str) -> int:
    """Bytes of a file's samples when decoded, about."""
    groups = (file.metadata.row_group(place) for place in range(file.num_row_groups))
    columns = (group.column(place) for group in groups for place in range(group.num_columns))
    return sum(int(column.total_uncompressed_size) for column in columns if column.path_in_schema == leaf)
