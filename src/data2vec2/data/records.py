"""Any source of pictures becomes `Records`: a list of samples with names and labels, read one at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data2vec2.data import arrays, folder, hub, tables, tars
from data2vec2.data.labels import encode
from data2vec2.data.source import BadSample, Found, Source
from data2vec2.errors import UserError

__all__ = ["BadSample", "Parts", "Records", "open_data"]


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
    """Names of the classes, shared by all parts; empty if there is nothing to tell apart."""
    ignored: Mapping[str, int]
    """Files of the whole folder that were left out, by extension; only the train part carries it."""
    source: Source
    """Where the pictures are read from."""
    tags: NDArray[np.bool_] | None = None
    """`NC`, which of the C classes each sample has, where samples can have several; `labels` are then all -1."""

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """Content of the picture's file, or its array `HW` or `HWC`; raises `BadSample`."""
        raw = self.source.read(index)
        if not len(raw):
            raise BadSample("empty file")
        return raw

    def select(self, indices: NDArray[np.int64] | Sequence[int]) -> Records:
        """Records of the samples at `indices`, in that order."""
        places = np.asarray(indices, dtype=np.int64)
        names = tuple(self.names[place] for place in places.tolist())
        tags = None if self.tags is None else self.tags[places]
        return replace(self, names=names, labels=self.labels[places], source=self.source.select(places), tags=tags)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over kind, names, labels or tags, and the sizes of the files or the bytes of the arrays."""
        digest = hashlib.sha256("\0".join((self.kind, *self.names, "")).encode("utf-8", "surrogateescape"))
        digest.update(np.ascontiguousarray(self.labels).data)
        if self.tags is not None:
            digest.update(np.packbits(self.tags).data)
        for part in self.source.content():
            digest.update(part)
        return digest.hexdigest()


@dataclass(frozen=True)
class Parts:
    """The parts of a data set."""

    train: Records
    val: Records | None
    test: Records | None
    description: str
    """One line for the user: what was recognised and how much of it there is."""


def open_data(data: str | Path) -> Parts:
    """Recognise what `data` is and list its samples.

    A folder of images (with metadata.csv or .jsonl), of .parquet files, of .tar files (WebDataset) or of IDX arrays,
    one such file, a .npz file, or hf:NAME. Of a folder that holds several kinds, the one with the most files is taken.

    Raises `UserError` for a path that does not exist, and for one with nothing usable in it (saying what was found).
    """
    if (text := Path(data).as_posix()).startswith(hub.PREFIX):
        return _parts(hub.read(text), text)
    path = Path(data)
    if not path.exists():
        raise UserError(f"{path} does not exist")
    return _parts(_read_folder(path) if path.is_dir() else _read_file(path), str(path))


def _read_file(path: Path) -> Found:
    """What a single file holds."""
    extension = path.suffix.lower()
    if extension == ".npz":
        return arrays.read_npz(path)
    if extension == ".parquet":
        return tables.read(path.parent, [path.name])
    if extension == ".tar":
        return tars.read(path.parent, [path.name])
    if arrays.is_idx_name(path.name):
        return arrays.read_idx([path])
    if path.name.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")):
        raise UserError(f"{path} is compressed, so nothing can be found in it quickly; unpack it to a plain .tar")
    what = "one picture" if extension in folder.EXTENSIONS else "not a known kind of data"
    raise UserError(f"{path} is {what}; name a folder of images, or a .parquet, .tar, .npz or IDX file of images")


def _read_folder(path: Path) -> Found:
    """What a folder holds."""
    files = folder.scan(path)
    idx_files = [file for file in path.iterdir() if arrays.is_idx_name(file.name) and file.is_file()]
    if idx_files:
        return arrays.read_idx(idx_files)
    parquet, tar = files.get(".parquet", []), files.get(".tar", [])
    num_pictures = sum(len(names) for extension, names in files.items() if extension in folder.EXTENSIONS)
    if num_pictures > max(len(parquet), len(tar)):
        return folder.read(path, files)
    if not parquet and not tar:
        raise UserError(_nothing_usable(path, folder.counts(files)))
    if len(tar) > len(parquet):
        return replace(tars.read(path, tar), ignored=folder.counts(files, {".tar"}))
    return replace(tables.read(path, parquet), ignored=folder.counts(files, {".parquet"}))


def _nothing_usable(path: Path, ignored: Mapping[str, int]) -> str:
    """Why a folder is no data, and what could be meant."""
    found = f"it holds files of type {_counts(ignored)}" if ignored else "it is empty"
    hint = "; name the .npz file itself" if ".npz" in ignored else ""
    if ".arrow" in ignored:
        hint = f"; if it was saved by datasets, name it as {hub.PREFIX}{path}"
    return f"no images in {path} ({', '.join(sorted(folder.EXTENSIONS))}, .parquet, .tar): {found}{hint}"


def _parts(found: Found, where: str) -> Parts:
    """Records of each part, and their description."""
    encoded, classes = encode({key: part.labels for key, part in found.parts.items()}, found.classes, where)
    records = {}
    for key, part in found.parts.items():
        labels, tags = encoded[key]
        ignored = found.ignored if key == "train" else {}
        records[key] = Records(found.kind, part.names, labels, classes, ignored, part.source, tags)
    train = records["train"]
    sizes = ", ".join(f"{len(records[key]):,} {key}" for key in ("train", "val", "test") if key in records)
    labelling = f"{len(classes):,} classes" if classes else "no labels"
    if train.tags is not None:
        labelling = f"{len(classes):,} tags, of which a picture can have several"
    left_out = f"left out: {_counts(found.ignored)}" if found.ignored else ""
    description = "; ".join((f"{found.kind}: {sizes}, {labelling}", *filter(None, (left_out, *found.notes))))
    return Parts(train, records.get("val"), records.get("test"), description)


def _counts(ignored: Mapping[str, int]) -> str:
    """Files by extension, for a message."""
    return ", ".join(f"{extension} ({count:,})" for extension, count in ignored.items())
