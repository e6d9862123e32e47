"""Labels become indices of classes, or tags. Shapes: `N` samples, `C` classes."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data2vec2.errors import UserError
from data2vec2.files import parse_json

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
            if part != "train" and train and given:
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
