"""hf:NAME: data sets of the Hugging Face hub, or local folders in a form that `datasets` reads (extra `data`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data2vec2.data.account import Account
from data2vec2.data.parquet import choose_columns
from data2vec2.data.source import BadSample, Content, Listing, Source, Split, by_part, part_of, parts_by_name, readable
from data2vec2.data.tables import parts_unread
from data2vec2.errors import UserError

PREFIX = "hf:"
"""What such names begin with."""


@dataclass(frozen=True, eq=False)
class HubRows(Source):
    """Rows of a `datasets.Dataset`, whose files are memory-mapped."""

    dataset: Any
    column: str
    rows: NDArray[np.int64]

    def read(self, index: int) -> bytes:
        """Bytes of one sample, from the table or from the file that it names; raises `BadSample`."""
        value = self.dataset[int(self.rows[index])][self.column]
        content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        if content is not None:
            return bytes(content)
        if not path:
            raise BadSample("the row is empty")
        with readable():
            return Path(path).read_bytes()

    def select(self, places: NDArray[np.int64]) -> HubRows:
        """The rows at `places`."""
        return HubRows(self.dataset, self.column, self.rows[places])

    def files(self) -> list[str]:
        """Those of the table."""
        return [str(file["filename"]) for file in self.dataset.cache_files]

    def content(self) -> Iterator[bytes | memoryview]:
        """Size of the whole table, and the rows."""
        yield str(self.dataset.data.nbytes).encode()
        yield self.rows.tobytes()


def read(text: str, content: Content) -> Listing:
    """The splits of `hf:NAME` or `hf:NAME:CONFIG`; `UserError` if `datasets` is missing or can't load them."""
    return listing(load_splits(text), text, content)


def listing(splits: Mapping[str, Any], text: str, content: Content) -> Listing:
    """What the splits of a data set hold; `text` is its name."""
    parts, classes, remarks = {}, None, list[str]()
    left_out = [name for name in splits if not part_of(name) and "train" in splits]
    of_part = by_part([name for name in splits if name not in left_out], text)
    for part, names in of_part.items():
        if len(names) > 1:
            many = ", ".join(names)
            raise UserError(f"{text} has several splits for {part}: {many}; save the one you want separately")
        dataset = splits[names[0]]
        columns = choose_columns(dataset.features.arrow_schema, text, content)
        if classes and columns.classes and classes != columns.classes:
            mine, others = (", ".join(one[:10]) for one in (columns.classes, classes))
            raise UserError(f"{names[0]} of {text} has the classes {mine}, where the splits before it have {others}")
        classes, count = classes or columns.classes, len(dataset)
        remarks += parts_unread(names[0], {columns.split: dataset[columns.split]} if columns.split else {})
        labels = list(dataset[columns.label]) if columns.label else [None] * count
        texts = list(dataset[columns.text]) if columns.text else None
        if hasattr(feature := dataset.features[columns.sample], "decode"):  # else `datasets` would decode the samples
            dataset = dataset.cast_column(columns.sample, type(feature)(decode=False))
        rows = HubRows(dataset.select_columns([columns.sample]), columns.sample, np.arange(count))
        parts[part] = Split(tuple(f"{names[0]}[{place}]" for place in range(count)), labels, rows, texts)
    beside = dict.fromkeys(left_out, "a split of another name")
    account = Account(beside=beside, choices=parts_by_name(of_part), remarks=remarks)
    return Listing("Hugging Face data set", parts, classes, account)


def load_splits(text: str) -> Mapping[str, Any]:
    """Each split of `hf:NAME` or `hf:NAME:CONFIG`, as a `datasets.Dataset`; `UserError` if it can't be loaded."""
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"{text} needs the library datasets: pip install 'data2vec2[data]'") from error
    folder = Path(name := text.removeprefix(PREFIX).strip())
    if not name:
        raise UserError(f"{text!r} names no data set; give {PREFIX}NAME, or {PREFIX}FOLDER")
    try:
        if any((folder / state).is_file() for state in ("state.json", "dataset_dict.json")):
            loaded = datasets.load_from_disk(str(folder))
        elif folder.is_dir():
            loaded = datasets.load_dataset(str(folder.resolve()))
        else:
            name, _, config = name.partition(":")
            loaded = datasets.load_dataset(name, config or None)
    except Exception as error:  # the list of what it raises is open-ended
        reason = str(error.__cause__ or error).split("\n", 1)[0]
        why = f"{type(error).__name__}: {reason}"
        raise UserError(f"{text} can't be loaded ({why}); name a data set or folder") from error
    return loaded if isinstance(loaded, dict) else {"train": loaded}
