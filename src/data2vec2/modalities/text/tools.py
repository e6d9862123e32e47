"""Text at work, and its models as other programs see them.

Shapes: `B` samples, `T` tokens, `N` texts shown, `M` masks, `K` kept tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from data2vec2.config.model import ArchitectureConfig, ModalityConfig
from data2vec2.config.run import DataConfig, FinetuneDataConfig, RunConfig
from data2vec2.data.lines import PLAIN
from data2vec2.data.reader import Reader
from data2vec2.data.records import Parts, Records
from data2vec2.data.source import extension_of
from data2vec2.data.tables import TABLES
from data2vec2.errors import UsageError, UserError
from data2vec2.evaluation.features import LabelledFeatures, Note
from data2vec2.evaluation.scores import Samples
from data2vec2.modalities.data import Columns, Labels, Largest, Log, ModelInfo, narrow
from data2vec2.modalities.interop import Inputs, Interop, Portable, Usage
from data2vec2.modalities.text import SPEC
from data2vec2.modalities.text.answers import AnswersJob
from data2vec2.modalities.text.config import TextConfig, TextDataConfig, TextFinetuneDataConfig
from data2vec2.modalities.text.corpus import kept_tokenizer, made_tokenizer, open_text
from data2vec2.modalities.text.files import find_text
from data2vec2.modalities.text.finetune import TextClassifyJob, TextRegressJob
from data2vec2.modalities.text.model import TextModality
from data2vec2.modalities.text.questions import QUESTIONS
from data2vec2.modalities.text.reader import SENTENCES, SentenceReader, TextReader, Texts, each_of, open_sentences
from data2vec2.modalities.text.show import TextShow, shortened, tfidf
from data2vec2.modalities.text.tokenizer import TOKENIZER_FILES, copy_tokenizer, export_tokenizer, load_tokenizer
from data2vec2.modalities.text.windows import QuestionReader
from data2vec2.modalities.text.words import TokensJob
from data2vec2.modalities.tools import EmbedOptions, Feed, Row, Tools
from data2vec2.training.progress import console


class PortableText(Portable):
    """Takes `input_ids`."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Of texts; tokens with the id of padding are padding too."""
        pad_id = narrow(self.modality, TextConfig).pad_id
        ids_BT = input_ids.masked_fill(attention_mask == 0, pad_id)
        return self.run(ids_BT, (ids_BT != pad_id).sum(1))


class TextInterop(Interop):
    """Texts."""

    portable = PortableText
    heads = {  # noqa: RUF012
        **Interop.heads,
        "token classifier": "ForTokenClassification",
        "question answerer": "ForQuestionAnswering",
    }
    dense_task = "token-classification"
    files = TOKENIZER_FILES

    def write(self, info: ModelInfo, folder: Path) -> None:
        """The tokenizer, so that Transformers makes of texts what fine-tuning makes of them."""
        export_tokenizer(_tokenizer(info.data), folder, narrow(info.model.modality, TextConfig).max_tokens)

    def read(self, modality: ModalityConfig, folder: Path) -> TextDataConfig:
        """With the tokenizer in the folder."""
        return TextDataConfig(tokenizer=str(folder.absolute()))

    def named(self, inputs: Tensor, lengths_B: Tensor | None = None) -> Inputs:
        """`input_ids`, in the types that Transformers' tokenizers give."""
        return {"input_ids": inputs, "attention_mask": self.mask(inputs, lengths_B).long()}

    def example(self, model: ArchitectureConfig) -> Tensor:
        """Two texts."""
        modality = narrow(model.modality, TextConfig)
        return torch.full((2, min(9, modality.max_tokens)), modality.eos_id)

    def describe(self, modality: TextConfig) -> str:
        """Tokens and vocabulary."""
        return f"up to {modality.max_tokens} tokens of a vocabulary of {modality.vocab_size:,}"

    def usage(self, modality: TextConfig) -> Usage:
        """With the tokenizer."""
        note = "`pooler_output` is the mean over the real tokens; `last_hidden_state` has one vector for each token."
        one, several = "texts, padding=True, truncation=True", "texts, truncation=True, padding=True"
        return Usage(processor="AutoTokenizer", call=one, several=several, note=note, pipeline="text")


IDS = attrgetter("bos_id", "pad_id", "eos_id")
"""What a tokenizer and a model must agree on."""
TOKENIZER = "tokenizer"
"""Folder of the tokenizer in a run folder."""


class TextFeed(Feed):
    """Texts up to the model's length, filled up to the longest of those that go through the model together."""

    def __init__(self, tools: Tools, info: ModelInfo, options: EmbedOptions | None = None) -> None:
        super().__init__(tools, info, options)
        if options:
            spans = pa.list_(pa.list_(pa.int32(), 2))  # of each token, first character and the one behind the last
            tokens = (pa.field("tokens", pa.list_(pa.string())), pa.field("offsets", spans))
            self.columns = [pa.field("texts", pa.list_(pa.string())), *(tokens if options.pool == "none" else ())]
            self.about = {"max_tokens": narrow(info.model.modality, TextConfig).max_tokens}

    def cells(self, records: Records, good: Mapping[int, Any], rows: Sequence[Row]) -> dict[str, list[Any]]:
        """Texts; their tokens as the vocabulary has them, and where these begin and end in their text."""
        reader = narrow(self.reader, SentenceReader)
        found: dict[str, list[Any]] = {"texts": [list(reader.texts.rows[index]) for index in good]}
        if len(self.columns) > 1:
            encodings = [reader.encoding(index) for index in good]
            found |= {"tokens": [one.tokens for one in encodings], "offsets": [one.offsets for one in encodings]}
        return found


class TextTools(Tools):
    """Blocks of tokens to pre-train on; whole texts for all else."""

    spec = SPEC
    content = SENTENCES
    jobs = {"classify": TextClassifyJob, "regress": TextRegressJob, "tokens": TokensJob, "answers": AnswersJob}  # noqa: RUF012
    feed = TextFeed
    interop = TextInterop()
    show = TextShow()

    def build(self, model: ArchitectureConfig) -> TextModality:
        """Embeddings."""
        return TextModality.of(model)

    def largest(self, model: ArchitectureConfig, data: DataConfig) -> Largest:
        """A block, or the longest text."""
        modality = narrow(model.modality, TextConfig)
        return Largest(torch.full((1, modality.max_tokens), modality.bos_id), (modality.max_tokens,), 1.0)

    def noise(self, config: RunConfig, count: int, device: torch.device) -> Tensor:
        """Random entries of the vocabulary, none of which is padding."""
        modality = narrow(config.model.modality, TextConfig)
        ids = torch.randint(modality.vocab_size - 1, (count, modality.max_tokens), device=device)
        return ids + (ids >= modality.pad_id)

    def open(self, path: str, config: RunConfig, say: Log) -> Parts:
        """Blocks of the tokenised text."""
        model, data = narrow(config.model.modality, TextConfig), narrow(config.data, TextDataConfig)
        tokenizer = load_tokenizer(_tokenizer(data))
        if tokenizer.size > model.vocab_size or IDS(tokenizer) != IDS(model):
            entries = f"{tokenizer.size:,} entries, and {IDS(tokenizer)} as start, padding and end"
            flags = "(--model.modality.vocab-size, .bos-id, .pad-id, .eos-id)"
            room = f"the model has room for {model.vocab_size:,}, with {IDS(model)} {flags}"
            raise UserError(f"the tokenizer {data.tokenizer} has {entries}; {room}")
        return open_text(path, tokenizer, model, data)

    def open_labelled(self, path: str | Path, columns: Columns, labels: Labels) -> Parts:
        """Texts of tables."""
        return open_sentences(path, columns.text, columns.label, labels, columns.encoding, columns.learned)

    def listed(self, paths: Sequence[str | Path], columns: Columns) -> list[Records]:
        """Texts of tables, whose columns are said unless they were named, or of files with a text a line."""

        def opened(path: str | Path) -> Parts:
            parts = open_sentences(path, columns.text, None, "none", columns.encoding, columns.learned)
            if not columns.text and extension_of(str(path)) != PLAIN:
                console().print(f"data: {path}: {'; '.join(parts.account.choices)}")
            return parts

        return [records for path in paths for records in each_of(opened(path), path)]

    def given(self, samples: Sequence[Any]) -> Records:
        """Strings, or pairs of strings, are texts."""
        rows = tuple(tuple(one) if isinstance(one, tuple | list) else (one,) for one in samples)
        if {len(row) for row in rows} not in ({1}, {2}) or any(not isinstance(one, str) for row in rows for one in row):
            raise UsageError("a text must be a string, or a tuple of two, and all samples of the same kind")
        names = [f"[{place}]" for place in range(len(rows))]
        return Records("texts", names, np.full(len(rows), -1), (), Texts(rows))

    def columns(self, data: DataConfig) -> Columns:
        """As fine-tuning is told."""
        data = narrow(data, TextFinetuneDataConfig)
        return Columns(text=data.text_columns, label=data.label_column, encoding=data.encoding)

    def with_columns(self, data: FinetuneDataConfig, columns: Columns) -> TextFinetuneDataConfig:
        """As fine-tuning is told."""
        own = narrow(data, TextFinetuneDataConfig)
        return replace(own, text_columns=columns.text, label_column=columns.label, encoding=columns.encoding)

    def reader(self, records: Records, model: ArchitectureConfig, data: DataConfig, seed: int) -> Reader:
        """Blocks as they are; of tables whole texts; windows of questions with contexts."""
        modality = narrow(model.modality, TextConfig)
        if records.kind == QUESTIONS:
            return QuestionReader(records, modality, _tokenizer(data), seed)
        if isinstance(records.source, Texts):
            return SentenceReader(records, modality, _tokenizer(data), seed)
        return TextReader(records, modality, seed)

    def fitted(self, config: RunConfig, recipe: RunConfig, data: Sequence[str], say: Log) -> RunConfig:
        """A tokenizer made from the text, unless one is given; its vocabulary, where the recipe's was left."""
        modality, reading = narrow(config.model.modality, TextConfig), narrow(config.data, TextDataConfig)
        if reading.tokenizer is None:
            folder = made_tokenizer(data, modality.vocab_size, reading, say)
            reading = replace(reading, tokenizer=str(folder))
        tokenizer, of_recipe = load_tokenizer(_tokenizer(reading)), narrow(recipe.model.modality, TextConfig)
        found = {"vocab_size": tokenizer.size, **dict(zip(("bos_id", "pad_id", "eos_id"), IDS(tokenizer), strict=True))}
        left = {name: value for name, value in found.items() if getattr(modality, name) == getattr(of_recipe, name)}
        fitted = replace(modality, **left)
        if fitted != modality:
            say(f"model: a vocabulary of {fitted.vocab_size:,}, as the tokenizer has")
        return replace(config, data=reading, model=replace(config.model, modality=fitted))

    def located(self, config: RunConfig) -> RunConfig:
        """That of the tokenizer."""
        data = narrow(config.data, TextDataConfig)
        path = data.tokenizer
        return replace(config, data=replace(data, tokenizer=str(Path(path).absolute()))) if path else config

    def check_learned(self, data: DataConfig, weights: DataConfig) -> None:
        """The tokenizer must be theirs, wherever a copy of it is."""
        mine, theirs = _tokenizer(data), _tokenizer(weights)
        if load_tokenizer(mine).digest != load_tokenizer(theirs).digest:
            raise UserError(f"--data.tokenizer {mine} is another than that of the weights, {theirs}; leave it out")

    def write_start(self, run: Path, config: RunConfig) -> None:
        """The tokenizer."""
        if not (run / TOKENIZER).exists():
            copy_tokenizer(_tokenizer(config.data), run / TOKENIZER)

    def resumed(self, config: RunConfig, run: Path) -> RunConfig:
        """With the tokenizer that the run's folder holds."""
        own, data = run / TOKENIZER, narrow(config.data, TextDataConfig)
        if not own.is_dir():
            return config
        asked = Path(data.tokenizer or own)
        if asked.exists() and load_tokenizer(asked).digest != load_tokenizer(own).digest:
            raise UserError(f"--data.tokenizer {asked} can't change on --resume: the run was started with {own}")
        return replace(config, data=replace(data, tokenizer=str(own.absolute())))

    def raw_features(self, train: Samples, test: Samples, note: Note) -> tuple[LabelledFeatures, LabelledFeatures]:
        """Frequencies of words and of pairs of words."""
        known, asked = ((_texts(reader, some.tolist()), reader.records.labels[some]) for reader, some in (train, test))
        return tfidf(*known, *asked)

    def inspected(self, path: str, config: RunConfig, columns: Columns, say: Log) -> tuple[RunConfig, Parts]:
        """Tables of texts with their labels, or what pre-training makes of other text."""
        data = replace(narrow(config.data, TextDataConfig), encoding=columns.encoding)
        if len(columns.text) == 1:
            data = replace(data, text_column=columns.text[0])
        kinds = {extension_of(source.name) for part in find_text(path).values() for source in part}
        if kinds == {PLAIN} and (columns.text or columns.label is not None):
            raise UsageError(f"{path} has no columns, for it is no table; leave --text-columns and --label-column out")
        tables = not kinds.isdisjoint(TABLES)
        try:
            parts = self.open_labelled(path, columns, "classes")
        except UserError as error:
            try:
                fitted = self.fitted(replace(config, data=data), config, [path], say)
                parts = self.open(path, fitted, say)
            except UserError as other:
                raise (error if tables else other) from None
            parts.account.remarks += [f"no texts with labels: {error}"] if tables else []
            return fitted, parts
        texts = (text for row in narrow(parts.train.source, Texts).rows for text in row)
        size = narrow(config.model.modality, TextConfig).vocab_size
        data = replace(data, tokenizer=str(kept_tokenizer(parts.train.fingerprint, texts, size, say)))
        return self.fitted(replace(config, data=data), config, [path], say), parts

    def facts(self, records: Records, index: int) -> Mapping[str, float | str]:
        """Characters of a text; nothing of blocks, which are all of one length."""
        if isinstance(records.source, Texts):
            return {"characters": sum(map(len, records.source.rows[index]))}
        return {}

    def preview(self, reader: Reader, samples: NDArray[np.int64], config: RunConfig) -> dict[str, Any]:
        """Tokens as strings `NT`, kept tokens `NMK`."""
        ids_NT, backend = reader.eval_batch(samples).inputs, load_tokenizer(_tokenizer(config.data)).backend
        words = [[backend.decode([token], skip_special_tokens=False) for token in row] for row in ids_NT.tolist()]
        keep_ids = self.keep_ids(config, ids_NT.shape[1:], samples)
        return {"kind": self.spec.name, "tokens": np.array(words, dtype=np.str_), "keep_ids": keep_ids}

    def captions(self, reader: Reader, places: Sequence[int]) -> dict[str, list[str]]:
        """The texts."""
        return {"texts": shortened(_texts(reader, places))}


def _texts(reader: Reader, samples: Sequence[int]) -> list[str]:
    """The texts of samples; of a pair one behind the other, in lines."""
    rows = narrow(reader, SentenceReader).texts.rows
    return ["\n".join(rows[sample]) for sample in samples]


def _tokenizer(data: DataConfig) -> Path:
    """Where the tokenizer of a run or a model is."""
    return Path(narrow(narrow(data, TextDataConfig).tokenizer, str))
