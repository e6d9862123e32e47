"""Data, files and folders that a user names, as records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from data2vec2.data import folder
from data2vec2.data.content import Content
from data2vec2.data.records import Parts, Records, open_data
from data2vec2.data.sentences import open_sentences
from data2vec2.errors import UserError


def listed_files(paths: Iterable[str | Path], content: Content) -> Records:
    """Files, and those below folders, as records without labels; `UserError` for a folder without any."""
    names: list[str] = []
    for path in map(Path, paths):
        if path.is_dir():
            by_extension = folder.scan(path)
            found = sorted(name for extension in content.extensions for name in by_extension.get(extension, ()))
            if not found:
                raise UserError(f"no {content.files} in {path} ({', '.join(sorted(content.extensions))})")
            names += [str(path / name) for name in found]
        else:
            names.append(str(path))
    labels = np.full(len(names), -1, dtype=np.int64)
    return Records(f"list of {content.many}", names, labels, (), {}, folder.Files(Path(), tuple(names)))


def listed_texts(paths: Iterable[str | Path], columns: Sequence[str]) -> list[Records]:
    """Texts of tables, or of files with a text a line, in order and without labels; raises as `open_sentences` does."""
    found: list[Records] = []
    for path in paths:
        parts = open_sentences(path, columns, labels="none")
        place = Path(path) if Path(path).is_dir() else Path(path).parent
        for records in (parts.train, parts.val, parts.test):
            if records is not None:
                names = [str(place / name) for name in records.names]
                found.append(replace(records, names=names))
    return found


def opener(
    kind: Literal["image", "audio", "text"], text_columns: Sequence[str], label_column: str | None
) -> Callable[[Path], Parts]:
    """What opens labelled data; `ValueError` for columns of data that are not text."""
    if kind == "text":
        return partial(open_sentences, columns=text_columns, label=label_column)
    if text_columns or label_column:
        raise ValueError(f"--text-columns and --label-column are for models of text, and this is one of {kind}")
    return partial(open_data, kind=kind)
