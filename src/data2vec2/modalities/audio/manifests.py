"""Manifests of recordings, as fairseq writes them.

A manifest is a .tsv. Its first line is a folder (relative to the .tsv's own, if not absolute), each other line a path
below it, a tab, and the number of frames at 16 kHz. Beside it, a line a recording, there may be transcripts: in a .wrd,
or in a .ltr, where spaces separate letters, and | words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from data2vec2.data.account import Account
from data2vec2.data.folder import Files
from data2vec2.data.source import Listing, Split, by_part, parts_by_name
from data2vec2.data.tables import text_of
from data2vec2.errors import UserError

_RATE = 16_000  # frames a second, as manifests count them


class _Manifests:
    """Manifests as a data set of recordings."""

    named = "or .tsv"
    hints: Mapping[str, str] = {}

    def file(self, path: Path) -> Listing | None:
        """One `.tsv`."""
        return _listing(path.parent, [path.name]) if path.suffix.lower() == ".tsv" else None

    def folder(self, path: Path, files: Mapping[str, list[str]]) -> Listing | None:
        """A folder with manifests in it."""
        lists = [name for name in files.get(".tsv", []) if "/" not in name and _is_manifest(path / name)]
        return _listing(path, lists) if lists else None


MANIFESTS = _Manifests()


def _is_manifest(path: Path) -> bool:
    """Whether a .tsv is one: its first line is no header of several columns, its second ends in a number."""
    with suppress(OSError), path.open(encoding="utf-8", errors="surrogateescape") as file:
        first, second = file.readline(4096), file.readline(4096)
        return "\t" not in first and second.rstrip("\n").rpartition("\t")[2].isdecimal()
    return False


def _listing(root: Path, names: Sequence[str]) -> Listing:
    """The recordings that the .tsv files `names` in `root` list; file names tell the parts ("valid.tsv")."""
    parts, of_part = {}, by_part(names, str(root))
    for part, files in of_part.items():
        rows = [row for name in files for row in _rows(root / name)]
        if not rows:
            raise UserError(f"{', '.join(files)} in {root} has no recordings; remove it")
        listed, paths, frames, texts = zip(*rows, strict=True)
        seconds = np.array(frames, dtype=np.float64) / _RATE
        parts[part] = Split(listed, [None] * len(rows), Files(Path(), paths), texts, seconds)
    return Listing("manifest of recordings", parts, account=Account(choices=parts_by_name(of_part)))


def _rows(path: Path) -> list[tuple[str, str, float, str | None]]:
    """What a manifest lists: path below the folder, whole path, frames, and the transcript beside it."""
    first, *lines = _lines(_names(path))
    folder = path.parent.absolute() / first.strip()
    if "\t" in first or not first.strip() or not folder.is_dir():
        raise UserError(f"{path}: line 1 is {first[:80]!r}; it must be the folder that the recordings are in")
    rows = []
    for place, line in enumerate(lines, 2):
        below, _, frames = line.rpartition("\t")
        if not below or not frames.isdecimal():
            raise UserError(f"{path}: line {place} is {line[:80]!r}; it must be a path, a tab and a number of frames")
        rows.append((below, str(folder / below), float(frames)))
    return [(*row, text) for row, text in zip(rows, _transcripts(path, len(rows)), strict=True)]


def _transcripts(path: Path, count: int) -> Sequence[str | None]:
    """Transcripts beside a manifest of `count` recordings; None where there are none."""
    words, letters = path.with_suffix(".wrd"), path.with_suffix(".ltr")
    beside = words if words.exists() else letters
    if not beside.exists():
        return [None] * count
    lines = _lines(text_of(beside))
    if len(lines) != count:
        raise UserError(f"{beside} has {len(lines):,} transcripts, but {path} has {count:,} recordings")
    return lines if beside == words else ["".join(line.split()).replace("|", " ") for line in lines]


def _names(path: Path) -> str:
    """All of a manifest; names of files may be in any encoding."""
    try:
        return path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from error


def _lines(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n")
