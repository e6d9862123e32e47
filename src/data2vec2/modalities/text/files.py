"""Text of files and tables, piece by piece: no file, and no line of a .txt file, is ever in memory as a whole."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data2vec2.data import folder, hub
from data2vec2.data.source import PART_NAMES, by_part
from data2vec2.data.tables import PLAIN, TABLES, Reading, decoded, mended, open_rows
from data2vec2.errors import UserError

EXTENSIONS = (PLAIN, *TABLES)
Unit = Literal["line", "document", "file"]
Piece = tuple[str, bool]
"""Some text, and whether a unit ends with it."""
_CHUNK = 1 << 16  # bytes of a .txt file, characters of a row: where longer lines are cut, at a space if there is one


@dataclass(frozen=True)
class TextSource:
    """One file, or one split of a data set, that holds text."""

    name: str
    content: Any
    """A path, or a `datasets.Dataset`."""

    @property
    def size(self) -> int:
        """Bytes, or rows."""
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)

    @property
    def identity(self) -> str:
        """Changes when the content may have changed."""
        if not isinstance(self.content, Path):
            return f"{self.name}\0{self.content._fingerprint}"
        return f"{self.content.resolve()}\0{self.size}\0{self.content.stat().st_mtime_ns}"


def find_sources(data: str | Path, extensions: Sequence[str], what: str) -> list[TextSource]:
    """All files with some extensions in a folder, one file, or all splits of hf:NAME; `UserError` if no `what` is."""
    if (text := Path(data).as_posix()).startswith(hub.PREFIX):
        return [TextSource(name, split) for name, split in hub.load_splits(text).items()]
    path = Path(data)
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if path.is_file() and path.suffix.lower() in EXTENSIONS:
        return [TextSource(path.name, path)]
    files = folder.scan(path) if path.is_dir() else {path.suffix: [path.name]}
    names = sorted(name for extension in extensions for name in files.get(extension, ()))
    if not names:
        found = ", ".join(f"{extension} ({count:,})" for extension, count in folder.counts(files).items()) or "nothing"
        raise UserError(f"no {what} in {path} ({', '.join(extensions)}): it holds {found}")
    return [TextSource(name, path / name) for name in names]


def find_text(data: str | Path) -> dict[str, list[TextSource]]:
    """The texts of each part ("train", perhaps "val" and "test") of a file, a folder, or hf:NAME.

    Files called train, valid or test (with a number or not), or in a folder called so, make parts; one where these
    are words among others ("test of time") does not. Raises `UserError` for a path without text.
    """
    sources = {source.name: source for source in find_sources(data, EXTENSIONS, "text")}
    if not all(isinstance(source.content, Path) for source in sources.values()):
        parts = by_part(list(sources), str(data))
    else:
        parts = {part: [name for name in sources if _part(name) == part] for part in ("train", "val", "test")}
        parts = {part: names for part, names in parts.items() if names} if parts["train"] else {"train": list(sources)}
    return {part: [sources[name] for name in names] for part, names in parts.items()}


def pieces_of(
    source: TextSource, column: str, unit: Unit, counts: Counter[str], read: Callable[[int], object]
) -> Iterator[Piece]:
    """The text of a source, without empty lines; `read` hears of bytes (rows) read.

    What is mended is counted: undecodable bytes become U+FFFD, NUL characters vanish, rows without text are left out.
    A unit is a line, a document (which an empty line ends, in tables a row), or a whole file (in tables a row).
    Raises `UserError` for a file that can't be read or has no such column.
    """
    path = source.content if isinstance(source.content, Path) else None
    before, reading = counts["characters"], Reading(str(path or source.name), counts, read=read)
    if path and path.suffix.lower() == PLAIN:
        pieces: Iterator[Piece] = ((mended(text, reading), ends) for text, ends in _plain(path, unit, reading))
    else:
        pieces = _row_pieces(source, column, unit, reading)
    for text, ends in pieces:
        counts["characters"] += len(text)
        yield text, ends
    counts["empty files"] += counts["characters"] == before


def _part(name: str) -> str:
    """The part that a file, or the folder it is in, is called after: "valid-00001.txt" is "val"."""
    words = [re.sub(r"[-_.]?\d.*$", "", Path(part).stem.lower()) for part in (name.split("/")[0], Path(name).name)]
    return next((PART_NAMES[word] for word in words if word in PART_NAMES), "train")


def _plain(path: Path, unit: Unit, reading: Reading) -> Iterator[Piece]:
    """Lines of a file, long ones in pieces; lines of longer units keep their ends."""
    rest, begun = "", False
    try:
        with path.open("rb") as file:
            for text in decoded(file, reading, _CHUNK):
                rest += text
                if not text.endswith("\n"):
                    *first, rest = _cut(rest)
                    yield from ((piece, False) for piece in first)
                    begun = begun or bool(first)
                    continue
                line, rest = rest.rstrip("\r\n"), ""
                if line.strip():
                    yield (line, True) if unit == "line" else (line + "\n", False)
                    begun = unit != "line"
                elif begun and unit != "file":
                    yield "", True
                    begun = False
    except OSError as error:
        raise UserError(f"can't read {path}: {error}") from error
    if rest.strip() or begun:
        yield rest, True


def _row_pieces(source: TextSource, column: str, unit: Unit, reading: Reading) -> Iterator[Piece]:
    """The text of a column; a row ends a unit. `UserError` that lists the columns if it is not there."""
    with open_rows(source.content, reading, column) as table:
        if table.names is not None and column not in table.names:
            known = ", ".join(table.names) or "no columns"
            hint = "name the one with text, --data.text-column, or move the file elsewhere if it is none to learn from"
            raise UserError(f"{reading.where} has no column {column!r} but {known}; {hint}")
        for row in table.rows:
            text = row.get(column)
            if not isinstance(text, str) or not text.strip():
                reading.odd("rows without text left out")
                continue
            for line in text.splitlines() if unit == "line" else [text]:
                *first, last = _cut(line)
                yield from ((piece, False) for piece in first)
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


def identity_of(sources: list[TextSource]) -> str:
    """SHA-256 (hex) of what tells these sources from others."""
    text = "\n".join(source.identity for source in sources)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
