"""Transcripts as letters: what a speech recogniser reads and writes.

Shapes: `L` letters of a text.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data2vec2.errors import UserError

BLANK, SPACE, UNKNOWN = "<pad>", "|", "<unk>"
BLANK_ID = 0
VOCAB, TOKENIZER = "vocab.json", "tokenizer_config.json"


def normalise(text: str) -> str:
    """Words in lower case with one space between them: letters of any script, their marks, digits and apostrophes.

    Unicode is brought to NFKC, curly apostrophes become straight. Dashes and slashes part words ("well-known" becomes
    "well known"); all other punctuation and symbols are dropped ("U.S." becomes "us").
    """
    text = unicodedata.normalize("NFKC", text).lower()
    return " ".join("".join(map(_kept, text)).split())


def _kept(character: str) -> str:
    """What becomes of a character."""
    if character in "'\u2019\u02bc":
        return "'"
    kind = unicodedata.category(character)
    if character.isspace() or kind == "Pd" or character == "/":
        return " "
    return character if kind[0] in "LMN" else ""


@dataclass(frozen=True)
class Letters:
    """The vocabulary: blank (0), word boundary, unknown, then characters in the order of their code points."""

    symbols: tuple[str, ...]
    """Each id's symbol."""

    @classmethod
    def of(cls, texts: Iterable[str]) -> Letters:
        """The letters of the training transcripts; `UserError` if these have none."""
        characters = {character for text in texts for character in normalise(text)} - {" "}
        if not characters:
            raise UserError("the transcripts have no letters")
        return cls((BLANK, SPACE, UNKNOWN, *sorted(characters)))

    def __len__(self) -> int:
        return len(self.symbols)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Each symbol's id."""
        return {symbol: place for place, symbol in enumerate(self.symbols)}

    def encode(self, text: str) -> NDArray[np.int64]:
        """Ids `L` of a text, normalised; of letters that the training transcripts have not, the unknown one.

        Only the loss sees that one: error rates compare texts, so such a letter counts as it stands.
        """
        spelled = normalise(text).replace(" ", SPACE)
        return np.array([self.ids.get(letter, self.ids[UNKNOWN]) for letter in spelled], dtype=np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of letters (not of frames: repeated ids are repeated letters); blanks are left out."""
        spelled = "".join(self.symbols[place] for place in ids if place != BLANK_ID)
        return " ".join(spelled.replace(SPACE, " ").split())

    def save(self, folder: Path) -> None:
        """Write the files of a tokenizer of Transformers', which decodes the same ids to the same text.

        Its class stands in `data2vec2.modalities.audio.transformers`.
        """
        names = {"pad_token": BLANK, "word_delimiter_token": SPACE, "unk_token": UNKNOWN}
        classes = {"tokenizer_class": "Data2Vec2CTCTokenizer", "processor_class": "Wav2Vec2Processor"}
        settings = {**classes, "bos_token": None, "eos_token": None, **names}
        (folder / VOCAB).write_text(json.dumps(self.ids, ensure_ascii=False, indent=1), encoding="utf-8")
        (folder / TOKENIZER).write_text(json.dumps(settings, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Letters:
        """What `save` wrote; `UserError` if it can't be read."""
        path = folder / VOCAB
        try:
            ids = json.loads(path.read_text(encoding="utf-8"))
            symbols = tuple(sorted(ids, key=ids.__getitem__))
            usable = list(map(ids.get, symbols)) == list(range(len(ids))) and symbols[:1] == (BLANK,)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{path} can't be read: {error}") from error
        if not usable or not {SPACE, UNKNOWN} <= set(symbols):
            raise UserError(f"{path} is no vocabulary of letters: {BLANK} must be 0, and {SPACE} and {UNKNOWN} there")
        return cls(symbols)
