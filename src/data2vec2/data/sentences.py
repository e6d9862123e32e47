"""Labelled texts, or pairs of texts, of tables, and their reader.

Shapes: `B` samples, `T` tokens, `N` texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from data2vec2 import rng
from data2vec2.config import TextConfig
from data2vec2.data import folder, hub
from data2vec2.data.content import Content
from data2vec2.data.labels import COLUMNS as LABEL_COLUMNS
from data2vec2.data.labels import NUMBERS, numbers
from data2vec2.data.reader import Bad, ReadBatch
from data2vec2.data.records import Parts, Records, parts_of
from data2vec2.data.rows import PLAIN, TABLES, Table, arrow_table, read_table
from data2vec2.data.sampler import Plan, WholeBatches
from data2vec2.data.source import BadSample, Found, Part, by_part
from data2vec2.data.tokenizer import load_tokenizer, surround
from data2vec2.errors import UserError

SENTENCES = Content("text", "texts", "tables of texts", "Value", frozenset((*TABLES, PLAIN)), ())
PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "answer"),
    ("text1", "text2"),
)
SINGLE = ("text", "sentence", "content", "review", "document", "comment", "title", "question")
"""Names under which tables keep texts; the first pair that is there is taken, else the first of these."""
NO_TEXT = "no text"
EVAL_TOKENS = 8_192
"""So many tokens go through the model at once in evaluation, padding included."""
_REPLACEMENTS = 100


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts in memory, one or two of each sample. Can be pickled."""

    in_memory: ClassVar[bool] = True
    rows: tuple[tuple[str, ...], ...]

    def read(self, index: int) -> bytes:
        """The texts as UTF-8, one behind the other; raises `BadSample` if one is empty."""
        return "\n".join(self.text(index)).encode("utf-8", "surrogatepass")

    def text(self, index: int) -> tuple[str, ...]:
        """The texts of a sample; raises `BadSample` if one is empty."""
        if not all(text.strip() for text in self.rows[index]):
            raise BadSample(NO_TEXT)
        return self.rows[index]

    def select(self, places: NDArray[np.int64]) -> Texts:
        """The samples at `places`."""
        return Texts(tuple(self.rows[place] for place in places.tolist()))

    def content(self) -> Iterator[bytes | memoryview]:
        """All of them."""
        for row in self.rows:
            yield "\0".join((*row, "")).encode("utf-8", "surrogatepass")


def open_sentences(
    data: str | Path,
    columns: Sequence[str] = (),
    label: str | None = None,
    labels: Literal["classes", "numbers", "none"] = "classes",
) -> Parts:
    """Texts and labels of .csv, .tsv, .jsonl or .parquet tables: one, a folder of them, or hf:NAME; or lines of a .txt.

    Files or splits called train, valid or test are the parts. `columns` name one column of texts or two, which the
    model reads as a pair, and `label` that of labels; unless given, they are found by their usual names (`PAIRS`,
    `SINGLE`, `labels.COLUMNS`). `labels` says what these are; none: they are not looked at. NUL characters are taken
    from texts. A row without text stays, as a sample that can't be read.

    Raises `UserError` for a path that does not exist, that holds no table, whose tables lack a column, or labels that
    can't be.
    """
    if len(columns) > 2:
        raise ValueError(f"{len(columns)} columns of texts ({', '.join(columns)}); name one, or two that make a pair")
    tables = _tables(data)
    names = [table.name for table in tables]
    of_part = {part: [tables[names.index(name)] for name in found] for part, found in by_part(names, str(data)).items()}
    remarks: Counter[str] = Counter()
    known = {"classes": LABEL_COLUMNS, "numbers": (*LABEL_COLUMNS, *NUMBERS), "none": ()}[labels]
    texts, label = _columns(of_part["train"][0], columns, label, known)
    parts = {part: _part(found, texts, label, remarks, labels == "numbers") for part, found in of_part.items()}
    classes = of_part["train"][0].classes.get(label) if label else None
    said = ", ".join(f"{count:,} {what}" for what, count in remarks.items() if count)
    read_as = f"texts from {' and '.join(texts)}" + (f", labels from {label}" if label else "")
    return parts_of(Found("table of texts", parts, classes, (read_as, said)), str(data), SENTENCES)


def _tables(data: str | Path) -> list[Table]:
    """Every file or split that there is."""
    if (text := Path(data).as_posix()).startswith(hub.PREFIX):
        return [arrow_table(split.data.table, name) for name, split in hub.load_splits(text).items()]
    path = Path(data)
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if path.is_file() and path.suffix.lower() in (*TABLES, PLAIN):
        return [read_table(path, path.name)]
    files = folder.scan(path) if path.is_dir() else {path.suffix.lower(): [path.name]}
    names = sorted(name for extension in TABLES for name in files.get(extension, ()))
    if not names:
        found = ", ".join(f"{extension} ({count:,})" for extension, count in folder.counts(files).items()) or "nothing"
        raise UserError(f"no tables of texts in {path} ({', '.join(TABLES)}): it holds {found}")
    return [read_table(path / name, name) for name in names]


def _columns(
    table: Table, texts: Sequence[str], label: str | None, labels: Sequence[str] = ()
) -> tuple[tuple[str, ...], str | None]:
    """The columns of texts and of labels; `UserError` that lists the columns if there are none of texts."""
    known = [*PAIRS, *((name,) for name in SINGLE)]
    chosen = tuple(texts) or next((names for names in known if all(name in table.columns for name in names)), ())
    missing = [name for name in (*chosen, *filter(None, [label])) if name not in table.columns]
    if missing or not chosen:
        what = f"column {missing[0]!r}" if missing else f"column of texts under a usual name ({', '.join(SINGLE)})"
        raise UserError(
            f"{table.name} has no {what}; it has {', '.join(table.columns) or 'no columns'}. Name those of texts with "
            "--text-columns and that of labels with --label-column"
        )
    return chosen, label or next((name for name in labels if name in table.columns), None)


def _part(
    tables: Sequence[Table], texts: tuple[str, ...], label: str | None, remarks: Counter[str], as_numbers: bool
) -> Part:
    """The samples of some tables."""
    names: list[str] = []
    labels: list[Any] = []
    rows: list[tuple[str, ...]] = []
    for table in tables:
        _columns(table, texts, label)
        remarks.update(table.remarks)
        names += [f"{table.name}[{place}]" for place in range(len(table))]
        labels += table.columns[label] if label else [None] * len(table)
        rows += zip(*([_clean(value, remarks) for value in table.columns[name]] for name in texts), strict=True)
    remarks["rows without text"] += sum(not all(text.strip() for text in row) for row in rows)
    if not as_numbers:
        return Part(names, labels, Texts(tuple(rows)))
    return Part(names, [None] * len(names), Texts(tuple(rows)), numbers=numbers(labels, names, label or ""))


def _clean(value: Any, remarks: Counter[str]) -> str:
    """A text without NUL characters; numbers as they are written; "" for nothing."""
    if value is None or value != value or isinstance(value, list | dict | bytes):
        return ""
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    remarks["undecodable bytes replaced"] += text.count("\ufffd")
    remarks["NUL characters removed"] += text.count("\0")
    return text.replace("\0", "")


class SentenceReader:
    """Batches of token ids `BT`, filled up with padding, and their lengths. Can be pickled.

    The tokenizer puts its own special tokens around a text or a pair; one that has none of its own gives `<s> A </s>`
    or `<s> A </s></s> B </s>`. A text that is longer than the model's `max_tokens` keeps its beginning; of a pair, the
    longer text loses tokens at its end until both fit. Samples without text are replaced by others, chosen by (seed,
    sample) alone; `UserError` if a hundred others have none either.
    """

    in_memory = True

    def __init__(self, records: Records, config: TextConfig, tokenizer: Path, seed: int) -> None:
        """`tokenizer` is a folder with a tokenizer, or its tokenizer.json; `UserError` if it can't be read."""
        self.records, self.config, self.tokenizer, self.seed = records, config, tokenizer, seed

    def __reduce__(self) -> tuple[Any, ...]:
        return SentenceReader, (self.records, self.config, self.tokenizer, self.seed)

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
        texts = self.texts
        lengths_N = np.zeros(len(texts.rows), dtype=np.int64)
        good = [place for place, row in enumerate(texts.rows) if all(text.strip() for text in row)]
        for start in range(0, len(good), 1_024):
            places = good[start : start + 1_024]
            rows = [_input(texts.rows[place]) for place in places]
            lengths_N[places] = [len(one.ids) for one in self.backend.encode_batch_fast(rows)]
        return lengths_N

    @property
    def texts(self) -> Texts:
        """The texts of the samples."""
        assert isinstance(self.records.source, Texts)
        return self.records.source

    def encoding(self, sample: int) -> Encoding:
        """Tokens of a sample and their places in its texts; raises `BadSample`."""
        return self.backend.encode(*self.texts.text(sample))  # type: ignore[arg-type]  # not a bool

    def whole(self, sample: int) -> NDArray[np.int64]:
        """Ids of a sample; raises `BadSample`."""
        return np.array(self.encoding(sample).ids, dtype=np.int64)

    def train_batch(self, plan: Plan) -> ReadBatch:
        """As in evaluation."""
        return self.eval_batch(plan.samples_B)

    def eval_batch(self, samples_B: NDArray[np.int64]) -> ReadBatch:
        """Samples as the tokenizer makes them."""
        indices_B, bad, rows = np.array(samples_B, dtype=np.int64), [], []
        for place, sample in enumerate(indices_B.tolist()):
            try:
                row = self.whole(sample)
            except BadSample as error:
                bad.append(Bad(self.records.names[sample], error.reason))
                row, indices_B[place] = self._replacement(sample)
            rows.append(row)
        lengths_B = np.array([len(row) for row in rows], dtype=np.int64)
        ids_BT = padded(rows, self.config.pad_id)
        return ReadBatch(ids_BT, self.records.labels[indices_B], tuple(bad), indices_B, lengths_B)

    def eval_groups(self, samples_B: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """By length, so that little of a batch is padding; at most `EVAL_TOKENS` at once, padding included."""
        lengths = np.maximum(self.lengths_N, 1)
        groups: list[list[int]] = [[]]
        for sample in samples_B[np.argsort(lengths[samples_B], kind="stable")].tolist():
            if groups[-1] and (len(groups[-1]) + 1) * lengths[sample] > EVAL_TOKENS:
                groups.append([])
            groups[-1].append(sample)
        return [np.array(group, dtype=np.int64) for group in groups if group]

    def order(self, batch_size: int) -> WholeBatches:
        """Global batches of so many tokens, padding included."""
        return WholeBatches(np.maximum(self.lengths_N, 1), batch_size, self.seed, 1)

    def grid(self, plan: Plan) -> tuple[int, ...]:
        """Tokens of the longest sample of a batch."""
        return (plan.length,)

    def size(self, plan: Plan) -> float:
        """Tokens of each sample, padding included."""
        return float(plan.length)

    def _replacement(self, sample: int) -> tuple[NDArray[np.int64], int]:
        """What stands in for a sample without text, and its place."""
        draws = rng.uniforms(rng.keys(rng.Stream.REPLACEMENT, self.seed, sample), _REPLACEMENTS)[0]
        for other in (draws * len(self.records)).astype(np.int64).tolist():
            try:
                return self.whole(other), other
            except BadSample:
                continue
        raise UserError(f"{self.records.names[sample]} has no text, nor have {_REPLACEMENTS} others drawn in its place")


def padded(rows: Sequence[NDArray[np.int64]], pad_id: int) -> NDArray[np.int64]:
    """Ids `BT` of several samples, filled up to the longest."""
    ids_BT = np.full((len(rows), max(map(len, rows), default=0)), pad_id, dtype=np.int64)
    for filled, row in zip(ids_BT, rows, strict=True):
        filled[: len(row)] = row
    return ids_BT


def _input(row: tuple[str, ...]) -> str | tuple[str, str]:
    """One text, or a pair, as the tokenizer takes them in batches."""
    return row[0] if len(row) == 1 else (row[0], row[1])
