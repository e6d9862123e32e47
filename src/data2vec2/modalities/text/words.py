"""Words with tags (parts of speech, entities): their files, which token each word begins with, and the job.

Words are joined by spaces, so that their tokens are those of running text, in pre-training and in pipelines. A word's
class stands at the first of its tokens.

Shapes: `T` tokens.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from data2vec2.config.run import DataConfig, FinetuneConfig
from data2vec2.data.account import Account, Bad
from data2vec2.data.labels import IGNORED, listed, spelled
from data2vec2.data.lines import PLAIN
from data2vec2.data.packed import open_text
from data2vec2.data.reader import Reader
from data2vec2.data.reading import ENCODING_HINT, BadRow, Reading, lines_of, note
from data2vec2.data.records import Parts, Records, parts_of
from data2vec2.data.sampler import Plan
from data2vec2.data.source import Listing, Split, by_part, extension_of, parts_by_name
from data2vec2.data.tables import TABLES, read_table
from data2vec2.errors import UsageError, UserError
from data2vec2.evaluation.dense import Said
from data2vec2.evaluation.similarity import spread
from data2vec2.method.encoder import Encoder
from data2vec2.method.heads import TokenClassifier
from data2vec2.modalities.data import Columns, Log, ModelInfo, narrow
from data2vec2.modalities.dense import LEARNED, DenseJob, most_common, probabilities_of
from data2vec2.modalities.jobs import FinetuneData
from data2vec2.modalities.text.config import TextConfig, TextDataConfig, TextTaskConfig
from data2vec2.modalities.text.files import TextSource, find_sources
from data2vec2.modalities.text.finetune import TextClassifyJob
from data2vec2.modalities.text.reader import SENTENCES, SentenceReader, Texts, each_of

CONLL = (".conll", ".conllu")
WORDS = ("tokens", "words")
TAGS = ("tags", "ner_tags", "pos_tags", "upos", "labels")
"""Names under which tables keep them; the first that is there is taken."""
UNEQUAL, NO_WORDS, NO_TAGS = "not as many tags as words", "no words", "no tags"
OBJECTS = "words are no strings"
Marks = tuple[tuple[str, str | None], ...]
"""Words of a text, each with the name of its class, if it has one."""


def open_words(data: str | Path, columns: Columns, tagged: bool = True) -> Parts:
    """Sentences of tagged words: CoNLL files (.conll, .conllu, .txt), or tables with lists of words and of tags.

    A CoNLL file has a word a line, with its tag in the last column (of CoNLL-U in UPOS), or the one whose number the
    label column names; an empty line ends a sentence. `columns` name those of tables, unless they have usual names
    (`WORDS`, `TAGS`). Tags are names or numbers, whose names the table may give; none, an empty one and a negative
    number are no tag. If not `tagged`, tags are not looked at, .txt files are none of these, and what can't be used
    stays, as samples that can't be read. Files or splits called train, valid or test are parts.

    `UserError` for a path without such files, and for a table without such columns.
    """
    sources = _sources(data, columns.encoding, tagged)
    account, parts, marks = Account(), dict[str, Split](), dict[str, list[Marks]]()
    of_part = by_part([source.name for source in sources], str(data))
    account.choices += parts_by_name(of_part)
    named: tuple[str, ...] | None = None
    for part, names in of_part.items():
        kept, rows, faults, of_account = list[str](), list[Marks](), list[str](), account.part(part)
        for source in (source for source in sources if source.name in names):
            found, classes, choice, unread = _rows(source, columns, tagged)
            note(unread, source.name, of_account)
            account.choices += [choice] if choice and choice not in account.choices else []
            named = named or classes
            for name, words, tags in found:
                fault = _fault(words, tags, tagged)
                if fault and tagged:
                    of_account.bad[name] = fault
                    continue
                values = [_class(tag, classes, name) for tag in tags] if tagged else [None] * len(words)
                kept.append(name)
                faults.append(fault)
                rows.append(tuple(zip(map(_word, words), values, strict=True)))
            for row in () if tagged else unread:
                kept.append(f"{source.name}[{row.place}]")
                faults.append(row.reason)
                rows.append(())
        texts = Texts(tuple((" ".join(word for word, _ in row),) for row in rows), tuple(faults))
        labels = [sorted({tag for _, tag in row if tag is not None}) for row in rows]
        parts[part], marks[part] = Split(kept, labels, texts), rows
    if not marks["train"]:
        first = "; ".join(f"{name}: {why}" for name, why in [*account.part("train").bad.items()][:3])
        raise UserError(f"{data} has no sentences of words{' with tags' if tagged else ''} ({first or 'it is empty'})")
    opened = parts_of(Listing("tagged words", parts, named, account), str(data), SENTENCES)
    counts = ", ".join(
        f"{sum(map(len, rows)):,} words in {len(rows):,} {part} sentences" for part, rows in marks.items()
    )
    found_of = {
        part: replace(records, marks=tuple(marks[part])) for part in marks if (records := getattr(opened, part))
    }
    description = "; ".join([f"tagged words: {counts}, {len(opened.train.classes):,} classes", *account.choices])
    return replace(opened, **found_of, description=description)


def _sources(data: str | Path, encoding: str | None, plain: bool) -> list[TextSource]:
    """CoNLL files and tables; in a folder that has none, if `plain`, .txt files."""
    if not plain and extension_of(str(data)) == PLAIN:
        raise UserError(f"{data} is no table")
    try:
        return find_sources(data, (*CONLL, *TABLES), "tagged words", encoding)
    except UserError:
        with suppress(UserError):
            return find_sources(data, (PLAIN,) if plain else (), "tagged words", encoding)
        raise


Row = tuple[str, Sequence[Any], Sequence[Any]]
"""Name of a sentence, words, tags."""


def _rows(
    source: TextSource, columns: Columns, tagged: bool
) -> tuple[Iterator[Row], tuple[str, ...] | None, str, Sequence[BadRow]]:
    """Sentences of a file, names of the classes where it gives them, which columns were taken, and unreadable rows."""
    if extension_of(source.name) in (*CONLL, PLAIN):
        number = int(columns.label) if columns.label and re.fullmatch("[0-9]{1,9}", columns.label) else None
        if columns.text:
            raise UsageError(
                f"{source.name} has no names of columns: leave {', '.join(columns.text)} out for CoNLL files"
            )
        if columns.label is not None and not number:
            raise UsageError(f"the label column is {columns.label!r}; of {source.name} it must be a number, from 1 on")
        return _conll(source, number), None, f"tags from column {number}" if number else "", ()
    table = read_table(source.content, source.name, encoding=columns.encoding)
    words = table.column(columns.text or (*columns.learned, *WORDS))
    tags = table.column([columns.label] if columns.label else TAGS)
    if not words or (tagged and not tags):
        missing, flag = ("tags", "--data.label-column") if words else ("lists of words", "--data.text-columns")
        usual = ", ".join(TAGS if words else WORDS)
        there = ", ".join(table.columns) or "none"
        raise UserError(f"{source.name} has no column of {missing} ({usual}), but {there}; name it with {flag}")
    listed: Any = (_listed(table.columns[name]) if name else [()] * len(table) for name in (words, tags))
    rows = ((f"{table.name}[{place}]", *row) for place, *row in zip(table.places, *listed, strict=True))
    choice = f"words from {words}" + (f", tags from {tags}" if tagged else "")
    return rows, table.classes.get(tags or ""), choice, table.bad


def _listed(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Lists as they are or as they are written, of other strings the words between spaces; nothing of all else."""
    for value in values:
        written = listed(value)
        yield value.split() if written is None and isinstance(value, str) else written or []


_ABOUT = re.compile(r"#\s.*(=|://)")
"""A line about the sentence below (of MultiCoNER, of GermEval), which has neither a word nor a tag."""


def _conll(source: TextSource, number: int | None) -> Iterator[Row]:
    """Sentences of a CoNLL file; `UserError` for a line without a tag, or with more or fewer columns than the first.

    Where the first column counts the words of every sentence, as in CoNLL-U, the second has the words.
    """
    universal = extension_of(source.name) == ".conllu"
    sentences = list(_sentences(source, universal, number or 0))
    counted = all(len(row) > 2 and row[0] == str(place) for rows in sentences for place, row in enumerate(rows, 1))
    for place, rows in enumerate(sentences):
        tag = (number or (4 if universal else len(rows[0]))) - 1
        yield f"{source.name}[{place}]", [row[universal or counted] for row in rows], [row[tag] for row in rows]


def _sentences(source: TextSource, universal: bool, least: int) -> Iterator[list[list[str]]]:
    """Columns of the lines of each sentence: between tabs, or else spaces, of which words may then have none."""
    where, reading = str(source.content), Reading(source.name, Counter(), encoding=source.encoding)
    rows, width = list[list[str]](), 0
    with open_text(source.content, reading.read) as file:
        for line in chain(lines_of(file, reading), [""]):
            fields = line.rstrip().split("\t")
            if universal and (line.startswith("#") or not (fields[0].isdecimal() or not line.strip())):
                continue  # a comment, a contraction (1-2), a word that is not said (1.1)
            if line and reading.spoiled:
                raise UserError(f"{where}: line {reading.line} is not UTF-8; {ENCODING_HINT}")
            if not line.strip() or line.startswith("-DOCSTART-"):
                if rows:
                    yield rows
                rows = []
                continue
            if not rows and _ABOUT.match(line):
                continue
            spaced = re.split("[ \t]+", line.strip(" \t\r\n"))
            if not universal and (len(fields) < 2 or len(spaced) == width):
                fields = spaced
            width = width or len(fields)
            if len(fields) != width or width < max(2, least):
                what = f"line {reading.line} has {len(fields)} columns, {line.strip()[:40]!r}"
                raise UserError(f"{where}: {what}; a word and its tag are needed, and {width} columns in all lines")
            rows.append([field.strip() for field in fields])


def _fault(words: Sequence[Any], tags: Sequence[Any], tagged: bool) -> str:
    """Why a sentence can't be used, or ""."""
    if any(isinstance(word, list | dict) for word in words):
        return OBJECTS
    if not any(map(str.strip, map(_word, words))):
        return NO_WORDS
    return "" if not tagged or len(words) == len(tags) else UNEQUAL if len(tags) else NO_TAGS


def _word(value: Any) -> str:
    """A word that can be written; "" for nothing."""
    return "" if value is None else str(value).encode("utf-8", "replace").decode()


def _class(tag: Any, classes: tuple[str, ...] | None, where: str) -> str | None:
    """The name of a word's class; None for none. `UserError` for a number that `classes` has no name for."""
    if tag is None or tag == "" or (isinstance(tag, int | float) and tag < 0):
        return None
    if classes and isinstance(tag, int):
        if tag >= len(classes):
            raise UserError(f"{where}: a tag is {tag}, and there are {len(classes)} classes")
        return classes[tag]
    if not isinstance(tag, str | int):
        raise UserError(f"{where}: a tag is {tag!r}; tags are names or whole numbers")
    return spelled(tag)


class WordsReader(SentenceReader):
    """Batches of token ids of sentences, whose words have classes."""

    @cached_property
    def places(self) -> dict[str, int]:
        """Of the classes."""
        return {name: place for place, name in enumerate(self.records.classes)}

    def words(self, sample: int) -> Marks:
        """Words of a sample with the names of their classes."""
        return narrow(self.records.marks, tuple)[sample]  # type: ignore[no-any-return]

    def firsts(self, sample: int, encoding: Encoding) -> list[int | None]:
        """Each word's first token; None for a word that was cut away, or has no token of its own."""
        tokens = [place for place, special in enumerate(encoding.special_tokens_mask) if not special]
        offsets = encoding.offsets  # the library lists them anew each time
        ends = np.array([offsets[place][1] for place in tokens], dtype=np.int64)
        found, start, last = list[int | None](), 0, -1
        for word, _ in self.words(sample):
            place = int(np.searchsorted(ends, start, side="right"))
            own = place < len(tokens) and place > last and offsets[tokens[place]][0] < start + len(word)
            found.append(tokens[place] if own else None)
            last, start = (place if own else last), start + len(word) + 1
        return found

    def marked(self, sample: int, epoch: int | None = None, plan: Plan | None = None) -> NDArray[np.int64]:
        """The class `T` of each word at its first token; raises `BadSample`."""
        encoding = self.encoding(sample)
        classes_T = np.full(len(encoding.ids), IGNORED, dtype=np.int64)
        for first, (_, name) in zip(self.firsts(sample, encoding), self.words(sample), strict=True):
            if first is not None and name is not None:
                classes_T[first] = self.places[name]
        return classes_T

    def lost(self) -> tuple[int, list[Bad]]:
        """Tagged words without a token, and the sentences that are cut to the model's length."""
        count, cut = 0, []
        for sample in range(len(self.records)):
            encoding = self.encoding(sample)
            firsts = self.firsts(sample, encoding)
            count += sum(
                first is None and tag is not None for first, (_, tag) in zip(firsts, self.words(sample), strict=True)
            )
            if encoding.overflowing:
                cut.append(Bad(self.records.names[sample], f"cut to {self.config.max_tokens} tokens"))
        return count, cut


class TokensJob(TextClassifyJob, DenseJob):
    """A class of each word."""

    name, places, unused = "tokens", "words", ("task.model.pooling",)

    def open_marked(self, path: str, columns: Columns, data: DataConfig) -> Parts:
        """Sentences of tagged words."""
        return open_words(path, columns)

    def listed(self, paths: Sequence[str | Path], columns: Columns) -> list[Records]:
        """Sentences of words, or texts."""
        found: list[Records] = []
        for path in paths:
            try:
                found += each_of(open_words(path, columns, tagged=False), path)
            except UserError:
                found += self.tools.listed([path], columns)
        return found

    def asked(self, records: Records) -> Records:
        """The words of texts are what stands between spaces."""
        if records.marks is not None:
            return records
        texts = narrow(records.source, Texts)
        rows = tuple(tuple((word, None) for word in " ".join(row).split()) for row in texts.rows)
        joined = tuple((" ".join(word for word, _ in row),) for row in rows)
        return replace(records, source=Texts(joined, texts.faults), marks=rows)

    def told_of(
        self, reader: Reader, sample: int, logits: NDArray[np.float32], info: ModelInfo
    ) -> Iterator[dict[str, Any]]:
        """Words with their classes; without one where a word was cut away."""
        asked, probabilities = narrow(reader, WordsReader), probabilities_of(logits)
        for first, (word, _) in zip(asked.firsts(sample, asked.encoding(sample)), asked.words(sample), strict=True):
            best = 0 if first is None else int(probabilities[first].argmax())
            found = ("", 0.0) if first is None else (info.classes[best], float(probabilities[first][best]))
            yield {"word": word, "class": found[0], "probability": found[1]}

    def reader(self, records: Records, info: ModelInfo, seed: int) -> Reader:
        """Of words and their classes."""
        modality, tokenizer = narrow(info.model.modality, TextConfig), narrow(info.data, TextDataConfig).tokenizer
        return WordsReader(records, modality, Path(narrow(tokenizer, str)), seed)

    def look(self, data: FinetuneData, config: FinetuneConfig, log: Log) -> None:
        """And words that the model never sees."""
        super().look(data, config, log)
        for key, reader in data.readers.items():
            count, cut = narrow(reader, WordsReader).lost()
            data.account.part(key).mend(cut)
            if count:
                longest = narrow(reader, WordsReader).config.max_tokens
                why = f"{len(cut):,} sentences are cut to {longest} tokens"
                what = f"{count:,} {key} words are neither learned nor scored, for they have no token: {why}"
                data.account.remarks.append(what)
                log(f"data: {what}")

    def model(self, config: FinetuneConfig, encoder: Encoder, data: FinetuneData) -> TokenClassifier:  # type: ignore[override]
        """A class at every token."""
        return TokenClassifier(encoder, data.outputs, dropout=narrow(config.task, TextTaskConfig).model.dropout)

    def rivals(self, train: Reader) -> Iterator[tuple[str, Said]]:
        """And each word's most common tag in training; of unknown words the most common of all."""
        yield from super().rivals(train)
        reader, common = narrow(train, WordsReader), most_common(train, spread(len(train.records), LEARNED))
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for sample in range(len(train.records)):
            for word, tag in reader.words(sample):
                counts[word].update([tag] if tag is not None else [])
        usual = {word: tags.most_common(1)[0][0] for word, tags in counts.items() if tags}

        def said(other: Reader, sample: int) -> NDArray[np.int64]:
            asked = narrow(other, WordsReader)
            encoding = asked.encoding(sample)
            classes_T = np.full(len(encoding.ids), common, dtype=np.int64)
            for first, (word, _) in zip(asked.firsts(sample, encoding), asked.words(sample), strict=True):
                if first is not None and word in usual:
                    classes_T[first] = asked.places.get(usual[word], common)
            return classes_T

        yield "each word's most common tag", said
