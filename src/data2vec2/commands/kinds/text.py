"""Text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data2vec2.commands.kinds.base import AnyData, Log
from data2vec2.commands.tokenizer import made_tokenizer, shown_progress
from data2vec2.config import ModelConfig, RunConfig, TextConfig, TextDataConfig
from data2vec2.data.blocks import TextReader, open_text
from data2vec2.data.phones import Alignment
from data2vec2.data.reader import Bad, Reader
from data2vec2.data.records import Parts, Records
from data2vec2.data.sentences import SentenceReader, Texts
from data2vec2.data.tokenizer import load_tokenizer
from data2vec2.errors import UserError
from data2vec2.evaluation.features import Note, encode
from data2vec2.evaluation.frames import PhoneProbe
from data2vec2.evaluation.gallery_text import write_text_gallery
from data2vec2.evaluation.probes import Part
from data2vec2.evaluation.scores import Samples
from data2vec2.evaluation.similarity import SEARCHED, spread
from data2vec2.evaluation.words import tfidf
from data2vec2.interop.export import ExportInfo
from data2vec2.masking import draw_keep_ids
from data2vec2.models import Encoder


@dataclass(frozen=True)
class TextLook:
    """Every block can be used."""

    checked: int
    bad: tuple[Bad, ...] = ()
    left_out: tuple[Bad, ...] = ()


class TextKind:
    """Blocks of tokens."""

    plural, unit = "texts", "blocks"
    largest_name = "a block"
    raw = "words (TF-IDF)"

    def open(self, path: Path, config: RunConfig, say: Log) -> Parts:
        """Blocks of the tokenised text."""
        model, data = _modality(config.model), config.data
        assert isinstance(data, TextDataConfig) and data.tokenizer
        tokenizer = load_tokenizer(Path(data.tokenizer))
        ids = (tokenizer.bos_id, tokenizer.pad_id, tokenizer.eos_id)
        if tokenizer.size > model.vocab_size or ids != (model.bos_id, model.pad_id, model.eos_id):
            raise UserError(
                f"the tokenizer {data.tokenizer} has {tokenizer.size:,} entries, and {ids} as start, padding and end; "
                f"the model has room for {model.vocab_size:,}, with {(model.bos_id, model.pad_id, model.eos_id)} "
                "(--model.modality.vocab-size, .bos-id, .pad-id, .eos-id)"
            )
        with shown_progress(f"tokenising {path}") as progress:
            return open_text(path, tokenizer, model, data, progress)

    def adapted(self, config: RunConfig, recipe: RunConfig, path: Path, say: Log) -> RunConfig:
        """A tokenizer made from the text, unless one is given; its vocabulary, where the recipe's was left."""
        modality, data = _modality(config.model), config.data
        assert isinstance(data, TextDataConfig)
        if data.tokenizer is None:
            folder = made_tokenizer(path, modality.vocab_size, data.text_column, data.unit, say)
            data = replace(data, tokenizer=str(folder))
        tokenizer, of_recipe = load_tokenizer(Path(str(data.tokenizer))), _modality(recipe.model)
        found = {"vocab_size": tokenizer.size}
        found |= {"bos_id": tokenizer.bos_id, "pad_id": tokenizer.pad_id, "eos_id": tokenizer.eos_id}
        left: dict[str, Any] = {
            name: value for name, value in found.items() if getattr(modality, name) == getattr(of_recipe, name)
        }
        fitted = replace(modality, **left)
        if fitted != modality:
            say(f"model: a vocabulary of {fitted.vocab_size:,}, as the tokenizer has")
        return replace(config, data=data, model=replace(config.model, modality=fitted))

    def reader(self, records: Records, model: ModelConfig, data: AnyData, seed: int) -> Reader:
        """Blocks as they are; of tables whole texts."""
        assert isinstance(data, TextDataConfig) and data.tokenizer
        if isinstance(records.source, Texts):
            return SentenceReader(records, _modality(model), Path(data.tokenizer), seed)
        return TextReader(records, _modality(model), seed)

    def look(self, reader: Reader, config: RunConfig, say: Log) -> tuple[RunConfig, TextLook]:
        """Nothing is left to the data."""
        return config, TextLook(len(reader.records))

    def largest(self, config: RunConfig) -> tuple[Tensor, tuple[int, ...], float]:
        """A block."""
        tokens = _modality(config.model).max_tokens
        return torch.zeros(1, tokens, dtype=torch.int64), (tokens,), 1.0

    def normalise(self, data: AnyData, device: torch.device) -> Callable[[Tensor], Tensor]:
        """Nothing."""
        return lambda ids_BT: ids_BT

    def preview(self, reader: Reader, samples: NDArray[np.int64], config: RunConfig) -> dict[str, Any]:
        """Tokens as strings `NT`, kept tokens `NMK`."""
        assert isinstance(config.data, TextDataConfig) and config.data.tokenizer
        ids_NT, masks = reader.eval_batch(samples).inputs, config.model.masks
        backend = load_tokenizer(Path(config.data.tokenizer)).backend
        keep_ids = draw_keep_ids(masks, ids_NT.shape[1:], config.train.seed, np.zeros_like(samples), samples)
        words = [[backend.decode([token], skip_special_tokens=False) for token in row] for row in ids_NT.tolist()]
        return {
            "tokens": np.array(words, dtype=np.str_),
            "keep_ids": keep_ids.reshape(len(samples), masks.num_masks, -1),
        }

    def write_gallery(
        self,
        run: Path,
        encoder: Encoder,
        reader: Reader,
        samples: NDArray[np.int64],
        device: torch.device,
        info: ExportInfo,
        phones: dict[str, Alignment],
    ) -> None:
        """Neighbours, and a map."""
        samples = samples[spread(len(samples), SEARCHED)]
        known = encode(encoder, reader, samples, self.normalise(info.data, device), device)
        write_text_gallery(run, known, _texts(reader, samples), reader.records.classes)

    def phones(self, data: Path, train: Reader, test: Reader) -> PhoneProbe:
        """Text says nothing."""
        raise ValueError("--probes phones is for speech; leave it out")

    def raw_features(self, train: Samples, test: Samples, note: Note) -> tuple[Part, Part]:
        """Frequencies of words and of pairs of words."""
        (known, known_labels), (asked, asked_labels) = (
            (_texts(reader, samples), reader.records.labels[samples]) for reader, samples in (train, test)
        )
        return tfidf(known, known_labels, asked, asked_labels)


def _texts(reader: Reader, samples: NDArray[np.int64]) -> list[str]:
    """The texts of samples; of a pair one behind the other, in lines."""
    assert isinstance(reader, SentenceReader)
    return ["\n".join(reader.texts.rows[sample]) for sample in samples.tolist()]


def _modality(model: ModelConfig) -> TextConfig:
    assert isinstance(model.modality, TextConfig)
    return model.modality
