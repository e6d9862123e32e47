"""Any source of samples becomes `Records`: samples with names and labels, read one at a time."""

from __future__ import annotations

import glob
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from data2vec2 import rng
from data2vec2.data import folder, hub, index, objects, parquet, remote, tars
from data2vec2.data.account import Account, Bad, PartAccount
from data2vec2.data.index import Index, State, chosen
from data2vec2.data.labels import ONE_CLASS, encode, some
from data2vec2.data.sampler import split_validation
from data2vec2.data.source import BadSample, Content, Listing, Source, extension_of
from data2vec2.errors import UserError

NO_LABEL = "no label"


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
    source: Source
    tags: NDArray[np.bool_] | None = None
    """`NC`, which of the C classes each sample has, where samples can have several; `labels` are then all -1."""
    texts: Sequence[str | None] | None = None
    """Transcripts of recordings; none of all where the data have none."""
    seconds: NDArray[np.float64] | None = None
    """Lengths of recordings, where the data say them without a look at the files."""
    numbers: NDArray[np.float64] | None = None
    """Labels that are numbers to be predicted, NaN for none; there are then no `classes`."""
    marks: Sequence[Any] | None = None
    """Labels of parts of each sample, as its modality has them: words with tags, segments, a mask."""
    levels: tuple[float, float] | None = None
    """Values that become black and white, where the data set has pictures of more than 8 bits."""
    origins: NDArray[np.int64] | None = None
    """Which of several data sets each sample is of, where they are joined."""
    repeats: NDArray[np.int64] | None = None
    """How often each sample comes in a pass over the data; none: once."""
    groups: NDArray[np.int64] | None = None
    """As in `Split`: samples of one number are on one side where a validation part is split off."""

    def __len__(self) -> int:
        return len(self.names)

    def open(self, index: int) -> BinaryIO:
        """The sample's file, as `Source.open` gives it."""
        return self.source.open(index)

    def read(self, index: int) -> bytes | NDArray[np.uint8]:
        """Content of the sample's file, or a picture's array `HW` or `HWC`; raises `BadSample`."""
        raw = self.source.read(index)
        if not len(raw):
            raise BadSample("empty file")
        return raw

    def select(self, indices: NDArray[np.int64] | Sequence[int]) -> Records:
        """Records of the samples at `indices`, in that order."""
        places = np.asarray(indices, dtype=np.int64)

        def of_those(values: Any) -> Any:
            if values is None or isinstance(values, np.ndarray):
                return None if values is None else values[places]
            return chosen(values, places)

        of_each = ("names", "labels", "tags", "texts", "seconds", "numbers", "marks", "origins", "repeats", "groups")
        values = {name: of_those(getattr(self, name)) for name in of_each}
        return replace(self, source=self.source.select(places), **values)

    @property
    def taught(self) -> bool:
        """Whether there is anything to learn from or to score on: labels, tags, numbers or transcripts."""
        tags = self.tags is not None and bool(self.tags.any())
        others = self.texts, self.numbers, self.marks
        known = tags or bool((self.labels >= 0).any()) or any(one is not None for one in others)
        return known and len(self) > 0

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over what is known of the samples, and the sizes of the files or the bytes of the arrays."""
        digest = hashlib.sha256(f"{self.kind}\0".encode())
        for name in self.names:
            digest.update(f"{name}\0".encode("utf-8", "surrogateescape"))
        digest.update(np.ascontiguousarray(self.labels).data)
        if self.tags is not None:
            digest.update(np.packbits(self.tags).data)
        if self.texts is not None:
            digest.update("\0".join(text or "" for text in self.texts).encode("utf-8", "surrogateescape"))
        for mark in self.marks or ():
            digest.update(f"{mark}\0".encode("utf-8", "surrogatepass"))
        for values in (self.seconds, self.numbers, self.repeats):
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
    """For the user: what was recognised and how much of it there is."""
    account: Account = field(default_factory=Account)
    """What became of all of it."""

    @property
    def each(self) -> dict[str, Records]:
        """The parts that there are, by name."""
        return {name: part for name in PARTS if (part := getattr(self, name)) is not None}


class OwnFormat(Protocol):
    """Files that only one modality has, beside those of all."""

    named: str
    """What they are called: ".npz or IDX"."""
    hints: Mapping[str, str]
    """What to do about files of such an extension in a folder."""

    def file(self, path: Path) -> Listing | None:
        """What one file holds; none if it is not of this format."""

    def folder(self, path: Path, files: Mapping[str, list[str]]) -> Listing | None:
        """What a folder holds, whose files are listed by extension."""


PARTS = ("train", "val", "test")
_ARRAYS = ("labels", "tags", "seconds", "numbers", "groups")
_READERS = {".tar": tars.read, ".parquet": parquet.read}
"""What reads files of many samples; of as many files of both kinds the first: img2dataset puts a table to each tar."""


def open_data(data: str | Path, content: Content, own: OwnFormat | None = None) -> Parts:
    """List the samples of `data`, whatever it is; `UserError` for a path that does not exist or holds none.

    A folder of files (with metadata.csv, .jsonl or .parquet), of .parquet files, of .tar files (WebDataset), one such
    file, a URL of these two, or hf:NAME; or the modality's `own` format. Of several kinds in a folder, the one with the
    most files is taken.
    """
    if remote.is_url(data):
        return parts_of(_read_remote(str(data), content), str(data), content)
    if (text := Path(data).as_posix()).startswith((hub.PREFIX, objects.PREFIX)):
        return parts_of((objects if objects.is_name(text) else hub).read(text, content), text, content)
    path = Path(data)
    if not path.exists():
        raise UserError(f"{path} does not exist")
    root = path if path.is_dir() else path.parent
    which = [path.name, content.many, sorted(content.extensions), content.columns, content.texts, own and own.named]
    key, state = json.dumps(which), State()
    if kept := index.load(root, key):
        return _restored(kept, path)
    if path.is_dir():
        listing = _read_folder(path, content, own, state)
    else:
        for name in ("", *(one.name for one in path.parent.glob(f"{glob.escape(path.stem)}.*"))):
            state.see(root, name)
        listing = _read_file(path, content, own)
        state.exact &= not _misses(listing)
    parts = parts_of(listing, str(path), content)
    kept = _kept(parts, root, key, state)
    return _restored(kept, path) if kept else parts


def _kept(parts: Parts, root: Path, key: str, state: State) -> Index | None:
    """What is to be known of very many files, kept for later; None where that is not worth it, or can't be."""
    all_of = {name: one for name in PARTS if (one := getattr(parts, name))}
    if sum(map(len, all_of.values())) < index.LEAST:
        return None
    fields: dict[str, Any] = {}
    for name, one in all_of.items():
        if not isinstance(one.source, folder.Files):
            return None
        own = {what: getattr(one, what) for what in (*_ARRAYS, "names", "texts")}
        if one.source.names != one.names:
            own["files"] = one.source.names
        fields |= {f"{name}-{what}": values for what, values in own.items() if values is not None}
    about = {"kind": parts.train.kind, "classes": parts.train.classes, "parts": [*all_of], "said": parts.description}
    return index.save(root, key, state, {**about, "account": parts.account.to_dict()}, fields)


def _restored(kept: Index, path: Path) -> Parts:
    """What was kept."""
    found = dict.fromkeys(PARTS, None) | {name: _records(kept, path, name) for name in kept.about["parts"]}
    return Parts(**found, description=kept.about["said"], account=Account.from_dict(kept.about["account"]))


def _records(kept: Index, path: Path, part: str) -> Records:
    arrays: dict[str, Any] = {name: kept.array(f"{part}-{name}") for name in _ARRAYS}
    names, files, texts = (kept.strings(f"{part}-{name}") for name in ("names", "files", "texts"))
    assert names is not None
    source = folder.Files(Path(), files) if files is not None else folder.Files(path, names)
    return Records(
        kept.about["kind"], names, classes=tuple(kept.about["classes"]), source=source, texts=texts, **arrays
    )


def _read_file(path: Path, content: Content, own: OwnFormat | None) -> Listing:
    """What a single file holds."""
    extension = extension_of(path.name)
    if own and (found := own.file(path)):
        return found
    if extension in _READERS:
        return _READERS[extension](path.parent, [path.name], content)
    if extension in (".zip", ".7z", ".rar"):
        raise UserError(f"{path} is an unsupported kind of archive; unpack it and give the folder")
    what = f"one {content.one}" if extension in content.extensions else "not a known kind of data"
    others = f", {own.named}" if own else ""
    raise UserError(
        f"{path} is {what}; name a folder of {content.files}, or a .parquet, .tar{others} file of {content.files}"
    )


def _read_remote(url: str, content: Content) -> Listing:
    """What is at a URL."""
    root, urls = remote.find(url)
    files: dict[str, list[str]] = defaultdict(list)
    for name in urls:
        files[extension_of(name) or "no extension"].append(name)
    packed = max(_READERS, key=lambda extension: len(files.get(extension, [])))
    if packed not in files:
        there = folder.held(Path(), files)
        raise UserError(f"no .tar or .parquet files of {content.many} at {url}: {there}; others are read from a disk")
    known = remote.opened(root, {name: urls[name] for name in files[packed]})
    return _packed(known, files, packed, content)


def _packed(root: Path | remote.RemoteFolder, files: Mapping[str, list[str]], kind: str, content: Content) -> Listing:
    """What the files of one kind hold, and which others are beside them."""
    listing = _READERS[kind](root, files[kind], content)
    listing.account.beside |= folder.others(files, {kind})
    return listing


def _read_folder(path: Path, content: Content, own: OwnFormat | None, state: State) -> Listing:
    """What a folder holds; `state` notes all of it but samples."""
    files = folder.scan(path, state)
    for extension in files.keys() - content.extensions:
        for name in files[extension]:
            state.see(path, name)
    if own and (found := own.folder(path, files)):
        state.exact &= not _misses(found)
        return found
    num_samples = sum(len(files.get(extension, [])) for extension in content.extensions)
    tables = {one: [name for name in files.get(one, ()) if not folder.is_metadata(name)] for one in _READERS}
    packed = max(tables, key=lambda extension: len(tables[extension]))
    if num_samples > len(tables[packed]):
        listing = folder.read(path, files, content)
        there = {name for names in files.values() for name in names}
        named = all(there.issuperset(part.names) for part in listing.parts.values())
        state.exact &= named and not _misses(listing)  # what tables name, and was not scanned, may come and go
        return listing
    if tables[packed]:
        return _packed(path, {**files, packed: tables[packed]}, packed, content)
    hint = next((f"; {text}" for extension, text in (own.hints if own else {}).items() if extension in files), "")
    known = ", ".join(sorted(content.extensions))
    raise UserError(f"no {content.files} in {path} ({known}, .parquet, .tar): {folder.held(path, files, hint)}")


def _misses(listing: Listing) -> bool:
    """Whether files are named that are not there."""
    return any(folder.MISSING in part.bad.values() for part in listing.account.parts.values())


def listed_files(paths: Iterable[str | Path], content: Content) -> Records:
    """Files, and those below folders, as records without labels; `UserError` for a folder without any."""
    names: list[str] = []
    for path in map(Path, paths):
        found = [path / name for name in folder.samples_in(folder.scan(path), content)] if path.is_dir() else [path]
        if not found:
            raise UserError(f"no {content.files} in {path} ({', '.join(sorted(content.extensions))})")
        names += map(str, found)
    labels = np.full(len(names), -1, dtype=np.int64)
    return Records(f"list of {content.many}", names, labels, (), folder.Files(Path(), tuple(names)))


def held_out(parts: Parts, val: Parts | None, fraction: float, seed: int) -> tuple[Records, Records | None]:
    """Training and validation records: the part that `val` or the data name, or one split off the training part.

    Groups are split, each as its first sample is labelled.
    """
    if val is not None:
        return parts.train, val.train
    if parts.val is not None:
        return parts.train, parts.val
    train = parts.train
    groups_N = np.arange(len(train)) if train.groups is None else train.groups
    _, first, group_N = np.unique(groups_N, return_index=True, return_inverse=True)
    held_N = np.isin(group_N, split_validation(train.labels[first], fraction, seed)[1])
    held = np.flatnonzero(held_N)
    return train.select(np.flatnonzero(~held_N)), train.select(held) if len(held) else None


def among(other: Records, train: Records, others: str, data: str) -> tuple[Records, list[str]]:
    """`other` records with the classes of `train`, found by name, and a remark if they have not all of these.

    `others` and `data` are what they come from. `UserError` for a class that is not there, or tags for classes.
    """
    if (other.classes, other.tags is None) == (train.classes, train.tags is None):
        return other, []
    same = bool(other.classes) and (other.tags is None) == (train.tags is None)
    if not same or not set(other.classes) <= set(train.classes):
        ours, theirs = (some(one.classes) or "none" for one in (train, other))
        raise UserError(f"{data} has the classes {ours}, but {others} has {theirs}; those must be among these")
    places = np.array([*map(train.classes.index, other.classes), -1], dtype=np.int64)
    tags = other.tags
    if tags is not None:
        tags = np.zeros((len(other), len(train.classes)), dtype=np.bool_)
        tags[:, places[:-1]] = other.tags
    found = replace(other, classes=train.classes, labels=places[other.labels], tags=tags)
    lacks = len(other.classes) < len(train.classes)
    return found, [f"{others} has {len(other.classes):,} of the {len(train.classes):,} classes"] * lacks


def parts_of(found: Listing, where: str, content: Content) -> Parts:
    """Records of each part of what was found, and their description; `UserError` for labels that can't be."""
    encoded, classes, remarks = encode({key: part.labels for key, part in found.parts.items()}, found.classes, where)
    records = {}
    for key, part in found.parts.items():
        (labels, tags), (texts, odd) = encoded[key], _texts(part.texts)
        if odd:
            what = f"transcripts of the {key} part are no texts, such as {str(odd[0])[:40]}"
            remarks.append(f"{len(odd):,} of {len(part.names):,} {what}; they are not read")
        more = tags, texts, part.seconds, part.numbers
        records[key] = Records(found.kind, part.names, labels, classes, part.source, *more, groups=part.groups)
    train = records["train"]
    sizes = ", ".join(f"{len(records[key]):,} {key}" for key in ("train", "val", "test") if key in records)
    none = "one class" if any(ONE_CLASS in one for one in remarks) else "no labels"
    labelling = f"{len(classes):,} classes" if classes else none
    if train.tags is not None:
        labelling = f"{len(classes):,} tags, of which a {content.one} can have several"
    elif train.numbers is not None:
        labelling = f"{np.isfinite(train.numbers).sum():,} numbers to learn from"
    if train.texts is not None:
        labelling += f", {sum(text is not None for text in train.texts):,} transcripts"
    account = found.account
    account.kind = found.kind
    account.remarks += remarks
    for key, one in records.items():
        of_part = account.part(key)
        of_part.found = len(one) + len(of_part.bad) + len(of_part.left_out)
    beside = ", ".join(f"{why} ({count:,})" for why, count in Counter(account.beside.values()).items())
    left_out = f"left out: {beside}" if beside else ""
    description = "; ".join(filter(None, (f"{found.kind}: {sizes}, {labelling}", left_out, *account.choices)))
    return Parts(train, records.get("val"), records.get("test"), description, account)


def _texts(values: Sequence[Any] | None) -> tuple[tuple[str | None, ...] | None, list[Any]]:
    """Transcripts without spaces around them, None for empty ones, or none if there is not one; and what are none.

    Of JSON they may be numbers; a NaN is empty.
    """
    known = (value if isinstance(value, str | int | float) and value == value else "" for value in values or ())
    texts = tuple(str(value).strip() or None for value in known)
    odd = [value for value in values or () if not isinstance(value, str | int | float | None)]
    return texts if any(texts) else None, odd


def targets_of(records: Records, indices_B: NDArray[np.int64], label_smoothing: float = 0.0) -> NDArray[np.float32]:
    """Target `BC` of each class: its probability, or with several labels the probability that a sample has it."""
    if records.tags is not None:
        hard_BC, even = records.tags[indices_B], 0.5
    else:
        hard_BC, even = records.labels[indices_B, None] == np.arange(len(records.classes)), 1 / len(records.classes)
    return ((1 - label_smoothing) * hard_BC + label_smoothing * even).astype(np.float32)


def labelled_records(
    records: Records, labels_per_class: int | None = None, seed: int = 0, account: PartAccount | None = None
) -> Records:
    """The samples that have a label or a number, or may have tags; so many of each class, drawn by `seed`."""
    account = account or PartAccount()
    has_label = records.labels >= 0 if records.numbers is None else np.isfinite(records.numbers)
    places = np.flatnonzero(has_label) if records.tags is None else np.arange(len(records))
    account.leave_out(Bad(records.names[place], NO_LABEL) for place in np.setdiff1d(np.arange(len(records)), places))
    known = len(places)
    classes = range(len(records.classes))
    if labels_per_class is not None and classes:
        shuffled = places[rng.permutation(rng.keys(rng.Stream.LABELS, seed), len(places))]
        has_of = [records.labels == index if records.tags is None else records.tags[:, index] for index in classes]
        # Where samples have several labels, some classes get more.
        places = np.unique(np.concatenate([shuffled[has_N[shuffled]][:labels_per_class] for has_N in has_of]))
        account.asked["--data.labels-per-class"] += known - len(places)
    return records if len(places) == len(records) else records.select(places)
