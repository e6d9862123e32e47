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

_MAX_BYTES = 1 << 20  # of what describes a sample


def read(root: Path, names: Sequence[str], content: Content) -> Listing:
    """The samples in .tar files below `root`, in the parts that these are called after; `UserError` for a bad file."""
    parts = {}
    for part, files in by_part(names, str(root)).items():
        sample_names: list[str] = []
        labels: list[Any] = []
        texts: list[Any] = []
        places: list[tuple[int, int, int]] = []
        for place, name in enumerate(files):
            members, said = _index(root / name, content)
            sample_names += [f"{name}/{member}" for member in members]
            labels += [said.get((_key(member), "label")) for member in members]
            texts += [said.get((_key(member), "transcript")) for member in members]
            places += [(place, offset, size) for offset, size in members.values()]
        if not places:
            known = ", ".join(sorted(content.extensions))
            raise UserError(f"no {content.many} ({known}) in {', '.join(files)} of {root}")
        source = Spans(tuple(root / name for name in files), np.array(places, dtype=np.int64))
        parts[part] = Split(tuple(sample_names), labels, source, texts if content.texts else None)
    return Listing("WebDataset tars", parts)


def _index(path: Path, content: Content) -> tuple[dict[str, tuple[int, int]], dict[tuple[str, str], Any]]:
    """Offset and size of each sample by the member's name; by the samples' keys, each "label" and "transcript"."""
    members: dict[str, tuple[int, int]] = {}
    said: dict[tuple[str, str], Any] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # else it keeps all it has seen
                extension = _checked(member, path)
                if extension in content.extensions:
                    members[member.name] = member.offset_data, member.size
                elif extension in (".cls", ".json") or (extension == ".txt" and content.texts):
                    found = _described(tar, member, path, content)
                    said |= {(_key(member.name), what): value for what, value in found.items() if value is not None}
            end = tar.offset
        with path.open("rb") as file:
            file.seek(end)
            if file.read(tarfile.BLOCKSIZE) != bytes(
                tarfile.BLOCKSIZE
            ):  # tarfile takes damage after the first member for the end
                raise UserError(f"{path} is damaged or cut off after {end:,} bytes; fetch or write it again")
    except (OSError, tarfile.TarError, ValueError) as error:
        raise UserError(f"can't read {path} as a .tar file: {error}; fetch or write it again") from error
    return members, said


def _checked(member: tarfile.TarInfo, path: Path) -> str:
    """What follows the first dot of a member's name, in small letters; `UserError` for what could lead elsewhere."""
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


def _described(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path, content: Content) -> dict[str, Any]:
    """The "label" and the "transcript" in a .cls, .txt or .json member, as far as it has them."""
    file = tar.extractfile(member)
    if file is None or member.size > _MAX_BYTES:
        raise UserError(f"{path}: {member.name} has {member.size:,} bytes, too many for a label or a transcript")
    kind = member.name.lower().rpartition(".")[2]
    what = "transcript" if kind == "txt" else "label"
    try:
        text = file.read().decode("utf-8")
        described = json.loads(text) if kind == "json" else text.strip()
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: can't read the {what} in {member.name}: {error}") from error
    if not isinstance(described, dict):
        return {what: described}
    known = {"label": COLUMNS, "transcript": content.texts}
    return {key: next((described[name] for name in among if name in described), None) for key, among in known.items()}
