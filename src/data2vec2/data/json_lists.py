"""Rows of .json files that are lists of objects, one in memory at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from data2vec2.data.packed import open_text
from data2vec2.data.reading import NO_OBJECT, NO_TEXT, Reading, decoded
from data2vec2.data.remote import RemoteFile
from data2vec2.errors import UserError
from data2vec2.files import decode_json

JSON = ".json"
KEYS = ("data", "rows", "examples")
"""Under which an object may keep the list."""
_PIECE = 1 << 16  # characters read at once
_LONGEST = 1 << 26  # characters of an object


class NoRows(UserError):
    """It is not the list of objects that it should be."""


def json_rows(file: BufferedReader, reading: Reading) -> Iterator[dict[str, Any]]:
    """Objects of a list, which may stand in an object under one of `KEYS`; or objects one behind the other.

    What is no object is left out. `NoRows` for other files, `UserError` for one that is damaged behind the first row.
    """
    text = _Text(file, reading)
    try:
        if text.next() == "[":
            yield from _list(text, reading)
        elif text.next() == "{":
            yield from _object(text, reading)
        else:
            raise NoRows(f"{reading.where} holds no list of objects")
        if text.next():
            raise ValueError("more follows behind the end of the list")
    except ValueError as error:
        place, kind = reading.place, UserError if reading.place else NoRows
        raise kind(f"{reading.where} is not valid JSON behind object {place:,} ({error}); is it cut off?") from error


def has_rows(file: Path | RemoteFile, encoding: str | None) -> bool:
    """Whether a .json file begins as `json_rows` has it; `UserError` for one that can't be read."""
    reading = Reading(str(file), Counter(), encoding=encoding)
    try:
        with open_text(file) as opened:
            return next(json_rows(opened, reading), None) is not None
    except NoRows:
        return False
    except OSError as error:
        raise UserError(f"can't read {file}: {error}") from error


class _Text:
    """A file of which a stretch is in memory."""

    def __init__(self, file: BufferedReader, reading: Reading) -> None:
        self.pieces, self.reading = decoded(file, reading, _PIECE), reading
        self.text, self.place, self.spoiled = "", 0, False

    def more(self, size: int) -> bool:
        """Read so many characters, if there are any."""
        kept = [self.text[self.place :]]
        while size > 0 and (piece := next(self.pieces, None)) is not None:
            self.spoiled |= self.reading.spoiled > 0
            kept.append(piece)
            size -= len(piece)
        self.text, self.place = "".join(kept), 0
        return len(kept) > 1

    def next(self) -> str:
        """The next character that is no space, which stays; "" at the end."""
        while True:
            while self.place < len(self.text):
                if not self.text[self.place].isspace():
                    return self.text[self.place]
                self.place += 1
            if not self.more(_PIECE):
                return ""

    def take(self, sign: str) -> None:
        """Go behind the next character, which must be this one; else `ValueError`."""
        if (found := self.next()) != sign:
            raise ValueError(f"{sign!r} is needed, not {repr(found) if found else 'the end of the file'}")
        self.place += 1

    def value(self) -> tuple[Any, bool]:
        """The next value, and whether all of it could be decoded; `ValueError` if there is none."""
        self.next()
        size = _PIECE
        while True:
            try:
                value, end = decode_json(self.text, self.place)
            except ValueError:
                if size > _LONGEST or not self.more(size):
                    raise
            else:
                count = end - self.place
                if end < len(self.text) or not self.more(size):  # else it may be a part of a number
                    break
            size *= 2
        start, self.place = self.place, self.place + count
        return value, not (self.spoiled and "\ufffd" in self.text[start : self.place])


def _list(text: _Text, reading: Reading) -> Iterator[dict[str, Any]]:
    text.take("[")
    if text.next() not in ("{", "]"):
        raise NoRows(f"{reading.where} holds a list, but not of objects")
    while text.next() != "]":
        yield from _row(*text.value(), reading)
        if text.next() != "]":
            text.take(",")
    text.take("]")


def _object(text: _Text, reading: Reading) -> Iterator[dict[str, Any]]:
    """Rows in an object, or the object itself and those behind it."""
    row, whole, found = dict[str, Any](), True, ""
    text.take("{")
    while text.next() != "}":
        key, _ = text.value()
        text.take(":")
        if key in KEYS and text.next() == "[":
            if found:
                raise UserError(f"{reading.where} has two lists, {found} and {key}; keep one")
            found = key
            yield from _list(text, reading)
        else:
            row[str(key)], decodable = text.value()
            whole &= decodable
        if text.next() != "}":
            text.take(",")
    text.take("}")
    if not found and text.next() != "{":
        there = ", ".join([*row][:10]) or "nothing"
        raise NoRows(f"{reading.where} is an object with {there}; it must be a list of objects, or have one as data")
    if not found:
        yield from _row(row, whole, reading)
        while text.next():
            yield from _row(*text.value(), reading)


def _row(value: Any, whole: bool, reading: Reading) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict) and whole:
        yield value
    else:
        reading.leave_out(NO_TEXT if isinstance(value, dict) else NO_OBJECT, f"object {reading.place + 1}", str(value))
