"""Any source of pictures becomes `Records`: a list of samples with names and labels, read one at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data2vec2.data import arrays, folder
from data2vec2.errors import UserError


class BadSample(Exception):
    """A sample that can't be used; `reason` is a short category that files are counted by."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class Records:
    """Samples of one part of a data set. Can be pickled."""

    kind: str
    """What the source is, as said to the user."""
    names: Sequence[str]
    """Path relative to the folder (posix), or file or array name with the place: "x_train[17]"."""
    labels: NDArray[np.int64]
    """Index into `classes`, or -1 for none."""
    classes: tuple[str, ...]
    """Names of the classes, shared by all parts; empty if there are fewer than two."""
    ignored: Mapping[str, int]
    """Files of the whole folder that were left out, by extension; only the train part carries it."""
    source: Path | NDArray[np.uint8]
    """The folder that names are relative to, or the pictures as `NHW` or `NHWC`."""

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """Content of the file, or the array `HW` or `HWC`, of one sample; raises `BadSample`."""
        if not isinstance(self.source, Path):
            picture: NDArray[np.uint8] = self.source[index]
            return picture
        try:
            content = (self.source / self.names[index]).read_bytes()
        except OSError as error:
            raise BadSample("unreadable") from error
        except MemoryError as error:
            raise BadSample("too large") from error
        if not content:
            raise BadSample("empty file")
        return content

    def select(self, indices: NDArray[np.int64] | Sequence[int]) -> Records:
        """Records of the samples at `indices`, in that order."""
        places = np.asarray(indices, dtype=np.int64)
        names = tuple(self.names[place] for place in places.tolist())
        source = self.source if isinstance(self.source, Path) else self.source[places]
        return replace(self, names=names, labels=self.labels[places], source=source)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over kind, names, labels, and the sizes of the files or the bytes of the arrays."""
        digest = hashlib.sha256("\0".join((self.kind, *self.names, "")).encode("utf-8", "surrogateescape"))
        digest.update(np.ascontiguousarray(self.labels).data)
        if isinstance(self.source, Path):
            sizes = [_size(self.source / name) for name in self.names]
            digest.update(np.array(sizes, dtype=np.int64).data)
        else:
            digest.update(repr(self.source.shape).encode())
            digest.update(np.ascontiguousarray(self.source).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Parts:
    """The parts of a data set."""

    train: Records
    val: Records | None
    test: Records | None
    description: str
    """One line for the user: what was recognised and how much of it there is."""


def open_data(path: Path) -> Parts:
    """Recognise what `path` is (folder of images, IDX arrays, npz arrays) and list its samples.

    Raises `UserError` for a path that does not exist, and for one with nothing usable in it (saying what was found).
    """
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if path.is_file():
        if path.suffix.lower() == ".npz":
            return _from_arrays("npz arrays", arrays.read_npz(path))
        if arrays.is_idx_name(path.name):
            return _from_arrays("IDX arrays", arrays.read_idx([path]))
        what = "one picture" if path.suffix.lower() in folder.EXTENSIONS else "not a known kind of data"
        raise UserError(f"{path} is {what}; name a folder of images, an IDX file of images, or a .npz file")
    idx_files = [file for file in path.iterdir() if arrays.is_idx_name(file.name) and file.is_file()]
    if idx_files:
        data = arrays.read_idx(idx_files)
        if "train" not in data.parts:
            raise UserError(f"{path} has IDX files of {' and '.join(data.parts)}, none to train on; name a file itself")
        return _from_arrays("IDX arrays", data)
    return _from_folder(path)


def _from_folder(root: Path) -> Parts:
    """Parts of a folder of image files."""
    names, ignored = folder.scan(root)
    if not names:
        found = f"it holds files of type {_counts(ignored)}" if ignored else "it is empty"
        hint = "; name the .npz file itself" if ".npz" in ignored else ""
        raise UserError(f"no images in {root} ({', '.join(sorted(folder.EXTENSIONS))}): {found}{hint}")
    parts, beside = folder.split_parts(root, names)
    classes = _enough({label for part in parts.values() for label in part.labels if label})
    index = {label: place for place, label in enumerate(classes)}
    kind = "folder of images"
    records = {
        key: Records(
            kind,
            part.names,
            np.array([index.get(label, -1) for label in part.labels], dtype=np.int64),
            classes,
            ignored if key == "train" else {},
            root,
        )
        for key, part in parts.items()
    }
    left_out = f"left out: {_counts(ignored)}" if ignored else ""
    stray = f"left out beside the parts: {beside:,} images" if beside else ""
    return _parts(kind, records, (left_out, stray))


def _from_arrays(kind: str, data: arrays.ArrayData) -> Parts:
    """Parts of a source of arrays; label values become indices of classes."""
    values = [_label_values(part) for part in data.parts.values()]
    given: list[NDArray[Any]] = [value[_is_label(value)] for value in values if value is not None]
    known = np.unique(np.concatenate(given)) if given else np.zeros(0, dtype=np.int64)
    if data.classes is not None and known.size:
        if known.dtype.kind not in "iu" or known.max() >= len(data.classes):
            raise UserError(f"labels go up to {known.max()}, but the array classes names {len(data.classes)} classes")
        known = np.arange(len(data.classes))
    classes = _enough(str(value) for value in known) if data.classes is None else data.classes
    records = {}
    for (key, part), value in zip(data.parts.items(), values, strict=True):
        labels = np.full(len(part.images), -1, dtype=np.int64)
        if value is not None and classes:
            labels[_is_label(value)] = np.searchsorted(known, value[_is_label(value)].astype(known.dtype))
        names = tuple(f"{part.origin}[{place}]" for place in range(len(part.images)))
        records[key] = Records(kind, names, labels, classes, {}, part.images)
    return _parts(kind, records, (data.note,))


def _label_values(part: arrays.ArrayPart) -> NDArray[Any] | None:
    """Labels of a part as integers or strings; `UserError` for others."""
    values = part.labels
    if values is not None and values.dtype.kind == "f" and np.array_equal(values, np.rint(values)):
        values = values.astype(np.int64)
    if values is not None and values.dtype.kind not in "iubU":
        raise UserError(f"labels of {part.origin} are of type {values.dtype}; they must be whole numbers or strings")
    return values


def _is_label(values: NDArray[Any]) -> NDArray[np.bool_]:
    """False where a number below zero says that there is no label."""
    return values >= 0 if values.dtype.kind in "iu" else np.ones(len(values), dtype=bool)


def _enough(classes: Iterable[str]) -> tuple[str, ...]:
    """The classes; none if there is only one."""
    names = tuple(sorted(classes) if isinstance(classes, set) else classes)
    return names if len(names) > 1 else ()


def _parts(kind: str, records: dict[str, Records], notes: Iterable[str]) -> Parts:
    """Parts with their description."""
    train = records["train"]
    sizes = ", ".join(f"{len(records[key]):,} {key}" for key in ("train", "val", "test") if key in records)
    classes = f"{len(train.classes):,} classes" if train.classes else "no labels"
    description = "; ".join((f"{kind}: {sizes}, {classes}", *filter(None, notes)))
    return Parts(train, records.get("val"), records.get("test"), description)


def _counts(ignored: Mapping[str, int]) -> str:
    """Files by extension, for a message."""
    return ", ".join(f"{extension} ({count:,})" for extension, count in ignored.items())


def _size(path: Path) -> int:
    """Bytes of a file; -1 if it can't be told."""
    try:
        return path.stat().st_size
    except OSError:
        return -1
