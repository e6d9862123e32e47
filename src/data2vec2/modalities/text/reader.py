"""Labelled texts, or pairs of texts, of tables; and readers of these and of blocks.

Shapes: `B` samples, `T` tokens, `N` texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from data2vec2.data.account import Account, Bad, PartAccount
from data2vec2.data.folder import Files
from data2vec2.data.labels import COLUMNS, NUMBERS, numbers, some
from data2vec2.data.reader import ReadBatch, Reader, by_length, padded
from data2vec2.data.reading import AGAIN, ENCODING_HINT, MAX_BAD, note
from data2vec2.data.reading import NO_TEXT as NOT_UTF8
from data2vec2.data.records import Parts, Records, parts_of
from data2vec2.data.sampler import WholeBatches
from data2vec2.data.source import BadSample, Content, Listing, Source, Split, by_part, part_of, parts_by_name
from data2vec2.data.tables import Table, parts_unread, read_table
from data2vec2.errors import UsageError, UserError
from data2vec2.modalities.data import Labels, narrow
from data2vec2.modalities.text.config import TextConfig
from data2vec2.modalities.text.files import beside, labelled_sources, texts_by_class, whole_text
from data2vec2.modalities.text.tokenizer import load_tokenizer, surround

SENTENCES = Content("text", "texts", "tables of texts", "Value", frozenset(), ())
"""No file is a sample: each holds many."""
PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    *(("question", other) for other in ("sentence", "passage", "answer")),
    ("text1", "text2"),
)
SINGLE = ("text", "sentence", "content", "review", "document", "comment", "title", "question")
"""Names under which tables keep texts; the first pair that is there is taken, else the first of these."""
NO_TEXT = "no text"
EVAL_TOKENS = 8_192
"""So many tokens go through the model at once in evaluation, padding included."""
MAX_CHARACTERS = 300
"""Characters of a text that a report shows."""


@dataclass(frozen=True, eq=False)
class Texts(Source):
    """Texts in memory, one or two of each sample. Can be pickled."""

    in_memory: ClassVar[bool] = True
    rows: tuple[tuple[str, ...], ...]
    faults: tuple[str, ...] = ()
    """Why each can't be used, "" of those that can; empty: rows without text can't."""
    columns: tuple[str, ...] = ()
    """Where they stand in a table of one or two texts a row."""

    def fault(self, index: int) -> str:
        """Why a sample can't be used, or ""."""
        return self.faults[index] if self.faults else _fault(self.rows[index])

    def read(self, index: int) -> bytes:
        """The texts as UTF-8, one behind the other."""
        return "\n".join(self.rows[index]).encode("utf-8", "surrogatepass")

    def select(self, places: NDArray[np.int64]) -> Texts:
        """The samples at `places`."""
        chosen = places.tolist()
        rows, faults = tuple(self.rows[place] for place in chosen), tuple(map(self.fault, chosen))
        return replace(self, rows=rows, faults=faults)

    def content(self) -> Iterator[bytes | memoryview]:
        """All of them."""
        for row in self.rows:
            yield "\0".join((*row, "")).encode("utf-8", "surrogatepass")


def open_sentences(
    data: str | Path,
    columns: Sequence[str] = (),
    label: str | None = None,
    labels: Labels = "classes",
    encoding: str | None = None,
    learned: Sequence[str] = (),
) -> Parts:
    """Texts and labels of tables (.csv, .tsv, .jsonl, .json, .parquet): one, a folder, or hf:NAME; or lines of a .txt.

    Or a folder of .txt files by class (`texts_by_class`), each a text. Files or splits called train, valid or test are
    the parts. `columns` name one column of texts or a pair, `label` that of labels; unless given, they are found by
    their usual names (`PAIRS`, `SINGLE`, `labels.COLUMNS`), texts first by those that a model has `learned` from, of
    which there must be as many. `labels` says what these are; none: they are not looked at. A test part may have no
    labels. A row without text stays, as a sample that can't be read, and so do rows that can't be read reliably where
    labels are not looked at.

    `UserError` for a path without tables, for a column that is not there, and for labels that can't be.
    """
    if len(columns) > 2:
        raise UsageError(f"{len(columns)} columns of texts ({', '.join(columns)}); name one, or two that make a pair")
    if labels != "numbers" and (found := texts_by_class(data, encoding)):
        if columns or label is not None:
            raise UsageError(f"{data} has no columns, for it holds a text a file; leave their names out")
        listing = _of_files(found, labels, encoding)
    else:
        listing = _of_tables(data, columns, label, labels, encoding, learned)
    rows = {part: narrow(split.source, Texts).rows for part, split in listing.parts.items()}
    trained = set(rows.pop("train"))
    for part, others in rows.items():
        if again := sum(any(row) and row in trained for row in others):
            listing.account.remarks.append(f"{again:,} of {len(others):,} {part} texts are in the train part too")
    return parts_of(listing, str(data), SENTENCES)


def _of_files(found: Listing, labels: Labels, encoding: str | None) -> Listing:
    """A text of each file; `UserError` if too many are not in this encoding."""
    parts = {}
    for part, split in found.parts.items():
        files = narrow(split.source, Files)
        texts, faults = zip(*(whole_text(files.root / name, encoding) for name in files.names), strict=True)
        if (spoiled := faults.count(NOT_UTF8)) > MAX_BAD * len(texts):
            raise UserError(
                f"{spoiled:,} of {len(texts):,} {part} files in {files.root} are not UTF-8; {ENCODING_HINT}"
            )
        source = Texts(tuple((text,) for text in texts), faults)
        parts[part] = Split(split.names, [None] * len(texts) if labels == "none" else split.labels, source)
    found.account.choices.append("each file is a text" + (", its folder the label" if labels != "none" else ""))
    return replace(found, parts=parts, classes=found.classes if labels != "none" else None)


def _of_tables(
    data: str | Path,
    columns: Sequence[str],
    label: str | None,
    labels: Labels,
    encoding: str | None,
    learned: Sequence[str],
) -> Listing:
    """The rows of tables, or the lines of a .txt file."""
    sources = labelled_sources(data, encoding)
    free = (*columns, *learned, *SINGLE, *(name for pair in PAIRS for name in pair))
    tables = {s.name: read_table(s.content, s.name, free=free, encoding=s.encoding) for s in sources}
    of_part, account = by_part(list(tables), str(data)), Account(beside=beside(data, tables))
    if not any(len(tables[name]) for name in of_part["train"]):
        raise UserError(f"{data} has no rows in {', '.join(of_part['train'])}")
    if len(of_part) > 1:  # a sample of what to hand in, say
        none = [
            name for name in of_part["train"] if part_of(name) is None and not _found(tables[name], columns, learned)
        ]
        if len(none) < len(of_part["train"]):
            account.beside |= dict.fromkeys(none, "in no part")
            of_part["train"] = [name for name in of_part["train"] if name not in none]
    account.choices += parts_by_name(of_part)
    known = {"classes": COLUMNS, "numbers": (*COLUMNS, *NUMBERS), "none": ()}[labels]
    first = tables[of_part["train"][0]]
    if labels == "numbers":
        known = tuple(name for name in known if _numeric(first, name)) or known
    texts, label = _columns(first, columns, label, known, learned)
    parts = {}
    for part, names in of_part.items():
        found = [_of(tables[name], texts, label, part) for name in names]
        account.remarks += [
            f"{one.table.name} has no column {label!r}; it has {', '.join(one.table.columns)}"
            for one in found
            if label and not one.label
        ]
        parts[part] = _part(found, account.part(part), labels)
    classes = first.classes.get(label) if label else None
    account.remarks += [remark for table in tables.values() for remark in parts_unread(table.name, table.columns)]
    of_model = _of_model(texts, learned) if learned and not columns else ""
    account.choices.append(f"texts from {' and '.join(texts)}{of_model}" + (f", labels from {label}" if label else ""))
    if unread := [name for name in first.columns if name not in (*texts, label)]:
        account.choices.append(f"unused columns: {some(unread)}")
    return Listing("table of texts", parts, classes, account)


def _of_model(texts: Sequence[str], learned: Sequence[str]) -> str:
    """Whether these are the columns that a model has `learned` from, for the user."""
    same = [name.casefold() for name in texts] == [name.casefold() for name in learned]
    return " as the model learned" if same else f" (the model learned from {' and '.join(learned)})"


def _found(table: Table, texts: Sequence[str], learned: Sequence[str] = ()) -> tuple[str, ...]:
    """The columns of texts that a table has: the given ones, or `learned` ones, or as many under usual names."""
    usual = [one for one in (*PAIRS, *((name,) for name in SINGLE)) if len(one) == (len(learned) or len(one))]
    known = [texts] if texts else [*([learned] if learned else []), *usual]
    found = ([table.column([name]) for name in names] for names in known)
    return next((tuple(filter(None, names)) for names in found if all(names)), ())


def _columns(
    table: Table,
    texts: Sequence[str],
    label: str | None,
    labels: Sequence[str] = (),
    learned: Sequence[str] = (),
) -> tuple[tuple[str, ...], str | None]:
    """The columns of texts and of labels; `UserError` that lists the columns if there are none of texts."""
    chosen = _found(table, texts, learned)
    missing = [name for name in (*texts, *filter(None, [label])) if not table.column([name])]
    if missing or not chosen:
        usual = ", ".join(map(" and ".join, PAIRS) if len(learned) == 2 else SINGLE)
        what = f"no column {missing[0]!r}" if missing else f"no column of texts under a usual name ({usual})"
        if learned and not missing:
            what = f"neither {' and '.join(learned)}, which the model learned from, nor a usual name of texts ({usual})"
        there = ", ".join(table.columns) or "no columns"
        hint = "Name those of texts with --text-columns and that of labels with --label-column"
        hint += " (finetune: --data.text-columns and --data.label-column)"
        raise UserError(f"{table.name} has {what}; it has {there}. {hint}")
    return chosen, table.column([label] if label else labels)


def _numeric(table: Table, name: str) -> bool:
    """Whether the first value of a column that there is is a number."""
    values = table.columns.get(table.column([name]) or "", ())
    try:
        float(next(value for value in values if value is not None and value != ""))
    except (StopIteration, TypeError, ValueError):
        return False
    return True


class _Of(NamedTuple):
    """A table and its columns of texts and labels, which may be written otherwise than in the first table."""

    table: Table
    texts: tuple[str, ...]
    label: str | None


def _of(table: Table, texts: Sequence[str], label: str | None, part: str) -> _Of:
    """A table with its columns; that of labels may lack in a test part only, else `UserError`."""
    wanted = label if part != "test" or table.column([label] if label else []) else None
    return _Of(table, *_columns(table, texts, wanted))


def _part(found: Sequence[_Of], account: PartAccount, labels: Labels) -> Split:
    """The samples of some tables."""
    names, values, rows, faults = list[str](), list[Any](), list[tuple[str, ...]](), list[str]()
    for table, texts, label in found:
        cells = list(zip(*(table.columns[name] for name in texts), strict=True))
        given = table.columns[label] if label else [None] * len(table)
        of_table = list(zip(table.places, cells, given, map(_fault, cells), strict=True))
        if labels == "none":
            of_table += [(row.place, ("",) * len(texts), None, row.reason) for row in table.bad if row.reason != AGAIN]
            of_table.sort(key=lambda row: row[0])
        else:
            note(table.bad, table.name, account)
        account.mend(Bad(f"{table.name}[{place}]", what) for place, what in table.mended.items())
        names += [f"{table.name}[{place}]" for place, *_ in of_table]
        rows += [tuple(map(_text, row)) for _, row, _, _ in of_table]
        values += [value for _, _, value, _ in of_table]
        faults += [fault for *_, fault in of_table]
    source, label = Texts(tuple(rows), tuple(faults), found[0].texts), found[0].label
    if labels == "numbers":
        return Split(names, [None] * len(names), source, numbers=numbers(values, names, label or ""))
    return Split(names, values, source)


def _fault(row: Sequence[Any]) -> str:
    """Why texts can't be used, or ""."""
    other = next((type(value).__name__ for value in row if isinstance(value, list | dict | bytes)), None)
    return f"no text but a {other}" if other else "" if all(map(str.strip, map(_text, row))) else NO_TEXT


def _text(value: Any) -> str:
    """A text; numbers as they are written; "" for nothing."""
    return "" if value is None or value != value or isinstance(value, list | dict | bytes) else str(value)


def each_of(parts: Parts, path: str | Path) -> list[Records]:
    """All parts of a data set at a path, with the folder in the names of samples."""
    place = Path(path) if Path(path).is_dir() else Path(path).parent
    return [replace(part, names=[str(place / name) for name in part.names]) for part in parts.each.values()]


class TextReader(Reader):
    """Batches of token ids `BT`: the start-of-text token, then a block of the stream."""

    in_memory = True  # or nearly so: a block is a small piece of a file

    def __init__(self, records: Records, config: TextConfig, seed: int) -> None:
        super().__init__(records, seed)
        self.config = config

    def whole(self, sample: int) -> NDArray[np.int64]:
        """Ids of a sample; raises `BadSample`."""
        return np.concatenate([[self.config.bos_id], np.frombuffer(self.records.read(sample), dtype=np.int64)])

    def stacked(self, rows: Sequence[NDArray[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
        """All are full."""
        return np.stack(rows), None

    def grid(self, inputs: NDArray[Any]) -> tuple[int, ...]:
        """Tokens, of the longest sample of a batch."""
        return (inputs.shape[1],)

    def eval_groups(self, samples_B: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """At most 16 at once, in their order."""
        return [samples_B[start : start + 16] for start in range(0, len(samples_B), 16)]


class SentenceReader(TextReader):
    """Batches of token ids `BT`, filled up with padding, and their lengths.

    Around a text or a pair stand the tokenizer's special tokens: those of its own, or as `surround` has them. What is
    longer than the model's `max_tokens` keeps its beginning; of a pair, the longer text loses tokens until both fit.
    """

    def __init__(self, records: Records, config: TextConfig, tokenizer: Path, seed: int) -> None:
        """`tokenizer` is a folder with a tokenizer, or its tokenizer.json; `UserError` if it can't be read."""
        super().__init__(records, config, seed)
        self.tokenizer = tokenizer

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.records, self.config, self.tokenizer, self.seed)

    @cached_property
    def backend(self) -> Tokenizer:
        """What makes ids of texts, cut to the model's length."""
        loaded = load_tokenizer(self.tokenizer)
        surround(loaded)
        loaded.backend.enable_truncation(self.config.max_tokens, strategy="longest_first")
        return loaded.backend

    @cached_property
    def lengths_N(self) -> NDArray[np.int64]:
        """Tokens of each sample, special ones included; 0 for those without text."""
        rows = self.texts.rows
        lengths_N = np.zeros(len(rows), dtype=np.int64)
        good = [place for place in range(len(rows)) if not self.texts.fault(place)]
        for start in range(0, len(good), 1_024):
            places = good[start : start + 1_024]
            texts = [rows[place] if len(rows[place]) > 1 else rows[place][0] for place in places]
            lengths_N[places] = [len(one.ids) for one in self.backend.encode_batch_fast(texts)]
        return lengths_N

    @property
    def texts(self) -> Texts:
        """The texts of the samples."""
        return narrow(self.records.source, Texts)

    def encoding(self, sample: int) -> Encoding:
        """Tokens of a sample and their places in its texts; raises `BadSample` if one is empty."""
        row = self.texts.rows[sample]
        if fault := self.texts.fault(sample):
            raise BadSample(fault)
        return self.backend.encode(*row)  # type: ignore[arg-type]  # not a bool

    def whole(self, sample: int) -> NDArray[np.int64]:
        """Ids of a sample; raises `BadSample`."""
        return np.array(self.encoding(sample).ids, dtype=np.int64)

    def stacked(self, rows: Sequence[NDArray[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Filled up with padding."""
        return padded(rows, self.config.pad_id, np.int64)

    def eval_groups(self, samples_B: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """By length, so that little of a batch is padding; at most `EVAL_TOKENS` at once, padding included."""
        return by_length(samples_B, np.maximum(self.lengths_N, 1), EVAL_TOKENS)

    def order(self, batch_size: int) -> WholeBatches:
        """Global batches of so many tokens, padding included."""
        return WholeBatches(np.maximum(self.lengths_N, 1), batch_size, self.seed, 1)

    def size(self, batch: ReadBatch) -> float:
        """Tokens of each sample, padding included."""
        return float(batch.inputs.shape[1])

    def shown(self, samples: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """`texts`, long ones cut."""
        rows = ["\n".join(self.texts.rows[sample]) for sample in samples.tolist()]
        cut = [row[:MAX_CHARACTERS] + "…" * (len(row) > MAX_CHARACTERS) for row in rows]
        return {"texts": np.array(cut, dtype=np.str_)}
