"""Questions with contexts that hold their answers: SQuAD's files, and tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from data2vec2.data.account import Account, Bad
from data2vec2.data.lines import JSON
from data2vec2.data.packed import open_text
from data2vec2.data.reading import Reading
from data2vec2.data.records import Parts, parts_of
from data2vec2.data.source import Listing, Split, by_part, extension_of, numbered, parts_by_name
from data2vec2.data.tables import TABLES, open_rows, read_table
from data2vec2.errors import UsageError, UserError
from data2vec2.files import parse_json
from data2vec2.modalities.data import Columns
from data2vec2.modalities.text.files import TextSource, find_sources
from data2vec2.modalities.text.reader import NO_TEXT, SENTENCES, Texts

QUESTIONS = "questions"
"""The kind of such records."""
COLUMNS, ANSWERS = ("question", "context"), "answers"
"""Usual names of a table's columns."""
CLASSES = ("start", "end")
"""What a model has a number for at each token."""
NO_ANSWERS, NO_PLACE, BOTH = "no list of answers", "no answer stands in its context", "is_impossible, with answers"
UNUSABLE = (NO_ANSWERS, NO_PLACE, BOTH)
FOUND, DROPPED = "an answer stands elsewhere than said", "an answer that is not in the context left out"


class Asked(NamedTuple):
    """What is known of a question."""

    id: str
    """As the data call it; "" for nothing."""
    answers: tuple[tuple[int, int], ...]
    """First character of each true answer in the context, and the one behind its last; empty: there is none."""


class _Row(NamedTuple):
    place: int
    id: Any
    question: Any
    context: Any
    answers: Any
    """Pairs of a text and its first character; None where nothing is said, another thing where that makes no sense."""
    impossible: bool = False
    fault: str = ""
    """Why it can't be read, or ""."""


def open_questions(data: str | Path, columns: Columns, answered: bool = True) -> Parts:
    """Questions with contexts: SQuAD's .json files, of both versions, or tables.

    Tables have columns `question`, `context` and `answers` (lists `text` and `answer_start`, or a list of objects with
    these), which `columns` may name otherwise, and perhaps `id`. An empty list says that there is no answer. Where a
    text stands in the context once, but elsewhere than said, that place is taken. If not `answered`, answers are not
    looked at, and rows that can't be used stay, as samples that can't be read. Files or splits called train, valid or
    test are parts.

    `UserError` for a path without such files, for a table without such columns, and where no question can be used.
    """
    sources = find_sources(data, TABLES, "questions with contexts", columns.encoding)
    account, parts, marks = Account(), dict[str, Split](), dict[str, list[Asked]]()
    of_part = by_part([source.name for source in sources], str(data))
    account.choices += parts_by_name(of_part)
    for part, names in of_part.items():
        kept, texts, faults, asked = list[str](), list[tuple[str, ...]](), list[str](), list[Asked]()
        of_account = account.part(part)
        for source in (source for source in sources if source.name in names):
            for row in _rows(source, columns, answered):
                name, pair = f"{source.name}[{row.place}]", (_text(row.question), _text(row.context))
                fault = row.fault or ("" if all(map(str.strip, pair)) else NO_TEXT)
                places, what = _answers(row, pair[1]) if answered and not fault else ((), "")
                if answered and (fault or what in UNUSABLE):
                    of_account.bad[name] = fault or what
                    continue
                of_account.mend([Bad(name, what)] if what else [])
                kept.append(name)
                texts.append(pair)
                faults.append(fault)
                asked.append(Asked("" if row.id is None else _text(str(row.id)), places))
        groups = numbered(context for _, context in texts)  # which are not to be known from training
        parts[part] = Split(kept, [None] * len(kept), Texts(tuple(texts), tuple(faults)), groups=groups)
        marks[part] = asked
    if not marks["train"]:
        first = "; ".join(f"{name}: {why}" for name, why in [*account.part("train").bad.items()][:3])
        raise UserError(f"{data} has no questions that can be used ({first or 'it is empty'})")
    opened = parts_of(Listing(QUESTIONS, parts, CLASSES, account), str(data), SENTENCES)
    found: dict[str, Any] = {part: replace(records, marks=tuple(marks[part])) for part, records in opened.each.items()}
    sizes = ", ".join(f"{len(records):,} {part}" for part, records in found.items())
    none = sum(not one.answers for one in marks["train"]) if answered else 0
    lines = [f"questions: {sizes}", *([f"{none:,} to train on have no answer"] if none else []), *account.choices]
    return replace(opened, **found, description="; ".join(lines))


def _rows(source: TextSource, columns: Columns, answered: bool) -> Iterable[_Row]:
    """Questions of a file; `UsageError` for columns that are named of one of SQuAD's."""
    if extension_of(source.name) != JSON or not _is_squad(source):
        return _of_table(source, columns, answered)
    if named := [*columns.text, *([columns.label] if columns.label is not None else [])]:
        raise UsageError(f"{source.name} is no table: leave the columns {', '.join(named)} out for SQuAD's files")
    return _squad(source)


def _is_squad(source: TextSource) -> bool:
    """Whether a .json file is one of SQuAD's, and no list of questions."""
    with open_rows(source.content, Reading(str(source.content), Counter(), encoding=source.encoding)) as table:
        return "paragraphs" in next(table.rows, {})


def _squad(source: TextSource) -> Iterator[_Row]:
    """Questions of one of SQuAD's files; `UserError` for another."""
    try:
        with open_text(source.content) as file:
            raw = file.read()
        articles = parse_json(raw.decode(source.encoding) if source.encoding else raw)["data"]
        pairs = [(one["context"], of) for article in articles for one in article["paragraphs"] for of in one["qas"]]
        for place, (context, of) in enumerate(pairs):
            answers = of.get("answers")
            listed = answers if answers is None else [(one.get("text"), one.get("answer_start")) for one in answers]
            yield _Row(place, of.get("id"), of["question"], context, listed, of.get("is_impossible") is True)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else str(error)
        form = '{"data": [{"paragraphs": [{"context": ..., "qas": [{"question": ..., "answers": [...]}]}]}]}'
        raise UserError(f"{source.content} is not one of SQuAD's files, {form}: {why}") from error


def _of_table(source: TextSource, columns: Columns, answered: bool) -> list[_Row]:
    """Questions of a table, and rows that can't be read; `UserError` for a table without such columns."""
    table = read_table(source.content, source.name, encoding=source.encoding)
    if len(columns.text) == 1:
        raise UsageError(f"one column of texts ({columns.text[0]}); name that of questions and that of contexts")
    label = columns.label or ANSWERS
    learned = columns.learned if all(table.column([name]) for name in columns.learned) else ()
    question, context = (table.column([name]) for name in columns.text or learned or COLUMNS)
    plain, texts, starts = (table.column([label + end]) for end in ("", ".text", ".answer_start"))
    if not question or not context or (answered and not plain and not texts):
        there, flags = ", ".join(table.columns) or "none", "--data.text-columns and --data.label-column"
        wanted = ", ".join([*(columns.text or COLUMNS), *([label] if answered else [])])
        raise UserError(f"{table.name} has not the columns {wanted}, but {there}; name them with {flags}")
    rows = [_Row(bad.place, None, None, None, None, fault=bad.reason) for bad in table.bad]
    for place, row in zip(table.places, table.rows(), strict=True):
        value = row[plain] if plain else None
        if texts and row[texts] is not None:  # an object's fields have columns of their own
            value, firsts = row[texts], row[starts] if starts else None
            both = [one if isinstance(one, list) else [one] for one in (value, firsts)]
            value = list(zip(*both, strict=True)) if len(both[0]) == len(both[1]) else "lists of different lengths"
        elif isinstance(value, list):
            value = [
                (one.get("text"), one.get("answer_start")) if isinstance(one, dict) else (one, None) for one in value
            ]
        rows.append(_Row(place, row.get("id"), row[question], row[context], value))
    return sorted(rows, key=lambda row: row.place)


def _answers(row: _Row, context: str) -> tuple[tuple[tuple[int, int], ...], str]:
    """Places of a question's true answers in its context, and what is odd about them."""
    if row.impossible:
        return (), BOTH if row.answers else ""
    if not isinstance(row.answers, list):
        return (), NO_ANSWERS
    places, odd = list[tuple[int, int]](), ""
    for given, said in row.answers:
        text, start = _text(given), said if isinstance(said, int) and said >= 0 else -1
        bare = text.strip()
        if start >= 0 and bare and context[start : start + len(text)] == text:
            start += len(text) - len(text.lstrip())
        elif bare and (start := context.find(bare)) >= 0 and context.find(bare, start + 1) < 0:
            odd = odd or FOUND
        else:
            odd = DROPPED
            continue
        places.append((start, start + len(bare)))
    return tuple(places), NO_PLACE if row.answers and not places else odd


def _text(value: Any) -> str:
    """A text that can be written, of as many characters; "" for what is none."""
    if not isinstance(value, str) or value.isascii():
        return value if isinstance(value, str) else ""
    return value.encode("utf-8", "replace").decode()
