"""Rows of files that have a row a line: .csv, .tsv, .jsonl and .txt; and of .json files, which are lists of rows."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Set
from io import BufferedReader
from itertools import chain, islice
from typing import Any, NamedTuple

from data2vec2.data.reading import (
    AGAIN,
    DOUBLED,
    EMPTY_END,
    ENCLOSED,
    ENCODING_HINT,
    FEWER,
    MORE,
    NO_OBJECT,
    NO_TEXT,
    PLAIN_QUOTES,
    QUOTES,
    REST,
    SWALLOWED,
    Reading,
    column_of,
    lines_of,
    told_apart,
)
from data2vec2.errors import UserError
from data2vec2.files import parse_json

PLAIN = ".txt"
"""A text a line, in a column `text`; if the first line begins with a label of fastText, there is a column `label`."""
JSON = ".json"
"""A list of objects, alone or in an object under one of `KEYS`; or an object a line."""
KEYS = ("data", "rows", "examples")
LINES = (".csv", ".tsv", ".jsonl", JSON, PLAIN)
_FIELD = 1 << 26  # characters of a CSV row, at most
_SEEN = 1_000  # rows


class _Line(NamedTuple):
    """A line of a file with its end."""

    number: int
    text: str
    whole: bool
    """Whether all of it could be decoded."""


_RETURN = "\ufdd0"
"""No character; stands for a carriage return that ends no line while the line goes through `csv`."""


def _lines(file: BufferedReader, reading: Reading) -> Iterator[_Line]:
    for text in lines_of(file, reading):
        yield _Line(reading.line, text, not reading.spoiled)


def rows_of(
    file: BufferedReader, extension: str, reading: Reading
) -> tuple[tuple[str, ...] | None, Iterator[dict[str, Any]]]:
    """Columns of a file, and its rows; of JSON every row has its own columns.

    `UserError` for a first line that names no columns.
    """
    names: tuple[str, ...] | None = None
    lines = _lines(file, reading)
    if extension in (".jsonl", JSON):
        rows = (_objects if extension == ".jsonl" else _listed)(lines, reading)
    elif extension == PLAIN:
        texts: Iterator[str] = (line.text.rstrip("\r\n") for line in _whole(lines, reading))
        first = next(texts, None)
        texts = texts if first is None else chain([first], texts)
        names = ("text", "label") if first and is_tagged(first) else ("text",)
        rows = (dict(zip(names, _untagged(text) if len(names) > 1 else (text,), strict=True)) for text in texts)
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
        if not any(names) or names.count("") > 1:
            raise UserError(f"{reading.where}: the first line must have names of columns; it is {list(names)}")
        rows = _delimited(records, names, separator, reading)
    return names and told_apart(names), rows


_TAG = re.compile(r"(?<!\S)__label__(\S+)[ \t]*")


def is_tagged(line: str) -> bool:
    """Whether it begins with a label as fastText has them, and so does the file whose first line it is."""
    return _TAG.match(line) is not None


def untag(text: str) -> tuple[str, list[str]]:
    """A text without fastText's labels, and these."""
    return _TAG.sub("", text), _TAG.findall(text)


def _untagged(line: str) -> tuple[str, list[str] | str | None]:
    """A text and its label, several as a list."""
    text, tags = untag(line)
    return text.strip(), tags if len(tags) > 1 else next(iter(tags), None)


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
    count, header, names = len(names), names, told_apart(names)
    takes_rest = column_of(header[-1:], reading.free) is not None
    seen: set[tuple[int, str]] = set()  # shapes of values, by column
    for block, fields, what in records:
        fault = ""
        if fields in ([], [""]):
            continue
        if not all(line.whole for line in block):
            fault = NO_TEXT
        elif fields[0].strip() == header[0] and tuple(map(str.strip, fields[:count])) == header:
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


def _is_object(text: str) -> bool:
    try:
        return isinstance(parse_json(text), dict)
    except ValueError:
        return False


class NoRows(UserError):
    """A .json file of something else than rows."""


def _listed(lines: Iterator[_Line], reading: Reading) -> Iterator[dict[str, Any]]:
    """Objects of a .json file, a list of which is in memory as a whole; `NoRows` for valid JSON of another kind."""
    known = list(islice((line for line in lines if line.text.strip()), 2))
    if len(known) > 1 and _is_object(known[0].text):
        yield from _objects(chain(known, lines), reading)
        return
    known += lines
    try:
        value = parse_json("".join(line.text for line in known) or "null")
    except ValueError as error:
        raise UserError(f"{reading.where} is not valid JSON ({error}); mend it, or move it elsewhere") from error
    if isinstance(value, dict):
        lists = [key for key in KEYS if isinstance(value.get(key), list)]
        if len(lists) > 1:
            raise UserError(f"{reading.where} has several lists, {' and '.join(lists)}; keep one")
        value = value[lists[0]] if lists else value
    if not isinstance(value, list) or (value and not isinstance(value[0], dict)):
        raise NoRows(f"{reading.where} is no list of objects, and no object with one as {', '.join(KEYS)}")
    spoiled = not all(line.whole for line in known)
    for place, row in enumerate(value, 1):
        if not isinstance(row, dict) or (spoiled and "\ufffd" in str(row)):
            reading.leave_out(NO_TEXT if isinstance(row, dict) else NO_OBJECT, f"object {place}", str(row))
        else:
            yield row


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
