"""The one reader of tables: rows of .csv, .tsv, .jsonl, .json, .parquet and .txt files, and of `datasets`."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data2vec2.data.lines import JSON, rows_of
from data2vec2.data.packed import open_text, size_of
from data2vec2.data.reading import NO_TEXT, BadRow, Reading, column_of, mended
from data2vec2.data.remote import RemoteFile
from data2vec2.data.source import PART_NAMES, extension_of
from data2vec2.errors import UserError
from data2vec2.files import parse_json

SPLITS = ("split", "subset", "set", "part", "partition", "phase", "usage", "fold")
"""Names under which tables say which rows are to train and to test on."""
TABLES = (".csv", ".tsv", ".jsonl", JSON, ".parquet")
_ROWS = 256  # of a Parquet file or a data set, decoded at a time


@dataclass(frozen=True)
class Rows:
    """A table that is being read."""

    names: tuple[str, ...] | None
    """The columns; None for JSON, where every row has its own."""
    classes: Mapping[str, tuple[str, ...]]
    """Names of the classes that whole numbers stand for, of columns where the table gives them."""
    rows: Iterator[dict[str, Any]]
    """Values by column."""


@dataclass(frozen=True)
class Table:
    """All of a table, by column; what a row lacks is None. Classes as in `Rows`, the rest as in `Reading`."""

    name: str
    columns: Mapping[str, Sequence[Any]]
    places: Sequence[int]
    """Of the rows, among all that the table has."""
    classes: Mapping[str, tuple[str, ...]]
    bad: Sequence[BadRow]
    mended: Mapping[int, str]

    def __len__(self) -> int:
        return len(self.places)

    def column(self, wanted: Iterable[str]) -> str | None:
        """The first wanted column that it has, as `column_of`."""
        return column_of(self.columns, wanted, self.name)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Values by column."""
        return (dict(zip(self.columns, row, strict=True)) for row in zip(*self.columns.values(), strict=True))


@contextmanager
def open_rows(source: Any, reading: Reading, column: str | None = None) -> Iterator[Rows]:
    """Read a file, or a `datasets.Dataset`, row by row; only a few rows are in memory at once.

    The first line of a CSV or TSV file names the columns. Quotes mean nothing in a TSV file (as in GLUE's), but around
    a field with doubled quotes, tabs or line ends (as Excel's). Empty lines are left out, but not of a .txt file. A
    value with names of its own makes columns `outer.inner`. Rows that can't be read as they are meant are left out and
    noted, NUL characters vanish from strings unless the pass is strict. Other columns than `column` need not be
    decoded. `UserError` for what is no such table, or has too many bad rows.
    """
    try:
        if not isinstance(source, Path | RemoteFile):
            found = column_of(source.column_names, [column] if column else [])
            chosen = source.select_columns([found]) if found else source
            yield _arrow(source.features.arrow_schema, chosen.with_format("arrow").iter(_ROWS), 1.0, reading)
        elif extension_of(source.name) == ".parquet":
            with parquet_file(source) as file:
                found = column_of(file.schema_arrow.names, [column] if column else [])
                batches = file.iter_batches(_ROWS, columns=[found] if found else None, use_threads=False)
                share = size_of(source) / max(1, file.metadata.num_rows)
                yield _arrow(file.schema_arrow, batches, share, reading)
        else:
            with open_text(source, reading.read) as file:
                names, rows = rows_of(file, extension_of(source.name), reading)
                yield Rows(names, {}, _checked(rows, reading))
    except (OSError, csv.Error, pa.ArrowException) as error:
        raise UserError(f"can't read {reading.where}: {str(error).splitlines()[0]}") from error


def parquet_file(path: Path | RemoteFile, **known: Any) -> pq.ParquetFile:
    """A Parquet file, of which is read what is asked for; `known` may be its metadata."""
    if isinstance(path, Path):
        return pq.ParquetFile(path, memory_map=True, pre_buffer=False, **known)
    return pq.ParquetFile(pa.PythonFile(path.open("rb", buffering=0), mode="r"), pre_buffer=False, **known)


def read_table(
    source: Any, name: str, *, strict: bool = False, free: Collection[str] = (), encoding: str | None = None
) -> Table:
    """All that `open_rows` gives. `strict`, `free` and `encoding` as in `Reading`."""
    where = str(source) if isinstance(source, Path | RemoteFile) else name
    reading, places = Reading(where, Counter(), strict, free=free, encoding=encoding), list[int]()
    with open_rows(source, reading) as table:
        columns: dict[str, list[Any]] = {column: [] for column in table.names or ()}
        for number, row in enumerate(table.rows):
            places.append(reading.place - 1)
            columns |= {column: [None] * number for column in row if column not in columns}
            for column, values in columns.items():
                values.append(row.get(column))
    return Table(name, columns, places, table.classes, reading.bad, reading.mended)


def parts_unread(table: str, columns: Mapping[str, Sequence[Any]]) -> list[str]:
    """A remark on a column that says which rows are to train and to test on: only names of files make parts."""
    for name, values in columns.items():
        words = set[str]()
        for value in filter(None, values):
            if not isinstance(value, str) or (word := value.strip().lower()) not in PART_NAMES:
                break
            words.add(word)
        else:
            if len(words) > 1:
                what = f"column {name!r} of {table} ({', '.join(sorted(words))}) is not read"
                return [f"{what}: names of files and folders set the parts"]
    return []


def _mended(value: Any, reading: Reading) -> Any:
    """A string mended, also one that Parquet keeps as bytes; all else as it is."""
    if isinstance(value, bytes):
        with suppress(UnicodeDecodeError):
            value = value.decode()
    return mended(value, reading) if isinstance(value, str) else value


def described(schema: pa.Schema) -> dict[str, Any]:
    """Hugging Face's description of each column; empty where there is none."""
    try:
        features = parse_json((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {name: value if isinstance(value, dict) else {"feature": value} for name, value in features.items()}


def class_names(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """Names of the classes that whole numbers, or lists of them, stand for, of columns whose description has them."""
    named = {}
    for name, feature in described(schema).items():
        while isinstance(feature, list | dict):
            if isinstance(feature, dict) and "names" in feature:
                named[name] = tuple(map(str, feature["names"]))
                break
            feature = feature.get("feature") if isinstance(feature, dict) else next(iter(feature), None)
    return named


def _arrow(schema: pa.Schema, batches: Iterable[Any], share: float, reading: Reading) -> Rows:
    """The table in Arrow's batches; each row is a `share` of what is read."""

    def rows() -> Iterator[dict[str, Any]]:
        for batch in batches:
            reading.read(int(share * batch.num_rows))
            try:
                yield from batch.to_pylist()
                continue
            except UnicodeDecodeError:
                pass
            for place in range(batch.num_rows):
                try:
                    (row,) = batch.slice(place, 1).to_pylist()
                except UnicodeDecodeError as error:
                    reading.leave_out(NO_TEXT, f"row {reading.place + 1}", error.object.decode("utf-8", "replace"))
                else:
                    yield row

    return Rows(tuple(schema.names), class_names(schema), _checked(rows(), reading))


def _flat(row: Mapping[str, Any], outer: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values, of objects in objects one behind the other: `outer.inner`."""
    for name, value in row.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{outer}{name}.")
        else:
            yield f"{outer}{name}", value


def _checked(rows: Iterator[dict[str, Any]], reading: Reading) -> Iterator[dict[str, Any]]:
    """Rows whose strings are mended, unless the pass is strict; `UserError` behind the last if too many are bad."""
    for row in rows:
        if any(isinstance(value, dict) for value in row.values()):
            row = dict(_flat(row))
        if not reading.strict:
            row = {name: _mended(value, reading) for name, value in row.items()}
        reading.place += 1
        yield row
    reading.check()
