"""The one reader of tables: rows of .csv, .tsv, .jsonl, .parquet and .txt files and of data sets of `datasets`."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from data2vec2.errors import UserError

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
PLAIN = ".txt"
"""A text a line, in a column `text`."""
BAD_BYTES = "undecodable bytes replaced"
NULS = "NUL characters removed"
NO_OBJECT = "lines that are no JSON object left out"
OTHER_FIELDS = "rows with another number of fields"
_REFUSED = {BAD_BYTES: "is not UTF-8; save the file so", NO_OBJECT: "is no JSON object; write one object a line"}
_ROWS = 256  # of a Parquet file or a data set, decoded at a time


@dataclass
class Reading:
    """One pass over a table. It decides what becomes of what is odd: that is counted, or in a strict pass refused."""

    where: str
    counts: Counter[str]
    """What was mended or left out, and how often."""
    strict: bool = False
    read: Callable[[int], object] = lambda _: None
    """Hears of bytes, of a data set of rows, that were read."""
    number: int = 0
    """The line that was read last."""
    line: str = ""

    def odd(self, what: str, times: int = 1) -> None:
        """Count what is mended or left out; `UserError` that names the line if it must not be."""
        if times and self.strict and what in _REFUSED:
            raise UserError(f"{self.where}: line {self.number} {_REFUSED[what]} (it begins {self.line[:40]!r})")
        self.counts[what] += times


@dataclass(frozen=True)
class Rows:
    """A table that is being read."""

    names: tuple[str, ...] | None
    """The columns; None for JSON lines, where every row has its own."""
    classes: Mapping[str, tuple[str, ...]]
    """Names of the classes that whole numbers stand for, of columns where the table gives them."""
    rows: Iterator[dict[str, Any]]
    """Values by column."""


@dataclass(frozen=True)
class Table:
    """All of a table, by column; what a row lacks is None. Classes as in `Rows`, remarks as `Reading` counts them."""

    name: str
    columns: Mapping[str, Sequence[Any]]
    classes: Mapping[str, tuple[str, ...]]
    remarks: Mapping[str, int]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def rows(self) -> Iterator[dict[str, Any]]:
        """Values by column."""
        return (dict(zip(self.columns, row, strict=True)) for row in zip(*self.columns.values(), strict=True))


@contextmanager
def open_rows(source: Any, reading: Reading, column: str | None = None) -> Iterator[Rows]:
    """Read a file, or a `datasets.Dataset`, row by row; only a few rows are in memory at once.

    The first line of a CSV or TSV file names the columns. Quotes mean nothing in a TSV file (as in GLUE's). Empty lines
    are left out, but not of a .txt file. Undecodable bytes become U+FFFD, and NUL characters vanish from strings unless
    the pass is strict. Other columns than `column` need not be decoded. `UserError` for what is no such table.
    """
    try:
        if not isinstance(source, Path):
            chosen = source.select_columns([column]) if column in source.column_names else source
            yield _arrow(source.features.arrow_schema, chosen.with_format("arrow").iter(_ROWS), 1.0, reading)
        elif source.suffix.lower() == ".parquet":
            with pq.ParquetFile(source, memory_map=True, pre_buffer=False) as file:
                wanted = [column] if column in file.schema_arrow.names else None
                batches = file.iter_batches(_ROWS, columns=wanted, use_threads=False)
                share = source.stat().st_size / max(1, file.metadata.num_rows)
                yield _arrow(file.schema_arrow, batches, share, reading)
        else:
            with source.open("rb") as file:
                yield _text(source.suffix.lower(), _lines(file, reading), reading)
    except (OSError, csv.Error, pa.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"can't read {reading.where}: {str(error).splitlines()[0]}") from error


def read_table(source: Any, name: str, *, strict: bool = False) -> Table:
    """All that `open_rows` gives. `strict`: nothing is mended, and `UserError` for what is not UTF-8 or no object."""
    reading = Reading(str(source) if isinstance(source, Path) else name, Counter(), strict)
    with open_rows(source, reading) as table:
        columns: dict[str, list[Any]] = {column: [] for column in table.names or ()}
        for place, row in enumerate(table.rows):
            columns |= {column: [None] * place for column in row if column not in columns}
            for column, values in columns.items():
                values.append(row.get(column))
    return Table(name, columns, table.classes, reading.counts)


def listed(counts: Mapping[str, int]) -> str:
    """What was mended or left out, for the user."""
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)


def decoded(file: BinaryIO, reading: Reading, limit: int = -1) -> Iterator[str]:
    """Lines of a file with their ends, of longer ones at most `limit` bytes at a time."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
    while raw := file.readline(limit):
        reading.read(len(raw))
        reading.number += 1
        reading.line = decoder.decode(raw, final=len(raw) != limit)
        if "\ufffd" in reading.line:
            reading.odd(BAD_BYTES, reading.line.count("\ufffd") - raw.count(b"\xef\xbf\xbd"))
        yield reading.line
    if rest := decoder.decode(b"", final=True):
        reading.odd(BAD_BYTES)
        yield rest


def mended(text: str, reading: Reading) -> str:
    """A text without NUL characters, and with "?" for halves of characters, which JSON may have."""
    if "\0" in text:
        reading.odd(NULS, text.count("\0"))
        text = text.replace("\0", "")
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def described(schema: pa.Schema) -> dict[str, Any]:
    """Hugging Face's description of each column; empty where there is none."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
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
            yield from batch.to_pylist()

    return Rows(tuple(schema.names), class_names(schema), _mended(rows(), reading))


def _lines(file: BinaryIO, reading: Reading) -> Iterator[str]:
    """Lines with their ends, which may be carriage returns alone."""
    for line in decoded(file, reading):
        yield from io.StringIO(line, newline="") if "\r" in line[:-2] else (line,)


def _text(extension: str, lines: Iterator[str], reading: Reading) -> Rows:
    """The table in the lines of a file."""
    names: tuple[str, ...] | None = None
    if extension == ".jsonl":
        rows = _objects(lines, reading)
    elif extension == PLAIN:
        names = ("text",)
        rows = (dict.fromkeys(names, line.rstrip("\r\n")) for line in lines)
    else:
        csv.field_size_limit(1 << 30)  # characters
        tabbed = (line.rstrip("\r\n").split("\t") for line in lines)
        fields: Iterator[list[str]] = csv.reader(lines) if extension == ".csv" else tabbed
        names = tuple(name.strip() for name in next(fields, []))
        if not any(names) or len(set(names)) < len(names):
            raise UserError(f"{reading.where}: the first line must name the columns, each once; it is {list(names)}")
        rows = _delimited(fields, names, reading)
    return Rows(names, {}, _mended(rows, reading))


def _delimited(fields: Iterator[list[str]], names: tuple[str, ...], reading: Reading) -> Iterator[dict[str, Any]]:
    """Rows of fields; of a row with too many the last are left out, and one with too few has None there."""
    for row in fields:
        if row not in ([], [""]):
            if len(row) != len(names):
                reading.odd(OTHER_FIELDS)
            yield dict.fromkeys(names) | dict(zip(names, row, strict=False))


def _objects(lines: Iterator[str], reading: Reading) -> Iterator[dict[str, Any]]:
    """One JSON object a line."""
    for line in filter(str.strip, lines):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            yield row
        else:
            reading.odd(NO_OBJECT)


def _mended(rows: Iterator[dict[str, Any]], reading: Reading) -> Iterator[dict[str, Any]]:
    """Rows whose strings are mended, unless the pass is strict."""
    for row in rows:
        if not reading.strict:
            row = {name: mended(value, reading) if isinstance(value, str) else value for name, value in row.items()}
        yield row
