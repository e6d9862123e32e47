"""Pictures or recordings in Parquet files, which are copied to the cache folder to be read in any order."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data2vec2.data.labels import COLUMNS as LABEL_COLUMNS
from data2vec2.data.source import Content, Listing, Spans, Split, by_part
from data2vec2.data.tables import class_names, described
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


def choose_columns(schema: pa.Schema, where: str, content: Content) -> Columns:
    """Find columns by Hugging Face's description, then by name, then by type; `UserError` if none can be of samples."""
    features, named = described(schema), class_names(schema)
    able = {field.name: leaf for field in schema if (leaf := _leaf(field))}
    typed = [name for name in able if features.get(name, {}).get("_type") == content.feature]
    known = [name for name in content.columns if name in able]
    sample = next(iter(typed or known or (able if len(able) == 1 else [])), None)
    if sample is None:
        listing = ", ".join(f"{field.name} ({field.type})" for field in schema) or "no columns"
        raise UserError(
            f"{where} has no column of {content.many} under a known name; it has {listing}. They are encoded files as "
            f"bytes, or structs with a field bytes, in a column called {', '.join(content.columns)}"
        )
    types = {field.name: field.type for field in schema}
    label = next((name for name in (*LABEL_COLUMNS, *named) if name in types and _is_label(types[name])), None)
    text = next((name for name in content.texts if name in types and _is_string(types[name])), None)
    return Columns(sample, able[sample], label, named.get(label) if label else None, text)


def _leaf(field: pa.Field) -> str | None:
    """Where the bytes of a column of samples are; None if it is of another type."""
    if _is_bytes(field.type):
        return str(field.name)
    if pa.types.is_struct(field.type) and any(one.name == "bytes" and _is_bytes(one.type) for one in field.type):
        return f"{field.name}.bytes"
    return None


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_label(kind: pa.DataType) -> bool:
    """Whether values are whole numbers, strings, or lists of these."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _is_label(kind.value_type) and not pa.types.is_list(kind.value_type)
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return _is_string(kind) or bool(pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def read(root: Path, names: Sequence[str], content: Content) -> Listing:
    """The rows of Parquet files below `root`, in the parts that these are called after ("test-00000.parquet").

    `UserError` for a file that is damaged or has other columns or classes than the rest, and if there is no room.
    """
    first: Columns | None = None
    parts = {}
    for part, files in by_part(names, str(root)).items():
        rows: list[str] = []
        labels: list[Any] = []
        texts: list[Any] = []
        copies: list[Path] = []
        places: list[NDArray[np.int64]] = []
        for name in files:
            path = root / name
            try:
                with pq.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
                    columns = choose_columns(file.schema_arrow, str(path), content)
                    if first not in (None, columns):
                        raise UserError(f"{path} has other columns than the files before it: {columns}, not {first}")
                    first, count = columns, file.metadata.num_rows
                    rows += [f"{name}[{row}]" for row in range(count)]
                    labels += _values(file, columns.label)
                    texts += _values(file, columns.text)
                    copy, ends = _copied(path, file, columns.leaf, content)
            except pa.ArrowException as error:
                reason = str(error).split("\n", 1)[0]
                raise UserError(f"can't read {path} as Parquet; was a download cut off? {reason}") from error
            except OSError as error:
                raise UserError(f"can't read {path}: {error}") from error
            places.append(np.stack([np.full(count, len(copies)), ends[:-1], np.diff(ends)], axis=1))
            copies.append(copy)
        if not rows:
            raise UserError(f"{', '.join(files)} in {root} has no rows; remove it")
        source = Spans(tuple(copies), np.concatenate(places))
        parts[part] = Split(tuple(rows), labels, source, texts if first and first.text else None)
    return Listing("Parquet tables", parts, first.classes if first else None)


def _values(file: pq.ParquetFile, column: str | None) -> list[Any]:
    """What a column holds, or so many times None."""
    return file.read([column]).column(0).to_pylist() if column else [None] * file.metadata.num_rows


def _copied(path: Path, file: pq.ParquetFile, leaf: str, content: Content) -> tuple[Path, NDArray[np.int64]]:
    """The copy of a file's samples, made if need be, and where each ends (after a 0); `UserError` if it can't be."""
    stat = path.stat()
    key = hashlib.sha256(f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0{leaf}".encode()).hexdigest()[:32]
    samples, index = (cache_folder() / f"{key}.{end}" for end in (content.many, "npy"))
    if samples.is_file() and index.is_file():
        kept: NDArray[np.int64] = np.load(index, allow_pickle=False)
        if samples.stat().st_size == kept[-1]:
            return samples, kept
    hint = f", where the {content.many} of {path} are copied to be read in any order{CACHE_HINT}"
    ends = [0]
    with whole_file(samples, shared=True, hint=hint) as copy:
        needed, free = _sample_bytes(file, leaf), shutil.disk_usage(samples.parent).free
        if needed > free:
            raise UserError(
                f"the {content.many} of {path} must be copied to {samples.parent} to be read in any order, which takes "
                f"{needed:,} bytes; {free:,} are free. Make room, or set XDG_CACHE_HOME to a larger disk"
            )
        if needed > _LONG:
            print(f"copying the {content.many} of {path} to {samples.parent} ({needed / 1e9:.1f} GB)", file=sys.stderr)
        for batch in file.iter_batches(_ROWS, columns=[leaf], use_threads=False):
            values = batch.column(0)
            for value in values.flatten()[0] if pa.types.is_struct(values.type) else values:
                ends.append(ends[-1] + (copy.write(value.as_buffer()) if value.is_valid else 0))
    with whole_file(index, shared=True, hint=hint) as saved:
        np.save(saved, np.array(ends, dtype=np.int64))
    return samples, np.array(ends, dtype=np.int64)


def _sample_bytes(file: pq.ParquetFile, leaf: str) -> int:
    """Bytes of a file's samples when decoded, about."""
    groups = (file.metadata.row_group(place) for place in range(file.num_row_groups))
    columns = (group.column(place) for group in groups for place in range(group.num_columns))
    return sum(int(column.total_uncompressed_size) for column in columns if column.path_in_schema == leaf)
