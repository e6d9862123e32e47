"""Text of files and tables, piece by piece: no file, and no line of a .txt file, is ever in memory as a whole."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from data2vec2.data import folder, hub
from data2vec2.data.rows import FIELD_LIMIT
from data2vec2.data.source import PART_NAMES, by_part
from data2vec2.errors import UserError

EXTENSIONS = (".txt", ".jsonl", ".csv", ".tsv", ".parquet")
Unit = Literal["line", "document", "file"]
Piece = tuple[str, bool]
"""Some text, and whether a unit ends with it."""
_CHUNK = 1 << 16  # bytes of a .txt file, characters of a row: where longer lines are cut, at a space if there is one
_ROWS = 256  # decoded at a time


@dataclass(frozen=True)
class TextSource:
    """One file, or one split of a data set, that holds text."""

    name: str
    path: Path | None
    """None: rows."""
    rows: Any = None
    """A `datasets.Dataset`."""

    @property
    def size(self) -> int:
        """Bytes, or rows."""
        return self.path.stat().st_size if self.path else len(self.rows)

    @property
    def identity(self) -> str:
        """Changes when the content may have changed."""
        if self.path is None:
            return f"{self.name}\0{self.rows._fingerprint}"
        return f"{self.path.resolve()}\0{self.size}\0{self.path.stat().st_mtime_ns}"


def find_text(data: str | Path) -> dict[str, list[TextSource]]:
    """The texts of each part ("train", perhaps "val" and "test") of a file, a folder, or hf:NAME.

    Files called train, valid or test (with a number or not), or in a folder called so, make parts. Raises `UserError`
    for a path that does not exist and for one without text.
    """
    if (text := Path(data).as_posix()).startswith(hub.PREFIX):
        splits = hub.load_splits(text)
        of_splits = by_part(list(splits), text)
        return {part: [TextSource(name, None, splits[name]) for name in names] for part, names in of_splits.items()}
    path = Path(data)
    if path.is_file() and path.suffix.lower() in EXTENSIONS:
        return {"train": [TextSource(path.name, path)]}
    if not path.exists():
        raise UserError(f"{path} does not exist")
    files = folder.scan(path) if path.is_dir() else {path.suffix: [path.name]}
    names = sorted(name for extension in EXTENSIONS for name in files.get(extension, ()))
    if not names:
        found = ", ".join(f"{extension} ({count:,})" for extension, count in folder.counts(files).items()) or "nothing"
        raise UserError(f"no text in {path} ({', '.join(EXTENSIONS)}): it holds {found}")
    parts: dict[str, list[TextSource]] = {}
    for name in names:
        parts.setdefault(_part(name), []).append(TextSource(name, path / name))
    return parts if "train" in parts else {"train": [source for sources in parts.values() for source in sources]}


def pieces_of(
    source: TextSource, column: str, unit: Unit, counts: Counter[str], read: Callable[[int], object]
) -> Iterator[Piece]:
    """The text of a source, without empty lines; `read` hears of bytes (rows) read.

    What is mended is counted: undecodable bytes become U+FFFD, NUL characters vanish, rows without text are left out.
    A unit is a line, a document (which an empty line ends, in tables a row), or a whole file (in tables a row).
    Raises `UserError` for a file that can't be read or has no such column.
    """
    before = counts["characters"]
    extension = source.path.suffix.lower() if source.path else ""
    try:
        if extension == ".txt":
            pieces = _plain(source, unit, counts, read)
        else:
            rows = _ROWS_OF.get(extension, _hub_rows)
            pieces = _row_pieces(rows(source, column, counts, read), unit, counts)
        for text, ends in pieces:
            clean = text.replace("\0", "")
            counts["NUL characters removed"] += len(text) - len(clean)
            counts["characters"] += len(clean)
            yield clean, ends
    except (OSError, csv.Error, pa.ArrowException) as error:
        raise UserError(f"can't read {source.path or source.name}: {str(error).splitlines()[0]}") from error
    counts["empty files"] += counts["characters"] == before


def _part(name: str) -> str:
    """The part that a file, or the folder it is in, is called after: "valid-00001.txt" is "val"."""
    words = [re.sub(r"[-_.]?\d.*$", "", Path(part).stem.lower()) for part in (name.split("/")[0], Path(name).name)]
    return next((PART_NAMES[word] for word in words if word in PART_NAMES), "train")


def _plain(source: TextSource, unit: Unit, counts: Counter[str], read: Callable[[int], object]) -> Iterator[Piece]:
    """Lines of a file, long ones in pieces; lines of longer units keep their ends."""
    assert source.path is not None
    decoder, rest, begun = codecs.getincrementaldecoder("utf-8-sig")("replace"), "", False
    with source.path.open("rb") as file:
        while raw := file.readline(_CHUNK):
            read(len(raw))
            rest += decoder.decode(raw)
            counts["undecodable bytes replaced"] -= raw.count(b"\xef\xbf\xbd")
            if not raw.endswith(b"\n"):
                *first, rest = _cut(rest)
                for piece in first:
                    counts["undecodable bytes replaced"] += piece.count("\ufffd")
                    yield piece, False
                    begun = True
                continue
            line, rest = rest.rstrip("\r\n"), ""
            counts["undecodable bytes replaced"] += line.count("\ufffd")
            if line.strip():
                yield (line, True) if unit == "line" else (line + "\n", False)
                begun = unit != "line"
            elif begun and unit != "file":
                yield "", True
                begun = False
    line = rest + decoder.decode(b"", final=True)
    counts["undecodable bytes replaced"] += line.count("\ufffd")
    if line.strip() or begun:
        yield line, True


def _row_pieces(rows: Iterator[Any], unit: Unit, counts: Counter[str]) -> Iterator[Piece]:
    """The text of rows; a row ends a unit."""
    for text in rows:
        if not isinstance(text, str) or not text.strip():
            counts["rows without text left out"] += 1
            continue
        for line in text.splitlines() if unit == "line" else [text]:
            *first, last = _cut(line.encode("utf-8", "replace").decode("utf-8"))
            for piece in first:
                yield piece, False
            if last.strip() or first:
                yield last, True


def _cut(text: str) -> list[str]:
    """A long text in pieces, which begin with a space where there is one; the last is what is left."""
    pieces = []
    while len(text) > _CHUNK:
        place = text.rfind(" ", _CHUNK // 2, _CHUNK)
        pieces.append(text[: place if place > 0 else _CHUNK])
        text = text[len(pieces[-1]) :]
    return [*pieces, text]


def _json_rows(source: TextSource, column: str, counts: Counter[str], read: Callable[[int], object]) -> Iterator[Any]:
    assert source.path is not None
    with source.path.open("rb") as file:
        for raw in file:
            read(len(raw))
            if not raw.strip():
                continue
            try:
                row = json.loads(raw)
            except ValueError:  # also bytes that are not UTF-8
                counts["lines that are not JSON left out"] += 1
                continue
            yield row.get(column) if isinstance(row, dict) else None


def _delimited_rows(
    source: TextSource, column: str, counts: Counter[str], read: Callable[[int], object]
) -> Iterator[Any]:
    """Values of a CSV or TSV file, read as `rows.read_table` does."""
    assert source.path is not None
    csv.field_size_limit(FIELD_LIMIT)
    newline = "" if source.path.suffix.lower() == ".csv" else None
    with (
        source.path.open("rb") as raw,
        io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline=newline) as text,
    ):
        rows = csv.reader(text) if newline == "" else (line.rstrip("\n").split("\t") for line in text)
        place, told = _place_of(column, [name.strip() for name in next(rows, [])], source), 0
        for row in rows:
            read(raw.tell() - told)
            told = raw.tell()
            value, bad = re.subn("[\udc80-\udcff]", "\ufffd", row[place]) if place < len(row) else ("", 0)
            counts["undecodable bytes replaced"] += bad
            if row:
                yield value


def _parquet_rows(
    source: TextSource, column: str, counts: Counter[str], read: Callable[[int], object]
) -> Iterator[Any]:
    assert source.path is not None
    with pq.ParquetFile(source.path, memory_map=True, pre_buffer=False) as file:
        _place_of(column, file.schema_arrow.names, source)
        for batch in file.iter_batches(_ROWS, columns=[column], use_threads=False):
            read(source.size * len(batch) // max(1, file.metadata.num_rows))
            yield from batch.column(0).to_pylist()


def _hub_rows(source: TextSource, column: str, counts: Counter[str], read: Callable[[int], object]) -> Iterator[Any]:
    _place_of(column, source.rows.column_names, source)
    for start in range(0, len(source.rows), _ROWS):
        values = source.rows[start : start + _ROWS][column]
        read(len(values))
        yield from values


_ROWS_OF = {".jsonl": _json_rows, ".csv": _delimited_rows, ".tsv": _delimited_rows, ".parquet": _parquet_rows}


def _place_of(column: str, names: Sequence[str], source: TextSource) -> int:
    """Where a column is; `UserError` that lists the columns if it is not there."""
    if column not in names:
        known = ", ".join(names) or "no columns"
        raise UserError(
            f"{source.path or source.name} has no column {column!r} but {known}; name the one with text, "
            "--data.text-column, or move the file elsewhere if it is none to learn from"
        )
    return names.index(column)


def identity_of(sources: list[TextSource]) -> str:
    """SHA-256 (hex) of what tells these sources from others."""
    return hashlib.sha256(
        "\n".join(source.identity for source in sources).encode("utf-8", "surrogateescape")
    ).hexdigest()
