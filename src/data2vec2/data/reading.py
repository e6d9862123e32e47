"""One pass over a table or a text file: how it is decoded, and what becomes of what is odd about it."""

from __future__ import annotations

import codecs
import io
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from data2vec2.data.account import PartAccount
from data2vec2.data.packed import open_text
from data2vec2.errors import UserError

BAD_BYTES = "undecodable bytes replaced"
NULS = "NUL characters removed"
HALVES = "lone surrogates replaced"
NO_TEXT = "not UTF-8"
NO_OBJECT = "not a JSON object"
FEWER, MORE = "fewer fields than columns", "more fields than columns"
QUOTES = "unclosed quotes, or text beside quotes"
SWALLOWED = "quotes over several lines, each of which could be a row"
AGAIN = "header repeated"
"""Where files were joined, which says nothing against the others."""
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
    **dict.fromkeys(
        (MORE, FEWER, QUOTES, SWALLOWED),
        "put texts with commas, quotes or line ends into double quotes, and double the quotes in them",
    ),
}


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
    """Hears of bytes, of a data set of rows, that were read, as far as it reads the file itself."""
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
        """`UserError` if more rows can't be read than may be."""
        bad = [row for row in self.bad if row.reason != AGAIN]
        if len(bad) > MAX_BAD * self.place:
            shown = "".join(f"\n  {row.where}: {row.reason}" for row in bad[:10])
            more = f"\n  and {len(bad) - 10:,} more" * (len(bad) > 10)
            what = f"{len(bad):,} of {self.place:,} rows of {self.where} can't be read reliably"
            raise UserError(f"{what}; {_ADVICE[bad[0].reason]}:{shown}{more}")


def note(rows: Iterable[BadRow], table: str, account: PartAccount) -> None:
    """Note in an account what a table's pass has left out."""
    for row in rows:
        (account.left_out if row.reason == AGAIN else account.bad)[f"{table}[{row.place}] ({row.where})"] = row.reason


def told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """Names of columns, those of the same name with their places, from 1: "text (column 3)"."""
    return tuple(f"{name} (column {place})" if names.count(name) > 1 else name for place, name in enumerate(names, 1))


_PLACE = re.compile(r" \(column \d+\)$")


def column_of(names: Iterable[str], wanted: Iterable[str], table: str = "a table") -> str | None:
    """The first wanted column that a table has; as it is written, else in any case, with spaces for underscores.

    `UserError` where several columns have that name.
    """
    there = list(names)
    folded = {_folded(name): name for name in reversed(there)}
    for one in wanted:
        if found := one if one in there else folded.get(_folded(one)):
            return found
        if several := [name for name in there if _PLACE.search(name) and _folded(_PLACE.sub("", name)) == _folded(one)]:
            raise UserError(
                f"{table} has more than one column {one!r}; rename all but one, or name {' or '.join(several)}"
            )
    return None


def _folded(name: str) -> str:
    return "_".join(name.casefold().replace("-", " ").replace("_", " ").split())


def decoded(file: BufferedReader, reading: Reading, limit: int = -1) -> Iterator[str]:
    """Lines of a file with their ends, of longer ones at most `limit` bytes at a time; of bad bytes U+FFFD."""
    encoding = encoding_of(file, reading.encoding)
    if codecs.lookup(encoding).name not in ("utf-8", "utf-8-sig"):
        text = io.TextIOWrapper(file, encoding, errors="replace", newline="\n")
        while line := text.readline(limit):
            reading.line, reading.spoiled = reading.line + 1, line.count("\ufffd")
            yield line.removeprefix("\ufeff")
        return
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while raw := file.readline(limit):
        line = decoder.decode(raw, final=len(raw) != limit)
        reading.line += 1
        reading.spoiled = line.count("\ufffd") - raw.count(b"\xef\xbf\xbd") if "\ufffd" in line else 0
        yield line.removeprefix("\ufeff")  # also where files were joined
    reading.spoiled = 1
    yield from filter(None, [decoder.decode(b"", final=True)])


def lines_of(file: BufferedReader, reading: Reading, limit: int = -1) -> Iterator[str]:
    """The same; line by line if carriage returns alone end lines, as on old Macs, which the first line tells.

    Elsewhere such a return is part of a text.
    """
    alone = None
    for text in decoded(file, reading, limit):
        alone, spoiled = "\r" in text[:-2] if alone is None else alone, reading.spoiled
        for number, line in enumerate(io.StringIO(text, newline=None) if alone else (text,)):
            reading.line += number > 0
            reading.spoiled = min(spoiled, line.count("\ufffd")) if alone else spoiled
            yield line


def encoding_of(file: BufferedReader, named: str | None) -> str:
    """What the mark at the beginning of a file says; else the named one; else UTF-16 for Latin letters in it, or UTF-8.

    UTF-8 with a mark is "utf-8-sig".
    """
    start = file.peek(4096)[:4096]
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
        with open_text(path) as raw, io.TextIOWrapper(raw, encoding_of(raw, None)) as file:
            return file.read()
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8; save the file as UTF-8") from error


_ENDS = {"\n": "LF", "\r\n": "CRLF", "\r": "CR"}


def wording(path: Path, named: str | None) -> str:
    """Encoding and line ends of a file, as in "UTF-8 with a mark, CRLF"."""
    with open_text(path) as raw, io.TextIOWrapper(raw, encoding_of(raw, named), errors="replace") as file:
        encoding = file.encoding
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
