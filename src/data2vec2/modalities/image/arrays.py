"""Reading pictures that are stored as arrays: IDX files (the MNIST format) and `.npz`.

Shapes: `N` pictures, `H` and `W` pixels, `C` channels (1, 3 or 4).
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
from data2vec2.data.source import Listing, Source, Split, part_of
from data2vec2.errors import UserError

_NPZ_NAMES = {
    "train": (("x_train", "y_train"), ("train_images", "train_labels"), ("images", "labels"), ("x", "y")),
    "val": (("x_val", "y_val"), ("val_images", "val_labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
}
_IDX_NAME = re.compile(r"idx[34][-_.]?ubyte(\.gz)?$|images([-_.]ubyte)?(\.gz)?$", re.IGNORECASE)
_DAMAGE = (OSError, EOFError, ValueError, KeyError, MemoryError, zlib.error, zipfile.BadZipFile, NotImplementedError)


@dataclass(frozen=True, eq=False)
class Arrays(Source):
    """Pictures in memory, `NHW` or `NHWC`."""

    in_memory: ClassVar[bool] = True
    pictures: NDArray[np.uint8]

    def read(self, index: int) -> NDArray[np.uint8]:
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
    files = {path.name.removesuffix(".gz"): path for path in sorted(paths, reverse=True)}  # the unpacked one wins
    for path in sorted(files.values()):
        part = "train" if len(files) == 1 else part_of(path.name) or "train"
        if part in parts:
            names = f"{parts[part].name} and {path.name}"
            raise UserError(f"{path.parent} has two {part} parts, {names}; name one of the files")
        parts[part] = path
    if "train" not in parts:
        folder = paths[0].parent
        raise UserError(f"{folder} has IDX files of {' and '.join(parts)}, none to train on; name a file itself")
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

    Pictures are `NHW`, `NHWC` or `NCHW`, of unsigned bytes, 16-bit values (divided by 257) or floats from 0 to 1 or 0
    to 255. An array `classes` names the classes. Raises `UserError` for anything else.
    """
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array, not an archive of arrays")
        with file:
            arrays = {name.lower(): file[name] for name in file.files}
    except _DAMAGE as error:
        raise UserError(f"can't read {path} as .npz arrays: {error}") from error
    chosen = {part: xy for part, names in _NPZ_NAMES.items() for xy in reversed(names) if xy[0] in arrays}  # the first
    pictures = [name for name, array in arrays.items() if array.ndim in (3, 4)]
    if not chosen and len(pictures) == 1:
        chosen = {"train": (pictures[0], "")}
    if "train" not in chosen:
        listing = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in arrays.items()) or "no arrays"
        raise UserError(
            f"{path} has no training pictures under a known name; it holds {listing}. Known are x_train (y_train), "
            "train_images (train_labels), images (labels), x (y), the same with val and test, or one array of pictures"
        )
    images, note = _as_bytes({x: arrays[x] for x, _ in chosen.values()}, path)
    parts = {}
    for part, (x, y) in chosen.items():
        labels = arrays.get(y)
        if labels is not None:
            labels = labels.reshape(-1) if labels.size == len(labels) else labels
            if labels.shape != images[x].shape[:1]:
                raise UserError(f"{path}: {x} has {len(images[x])} pictures, but {y} has shape {list(labels.shape)}")
        parts[part] = _part(x, _as_nhwc(images[x], f"{path}: {x}"), labels)
    classes = tuple(str(name) for name in arrays["classes"].reshape(-1)) if "classes" in arrays else None
    return Listing("npz arrays", parts, classes, Account(choices=[note] if note else []))


def _part(origin: str, images: NDArray[np.uint8], labels: NDArray[Any] | None) -> Split:
    """The part that an array of pictures and one of labels make; `UserError` for labels of a type that is none."""
    if labels is not None and labels.dtype.kind == "f" and np.array_equal(labels, np.rint(labels)):
        labels = labels.astype(np.int64)
    if labels is not None and labels.dtype.kind not in "iubU":
        raise UserError(f"labels of {origin} are of type {labels.dtype}; they must be whole numbers or strings")
    values = [None] * len(images) if labels is None else labels.tolist()
    return Split(tuple(f"{origin}[{place}]" for place in range(len(images))), values, Arrays(images))


def _read_idx_file(path: Path, dimensions: tuple[int, ...]) -> NDArray[np.uint8]:
    """The array in one IDX file, plain or gzip (told by its first bytes); its number of dimensions is checked."""
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
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


def _as_bytes(arrays: dict[str, NDArray[Any]], path: Path) -> tuple[dict[str, NDArray[np.uint8]], str]:
    """Arrays as unsigned bytes, and a note on what was done; all float arrays of a file share one range."""
    floats = [array for array in arrays.values() if array.dtype.kind == "f" and array.size]
    low = min((float(array.min()) for array in floats), default=0.0)
    high = max((float(array.max()) for array in floats), default=0.0)
    if not (low >= 0 and high <= 255):  # also true for NaN
        raise UserError(f"{path}: the pictures are floats from {low:g} to {high:g}; use 0 to 1, 0 to 255, or bytes")
    top = 1 if high <= 1 else 255
    note = f"floats from {low:g} to {high:g} were taken as 0 to {top}" if floats else ""
    result = dict(arrays)
    for name, array in arrays.items():
        if array.dtype == np.uint16:
            result[name] = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
            note = "16-bit values were divided by 257"
        elif array.dtype.kind == "f":
            result[name] = np.rint(array * (255 / top)).astype(np.uint8)
        elif array.dtype != np.uint8:
            raise UserError(f"{path}: {name} is of type {array.dtype}; pictures must be uint8, uint16 or floats")
    return result, note


def _as_nhwc(images: NDArray[np.uint8], where: str) -> NDArray[np.uint8]:
    """`NHW`, or `NHWC` with 3 or 4 channels, contiguous; a single channel is dropped."""
    shape = list(images.shape)
    if len(shape) not in (3, 4) or (len(shape) == 4 and not {shape[1], shape[3]} & {1, 3, 4}):
        raise UserError(f"{where} has shape {shape}; pictures are NHW, NHWC or NCHW with 1, 3 or 4 channels")
    if 0 in shape:
        raise UserError(f"{where} has shape {shape}: it holds no pictures")
    if len(shape) == 4:
        images = images if shape[3] in (1, 3, 4) else images.transpose(0, 2, 3, 1)
        images = images[..., 0] if images.shape[3] == 1 else images
    return np.ascontiguousarray(images)


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
        """A folder with IDX files."""
        found = [file for file in path.iterdir() if _IDX_NAME.search(file.name) and file.is_file()]
        return read_idx(found) if found else None


ARRAYS = _Arrays()
