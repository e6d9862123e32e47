"""Manifests as fairseq writes them: a .tsv of recordings, with transcripts in .ltr or .wrd files beside it.

The first line of a .tsv is a folder (relative to the .tsv's own, if not absolute); each other line is a path below it,
a tab, and the number of frames, counted at 16 kHz. A .wrd has a transcript a line; a .ltr has it in letters separated
by spaces, with | between words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data2vec2.data.folder import Files
from data2vec2.data.source import Listing, Split, by_part
from data2vec2.errors import UserError

RATE = 16_000
"""Frames a second, as manifests count them."""


def is_manifest(path: Path) -> bool:
    """Whether a .tsv is one: its first line is no header of several columns, its second ends in a number."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            first, second = file.readline(4096), file.readline(4096)
    except OSError:
        return False
    return "\t" not in first and second.rstrip("\n").rpartition("\t")[2].isdecimal()


def read(root: Path, names: Sequence[str]) -> Listing:
    """The recordings that the .tsv files `names` in `root` list; file names tell the parts ("valid.tsv").

    Raises `UserError` for a file that is no manifest, and for one whose transcripts are not as many as its recordings.
    """
    parts = {}
    for part, files in by_part(names, str(root)).items():
        listed: list[str] = []
        paths: list[str] = []
        frames: list[int] = []
        texts: list[str | None] = []
        for name in files:
            folder, rows = _rows(root / name)
            listed += [below for below, _ in rows]
            paths += [str(folder / below) for below, _ in rows]
            frames += [count for _, count in rows]
            texts += _transcripts(root / name, len(rows))
        if not listed:
            raise UserError(f"{', '.join(files)} in {root} has no recordings; remove it")
        source = Files(Path(), tuple(paths))
        seconds = np.array(frames, dtype=np.int64) / RATE
        parts[part] = Split(tuple(listed), [None] * len(listed), source, texts, seconds)
    return Listing("manifest of recordings", parts)


def _lines(path: Path) -> list[str]:
    """Lines of a text file; names of files may be in any encoding."""
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from error
    return text.removesuffix("\n").split("\n")


def _rows(path: Path) -> tuple[Path, list[tuple[str, int]]]:
    """The folder of a manifest, and paths below it with their numbers of frames."""
    first, *lines = _lines(path)
    folder = path.parent.absolute() / first.strip()
    if "\t" in first or not first.strip() or not folder.is_dir():
        raise UserError(f"{path}: line 1 is {first[:80]!r}; it must be the folder that the recordings are in")
    rows = []
    for place, line in enumerate(lines, 2):
        below, _, frames = line.rpartition("\t")
        if not below or not frames.isdecimal():
            raise UserError(f"{path}: line {place} is {line[:80]!r}; it must be a path, a tab and a number of frames")
        rows.append((below, int(frames)))
    return folder, rows


def _transcripts(path: Path, count: int) -> list[str | None]:
    """Transcripts beside a manifest of `count` recordings; None where there are none."""
    words, letters = path.with_suffix(".wrd"), path.with_suffix(".ltr")
    beside = words if words.exists() else letters
    if not beside.exists():
        return [None] * count
    lines = _lines(beside)
    if len(lines) != count:
        raise UserError(f"{beside} has {len(lines):,} transcripts, but {path} has {count:,} recordings")
    if beside == letters:
        return ["".join(line.split()).replace("|", " ") for line in lines]
    return list(lines)


class _Manifests:
    """Manifests as a data set of recordings."""

    named = "or .tsv"
    hints: Mapping[str, str] = {}

    def file(self, path: Path) -> Listing | None:
        """One `.tsv`."""
        return read(path.parent, [path.name]) if path.suffix.lower() == ".tsv" else None

    def folder(self, path: Path, files: Mapping[str, list[str]]) -> Listing | None:
        """A folder with manifests in it."""
        lists = [name for name in files.get(".tsv", []) if "/" not in name and is_manifest(path / name)]
        return read(path, lists) if lists else None


MANIFESTS = _Manifests()
