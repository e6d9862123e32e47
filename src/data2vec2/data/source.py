"""What any kind of data is turned into before it becomes `Records`: parts, each with names, labels and samples."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from data2vec2.errors import UserError

PART_NAMES = {"train": "train", "test": "test", "t10k": "test"} | dict.fromkeys(
    ("val", "valid", "validation", "dev"), "val"
)
"""What parts are called in the names of folders, files and splits, and what they are called here."""


class BadSample(Exception):
    """A sample that can't be used; `reason` is a short category that files are counted by."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class Source(Protocol):
    """The samples of one part, one read at a time, from any thread. Can be pickled."""

    in_memory: ClassVar[bool]
    """Whether reading costs next to nothing."""

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """Content of the sample's file, or a picture's array `HW` or `HWC`; raises `BadSample`."""

    def select(self, places: NDArray[np.int64]) -> Source:
        """The samples at `places`, in that order."""

    def content(self) -> Iterator[bytes | memoryview]:
        """What tells these samples from others of the same names: sizes, or all of the bytes."""


@dataclass(frozen=True)
class Part:
    """Names, labels and samples of one part. A label is a whole number, a string, a list of these, or None."""

    names: Sequence[str]
    labels: Sequence[Any]
    source: Source
    texts: Sequence[Any] | None = None
    """Transcripts, where the data have any: strings, or None."""
    seconds: NDArray[np.float64] | None = None
    """Lengths of recordings, where the data say them."""
    numbers: NDArray[np.float64] | None = None
    """Labels that are numbers to be predicted, NaN for none; `labels` are then all None."""


@dataclass(frozen=True)
class Found:
    """What was recognised: parts ("train", "val", "test"), class names that the data give, and notes for the user."""

    kind: str
    parts: Mapping[str, Part]
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    """Files that were left out, by extension."""


def part_of(name: str) -> str | None:
    """The part that a folder, file or split is called after ("test-00001.parquet" is "test"); None: none."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    return next((PART_NAMES[word] for word in words if word in PART_NAMES), None)


def by_part(names: Sequence[str], where: str) -> dict[str, list[str]]:
    """File or split names of each part; those that name no part are "train", and so are all where there is one part.

    Raises `UserError` if there is none to train on.
    """
    parts: dict[str, list[str]] = {}
    for name in names:
        parts.setdefault(part_of(name) or "train", []).append(name)
    if len(parts) == 1:
        return {"train": list(names)}
    if "train" not in parts:
        raise UserError(f"{where} has {' and '.join(sorted(parts))} parts, none to train on; name one of them itself")
    return parts
