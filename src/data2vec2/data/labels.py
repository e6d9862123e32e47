"""Labels become indices of classes, tags, or letters. Shapes: `N` samples, `C` classes, `L` letters of a text."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache, cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data2vec2.errors import UserError
from data2vec2.files import parse_json, read_json

COLUMNS = (
    *("label", "labels", "class", "classes", "category", "categories", "target", "tag", "tags"),
    *("fine_label", "sentiment"),
)
"""Names under which tables keep labels; the first that is there is taken."""
NUMBERS = ("score", "value")
"""Names under which tables keep numbers to be predicted, besides."""
IGNORED = -100
"""Class of a word, frame or pixel that has none: it is neither learned nor scored."""
UNLABELLED = "have no label"
"""How a remark ends on samples that only pre-training uses."""
ONE_CLASS = "labels of the train part are"
"""What a remark says of the only class."""
Encoded = tuple[NDArray[np.int64], NDArray[np.bool_] | None]
"""Labels `N` (-1: none) and tags `NC`; where there are tags, all labels are -1."""


def encode(
    values: Mapping[str, Sequence[Any]], named: tuple[str, ...] | None, where: str
) -> tuple[dict[str, Encoded], tuple[str, ...], list[str]]:
    """Labels or tags of each part, the names of the classes, which all parts share, and what is odd about them.

    A value is a whole number, a string, or a list of these (then there are tags), which a string may be, too ("['a']");
    None and "" are no label. Where all lists have a 0 or 1 for each class, they stand for the classes of the 1s.
    Strings are compared in Unicode's NFC, without space around them, and whole numbers as numbers: "1.0" is 1. `named`
    are the classes, which numbers count from 0; without them, the classes are all values there are, numbers first. A
    number below zero is no label where classes are named, or where no training sample has it; else it is a class. Fewer
    than two classes are none; one tag is enough. `UserError` for any other value.
    """
    values, remarks = _counted_off(_unwritten(values, named or ()), named)
    several = any(isinstance(value, list | tuple) for part in values.values() for value in part)
    known: dict[Any, str] | None = None
    if named is not None:
        known = dict(enumerate(named)) | {_normal(name): name for name in named} | {name: name for name in named}
    spelled: dict[str, set[str]] = defaultdict(set)
    names = partial(_names, known=known, where=where, spelled=spelled)
    of_text = cache(names)  # a million samples have a thousand labels
    rows = {part: [(of_text if isinstance(one, str) else names)(one) for one in of] for part, of in values.items()}
    if named is None:
        learned = {name for row in rows.get("train", ()) for name in row}
        for key in rows.keys() - {"train"}:
            rows[key] = [[one for one in row if one in learned or not _NEGATIVE.fullmatch(one)] for row in rows[key]]
    found = Counter(name for part in rows.values() for row in part for name in row)
    classes = named if named is not None else tuple(sorted(found, key=_order))
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
    return encoded, classes, [*remarks, *_spelling(spelled, found), *_spread(rows, several)]


def is_label(value: Any) -> bool:
    """Whether `encode` takes a value."""
    if isinstance(value, list | tuple):
        return all(is_label(one) and not isinstance(one, list | tuple) for one in value)
    whole = isinstance(value, float | Decimal) and (value != value or value % 1 == 0)
    return isinstance(value, int | str | None) or whole


def listed(value: Any) -> list[Any] | None:
    """The items of a list, or of a string that is a list of strings or whole numbers written out; None of all else."""
    if isinstance(value, list | tuple):
        return list(value)
    text = value.strip() if isinstance(value, str) else ""
    if text[:1] != "[" or text[-1:] != "]":
        return None
    with suppress(ValueError):
        return list(parse_json(text))
    items, place, inner = list[Any](), 0, text[1:-1].strip()
    while place < len(inner):
        if not (item := _ITEM.match(inner, place)):
            return None
        single, double, number = item.groups()
        items.append(int(number) if number else re.sub(r"\\(.)", r"\1", single or double or ""))
        place = item.end()
    return items


def _unwritten(values: Mapping[str, Sequence[Any]], named: Sequence[str]) -> Mapping[str, Sequence[Any]]:
    """Values with lists for strings, if all strings that are not empty are lists written out, and no class's name."""
    given = (one for of in values.values() for one in of if isinstance(one, str) and one.strip())
    if any(one in named or listed(one) is None for one in given):
        return values
    return {part: [listed(one) if isinstance(one, str) else one for one in of] for part, of in values.items()}


def _counted_off(
    values: Mapping[str, Sequence[Any]], named: tuple[str, ...] | None
) -> tuple[Mapping[str, Sequence[Any]], list[str]]:
    """Values with the places of the 1s for lists of a 0 or 1 for each class; one place for a list if all have one 1."""
    lists = [one for of in values.values() for one in of if isinstance(one, list | tuple)]
    width = len(named or (lists or [()])[0])
    if width < 2 or not all(len(one) == width and all(value in (0, 1) for value in one) for one in lists):
        return values, []
    single = all(sum(one) == 1 for one in lists)

    def classes(one: Any) -> Any:
        if not isinstance(one, list | tuple):
            return one
        return one.index(1) if single else [place for place, value in enumerate(one) if value]

    counted = {part: list(map(classes, of)) for part, of in values.items()}
    return counted, [f"labels are lists of {width} numbers, 0 or 1, one for each class"] if lists else []


_ITEM = re.compile(
    r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([+-]?\d{1,18})(?:\.0*)?)(?:\s*,|\s+|$)\s*""", re.DOTALL
)
"""An item of a list as Python, NumPy or JSON write it: a string or a whole number."""
_NEGATIVE = re.compile(r"-[1-9]\d*")
_WHOLE = re.compile(r"[+-]?(0|[1-9]\d{0,99})(\.0*)?")
_UNSEEN_ENDS = re.compile(r"^[\s\u200b-\u200f\u2060\ufeff]+|[\s\u200b-\u200f\u2060\ufeff]+$")
_NOTHING = {"nan", "none", "null", "na", "n/a", "<na>", "#n/a", "\\n", "-", "?"}


def spelled(label: Any) -> str:
    """A label as `encode` compares it."""
    return _normal(str(label))


@lru_cache(4096)
def _normal(text: str) -> str:
    """A label as it is compared: NFC, without space or unseen characters around it; a whole number as such."""
    text = _UNSEEN_ENDS.sub("", unicodedata.normalize("NFC", text))
    return str(int(text.partition(".")[0])) if _WHOLE.fullmatch(text) else text


def _spelling(spelled: Mapping[str, Collection[str]], found: Mapping[str, int]) -> list[str]:
    """What the user should know of how labels are written."""
    remarks = [
        f"labels written {' and '.join(map(ascii, sorted(forms)))} are one class, {name!r}"
        for name, forms in spelled.items()
        if len(forms) > 1
    ]
    folded: dict[str, list[str]] = defaultdict(list)
    for name in sorted(found):
        folded[name.casefold()].append(name)
    alike = [names for names in folded.values() if len(names) > 1]
    remarks += [f"classes that differ in case only: {_counted(found, names)}" for names in alike]
    if joined := [name for name in found if _joins(name, found)]:
        remarks.append(f"classes that look like several: {_counted(found, joined)}; give several labels as a list")
    if nothing := [name for name in found if name.casefold() in _NOTHING]:
        remarks.append(
            f"class names that look like missing labels: {_counted(found, nothing)}; leave these labels empty"
        )
    fractions = [name for name in found if re.fullmatch(r"[+-]?\d*\.\d+", name)]
    if fractions and all(re.fullmatch(r"[+-]?\d*(\.\d+)?", name) for name in found):
        remarks.append(f"each number is a class: {some(sorted(fractions))}; finetune regress learns numbers of texts")
    if below := [name for name in found if _NEGATIVE.fullmatch(name)]:
        remarks.append(f"negative numbers taken as classes: {_counted(found, below)}; leave missing labels empty")
    return remarks


def _joins(name: str, classes: Collection[str]) -> bool:
    """Whether a name is made of those of other classes."""
    pieces, words = [one.strip() for one in re.split("[,;|]", name)], name.split()
    return (len(pieces) > 1 and any(map(classes.__contains__, pieces))) or (
        len(words) > 1 and all(map(classes.__contains__, words))
    )


def _spread(rows: Mapping[str, Sequence[Sequence[str]]], several: bool) -> list[str]:
    """What the user should know of how often the classes stand in each part."""
    counts = {part: Counter(name for row in given for name in row) for part, given in rows.items()}
    train, remarks = counts.get("train", Counter()), list[str]()
    for part, given in rows.items():
        labelled = sum(map(bool, given))
        if not counts[part]:
            if part != "train" and train:
                remarks.append(f"none of the {len(given):,} {part} samples has a label; they can't be scored on")
            continue
        if labelled < len(given) and not several:
            remarks.append(f"{len(given) - labelled:,} of {len(given):,} {part} samples {UNLABELLED}")
        if part == "train" and len(train) == 1 and not several:
            remarks.append(f"all {labelled:,} {ONE_CLASS} {next(iter(train))!r}")
        if part != "train" and train:
            if other := counts[part].keys() - train.keys():
                remarks.append(
                    f"classes that no training sample has, in the {part} part: {_counted(counts[part], other)}"
                )
            if other := train.keys() - counts[part].keys():
                remarks.append(f"classes that the {part} part has not: {_counted(train, other)}")
    if single := [name for name, count in train.items() if count == 1]:
        remarks.append(f"classes with one training sample: {some(sorted(single))}")
    return remarks


def _counted(counts: Mapping[str, int], names: Iterable[str]) -> str:
    return some([f"{name} ({counts[name]:,})" for name in sorted(names)])


def some(names: Sequence[str], limit: int = 10) -> str:
    """The first of some names, and how many more there are."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit:,} more" if len(names) > limit else "")


def numbers(values: Sequence[Any], names: Sequence[str], column: str) -> NDArray[np.float64]:
    """Labels as numbers, NaN for none (None, an empty string); `UserError` that names the first that is no number."""
    found = np.full(len(values), np.nan)
    for place, value in enumerate(values):
        try:
            found[place] = np.nan if value is None or value == "" else float(value)
        except (TypeError, ValueError):
            found[place] = np.inf
        if np.isinf(found[place]):
            raise UserError(f"{names[place]}: {column} is {value!r}; for regression, all labels must be numbers")
    return found


def _names(value: Any, known: Mapping[Any, str] | None, where: str, spelled: Mapping[str, set[str]]) -> list[str]:
    """Names of classes that a value stands for, as `known` has them or in normal form; notes how it is `spelled`."""
    if isinstance(value, list | tuple) and is_label(value):
        return [name for one in value for name in _names(one, known, where, spelled)]
    if value is None or value != value:
        return []
    if not is_label(value):
        raise UserError(f"{where}: a label is {value!r}; labels are whole numbers, strings, or lists of these")
    value = int(value) if isinstance(value, float | Decimal) else value
    text = _normal(value) if isinstance(value, str) else str(int(value))
    if (
        known is not None
        and (name := known.get(value if isinstance(value, int) or value in known else text)) is not None
    ):
        text = name
    elif not text or (known is not None and _NEGATIVE.fullmatch(text)):
        return []
    elif known is not None:
        names = some(list(dict.fromkeys(known.values())))
        raise UserError(f"{where}: a label is {value!r}, which is not one of the given classes ({names})")
    spelled[text].add(str(value) if isinstance(value, str) else text)
    return [text]


def _order(name: str) -> tuple[bool, int, str]:
    """Whole numbers by size, then everything else by spelling."""
    whole = name.removeprefix("-").isdecimal() and len(name) < 100
    return not whole, int(name) if whole else 0, name


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
