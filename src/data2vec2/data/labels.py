"""Labels become indices of classes, tags, or letters. Shapes: `N` samples, `C` classes, `L` letters of a text."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data2vec2.errors import UserError

COLUMNS = ("label", "labels", "class", "classes", "category", "categories", "target", "tag", "tags", "fine_label")
"""Names under which tables keep labels; the first that is there is taken."""
NUMBERS = ("score", "value")
"""Names under which tables keep numbers to be predicted, besides."""
Encoded = tuple[NDArray[np.int64], NDArray[np.bool_] | None]
"""Labels `N` (-1: none) and tags `NC`; where there are tags, all labels are -1."""


def encode(
    values: Mapping[str, Sequence[Any]], named: tuple[str, ...] | None, where: str
) -> tuple[dict[str, Encoded], tuple[str, ...]]:
    """Labels or tags of each part, and the names of the classes, which all parts share.

    A value is a whole number, a string, or a list of these (then there are tags); None, "" and negative numbers are no
    label. `named` are the classes, which numbers count from 0; without them, the classes are all values there are,
    numbers first, in order. Fewer than two are none; one tag is enough. `UserError` for any other value.
    """
    several = any(isinstance(value, list | tuple) for part in values.values() for value in part)
    known: dict[Any, str] | None = None if named is None else dict(enumerate(named)) | {name: name for name in named}
    rows = {part: [_names(value, known, where) for value in given] for part, given in values.items()}
    classes = named
    if classes is None:
        classes = tuple(sorted({name for part in rows.values() for row in part for name in row}, key=_order))
    classes = classes if len(classes) >= (1 if several else 2) else ()
    index = {name: place for place, name in enumerate(classes)}
    encoded: dict[str, Encoded] = {}
    for key, part in rows.items():
        labels = np.full(len(part), -1, dtype=np.int64)
        tags = np.zeros((len(part), len(classes)), dtype=bool) if several and classes else None
        for place, row in enumerate(part):
            if tags is not None:
                tags[place, [index[name] for name in row]] = True
            elif row:
                labels[place] = index.get(row[0], -1)
        encoded[key] = labels, tags
    return encoded, classes


def numbers(values: Sequence[Any], names: Sequence[str], column: str) -> NDArray[np.float64]:
    """Labels as numbers, NaN for none (None, an empty string); `UserError` that names the first that is no number."""
    found = np.full(len(values), np.nan)
    for place, value in enumerate(values):
        try:
            found[place] = np.nan if value is None or value == "" else float(value)
        except (TypeError, ValueError):
            found[place] = np.inf
        if np.isinf(found[place]):
            raise UserError(f"{names[place]}: {column} is {value!r}; to be learned as numbers, all labels must be some")
    return found


def _names(value: Any, known: Mapping[Any, str] | None, where: str) -> list[str]:
    """Names of the classes that a value stands for, as `known` has them, or as they are spelled."""
    if isinstance(value, list | tuple):
        return [name for one in value for name in _names(one, known, where)]
    if value is None or value == "" or value != value:
        return []
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int | str):
        raise UserError(f"{where}: a label is {value!r}; labels are whole numbers, strings, or lists of these")
    if known is not None and value in known:
        return [known[value]]
    text = value if isinstance(value, str) else str(int(value))
    if re.fullmatch(r"-[1-9]\d*", text):
        return []
    if known is not None:
        names = ", ".join(dict.fromkeys(known.values()))
        raise UserError(f"{where}: a label is {value!r}, which is none of the classes that are given ({names})")
    return [text]


def _order(name: str) -> tuple[bool, int, str]:
    """Whole numbers by size, then everything else by spelling."""
    return not name.isdecimal(), int(name) if name.isdecimal() else 0, name


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
    if character in "'\u2019\u02bc":
        return "'"
    kind = unicodedata.category(character)
    if character.isspace() or kind == "Pd" or character == "/":
        return " "
    return character if kind[0] in "LMN" else ""


@dataclass(frozen=True)
class Letters:
    """The symbol of each id: blank (0), word boundary, unknown, then characters in the order of their code points."""

    symbols: tuple[str, ...]

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
        """Ids `L` of a text, normalised; of letters that the training transcripts have not, the unknown one."""
        spelled = normalise(text).replace(" ", SPACE)
        return np.array([self.ids.get(letter, self.ids[UNKNOWN]) for letter in spelled], dtype=np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of letters (not of frames: repeated ids are repeated letters); blanks are left out."""
        spelled = "".join(self.symbols[place] for place in ids if place != BLANK_ID)
        return " ".join(spelled.replace(SPACE, " ").split())

    def save(self, folder: Path) -> None:
        """Write the files of a tokenizer of Transformers' (`modalities.audio.transformers`), which decodes as this."""
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
