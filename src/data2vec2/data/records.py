"""Any source of pictures or recordings becomes `Records`: samples with names and labels, read one at a time."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from data2vec2.data import arrays, folder, hub, manifests, tables, tars
from data2vec2.data.content import PICTURES, RECORDINGS, Content
from data2vec2.data.labels import encode
from data2vec2.data.source import BadSample, Found, Source
from data2vec2.data.spans import Spans
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
    """Where the samples are read from."""
    tags: NDArray[np.bool_] | None = None
    """`NC`, which of the C classes each sample has, where samples can have several; `labels` are then all -1."""
    texts: tuple[str | None, ...] | None = None
    """Transcripts of recordings; none of all where the data have none."""
    seconds: NDArray[np.float64] | None = None
    """Lengths of recordings, where the data say them without a look at the files."""
    numbers: NDArray[np.float64] | None = None
    """Labels that are numbers to be predicted, NaN for none; there are then no `classes`."""

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """Content of the sample's file, or a picture's array `HW` or `HWC`; raises `BadSample`."""
        raw = self.source.read(index)
        if not len(raw):
            raise BadSample("empty file")
        return raw

    def open(self, index: int) -> BinaryIO:
        """The sample's file, which is not read as a whole where it lies on a disk; raises `BadSample`."""
        if isinstance(self.source, folder.Files | Spans):
            return self.source.open(index)
        return io.BytesIO(bytes(self.read(index)))

    def select(self, indices: NDArray[np.int64] | Sequence[int]) -> Records:
        """Records of the samples at `indices`, in that order."""
        places = np.asarray(indices, dtype=np.int64)
        names = tuple(self.names[place] for place in places.tolist())
        tags = None if self.tags is None else self.tags[places]
        texts = None if self.texts is None else tuple(self.texts[place] for place in places.tolist())
        seconds = None if self.seconds is None else self.seconds[places]
        numbers = None if self.numbers is None else self.numbers[places]
        labels, source = self.labels[places], self.source.select(places)
        more: dict[str, Any] = {"tags": tags, "texts": texts, "seconds": seconds, "numbers": numbers}
        return replace(self, names=names, labels=labels, source=source, **more)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over what is known of the samples, and the sizes of the files or the bytes of the arrays."""
        digest = hashlib.sha256("\0".join((self.kind, *self.names, "")).encode("utf-8", "surrogateescape"))
        digest.update(np.ascontiguousarray(self.labels).data)
        if self.tags is not None:
            digest.update(np.packbits(self.tags).data)
        if self.texts is not None:
            digest.update("\0".join(text or "" for text in self.texts).encode("utf-8", "surrogateescape"))
        for values in (self.seconds, self.numbers):
            if values is not None:
                digest.update(values.tobytes())
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


def open_data(data: str | Path, kind: Literal["image", "audio"] = "image") -> Parts:
    """Recognise what `data` is and list its samples.

    A folder of images or of recordings (with metadata.csv or .jsonl), of .parquet files, of .tar files (WebDataset),
    one such file, or hf:NAME. Of images also IDX arrays or a .npz file, of recordings also fairseq's .tsv manifests. Of
    a folder that holds several kinds, the one with the most files is taken.

    Raises `UserError` for a path that does not exist, and for one with nothing usable in it (saying what was found).
    """
    content = RECORDINGS if kind == "audio" else PICTURES
    if (text := Path(data).as_posix()).startswith(hub.PREFIX):
        return parts_of(hub.read(text, content), text, content)
    path = Path(data)
    if not path.exists():
        raise UserError(f"{path} does not exist")
    return parts_of((_read_folder if path.is_dir() else _read_file)(path, content), str(path), content)


def _read_file(path: Path, content: Content) -> Found:
    """What a single file holds."""
    extension = path.suffix.lower()
    if extension == ".npz" and content is PICTURES:
        return arrays.read_npz(path)
    if extension == ".tsv" and content is RECORDINGS:
        return manifests.read(path.parent, [path.name])
    if extension == ".parquet":
        return tables.read(path.parent, [path.name], content)
    if extension == ".tar":
        return tars.read(path.parent, [path.name], content)
    if arrays.is_idx_name(path.name) and content is PICTURES:
        return arrays.read_idx([path])
    if path.name.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")):
        raise UserError(f"{path} is compressed, so nothing can be found in it quickly; unpack it to a plain .tar")
    what = f"one {content.one}" if extension in content.extensions else "not a known kind of data"
    others = ".npz or IDX" if content is PICTURES else "or .tsv"
    raise UserError(
        f"{path} is {what}; name a folder of {content.files}, or a .parquet, .tar, {others} file of {content.files}"
    )


def _read_folder(path: Path, content: Content) -> Found:
    """What a folder holds."""
    files = folder.scan(path)
    if content is PICTURES:
        idx_files = [file for file in path.iterdir() if arrays.is_idx_name(file.name) and file.is_file()]
        if idx_files:
            return arrays.read_idx(idx_files)
    else:
        lists = [name for name in files.get(".tsv", []) if "/" not in name and manifests.is_manifest(path / name)]
        if lists:
            return manifests.read(path, lists)
    parquet, tar = files.get(".parquet", []), files.get(".tar", [])
    num_samples = sum(len(names) for extension, names in files.items() if extension in content.extensions)
    if num_samples > max(len(parquet), len(tar)):
        return folder.read(path, files, content)
    if not parquet and not tar:
        raise UserError(_nothing_usable(path, folder.counts(files), content))
    if len(tar) > len(parquet):
        return replace(tars.read(path, tar, content), ignored=folder.counts(files, {".tar"}))
    return replace(tables.read(path, parquet, content), ignored=folder.counts(files, {".parquet"}))


def _nothing_usable(path: Path, ignored: Mapping[str, int], content: Content) -> str:
    """Why a folder is no data, and what could be meant."""
    found = f"it holds files of type {_counts(ignored)}" if ignored else "it is empty"
    hint = "; name the .npz file itself" if ".npz" in ignored and content is PICTURES else ""
    if ".arrow" in ignored:
        hint = f"; if it was saved by datasets, name it as {hub.PREFIX}{path}"
    return f"no {content.files} in {path} ({', '.join(sorted(content.extensions))}, .parquet, .tar): {found}{hint}"


def parts_of(found: Found, where: str, content: Content) -> Parts:
    """Records of each part of what was found, and their description; `UserError` for labels that can't be."""
    encoded, classes = encode({key: part.labels for key, part in found.parts.items()}, found.classes, where)
    records = {}
    for key, part in found.parts.items():
        labels, tags = encoded[key]
        ignored = found.ignored if key == "train" else {}
        texts = _texts(part.texts, where)
        known: tuple[Any, ...] = (tags, texts, part.seconds, part.numbers)
        records[key] = Records(found.kind, part.names, labels, classes, ignored, part.source, *known)
    train = records["train"]
    sizes = ", ".join(f"{len(records[key]):,} {key}" for key in ("train", "val", "test") if key in records)
    labelling = f"{len(classes):,} classes" if classes else "no labels"
    if train.tags is not None:
        labelling = f"{len(classes):,} tags, of which a {content.one} can have several"
    if train.numbers is not None:
        labelling = f"{np.isfinite(train.numbers).sum():,} numbers to learn from"
    if train.texts is not None:
        labelling += f", {sum(text is not None for text in train.texts):,} transcripts"
    left_out = f"left out: {_counts(found.ignored)}" if found.ignored else ""
    description = "; ".join((f"{found.kind}: {sizes}, {labelling}", *filter(None, (left_out, *found.notes))))
    return Parts(train, records.get("val"), records.get("test"), description)


def _texts(values: Sequence[Any] | None, where: str) -> tuple[str | None, ...] | None:
    """Transcripts without spaces around them, None for empty ones; None if there is not one."""
    for value in values or ():
        if not isinstance(value, str | None):
            raise UserError(f"{where}: a transcript is {value!r}; transcripts are strings")
    texts = tuple((value or "").strip() or None for value in values or ())
    return texts if any(texts) else None


def _counts(ignored: Mapping[str, int]) -> str:
    """Files by extension, for a message."""
    return ", ".join(f"{extension} ({count:,})" for extension, count in ignored.items())
