"""Rows of tables of texts, column by column: CSV, TSV, JSON lines, Parquet, plain lines, `hf:NAME`."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data2vec2.data.columns import class_names
from data2vec2.errors import UserError

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
PLAIN = ".txt"
"""A text a line, in a column `text`."""
FIELD_LIMIT = 1 << 30
"""Characters of a field of a CSV file, at most."""


@dataclass(frozen=True)
class Table:
    """A file or a split: values by column."""

    name: str
    columns: Mapping[str, Sequence[Any]]
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of the classes that whole numbers stand for, of columns where the table gives them."""
    remarks: Mapping[str, int] = field(default_factory=dict)
    """What was mended or left out, and how often."""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


def read_table(path: Path, name: str) -> Table:
    """All rows of a file; the first line of a CSV or TSV file names the columns.

    In a CSV file a field in quotes may hold line ends; in a TSV file quotes mean nothing (as in GLUE's). Undecodable
    bytes become U+FFFD. `UserError` for a file that can't be read or is no such table.
    """
    extension, remarks = path.suffix.lower(), Counter[str]()
    try:
        if extension == ".parquet":
            with pq.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
                return arrow_table(file.read(use_threads=False), name)
        with path.open(encoding="utf-8-sig", errors="replace", newline="" if extension == ".csv" else None) as text:
            if extension == ".csv":
                csv.field_size_limit(FIELD_LIMIT)
                columns = _delimited(csv.reader(text), path, remarks)
            elif extension == ".tsv":
                columns = _delimited((line.rstrip("\n").split("\t") for line in text), path, remarks)
            elif extension == ".jsonl":
                columns = _json_lines(text, remarks)
            else:
                columns = {"text": [line.rstrip("\n") for line in text]}
    except (OSError, csv.Error, pa.ArrowException) as error:
        raise UserError(f"can't read {path}: {str(error).splitlines()[0]}") from error
    return Table(name, columns, {}, remarks)


def arrow_table(table: pa.Table, name: str) -> Table:
    """The rows of an Arrow table."""
    columns = {column: table.column(column).to_pylist() for column in table.column_names}
    named = {column: found for column in columns if (found := class_names(table.schema, column))}
    return Table(name, columns, named)


def _delimited(rows: Any, path: Path, remarks: Counter[str]) -> dict[str, list[Any]]:
    """Values by column of rows of fields, the first of which names the columns."""
    header = [name.strip() for name in next(rows, [])]
    if not header or len(set(header)) < len(header):
        raise UserError(f"{path}: the first line must name the columns, each once; it is {header}")
    columns: dict[str, list[Any]] = {name: [] for name in header}
    for row in rows:
        if not row or row == [""]:
            continue
        if len(row) != len(header):
            remarks["rows with another number of fields"] += 1
            row = [*row, *[None] * len(header)][: len(header)]
        for values, value in zip(columns.values(), row, strict=True):
            values.append(value)
    return columns


def _json_lines(lines: Any, remarks: Counter[str]) -> dict[str, list[Any]]:
    """Values by key of one JSON object a line; a row that has not a key has None there."""
    rows = []
    for line in lines:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            remarks["lines that are no JSON object left out"] += 1
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}
