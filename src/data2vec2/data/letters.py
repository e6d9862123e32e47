"""Letters of transcripts: how texts are normalised, and which ids recognisers have for them. `L` letters of a text."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data2vec2.errors import UserError
from data2vec2.files import read_json

BLANK, SPACE, UNKNOWN = "<pad>", "|", "<unk>"
BLANK_ID = 0
VOCAB, TOKENIZER = "vocab.json", "tokenizer_config.json"
SIGNS = {"pad_token": BLANK, "word_delimiter_token": SPACE, "unk_token": UNKNOWN}
"""What is no letter, by the names that a tokenizer's settings have for it."""


_APOSTROPHES = str.maketrans(dict.fromkeys("\u2019\u02bc\u00b4`\uff07", "'") | dict.fromkeys("\u2122\u2120", " "))
"""What is written for an apostrophe; trademark signs would else become letters of the word before."""
_LETTER, _ALNUM = r"[^\W\d_]", r"[^\W_]"
_INNER = re.compile(rf"(?<={_ALNUM})[\u2018\u201b](?={_ALNUM})")
"""An opening quote where an apostrophe should be."""
_ALONE = re.compile(
    r"[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+|[\u00bc-\u00be\u2150-\u215f\u2189\u2460-\u24ff\u2776-\u2793\u3200-\u33ff"
    r"\u2100\u2101\u2103\u2105\u2106\u2109\u2116\u2121\u213b]|(?<=\d)(?=[\u2080-\u2089])|(?<=[\u2080-\u2089])(?=\d)"
)
"""High digits, fractions, what is circled or squared; and places between digits and low ones: NFKC would join them."""
_QUOTES = re.compile(rf"''+|(?<!{_ALNUM})['\u2018](?=\S)(.*?)(?<=\S)'(?!{_ALNUM})")
_JOINS = re.compile(
    rf"(?<!{_ALNUM}{_ALNUM})(?<={_LETTER})\.(?={_LETTER}(?!{_ALNUM}))|"
    rf"(?<={_LETTER})[\u00b7\u2027\u05f3\u05f4](?={_LETTER})"
)
"""Full stops between single letters (U.S.), and points and marks inside words (of Catalan, of Hebrew)."""
_SIGNS = re.compile(
    r"(?P<kept>(?<=\d)[.,:/\u066b\u066c](?=\d)|(?<![\w.])\.(?=\d)|(?<!\S)-(?=\.?\d)|[+%\u2030\u00b0=\u00b1\u00d7\u00f7])"
    r"|[^a-z0-9 '&]"
)
"""Signs of numbers, those that are read aloud, and all characters that need a look."""
_UNSEEN = re.compile(r"[\u034f\u180b-\u180d\ufe00-\ufe0f\U000e0100-\U000e01ef]")
"""Marks that only choose among shapes of a letter."""


def normalise(text: str) -> str:
    """Words in lower case with one space between them: letters of any script, their marks, digits and apostrophes.

    Unicode is brought to NFKC. Signs of numbers stay ("3.5", "10:30", "1/2", "-5"), and so do those that are read aloud
    ("&", "5%", "$5", "C++"). Single quotes, full stops between single letters ("U.S." becomes "us") and characters
    without a shape are dropped. All other signs part words ("well-known", "well...I"). docs/speech.md has the table.
    """
    text = _ALONE.sub(r" \g<0> ", _INNER.sub("'", text.translate(_APOSTROPHES)))
    text = unicodedata.normalize("NFKC", text).lower().replace("i\u0307", "i")  # that of a Turkish capital
    text = unicodedata.normalize("NFKC", text).translate(_APOSTROPHES).replace("\u2044", "/")
    text = re.sub(r"\u2212(?=\.?\d)", "-", text)
    text = _JOINS.sub("", _QUOTES.sub(r" \1 ", text))
    return " ".join(word for word in _SIGNS.sub(_kept, text).split() if word.strip("'"))


def _kept(found: re.Match[str]) -> str:
    """What becomes of a character: itself, nothing, or a place between words."""
    sign, kind = found[0], unicodedata.category(found[0])
    if found["kept"] or kind[0] in "LN" or kind == "Sc":
        return sign
    last, follows = found.string[: found.start()][-1:], found.string[found.end() :][:1]
    before, after = (unicodedata.category(one)[0] if one else "" for one in (last, follows))
    if kind[0] == "M":
        return "" if kind == "Me" or before not in ("L", "M", "N") or _UNSEEN.match(sign) else sign
    if sign in "\u200c\u200d" and last > "\u0600" and (before == "M" or (before, after) == ("L", "L")):
        return sign  # which makes other letters, as in Persian and Sinhala
    return "" if kind == "Cf" and sign != "\u200b" else " "  # a zero-width space


def lost_signs(texts: Iterable[str | None]) -> Counter[str]:
    """In how many texts each symbol or bracket stands that `normalise` leaves out, for it may have a meaning."""
    found: Counter[str] = Counter()
    for text in filter(None, texts):
        odd = set(re.findall(r"[^\w\s.,;:!?'\"()&%$+-]|_", text))
        signs = {one for one in odd if unicodedata.category(one) in ("Sm", "So") or one in "@#*[]{}\\_|"}
        found.update(sorted(signs - set(normalise(text))) if signs else ())
    return found


@dataclass(frozen=True)
class Letters:
    """The symbol of each id: blank (0), word boundary, unknown, then characters in the order of their code points."""

    symbols: tuple[str, ...]
    places: tuple[int, ...] | None = field(default=None, compare=False)
    """Where the outputs of a saved model have each symbol, if not where it is here."""

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
        classes = {"tokenizer_class": "Data2Vec2CTCTokenizer", "processor_class": "Wav2Vec2Processor"}
        settings = {**classes, "bos_token": None, "eos_token": None, **SIGNS}
        (folder / VOCAB).write_text(json.dumps(self.ids, ensure_ascii=False, indent=1), encoding="utf-8")
        (folder / TOKENIZER).write_text(json.dumps(settings, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, blank: int = BLANK_ID, count: int = 0) -> Letters:
        """What `save` wrote, or a script that made its own vocabulary: with another `blank`, and names for the signs.

        There may also be tokens beside the vocabulary, as far as a model has `count` outputs. `UserError` if it can't
        be read.
        """
        path, settings = folder / VOCAB, folder / TOKENIZER
        told = read_json(settings) if settings.is_file() else {}
        try:
            ids = read_json(path)
            added = told.get("added_tokens_decoder", {}).items()
            ids |= {one["content"]: int(place) for place, one in added if int(place) < count}
            given = sorted(ids, key=ids.__getitem__)
            signs = {told.get(name, usual): usual for name, usual in SIGNS.items()}
            usable = [ids[one] for one in given] == list(range(len(ids))) and 0 <= blank < len(given)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} can't be read: {error}") from error
        places = (blank, *(place for place in range(len(given)) if place != blank))
        symbols = tuple(signs.get(given[place], given[place]) for place in places) if usable else ()
        if symbols[:1] != (BLANK,) or not {SPACE, UNKNOWN} <= set(symbols) or len(set(symbols)) != len(symbols):
            raise UserError(
                f"{path} is not a vocabulary of letters: {BLANK} must be {blank}, and {SPACE} and {UNKNOWN} there"
            )
        return cls(symbols, places if blank else None)
