"""Data sets that are Python objects: of `datasets`, or with a length and items as those of `torch.utils.data` have.

An item is a sample, a tuple of a sample and its label, or a dictionary by the names that tables have ("image", "label",
"transcription"). While a command runs, such an object has a name, under which all that takes a path finds it.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import filterfalse
from pathlib import Path
from typing import Any

import numpy as np

from data2vec2.data import hub
from data2vec2.data.account import Account
from data2vec2.data.labels import COLUMNS, is_label
from data2vec2.data.reading import column_of
from data2vec2.data.source import Content, Listing, Objects, Split
from data2vec2.errors import UserError

PREFIX = "python:"
"""What names of objects begin with."""
_FIELDS = ("data", "val", "test")
_LOOKS = 8  # items that say whether `targets` are the labels
_TOLD = 1_000  # items whose labels are read one by one without a word
_objects: dict[str, Any] = {}


@contextmanager
def named(options: Any) -> Iterator[Any]:
    """The options of a command with names in place of objects, which can be opened inside the block."""
    names: dict[str, str] = {}
    for field in _FIELDS:
        value = getattr(options, field, None)
        if value is None or _is_path(value):
            continue
        if not (hasattr(value, "__getitem__") and hasattr(value, "__len__")):
            what = f"{field} is a {type(value).__name__}, which lacks __len__ or __getitem__"
            raise UserError(f"{what}; give a data set that has both, or save it, and give its path")
        name = f"{PREFIX}{type(value).__name__}-{len(value)}"
        names[field] = name if name not in _objects else f"{name}-{field}"
        _objects[names[field]] = value
    try:
        yield dataclasses.replace(options, **names) if names else options
    finally:
        for name in names.values():
            del _objects[name]


def _is_path(value: Any) -> bool:
    several = isinstance(value, list | tuple) and all(isinstance(one, str | Path) for one in value)
    return several or isinstance(value, str | Path)


def is_name(data: str | Path | None) -> bool:
    """Whether it is the name of an object, which no other process has."""
    return str(data).startswith(PREFIX)


def read(text: str, content: Content) -> Listing:
    """The parts of a `DatasetDict`, or all that another object holds as one part to train on."""
    items = _objects[text]
    if splits := _splits(items):
        return hub.listing(splits, text, content)
    if not len(items):
        raise UserError(f"{text} is empty")
    rows = Objects(items, content, np.arange(len(items)), partial(_sample, content))
    values = [_values(content, item) for item in _read(items, text, content)]
    labels, texts = [value[0] for value in values], [value[1] for value in values]
    account = Account()
    if (other := next(filterfalse(is_label, labels), None)) is not None:  # boxes, say, or another picture
        account.remarks.append(f"labels of {text} are not read: the type {type(other).__name__} is no class")
        labels = [None] * len(labels)
    classes, counted = getattr(items, "classes", None), all(isinstance(one, int | None) for one in labels)
    names = tuple(map(str, classes)) if isinstance(classes, list | tuple) and counted else None
    split = Split([f"{text.removeprefix(PREFIX)}[{place}]" for place in range(len(items))], labels, rows, texts)
    return Listing("Python data set", {"train": split}, names, account)


def load_splits(text: str) -> Mapping[str, Any]:
    """Each split as a `datasets.Dataset`; `UserError` where an object of another kind can't become one."""
    items = _objects[text]
    if splits := _splits(items):
        return splits
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"texts of a {type(items).__name__} need pip install 'data2vec2[data]'") from error
    try:
        rows = [_row(items[place]) for place in range(len(items))]
        if len({tuple(row) for row in rows}) != 1:
            raise ValueError("they differ in their columns, or there are none")
        return {"train": datasets.Dataset.from_list(rows)}
    except (TypeError, ValueError) as error:  # of what is no text, and of columns of several types
        forms = "texts, pairs of texts, either with a label, or dictionaries of columns"
        raise UserError(f"items of {text} must all be {forms}: {str(error).splitlines()[0]}") from error


def _splits(items: Any) -> Mapping[str, Any]:
    """What it holds by the names of its parts, if it is of `datasets`."""
    return items if isinstance(items, dict) else {"train": items} if hasattr(items, "features") else {}


def _row(item: Any) -> dict[str, Any]:
    """A text, or a pair, and its label as the row of a table."""
    if isinstance(item, Mapping):
        return {name: _plain(value) for name, value in item.items()}
    sample, *label = item if isinstance(item, tuple | list) else (item,)
    texts, names = ((sample,), ("text",)) if isinstance(sample, str) else (sample, ("sentence1", "sentence2"))
    return dict(zip(names, texts, strict=True)) | ({"label": _plain(label[0])} if label else {})


def _sample(content: Content, item: Any) -> Any:
    """The sample in an item."""
    if isinstance(item, Mapping) and (column := column_of(item, content.columns)):
        return item[column]
    return item[0] if isinstance(item, tuple | list) else item


def _values(content: Content, item: Any) -> tuple[Any, Any]:
    """Label and transcript of an item, None for none."""
    if isinstance(item, Mapping):
        columns = column_of(item, COLUMNS), column_of(item, content.texts)
        label, text = (item[column] if column else None for column in columns)
        return _plain(label), text
    return (_plain(item[1]) if isinstance(item, tuple | list) and len(item) > 1 else None), None


def _plain(value: Any) -> Any:
    """Numbers of NumPy and PyTorch as Python's."""
    return value.tolist() if hasattr(value, "tolist") else value


def _read(items: Any, text: str, content: Content) -> Iterator[Any]:
    """All items in order, without their samples where `targets`, as torchvision has them, are the labels."""
    targets, count = getattr(items, "targets", ()), len(items)
    looked = np.unique(np.linspace(0, count - 1, _LOOKS).astype(int)).tolist() if len(targets) == count else []
    seen = [(_tried(items, place), _plain(targets[place])) for place in looked]
    if seen and all(item is None or _values(content, item)[0] == target for item, target in seen):
        yield from ((None, target) for target in targets)
        return
    if count > _TOLD:
        print(f"reading all {count:,} items of {text} for their labels", file=sys.stderr)
    yield from (_tried(items, place) for place in range(count))


def _tried(items: Any, place: int) -> Any:
    """An item; None where there is an error, for which the sample will be a bad one."""
    try:
        return items[place]
    except Exception:
        return None
