"""The one reader of tables: rows of .csv, .tsv, .jsonl, .parquet and .txt files and of data sets of `datasets`."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from data2vec2.data.remote import RemoteFile
from data2vec2.data.source import PART_NAMES
from data2vec2.errors import UserError
from data2vec2.files import parse_json

SPLITS = ("split", "subset", "set", "part", "partition", "phase", "usage", "fold")
"""Names under which tables say which rows are to train and to test on."""
TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
PLAIN = ".txt"
"""A text a line, in a column `text`."""
LINES = (".csv", ".tsv", ".jsonl", PLAIN)
BAD_BYTES = "undecodable bytes replaced"
NULS = "NUL characters removed"
HALVES = "lone surrogates replaced"
NO_TEXT = "not UTF-8"
NO_OBJECT = "not a JSON object"
FEWER, MORE = "fewer fields than columns", "more fields than columns"
QUOTES = "unclosed quotes, or text beside quotes"
SWALLOWED = "quotes over several lines, each of which could be a row"
AGAIN = "header repeated"
REST = "commas of the last column taken as text"
EMPTY_END = "empty fields at the end dropped"
DOUBLED = "doubled quotes taken as one"
PLAIN_QUOTES = "quotes inside the text taken as text"
ENCLOSED = "quoted tabs or line ends taken as text"
MAX_BAD = 0.05
"""The share of a table's rows that may be left out because they can't be read reliably."""
ENCODING_HINT = "save the file as UTF-8, or name its encoding: --data.encoding cp1252 (without training, --encoding)"
_REFUSED = {
    NO_TEXT: "is not UTF-8; save the file as UTF-8",
    NO_OBJECT: "is not a JSON object; write one object per line",
}
_ADVICE = {
    NO_TEXT: ENCODING_HINT,
    NO_OBJECT: "write one object per line",
    AGAIN: "remove these lines",
    **dict.fromkeys(
        (MORE, FEWER, QUOTES, SWALLOWED),
        "put texts with commas, quotes or line ends into double quotes, and double the quotes in them",
    ),
}
_ROWS = 256  # of a Parquet file or a data set, decoded at a time
_FIELD = 1 << 26  # characters of a CSV row, at most
_SEEN = 1_000  # rows


class BadRow(NamedTuple):
    """A row that is left out, because it can't be read as it is meant."""

    place: int
    """Among all rows of the table."""
    where: str
    """Line, and how it begins."""
    reason: str


@dataclass
class Reading:
    """One pass over a table. It decides what becomes of what is odd: mended, left out, or refused."""

    where: str
    counts: Counter[str]
    """What was mended, and how often."""
    strict: bool = False
    """Strings stay as they are; `UserError` for the first row that is not UTF-8 or no JSON object."""
    read: Callable[[int], object] = lambda _: None
    """Hears of bytes, of a data set of rows, that were read."""
    free: Collection[str] = ()
    """Columns of free text: where the last one is among them, it takes what is behind commas that are not quoted."""
    encoding: str | None = None
    """Of the file; none: UTF-8, or UTF-16 if it begins so."""
    line: int = 0
    """The line that was read last."""
    spoiled: int = 0
    """How many of its characters stand for undecodable bytes."""
    place: int = 0
    """Of the row that comes next."""
    bad: list[BadRow] = field(default_factory=list)
    mended: dict[int, str] = field(default_factory=dict)
    """By place, what was done to a row."""

    def mend(self, what: str, times: int = 1) -> None:
        """Count what is done, so many times, to the row that comes next."""
        self.counts[what] += times
        self.mended[self.place] = "; ".join(dict.fromkeys([*filter(None, [self.mended.get(self.place)]), what]))

    def leave_out(self, reason: str, where: str, text: str) -> None:
        """Note that the row that comes next is left out; `UserError` that says where it is if it must not be."""
        if self.strict and reason in _REFUSED:
            raise UserError(f"{self.where}: {where} {_REFUSED[reason]} (it begins {text[:40]!r})")
        self.bad.append(BadRow(self.place, f"{where}: {text.rstrip()[:40]!r}", reason))
        self.place += 1

    def check(self) -> None:
        """`UserError` if more rows are left out than can be."""
        if len(self.bad) > MAX_BAD * self.place:
            shown = "".join(f"\n  {row.where}: {row.reason}" for row in self.bad[:10])
            more = f"\n  and {len(self.bad) - 10:,} more" * (len(self.bad) > 10)
            what = f"{len(self.bad):,} of {self.place:,} rows of {self.where} can't be read reliably"
            raise UserError(f"{what}; {_ADVICE[self.bad[0].reason]}:{shown}{more}")


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

    def rows(self) -> Iterator[dict[str, Any]]:
        """Values by column."""
        return (dict(zip(self.columns, row, strict=True)) for row in zip(*self.columns.values(), strict=True))


@contextmanager
def open_rows(source: Any, reading: Reading, column: str | None = None) -> Iterator[Rows]:
    """Read a file, or a `datasets.Dataset`, row by row; only a few rows are in memory at once.

    The first line of a CSV or TSV file names the columns. Quotes mean nothing in a TSV file (as in GLUE's), but around
    a field with doubled quotes (as Excel's). Empty lines
    are left out, but not of a .txt file. A value with names of its own makes columns `outer.inner`. Rows that can't be
    read as they are meant are left out and noted, NUL characters vanish from strings unless the pass is strict. Other
    columns than `column` need not be decoded. `UserError` for what is no such table, or has too many bad rows.
    """
    try:
        if not isinstance(source, Path | RemoteFile):
            found = column_of(source.column_names, [column] if column else [])
            chosen = source.select_columns([found]) if found else source
            yield _arrow(source.features.arrow_schema, chosen.with_format("arrow").iter(_ROWS), 1.0, reading)
        elif source.suffix.lower() == ".parquet":
            with parquet_file(source) as file:
                found = column_of(file.schema_arrow.names, [column] if column else [])
                batches = file.iter_batches(_ROWS, columns=[found] if found else None, use_threads=False)
                share = size_of(source) / max(1, file.metadata.num_rows)
                yield _arrow(file.schema_arrow, batches, share, reading)
        else:
            with source.open("rb") as file:
                yield _text(source.suffix.lower(), _lines(file, reading), reading)
    except (OSError, csv.Error, pa.ArrowException) as error:
        raise UserError(f"can't read {reading.where}: {str(error).splitlines()[0]}") from error


def parquet_file(path: Path | RemoteFile, **known: Any) -> pq.ParquetFile:
    """A Parquet file, of which is read what is asked for; `known` may be its metadata."""
    if isinstance(path, Path):
        return pq.ParquetFile(path, memory_map=True, pre_buffer=False, **known)
    return pq.ParquetFile(pa.PythonFile(path.open("rb", buffering=0), mode="r"), pre_buffer=False, **known)


def size_of(file: Path | RemoteFile) -> int:
    """Bytes of a file."""
    return file.stat().st_size if isinstance(file, Path) else file.size


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


def column_of(names: Iterable[str], wanted: Iterable[str]) -> str | None:
    """The first wanted column that a table has; as it is written, else in any case, with spaces for underscores."""
    there = list(names)
    folded = {_folded(name): name for name in reversed(there)}
    found = (one if one in there else folded.get(_folded(one)) for one in wanted)
    return next(filter(None, found), None)


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


def _folded(name: str) -> str:
    return "_".join(name.casefold().replace("-", " ").replace("_", " ").split())


def decoded(file: BinaryIO, reading: Reading, limit: int = -1) -> Iterator[str]:
    """Lines of a file with their ends, of longer ones at most `limit` bytes at a time; of bad bytes U+FFFD."""
    encoding = encoding_of(file, reading.encoding)
    if codecs.lookup(encoding).name not in ("utf-8", "utf-8-sig"):
        text = io.TextIOWrapper(file, encoding, errors="replace", newline="\n")
        while line := text.readline(limit):
            reading.read(len(line) * (2 if "16" in encoding else 1))
            reading.line, reading.spoiled = reading.line + 1, line.count("\ufffd")
            yield line.removeprefix("\ufeff")
        return
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while raw := file.readline(limit):
        reading.read(len(raw))
        line = decoder.decode(raw, final=len(raw) != limit)
        reading.line += 1
        reading.spoiled = line.count("\ufffd") - raw.count(b"\xef\xbf\xbd") if "\ufffd" in line else 0
        yield line.removeprefix("\ufeff")  # also where files were joined
    reading.spoiled = 1
    yield from filter(None, [decoder.decode(b"", final=True)])


def encoding_of(file: BinaryIO, named: str | None) -> str:
    """What the mark at the beginning of a file says; else the named one; else UTF-16 for Latin letters in it, or UTF-8.

    UTF-8 with a mark is "utf-8-sig".
    """
    start = file.read(4096)
    file.seek(0)
    marks = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}
    marks |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
    if marked := next((encoding for mark, encoding in marks.items() if start.startswith(mark)), named):
        return marked
    odd, even = start[1::2].count(0), start[::2].count(0)
    if max(odd, even) > 0.8 * (len(start) // 2) and min(odd, even) < 0.1 * len(start):
        return "utf-16-le" if odd > even else "utf-16-be"
    return "utf-8"


def text_of(path: Path) -> str:
    """All of a text file, in the encoding that its beginning tells; `UserError` if it can't be read as such."""
    try:
        with path.open("rb") as raw, io.TextIOWrapper(raw, encoding_of(raw, None)) as file:
            return file.read()
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8; save the file as UTF-8") from error


_ENDS = {"\n": "LF", "\r\n": "CRLF", "\r": "CR"}


def wording(path: Path, named: str | None) -> str:
    """Encoding and line ends of a file, as in "UTF-8 with a mark, CRLF"."""
    with path.open("rb") as raw:
        encoding = encoding_of(raw, named)
    with path.open(encoding=encoding, errors="replace") as file:
        while file.read(1 << 20):
            pass
        ends = file.newlines or ()
    found = " and ".join(_ENDS[end] for end in ([ends] if isinstance(ends, str) else ends))
    said = " as said" if encoding == named else ""
    return f"{encoding.upper().replace('-SIG', ' with a mark')}{said}, {found or 'one line'}"


def mended(text: str, reading: Reading) -> str:
    """A text without NUL characters, and with "?" for halves of characters, which JSON may have."""
    if "\0" in text:
        reading.mend(NULS, text.count("\0"))
        text = text.replace("\0", "")
    whole = text if text.isascii() else text.encode("utf-8", "replace").decode()
    if whole != text:
        reading.mend(HALVES)
    return whole


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


class _Line(NamedTuple):
    """A line of a file with its end."""

    number: int
    text: str
    whole: bool
    """Whether all of it could be decoded."""


_RETURN = "\ufdd0"
"""No character; stands for a carriage return that ends no line while the line goes through `csv`."""


def _lines(file: BinaryIO, reading: Reading) -> Iterator[_Line]:
    """Lines, which end in carriage returns alone where the first does; elsewhere such a return is part of a text."""
    alone = None
    for text in decoded(file, reading):
        alone = "\r" in text[:-2] if alone is None else alone
        for number, line in enumerate(io.StringIO(text, newline="") if alone else (text,), reading.line):
            yield _Line(number, line, not reading.spoiled)


def _text(extension: str, lines: Iterator[_Line], reading: Reading) -> Rows:
    """The table in the lines of a file."""
    names: tuple[str, ...] | None = None
    if extension == ".jsonl":
        rows = _objects(lines, reading)
    elif extension == PLAIN:
        names = ("text",)
        rows = (dict.fromkeys(names, line.text.rstrip("\r\n")) for line in _whole(lines, reading))
    else:
        separator = "," if extension == ".csv" else "\t"
        csv.field_size_limit(2 * _FIELD)
        records: Iterator[_Record] = _quoted(lines) if separator == "," else _tabbed(lines)
        nothing: _Record = [], [], ""
        block, fields, _ = next(records, nothing)
        if fields == ["sep=", ""]:  # Excel's
            block, fields, _ = next(records, nothing)
        if not all(line.whole for line in block):
            raise UserError(f"{reading.where}: the first line is not UTF-8; {ENCODING_HINT}")
        names = tuple(name.strip() for name in fields)
        while names and not names[-1]:
            names = names[:-1]
        header, wanted = separator.join(names), f"{'commas' if separator == ',' else 'tabs'} between the fields"
        others = [mark for mark in "\t;|," if header.count(mark) >= (1 if mark == "\t" else len(names))]
        if names and "|" in names[0]:  # LJSpeech's, where commas are those of texts
            others = ["|"]
        if any(names) and others and others[0] != separator:
            raise UserError(
                f"{reading.where}: the first line is {header[:120]!r}; save the file with {wanted}, not {others[0]!r}"
            )
        if not any(names) or len(set(names)) < len(names):
            raise UserError(f"{reading.where}: the first line must have unique column names; it is {list(names)}")
        rows = _delimited(records, names, separator, reading)
    return Rows(names, {}, _checked(rows, reading))


def _whole(lines: Iterator[_Line], reading: Reading) -> Iterator[_Line]:
    """Lines that could be decoded."""
    for line in lines:
        if line.whole:
            yield line
        else:
            reading.leave_out(NO_TEXT, f"line {line.number}", line.text)


_DOUBLED = re.compile(r'"(?=.*"".*")(?:[^"]|"")*"', re.DOTALL)
"""A field of a TSV file as Excel writes it if it has quotes."""
_Record = tuple[list[_Line], list[str], str]
"""Lines of a row, its fields, and what is odd about its quotes, if anything: then these are the fields without any."""


def _quoted(lines: Iterator[_Line]) -> Iterator[_Record]:
    """Rows of a CSV file. Where a quote is not closed, its line is a row, and those behind it are read again."""
    again: deque[_Line] = deque()
    block: list[_Line] = []

    def feed() -> Iterator[str]:
        block.clear()
        size = 0
        while size < _FIELD and (line := again.popleft() if again else next(lines, None)):
            block.append(line)
            yield _guarded(line)
            size += len(line.text)

    while True:
        try:
            fields = next(csv.reader(feed(), strict=True))
            what = QUOTES if any(one.startswith(' "') for one in fields) else ""
            yield list(block), [one.replace(_RETURN, "\r") for one in fields], what
        except StopIteration:
            return
        except csv.Error as error:
            first, *rest = block
            again.extendleft(reversed(rest))
            unclear = rest or "end of data" in str(error) or '\\"' in first.text
            what = QUOTES if unclear else PLAIN_QUOTES
            yield [first], first.text.rstrip("\r\n").split(","), what


_MOST = 1_000  # lines of a row of a TSV file


def _tabbed(lines: Iterator[_Line]) -> Iterator[_Record]:
    """Rows of a TSV file, a line each; but where quotes enclose tabs, or ends of lines that are no rows, as meant."""
    again: deque[_Line] = deque()
    count = 0

    def feed() -> Iterator[_Line]:
        while line := again.popleft() if again else next(lines, None):
            yield line

    following = feed()
    for line in following:
        fields, block = line.text.rstrip("\r\n").split("\t"), [line]
        count = count or len(fields)
        opened = count > 1 and any(one.startswith('"') for one in fields)
        if opened and (found := _enclosed(block, following, count)):
            yield block, found, ENCLOSED
            continue
        again.extendleft(reversed(block[1:]))
        yield [line], fields, ""


def _enclosed(block: list[_Line], following: Iterator[_Line], count: int) -> list[str] | None:
    """So many fields of a row, to whose first line its others are added; None where it is read as others are."""

    def whole(line: _Line) -> bool:
        return line.text.count("\t") + 1 == count

    while len(block) < _MOST:
        try:
            fields = next(csv.reader(map(_guarded, block), delimiter="\t", strict=True))
        except csv.Error as error:
            if "end of data" not in str(error) or any(map(whole, block[1:])) or not (line := next(following, None)):
                return None
            block.append(line)
            if whole(block[0]) and whole(line):
                return None
        else:
            odd = len(fields) == count and (len(block) > 1 or not whole(block[0]))
            return [one.replace(_RETURN, "\r") for one in fields] if odd else None
    return None


def _guarded(line: _Line) -> str:
    """A line whose carriage returns end nothing for `csv`."""
    body = line.text.rstrip("\r\n")
    return body.replace("\r", _RETURN) + line.text[len(body) :]


def _delimited(
    records: Iterator[_Record], names: tuple[str, ...], separator: str, reading: Reading
) -> Iterator[dict[str, Any]]:
    """Rows with as many fields as columns, or mended where that is certain; all others are left out."""
    count, takes_rest = len(names), column_of(names[-1:], reading.free) is not None
    seen: set[tuple[int, str]] = set()  # shapes of values, by column
    for block, fields, what in records:
        fault = ""
        if fields in ([], [""]):
            continue
        if not all(line.whole for line in block):
            fault = NO_TEXT
        elif fields[0].strip() == names[0] and tuple(map(str.strip, fields[:count])) == names:
            fault = AGAIN
        elif what == QUOTES or (what and len(fields) != count):
            fault = QUOTES
        elif len(block) > 1 and _swallowed(block, fields, separator, seen):
            fault = SWALLOWED
        elif len(fields) > count and not any(fields[count:]):
            fields, what = fields[:count], EMPTY_END
        elif len(fields) > count and takes_rest and fields == block[0].text.rstrip("\r\n").split(separator):
            fields, what = [*fields[: count - 1], separator.join(fields[count - 1 :])], REST
        elif len(fields) != count:
            fault = MORE if len(fields) > count else FEWER
        if fault:
            for line in block:
                reading.leave_out(fault, f"line {line.number}", line.text)
            continue
        if separator == "\t" and any(map(_DOUBLED.fullmatch, fields)):
            fields, what = [one[1:-1].replace('""', '"') if _DOUBLED.fullmatch(one) else one for one in fields], DOUBLED
        if what:
            reading.mend(what)
        if reading.place < _SEEN:
            seen |= _shapes(enumerate(fields))
        yield dict(zip(names, fields, strict=True))


def _shapes(fields: Iterable[tuple[int, str]]) -> set[tuple[int, str]]:
    """Values that are not empty, with their columns; all numbers are alike."""
    return {(column, re.sub(r"\d+", "0", field)) for column, field in fields if field}


def _swallowed(block: Sequence[_Line], fields: Sequence[str], separator: str, seen: Set[tuple[int, str]]) -> bool:
    """Whether the lines of a row could be rows of their own.

    They could if what would be fields looks like others that were `seen`, or if there are more than two and none of
    these is empty or begins with a space, as behind commas of a text.
    """
    rows = [list(enumerate(line.text.rstrip("\r\n").split(separator))) for line in block]
    if len(fields) == 1 or any(len(row) != len(fields) for row in rows):
        return False
    opened = next(column for column, field in rows[0] if field != fields[column])
    would_be = [*rows[0][opened + 1 :], *(one for row in rows[1:-1] for one in row), *rows[-1][: opened + 1]]
    prose = any(field[:1] in ("", " ") for _, field in would_be)
    known = _shapes(one for one in would_be if one[0] != opened) & seen
    return bool(known) or (len(rows) > 2 and not prose)


def _objects(lines: Iterator[_Line], reading: Reading) -> Iterator[dict[str, Any]]:
    """One JSON object a line."""
    for line in _whole((line for line in lines if line.text.strip()), reading):
        try:
            row = parse_json(line.text)
        except ValueError:
            row = None
        if isinstance(row, dict):
            yield row
        else:
            reading.leave_out(NO_OBJECT, f"line {line.number}", line.text)


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
