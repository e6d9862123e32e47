"""Text of files and tables, piece by piece: no file, and no line of a .txt file, is ever in memory as a whole."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from data2vec2.config.tree import require
from data2vec2.data import folder, hub, objects, remote
from data2vec2.data.account import Bad, PartAccount
from data2vec2.data.lines import JSON, PLAIN, NoRows, is_tagged, untag
from data2vec2.data.packed import open_text, size_of
from data2vec2.data.reading import (
    BAD_BYTES,
    ENCODING_HINT,
    MAX_BAD,
    NO_TEXT,
    Reading,
    column_of,
    decoded,
    lines_of,
    mended,
    note,
)
from data2vec2.data.source import Content, Listing, by_part, extension_of
from data2vec2.data.tables import TABLES, open_rows
from data2vec2.errors import UserError
from data2vec2.modalities.text.config import ENCODING, known_encoding

EXTENSIONS = (PLAIN, *TABLES)
TEXTS = Content("text", "texts", "texts", "Value", frozenset({PLAIN}), ())
"""Each file is one."""
FILES = Path, remote.RemoteFile
Unit = Literal["line", "document", "file"]
TAGS = "labels of fastText removed"
Piece = tuple[str, bool]
"""Some text, and whether a unit ends with it."""
_CHUNK = 1 << 16  # bytes of a .txt file, characters of a row: where longer lines are cut, at a space if there is one


@dataclass(frozen=True)
class TextSource:
    """One file, or one split of a data set, that holds text."""

    name: str
    content: Any
    """A path, a remote file, or a `datasets.Dataset`."""
    encoding: str | None = None
    """Of a file; none: UTF-8, or UTF-16 if it begins so."""

    @property
    def size(self) -> int:
        """Bytes, or rows."""
        return size_of(self.content) if isinstance(self.content, FILES) else len(self.content)

    @property
    def identity(self) -> str:
        """Changes when the content may have changed."""
        if not isinstance(self.content, FILES):
            return f"{self.name}\0{self.content._fingerprint}"
        if isinstance(self.content, Path):
            place = f"{self.content.resolve()}\0{self.size}\0{self.content.stat().st_mtime_ns}"
        else:
            place = f"{self.content.url}\0{self.content.key}"
        return f"{place}\0{self.encoding}" if self.encoding else place


def find_sources(
    data: str | Path, extensions: Sequence[str], what: str, encoding: str | None = None
) -> list[TextSource]:
    """All files with some extensions in a folder, or at a URL, one file, or all splits of hf:NAME.

    `UserError` if there is no `what`.
    """
    require(known_encoding(encoding), "encoding", encoding, ENCODING)
    if remote.is_url(data):
        root, urls = remote.find(str(data))
        known = EXTENSIONS if len(urls) == 1 else extensions
        able = {name: url for name, url in urls.items() if extension_of(name) in known}
        if not able:
            raise UserError(f"no {what} at {data} ({', '.join(extensions)}): there are {', '.join([*urls][:3])}")
        found = remote.opened(root, able).files
        alone = len(found) == 1
        return [
            TextSource(name, file, encoding) for name, file in found.items() if alone or _able(name, file, encoding)
        ]
    if (text := Path(data).as_posix()).startswith((hub.PREFIX, objects.PREFIX)):
        splits = (objects if objects.is_name(text) else hub).load_splits(text)
        return [TextSource(name, split) for name, split in splits.items()]
    path = Path(data)
    if not path.is_file() and not path.is_dir():  # a pipe could be read only once
        raise UserError(f"{path} {'is no file' if path.exists() else 'does not exist'}")
    if path.is_file() and extension_of(path.name) in (*EXTENSIONS, *extensions):
        return [TextSource(path.name, path, encoding)]
    files = folder.scan(path) if path.is_dir() else {extension_of(path.name): [path.name]}
    names = named_in(path, files, extensions, encoding)
    if not names:
        raise UserError(f"no {what} in {path} ({', '.join(extensions)}): {folder.held(path, files, _hint(files))}")
    stems: dict[str, str] = {}
    for name in names:
        if (other := stems.setdefault(name[: name.lower().rindex(extension_of(name))], name)) != name:
            raise UserError(
                f"{path} has {other} and {name}: the same text twice, it seems; keep one, or give it directly"
            )
    return [TextSource(name, path / name, encoding) for name in names]


def named_in(
    root: Path, files: Mapping[str, Sequence[str]], extensions: Sequence[str], encoding: str | None
) -> list[str]:
    """Names of the scanned files with some extensions, sorted; of .json files those that are lists of objects."""
    names = (name for extension in extensions for name in files.get(extension, ()))
    return sorted(name for name in names if _able(name, root / name, encoding))


def _able(name: str, file: Path | remote.RemoteFile, encoding: str | None) -> bool:
    """Whether a file is one of texts; of .json files those that hold objects are. `UserError` for damage."""
    if extension_of(name) != JSON:
        return True
    try:
        with open_rows(file, Reading(str(file), Counter(), encoding=encoding)) as table:
            return next(table.rows, None) is not None
    except NoRows:
        return False


def _hint(extensions: Collection[str]) -> str:
    """What to do about files that are not read."""
    if not _PACKED.isdisjoint(extensions):
        return "; unpack what is compressed"
    if PLAIN in extensions:
        return "; .txt files have labels in names of folders, one of each class, or as __label__; else write a table"
    return "; a .json file must hold a list of objects" if JSON in extensions else ""


_PACKED = {".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar", ".tar"}


def beside(data: str | Path, sources: Collection[str]) -> dict[str, str]:
    """Files in a folder that are none of the `sources`, for `Account.beside`."""
    others = folder.others(folder.scan(Path(data)), ()) if Path(data).is_dir() else {}
    return {name: why for name, why in others.items() if name not in sources}


def find_text(data: str | Path, encoding: str | None = None) -> dict[str, list[TextSource]]:
    """The texts of each part ("train", perhaps "val" and "test") of a file, a folder, or hf:NAME.

    Names of files and folders make parts, as those of all data do. Raises `UserError` for a path without text.
    """
    sources = {source.name: source for source in find_sources(data, EXTENSIONS, "text", encoding)}
    return {part: [sources[name] for name in names] for part, names in by_part(list(sources), str(data)).items()}


def texts_by_class(data: str | Path, encoding: str | None) -> Listing | None:
    """The .txt files of a folder without tables, each a text whose folder is its label, as folders are of pictures.

    Files beside folders of classes (a README, lists) are no texts. None for data without classes of .txt files.
    """
    path = Path(data)
    files = folder.scan(path) if path.is_dir() else {}
    if PLAIN not in files or named_in(path, files, TABLES, encoding) or begins_tagged(path / files[PLAIN][0], encoding):
        return None
    listing, parts = folder.read(path, files, TEXTS), {}
    for part, split in listing.parts.items():
        labelled, rows = any(split.labels), list(zip(split.names, split.labels, strict=True))
        kept = [(name, label) for name, label in rows if label != "" or not labelled]
        listing.account.beside |= {name: "in no folder of a class" for name, label in rows if label == "" and labelled}
        names, labels = zip(*kept, strict=True)
        parts[part] = replace(split, names=names, labels=labels, source=folder.Files(path, names))
    return replace(listing, parts=parts) if listing.classes else None


def labelled_sources(data: str | Path, encoding: str | None) -> list[TextSource]:
    """Tables, or one .txt file; of a folder without tables the .txt files with labels of fastText."""
    try:
        return find_sources(data, TABLES, "tables of texts", encoding)
    except UserError:
        if Path(data).is_dir():
            with suppress(UserError):
                sources = find_sources(data, (PLAIN,), "texts", encoding)
                if tagged := [source for source in sources if begins_tagged(source.content, encoding)]:
                    return tagged
        raise


def begins_tagged(path: Path, encoding: str | None) -> bool:
    """Whether a .txt file has labels of fastText; not if it can't be read."""
    with suppress(OSError), open_text(path) as file:
        return is_tagged(next(decoded(file, Reading(str(path), Counter(), encoding=encoding), _CHUNK), ""))
    return False


def whole_text(path: Path, encoding: str | None) -> tuple[str, str]:
    """All of a .txt file, and why it can't be used, or ""."""
    reading, lines, spoiled = Reading(str(path), Counter(), encoding=encoding), list[str](), 0
    try:
        with open_text(path) as file:
            for line in lines_of(file, reading):
                lines.append(line)
                spoiled += reading.spoiled
    except OSError:
        return "", "unreadable"
    text = mended("".join(lines), reading).strip("\r\n")
    return text, NO_TEXT if spoiled else "" if text.strip() else "empty file"


def pieces_of(
    source: TextSource,
    column: str,
    unit: Unit,
    counts: Counter[str],
    read: Callable[[int], object],
    account: PartAccount | None = None,
) -> Iterator[Piece]:
    """The text of a source, without empty lines; `read` hears of bytes (rows) read.

    A unit is a line, a document (which an empty line ends, in tables a row), or a whole file (in tables a row). What is
    mended is counted: of .txt files undecodable bytes become U+FFFD, NUL characters vanish, rows without text are left
    out. The `account` hears of bad rows of tables and of empty files. Raises `UserError` for a file that can't be read,
    has no such column, or too many bad lines or rows.
    """
    path = source.content if isinstance(source.content, FILES) else None
    where = str(path or source.name)
    before, reading = counts["characters"], Reading(where, counts, read=read, free=(column,), encoding=source.encoding)
    if path and extension_of(path.name) == PLAIN:
        pieces: Iterator[Piece] = ((mended(text, reading), ends) for text, ends in _plain(path, unit, reading))
    else:
        pieces = _row_pieces(source, column, unit, reading)
    for text, ends in pieces:
        counts["characters"] += len(text)
        yield text, ends
    empty = counts["characters"] == before
    counts["empty files"] += empty
    if account:
        note(reading.bad, source.name, account)
        account.leave_out([Bad(source.name, "empty file")] if empty else [])


def _plain(path: Path | remote.RemoteFile, unit: Unit, reading: Reading) -> Iterator[Piece]:
    """Lines of a file, long ones in pieces; lines of longer units keep their ends."""
    rest, begun, spoiled, tagged = "", False, 0, None
    try:
        with open_text(path, reading.read) as file:
            for text in lines_of(file, reading, _CHUNK):
                reading.counts[BAD_BYTES] += reading.spoiled
                spoiled += reading.spoiled > 0
                tagged = is_tagged(text) if tagged is None else tagged
                if tagged:
                    text, tags = untag(text)
                    reading.counts[TAGS] += len(tags)
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
    if spoiled > MAX_BAD * reading.line:
        raise UserError(f"{spoiled:,} of {reading.line:,} lines of {path} are not UTF-8; {ENCODING_HINT}")
    if rest.strip() or begun:
        yield rest, True


def _row_pieces(source: TextSource, column: str, unit: Unit, reading: Reading) -> Iterator[Piece]:
    """The text of a column; a row ends a unit. `UserError` that lists the columns if it is not there."""
    with open_rows(source.content, reading, column) as table:
        names: Sequence[str] | None = table.names
        found = column_of(names or (), [column], reading.where)
        for row in table.rows if found or names is None else ():
            names, found = names or list(row), found or column_of(row, [column])  # of JSON lines
            text = row.get(found or column)
            if not isinstance(text, str) or not text.strip():
                reading.counts["rows without text left out"] += 1
                continue
            for line in text.splitlines() if unit == "line" else [text]:
                *first, last = _cut(line)
                yield from ((piece, False) for piece in first)
                if last.strip() or first:
                    yield last, True
    if found is None and names is not None:
        known = ", ".join(names) or "no columns"
        hint = "name the one with text, --data.text-column, or move the file elsewhere if it is none to learn from"
        raise UserError(f"{reading.where} has no column {column!r} but {known}; {hint}")


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
