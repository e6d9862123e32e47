"""metadata.csv and metadata.jsonl: labels and transcripts of files, as in Hugging Face's imagefolder."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from data2vec2.data.labels import COLUMNS
from data2vec2.errors import UserError

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


def read_metadata(root: Path, described: Sequence[str], text_columns: Sequence[str] = ()) -> Described:
    """Labels and transcripts of the samples.

    Every row names a sample in `file_name`, relative to the metadata file's own folder. In a CSV file, several labels
    are separated by "|". Raises `UserError` for a file that is not a table, and for rows without `file_name` or with
    one that leads out of the folder.
    """
    names: set[str] = set()
    labels: dict[str, Any] = {}
    texts: dict[str, Any] = {}
    for name in described:
        path = root / name
        rows = _labelled_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path)
        columns = [
            next((known for known in among if any(known in row for row in rows)), None)
            for among in (COLUMNS, text_columns)
        ]
        for place, row in enumerate(rows, 1):
            file_name = row.get("file_name")
            if not isinstance(file_name, str) or not file_name:
                raise UserError(f"{path}: row {place} has no file_name; it has {', '.join(map(str, row)) or 'nothing'}")
            below = PurePosixPath(file_name.replace("\\", "/"))
            if below.is_absolute() or ".." in below.parts:
                raise UserError(f"{path}: row {place} names {file_name}, which is not below the folder of the table")
            sample = str(PurePosixPath(name).parent / below)
            names.add(sample)
            for values, column in zip((labels, texts), columns, strict=True):
                if column is not None:
                    values[sample] = row.get(column)
    return Described(frozenset(names), labels or None, texts or None)


def csv_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a CSV file with a header; `UserError` if it is none."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"can't read {path} as CSV: {error}") from error


def _labelled_rows(path: Path) -> list[Mapping[str, Any]]:
    """Rows of a CSV file; labels are lists where the column is one of several labels a sample."""
    rows = csv_rows(path)
    for column in COLUMNS:
        values = [row.get(column) or "" for row in rows]
        if column in ("labels", "tags") or any("|" in value for value in values):
            for row, value in zip(rows, values, strict=True):
                if column in row:
                    row[column] = [word.strip() for word in value.split("|") if word.strip()]
    return list(rows)


def _json_rows(path: Path) -> list[Mapping[str, Any]]:
    """Rows of a file with one JSON object a line."""
    rows: list[Mapping[str, Any]] = []
    try:
        for place, line in enumerate(path.read_text("utf-8-sig").split("\n"), 1):
            row = json.loads(line) if line.strip() else None
            if row is not None and not isinstance(row, dict):
                raise UserError(f"{path}: line {place} is {line[:40]}, not an object")
            rows += [row] if row else []
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"can't read {path} as JSON lines: {error}") from error
    return rows
