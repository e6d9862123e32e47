"""Lists of recordings, as fairseq, Common Voice, NeMo and Kaldi have them.

A manifest of fairseq is a .tsv. Its first line is a folder (relative to the .tsv's own, if not absolute), each other
line a path below it, a tab, and the number of frames at 16 kHz. Beside it, a line a recording, there may be
transcripts: in a .wrd, or in a .ltr, where spaces separate letters, and | words.

Tables of Common Voice are .tsv too, with columns `path`, below the folder clips, and `sentence`. NeMo has JSON lines
with `audio_filepath`, `duration` and `text`; Kaldi wav.scp, and transcripts in `text` beside it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import nan
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from data2vec2.data import folder
from data2vec2.data.account import Account, PartAccount
from data2vec2.data.folder import MISSING, Files
from data2vec2.data.labels import some
from data2vec2.data.reading import text_of
from data2vec2.data.source import Listing, Split, by_part, extension_of, parts_by_name
from data2vec2.errors import UserError
from data2vec2.files import parse_json
from data2vec2.modalities.audio import corpora
from data2vec2.modalities.audio.reader import RECORDINGS

_RATE = 16_000  # frames a second, as manifests of fairseq count them
_CLIPS = "clips"
_TABLES = ("train.tsv", "dev.tsv", "test.tsv")
_ALL = "validated.tsv"
"""What of Common Voice can be used, parts or not."""


class _Manifests:
    """Lists of recordings, and corpora with transcripts, as a data set."""

    named = ".json, .jsonl or .tsv"
    hints: Mapping[str, str] = {}

    def file(self, path: Path) -> Listing | None:
        """One list."""
        other = {".tsv": FAIRSEQ, ".json": NEMO, ".jsonl": NEMO}.get(path.suffix.lower())
        other = None if folder.is_metadata(path.name) else other  # which need their folder
        kind = next((kind for kind in (COMMON_VOICE, NEMO, KALDI) if kind.knows(path)), other)
        return _listing(path.parent, [path.name], kind) if kind else None

    def folder(self, path: Path, files: Mapping[str, list[str]]) -> Listing | None:
        """A folder with lists in it, or with what tells of its recordings; metadata that name files win over these."""
        top = [name for end in (".tsv", ".json", ".jsonl") for name in files.get(end, ()) if "/" not in name]
        if lists := [name for name in top if FAIRSEQ.knows(path / name)]:
            return _listing(path, lists, FAIRSEQ)
        if not all(NEMO.knows(path / name) or corpora.is_piped(path / name) for name in folder.metadata_in(files)):
            return None
        tars = files.get(".tar")  # which have lists of this kind for what is in them
        if lists := [name for name in top if not tars and NEMO.knows(path / name)]:
            return _whole(path, files, lists, NEMO)
        if lists := [name for name in files.get(".scp", ()) if KALDI.knows(path / name)]:
            return _whole(path, files, lists, KALDI)
        if tables := _tables(path, files.get(".tsv", ())):
            return _whole(path, files, tables, COMMON_VOICE)
        return corpora.read(path, files)


class _Row(NamedTuple):
    """A recording that is listed."""

    name: str
    path: str
    """Empty for a transcript that no recording is named for."""
    text: Any = None
    seconds: float = nan


class _Kind(NamedTuple):
    """One kind of lists."""

    named: str
    knows: Callable[[Path], bool]
    """Whether a file is one."""
    rows: Callable[[Path], Sequence[_Row]]
    """What it lists; `UserError` for a line that can't be."""


def _is_manifest(path: Path) -> bool:
    """Whether a .tsv is fairseq's: its first line is no header of several columns, its second ends in a number."""
    if path.suffix.lower() != ".tsv":
        return False
    with suppress(OSError), path.open(encoding="utf-8", errors="surrogateescape") as file:
        first, second = file.readline(4096), file.readline(4096)
        return "\t" not in first and second.rstrip("\n").rpartition("\t")[2].isdecimal()
    return False


def _is_common_voice(path: Path) -> bool:
    """Whether it is a table beside the folder of clips, with their transcripts."""
    names = corpora.first_line(path).split("\t") if path.suffix.lower() == ".tsv" else []
    return {"path", "sentence"} <= {*names} and (path.parent / _CLIPS).is_dir()


def _is_nemo(path: Path) -> bool:
    """Whether its first line is an object that names a recording."""
    with suppress(ValueError):
        line = corpora.first_line(path) if path.suffix.lower() in (".json", ".jsonl") else ""
        return line.startswith("{") and "audio_filepath" in parse_json(line)
    return False


def _listing(root: Path, names: Sequence[str], kind: _Kind) -> Listing:
    """The recordings that the files `names` in `root` list; names tell the parts ("valid.tsv", "train/wav.scp")."""
    parts, of_part, account = {}, by_part(names, str(root)), Account()
    for part, files in of_part.items():
        rows = [row for name in files for row in kind.rows(root / name)]
        if not rows:
            raise UserError(f"{', '.join(files)} in {root} has no recordings; remove it")
        if kind is not FAIRSEQ:
            alone = [row.name for row in rows if not row.path]
            if 2 * len(alone) <= sum(row.text is not None for row in rows):  # else they are to be missed
                rows = [row for row in rows if row.path]
                what = f"{len(alone):,} {part} transcripts are of no recording that is listed ({some(alone, 3)})"
                account.remarks += [f"{what}; they are not used"] * bool(alone)
            rows = _there(rows, account.part(part), f"{', '.join(files)} in {root}")
        listed, paths, texts, seconds = map(tuple, zip(*rows, strict=True))
        known = np.array(seconds, dtype=np.float64)
        lengths = None if np.isnan(known).all() else known
        parts[part] = Split(listed, [None] * len(rows), Files(Path(), paths), texts, lengths)
    account.choices = parts_by_name(of_part)
    return Listing(kind.named, parts, account=account)


def _there(rows: Sequence[_Row], account: PartAccount, where: str) -> list[_Row]:
    """Rows of recordings that are there, one of each; rows that differ in its transcript give it none."""
    known: dict[str, _Row] = {}
    for row in rows:
        if not os.path.isfile(row.path):  # noqa: PTH113  (many)
            account.bad[row.name] = MISSING
        elif (earlier := known.setdefault(row.path, row)).text != row.text:
            known[row.path] = earlier._replace(text=None)
            account.mended[earlier.name] = "rows that contradict each other ignored"
    if not known:
        raise UserError(f"none of the {len(rows):,} recordings of {where} is there; the first is {rows[0].path}")
    return list(known.values())


def _whole(root: Path, files: Mapping[str, list[str]], lists: Sequence[str], kind: _Kind) -> Listing:
    """What `lists` in a folder list; other recordings among its scanned `files` are left out."""
    listing = _listing(root, lists, kind)
    named = {os.path.normpath(path) for part in listing.parts.values() for path in part.source.files()}
    own = {name: os.path.join(root.absolute(), name) for name in folder.samples_in(files, RECORDINGS)}  # noqa: PTH118
    listing.account.beside = {name: "in no part" for name, path in own.items() if os.path.normpath(path) not in named}
    if others := [name for name in files.get(".tsv", ()) if name not in lists]:
        listing.account.choices.append(f"not used: {some(others)}")
    return listing


def _tables(root: Path, names: Sequence[str]) -> list[str]:
    """Those of Common Voice among .tsv: of its parts, or of all that is validated; none if several folders have any."""
    files = {name: PurePosixPath(name) for name in names}
    known = [name for name, one in files.items() if one.name in (*_TABLES, _ALL) and COMMON_VOICE.knows(root / name)]
    known = [name for name in known if _has_rows(root / name)]  # of languages with little, some have none
    if len({files[name].parent for name in known}) != 1:
        return []
    whole = [name for name in known if files[name].name == _ALL]
    parts = [name for name in known if name not in whole]
    return parts if not whole or any(files[name].name == _TABLES[0] for name in parts) else whole


def _has_rows(path: Path) -> bool:
    """Whether a table has more than its header."""
    with path.open("rb") as file:
        return bool(file.readline() and file.readline())


def _clips(path: Path) -> list[_Row]:
    """Of Common Voice. Quotes are those of sentences."""
    lines, clips = _lines(text_of(path)), path.parent.absolute() / _CLIPS
    header = lines[0].split("\t")
    place, text = header.index("path"), header.index("sentence")
    rows = []
    for number, line in enumerate(lines[1:], 2):
        fields = line.split("\t")
        if len(fields) != len(header) or not fields[place]:
            what = f"it must have a path, and {len(header)} fields with tabs between, as the first line"
            raise UserError(f"{path}: line {number} is {line[:80]!r}; {what}")
        name = fields[place] if extension_of(fields[place]) else f"{fields[place]}.mp3"  # as in the first versions
        rows.append(_Row(f"{_CLIPS}/{name}", f"{clips}/{name}", fields[text]))
    return rows


def _objects(path: Path) -> list[_Row]:
    """Of NeMo. Paths are absolute, or relative to the manifest's folder."""
    rows, above = [], path.parent.absolute()
    for number, line in enumerate(text_of(path).split("\n"), 1):
        if not line.strip():
            continue
        row: Any = None
        with suppress(ValueError):
            row = parse_json(line)
        name = row.get("audio_filepath") if isinstance(row, dict) else None
        if not isinstance(name, str) or not name:
            what = "it must be a JSON object with audio_filepath"
            raise UserError(f"{path}: line {number} is {line[:80]!r}; {what}")
        if row.get("offset"):
            what = f"begins at {row['offset']} s of {name}; cut the recordings first: lines must stand for whole ones"
            raise UserError(f"{path}: line {number} {what}")
        seconds = length if isinstance(length := row.get("duration"), int | float) else nan
        rows.append(_Row(name, str(above / name), row.get("text"), seconds))
    return rows


def _utterances(path: Path) -> list[_Row]:
    """Of Kaldi. Paths are relative to here, or to the folder of wav.scp or one above: the first with any of them."""
    if (segments := path.with_name("segments")).is_file():
        raise UserError(f"{segments} cuts recordings, which are read whole; cut them first, and remove it")
    places, text = _table(path, "a path"), path.with_name("text")
    texts = _table(text, "") if text.is_file() else {}
    for name, place in places.items():
        if place.endswith("|"):
            raise UserError(f"{path}: {name} is the command {place[:80]!r}; give the path of what it makes")
    some_of, above = [*places.values()][:100], path.parent.absolute()
    bases = (Path.cwd(), above, *above.parents)
    base = next((base for base in bases if any(os.path.isfile(base / one) for one in some_of)), bases[0])  # noqa: PTH113
    unknown = [_Row(name, "", texts[name]) for name in texts.keys() - places.keys()]
    return [*(_Row(name, str(base / place), texts.get(name)) for name, place in places.items()), *sorted(unknown)]


def _table(path: Path, needed: str) -> dict[str, str]:
    """Kaldi's lines of an utterance and what it has, which can be nothing unless it is `needed`."""
    found: dict[str, str] = {}
    for number, line in enumerate(_lines(text_of(path)), 1):
        name, *value = line.split(None, 1)[:2] or [""]
        if not name or name in found or (needed and not value):
            what = f"it must be the name of an utterance, which no line before has{needed and f', and {needed}'}"
            raise UserError(f"{path}: line {number} is {line[:80]!r}; {what}")
        found[name] = value[0].strip() if value else ""
    return found


def _frames(path: Path) -> list[_Row]:
    """Of fairseq."""
    first, *lines = _lines(_names(path))
    above = path.parent.absolute() / first.strip()
    if "\t" in first or not first.strip() or not above.is_dir():
        raise UserError(f"{path}: line 1 is {first[:80]!r}; it must be the folder that the recordings are in")
    rows = []
    for place, line in enumerate(lines, 2):
        below, _, frames = line.rpartition("\t")
        if not below or not frames.isdecimal():
            raise UserError(f"{path}: line {place} is {line[:80]!r}; it must be a path, a tab and a number of frames")
        rows.append(_Row(below, str(above / below), seconds=float(frames) / _RATE))
    return [row._replace(text=text) for row, text in zip(rows, _transcripts(path, len(rows)), strict=True)]


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


FAIRSEQ = _Kind("manifest of recordings", _is_manifest, _frames)
COMMON_VOICE = _Kind("tables of Common Voice", _is_common_voice, _clips)
NEMO = _Kind("manifest of NeMo", _is_nemo, _objects)
KALDI = _Kind("data folder of Kaldi", lambda path: path.name == "wav.scp", _utterances)
MANIFESTS = _Manifests()
