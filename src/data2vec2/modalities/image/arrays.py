"""Reading pictures that are stored as arrays: IDX files (the MNIST format) and `.npz`.

Shapes: `N` pictures, `H` and `W` pixels, `C` channels.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from data2vec2.data.account import Account
from data2vec2.data.source import PART_NAMES, Listing, Source, Split, part_of
from data2vec2.errors import UserError
from data2vec2.files import read_arrays, unpacked

_PICTURES, _LABELS = ("images", "image", "x", "data"), ("labels", "label", "y", "targets", "target")
_NPZ_NAMES = [
    *((part, (f"{{}}_{word}", f"{word}_{{}}", f"{{}}{word}", f"{word}{{}}")) for word, part in PART_NAMES.items()),
    ("train", ("{}",)),
]
"""Part, and how its pictures and their labels are called; the first names that are there are taken."""
_IDX_NAME = re.compile(r"idx[34][-_.]?ubyte(\.gz)?$|images([-_.]ubyte)?(\.gz)?$", re.IGNORECASE)
_DAMAGE = (OSError, EOFError, ValueError, KeyError, MemoryError, zlib.error, zipfile.BadZipFile, NotImplementedError)


@dataclass(frozen=True, eq=False)
class Arrays(Source):
    """Pictures in memory, `NHW` or `NHWC`."""

    in_memory: ClassVar[bool] = True
    pictures: NDArray[Any]

    def read(self, index: int) -> NDArray[Any]:
        """One picture, `HW` or `HWC`."""
        return np.asarray(self.pictures[index])

    def select(self, places: NDArray[np.int64]) -> Arrays:
        """The pictures at `places`."""
        return Arrays(self.pictures[places])

    def content(self) -> Iterator[bytes | memoryview]:
        """Shape and all pixels."""
        yield repr(self.pictures.shape).encode()
        yield np.ascontiguousarray(self.pictures).data


def read_idx(paths: list[Path]) -> Listing:
    """IDX pictures (3 dimensions `NHW`, 4 dimensions `NHWC`, unsigned bytes) with the labels that lie beside them.

    One path is the train part whatever it is called. Of several, the names tell the parts: t10k or test, val, and
    train for the rest. Raises `UserError` naming the file and what is wrong with it.
    """
    parts: dict[str, Path] = {}
    files = {str(path).removesuffix(".gz"): path for path in sorted(paths, reverse=True)}  # the unpacked one wins
    for path in sorted(files.values()):
        part = "train" if len(files) == 1 else part_of(path.name) or "train"
        if part in parts:
            raise UserError(f"there are two {part} parts, {parts[part]} and {path}; name one of the files")
        parts[part] = path
    if "train" not in parts:
        folder = paths[0].parent
        raise UserError(f"{folder} has IDX files of {' and '.join(parts)}, none to train on; give a file directly")
    return Listing("IDX arrays", {part: _idx_part(path) for part, path in parts.items()})


def _idx_part(path: Path) -> Split:
    """One IDX file of pictures, with the labels of the file beside it, packed or not, if there is one."""
    images = _as_nhwc(_read_idx_file(path, (3, 4)), str(path))
    name = re.sub("images", "labels", path.name.removesuffix(".gz"), flags=re.IGNORECASE)
    name = re.sub("idx[34]", "idx1", name, flags=re.IGNORECASE)
    candidates = (path.with_name(name), path.with_name(name + ".gz"))
    beside = next((other for other in candidates if other != path and other.is_file()), None)
    labels = _read_idx_file(beside, (1,)) if beside else None
    if labels is not None and len(labels) != len(images):
        raise UserError(f"{path} has {len(images)} pictures, but {beside} has {len(labels)} labels")
    return _part(path.name, images, labels)


def read_npz(path: Path) -> Listing:
    """Pictures and labels of a `.npz` file; the names of the arrays tell the parts (see the error for those known).

    Pictures are `NHW`, `NHWC` or `NCHW`, of numbers of any kind; other than bytes are scaled as `pictures.find_levels`
    says. Labels are one a picture, or `NC` of 0 and 1: tags, or classes where each picture has exactly one. An array
    `classes` names the classes. Arrays that are not read stand in the account. Raises `UserError` for anything else.
    """
    try:
        arrays = {name.lower(): array for name, array in read_arrays(path).items()}
    except _DAMAGE as error:
        why = "it holds Python objects; save plain arrays" if "pickle" in str(error) else error
        raise UserError(f"can't read {path} as .npz arrays: {why}") from error
    chosen: dict[str, tuple[str, str]] = {}
    for part, forms in _NPZ_NAMES:
        of_part = [[form.format(word) for word in words for form in forms] for words in (_PICTURES, _LABELS)]
        x, y = (next(filter(arrays.__contains__, names), "") for names in of_part)
        if x:
            chosen.setdefault(part, (x, y))
    pictures = [name for name, array in arrays.items() if array.ndim in (3, 4)]
    if not chosen and len(pictures) == 1:
        chosen = {"train": (pictures[0], "")}
    if "train" not in chosen:
        listing = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in arrays.items()) or "no arrays"
        raise UserError(
            f"{path} has no training pictures under a known name; it holds {listing}. Known are "
            f"{', '.join(_PICTURES)} (for labels {', '.join(_LABELS)}), alone or with train, val or test (x_train, "
            "test_labels), or one array of pictures"
        )
    x, y = chosen["train"]
    if not y and "classes" in arrays and arrays["classes"].shape == arrays[x].shape[:1]:  # of each picture, so no names
        arrays["labels"], chosen["train"] = arrays.pop("classes"), (x, "labels")
    parts = {}
    for part, (x, y) in chosen.items():
        if arrays[x].dtype.kind not in "biuf":
            raise UserError(f"{path}: {x} is of type {arrays[x].dtype}; pictures must be numbers")
        images = _as_nhwc(arrays[x] * np.uint8(255) if arrays[x].dtype == bool else arrays[x], f"{path}: {x}")
        labels = arrays.get(y)
        if labels is not None:
            labels = labels.reshape(-1) if labels.size == len(labels) else labels
            several = labels.ndim == 2 and np.isin(labels, (0, 1)).all()
            if len(labels) != len(images) or (labels.ndim > 1 and not several):
                raise UserError(f"{path}: {x} has {len(images)} pictures, but {y} has shape {list(labels.shape)}")
        parts[part] = _part(x, images, labels)
    classes = tuple(str(name) for name in arrays["classes"].reshape(-1)) if "classes" in arrays else None
    unread = arrays.keys() - {"classes", *(name for xy in chosen.values() for name in xy)}
    account = Account(beside=dict.fromkeys(sorted(unread), "unused array"))
    return Listing("npz arrays", parts, classes, account)


def _part(origin: str, images: NDArray[Any], labels: NDArray[Any] | None) -> Split:
    """The part that an array of pictures and one of labels make; `UserError` for labels of a type that is none."""
    values: list[Any] = [None] * len(images)
    if labels is not None:
        if labels.dtype.kind not in "iubfUS":
            raise UserError(f"labels of {origin} are of type {labels.dtype}; they must be whole numbers or strings")
        values = (labels.astype(str) if labels.dtype.kind == "S" else labels).tolist()
    return Split(tuple(f"{origin}[{place}]" for place in range(len(images))), values, Arrays(images))


def _read_idx_file(path: Path, dimensions: tuple[int, ...]) -> NDArray[np.uint8]:
    """The array in one IDX file, plain or gzip (told by its first bytes); its number of dimensions is checked."""
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = b"".join(unpacked(path, gzip.open))
    except (*_DAMAGE, struct.error) as error:
        raise UserError(f"can't read {path}: {error}") from error
    if len(data) < 4 or data[:2] != b"\0\0":
        raise UserError(f"{path} is not an IDX file: it starts with {data[:4].hex(' ') or 'nothing'}, not with 00 00")
    kind, count = data[2:4]
    if kind != 8:
        raise UserError(f"{path} holds IDX values of type 0x{kind:02x}; only unsigned bytes (0x08) can be read")
    if count not in dimensions:
        raise UserError(f"{path} has {count} dimensions; expected {' or '.join(map(str, dimensions))}")
    start = 4 + 4 * count
    if len(data) < start:
        raise UserError(f"{path} ends inside its header")
    shape = struct.unpack(f">{count}I", data[4:start])
    if len(data) - start != math.prod(shape):
        said = f"{' x '.join(map(str, shape))}, which is {math.prod(shape)} bytes"
        raise UserError(f"{path} says {said}, but holds {len(data) - start}; it is damaged or a download was cut off")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _as_nhwc(images: NDArray[Any], where: str) -> NDArray[Any]:
    """`NHW`, or `NHWC` of several channels, contiguous; a single channel is dropped."""
    shape = list(images.shape)
    if len(shape) not in (3, 4):
        raise UserError(f"{where} has shape {shape}; pictures are NHW, NHWC or NCHW")
    if 0 in shape:
        raise UserError(f"{where} has shape {shape}: it holds no pictures")
    if len(shape) == 4:
        images = images if channels_last(*shape[1:]) else images.transpose(0, 2, 3, 1)
        images = images[..., 0] if images.shape[3] == 1 else images
    return np.ascontiguousarray(images)


def channels_last(first: int, middle: int, last: int) -> bool:
    """Whether the last axis of a picture are its channels, and not the first.

    They are if they are 1, 3 or 4, else the first are if these are, else the one that is not one of two equal sides,
    else the shorter.
    """
    if last in (1, 3, 4) or first in (1, 3, 4):
        return last in (1, 3, 4)
    return first == middle or (middle != last and last <= first)


class _Arrays:
    """IDX files and `.npz` as a data set of pictures."""

    named = ".npz or IDX"
    hints: Mapping[str, str] = {".npz": "name the .npz file itself"}

    def file(self, path: Path) -> Listing | None:
        """One `.npz` or IDX file."""
        if path.suffix.lower() == ".npz":
            return read_npz(path)
        return read_idx([path]) if _IDX_NAME.search(path.name) else None

    def folder(self, path: Path, files: Mapping[str, list[str]]) -> Listing | None:
        """A folder with IDX files, which lie deeper only if there are no others ("MNIST/raw")."""
        names = [name for of_extension in files.values() for name in of_extension]
        nested = all("ubyte" in name.lower() for name in names)
        found = [path / name for name in names if _IDX_NAME.search(name) and (nested or "/" not in name)]
        return read_idx(found) if found else None


ARRAYS = _Arrays()
