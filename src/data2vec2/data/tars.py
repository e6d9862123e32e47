"""WebDataset: pictures or recordings in .tar files, which are listed once and then read in place; nothing is unpacked.

The members of a sample share their name up to the first dot: "a/07.jpg" has its label in "a/07.cls" (a number or a
word) or in "a/07.json" (under `label` or `labels`); a recording's transcript is in "a/07.txt" or in "a/07.json".
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data2vec2.data.labels import COLUMNS
from data2vec2.data.source import Content, Listing, Spans, Split, by_part
from data2vec2.errors import UserError

_BLOCK = 512
_MAX_BYTES = 1 << 20  # of what describes a sample


def read(root: Path, names: Sequence[str], content: Content) -> Listing:
    """The samples in the .tar files `names` below `root`; file names tell the parts ("train-000000.tar").

    Raises `UserError` for a file that is damaged or cut off, and for members that could lead out of it.
    """
    parts = {}
    for part, files in by_part(names, str(root)).items():
        sample_names: list[str] = []
        labels: list[Any] = []
        texts: list[Any] = []
        places: list[tuple[int, int, int]] = []
        for place, name in enumerate(files):
            samples, label_of, text_of = _index(root / name, content)
            sample_names += [f"{name}/{member}" for member in samples]
            labels += [label_of.get(_key(member)) for member in samples]
            texts += [text_of.get(_key(member)) for member in samples]
            places += [(place, offset, size) for offset, size in samples.values()]
        if not places:
            known = ", ".join(sorted(content.extensions))
            raise UserError(f"no {content.many} ({known}) in {', '.join(files)} of {root}")
        source = Spans(tuple(root / name for name in files), np.array(places, dtype=np.int64))
        parts[part] = Split(tuple(sample_names), labels, source, texts if content.texts else None)
    return Listing("WebDataset tars", parts)


def _index(path: Path, content: Content) -> tuple[dict[str, tuple[int, int]], dict[str, Any], dict[str, Any]]:
    """Offset and size of each sample by the member's name; labels, and transcripts, by the samples' keys."""
    samples: dict[str, tuple[int, int]] = {}
    labels: dict[str, Any] = {}
    texts: dict[str, Any] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # else it keeps all it has seen
                extension = _checked(member, path)
                if extension in content.extensions:
                    samples[member.name] = member.offset_data, member.size
                elif extension in (".cls", ".json") or (extension == ".txt" and content.texts):
                    found = _described(tar, member, path, content)
                    for values, value in zip((labels, texts), found, strict=True):
                        if value is not None:
                            values[_key(member.name)] = value
            end = tar.offset
        with path.open("rb") as file:
            file.seek(end)
            if file.read(_BLOCK) != bytes(_BLOCK):  # tarfile takes damage after the first member for the end
                raise UserError(f"{path} is damaged or cut off after {end:,} bytes; fetch or write it again")
    except (OSError, tarfile.TarError, ValueError) as error:
        raise UserError(f"can't read {path} as a .tar file: {error}; fetch or write it again") from error
    return samples, labels, texts


def _checked(member: tarfile.TarInfo, path: Path) -> str:
    """The member's extension after the first dot, in small letters; "" for what is not a sample's.

    Raises `UserError` for links, devices and names that lead out of the archive.
    """
    name = member.name.replace("\\", "/")
    if re.match(r"(/|[A-Za-z]:/)", name) or ".." in name.split("/"):
        raise UserError(f"{path} has a member {member.name!r}, whose name leads out of the archive; remove it")
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise UserError(f"{path} has a member {member.name!r}, which is a link or no plain file; remove it")
    first, _, extension = name.rpartition("/")[2].partition(".")
    return "." + extension.lower() if first and member.isreg() else ""


def _key(member: str) -> str:
    """What the members of one sample share: the name up to the first dot of its last part."""
    folder, slash, name = member.rpartition("/")
    return folder + slash + name.partition(".")[0]


def _described(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path, content: Content) -> tuple[Any, Any]:
    """The label and the transcript in a .cls, .txt or .json member; None for what it does not have."""
    file = tar.extractfile(member)
    if file is None or member.size > _MAX_BYTES:
        raise UserError(f"{path}: {member.name} has {member.size:,} bytes, too many for a label or a transcript")
    kind = member.name.lower().rpartition(".")[2]
    try:
        text = file.read().decode("utf-8")
        described = json.loads(text) if kind == "json" else text.strip()
    except (ValueError, RecursionError) as error:
        what = "transcript" if kind == "txt" else "label"
        raise UserError(f"{path}: can't read the {what} in {member.name}: {error}") from error
    if isinstance(described, dict):
        found = (
            next((described[name] for name in among if name in described), None) for among in (COLUMNS, content.texts)
        )
        label, transcript = found
        return label, transcript
    return (None, described) if kind == "txt" else (described, None)
