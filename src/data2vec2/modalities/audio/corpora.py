"""Transcripts and parts of recordings in folders as corpora have them.

LibriSpeech has SPEAKER-CHAPTER.trans.txt beside recordings; Multilingual LibriSpeech transcripts.txt above `audio`;
LJSpeech metadata.csv with pipes above `wavs`; LibriTTS and others a text beside each recording. Speech Commands lists
the recordings to validate and to test on.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

import numpy as np

from data2vec2.data import folder
from data2vec2.data.folder import MISSING, Described
from data2vec2.data.labels import some
from data2vec2.data.reading import text_of
from data2vec2.data.source import Listing, Split, extension_of
from data2vec2.errors import UserError
from data2vec2.modalities.audio.reader import RECORDINGS

_BESIDE = (".normalized.txt", ".txt", ".lab", ".original.txt")
"""Endings of the text beside a recording; the first that is there is taken."""
_LONGEST = 10_000
"""Bytes of such a text, at most."""
_TIMES = re.compile(r"\d[\d.]*[\t ]+\d[\d.]*(\s|$)")
"""How a line of a label track begins."""
_TIMIT = re.compile(r"0 \d{4,} (?=\D)")
"""First and last sample in front of a text of TIMIT."""
_LISTS = {"validation_list.txt": "val", "testing_list.txt": "test"}
_NOISE = "_background_noise_"


def read(root: Path, files: Mapping[str, list[str]]) -> Listing | None:
    """The recordings among scanned `files` with a corpus' transcripts or parts; none where nothing says either.

    A recording has no transcript if lines for it differ; one that a line names and that is not there is a bad sample.
    `UserError` for a line that is no transcript.
    """
    samples = folder.samples_in(files, RECORDINGS)
    if len(samples) <= max(len(files.get(packed, ())) for packed in (".tar", ".parquet")):
        return None
    lists = [name for name in files.get(".txt", ()) if PurePosixPath(name).name in _LISTS]
    if len(lists) == len({PurePosixPath(name).name for name in lists}) == len(_LISTS):
        return _by_lists(root, files, lists)
    by_stem = defaultdict[str, list[str]](list)  # one recording may be there in several formats
    for name in samples:
        by_stem[_stem(name)].append(name)
    said, used = Described(), {}
    for name in (*files.get(".txt", ()), *files.get(".csv", ())):
        if what := _kind(root / name):
            used[name] = what
            _take(root, name, by_stem, said)
    used = used or _beside(root, files, by_stem, said)
    if not used and not said.remarks:
        return None
    listing = folder.read(root, files, RECORDINGS, said)
    account = listing.account
    account.beside = {name: why for name, why in account.beside.items() if name not in used}
    if used:
        ends = (f"{count:,} {end} file{'s' * (count > 1)}" for end, count in Counter(used.values()).items())
        account.choices.append(f"transcripts from {', '.join(ends)}")
    return listing


def first_line(path: Path) -> str:
    """That of a text file, of a long one the beginning; "" where it can't be read."""
    with suppress(OSError), path.open(encoding="utf-8-sig", errors="replace") as file:
        return file.readline(1 << 16).rstrip("\r\n")
    return ""


def is_piped(path: Path) -> bool:
    """Whether it is a metadata.csv of NAME|TEXT or NAME|TEXT|NORMALISED TEXT without a header, as LJSpeech's."""
    line = first_line(path) if path.name.lower() == "metadata.csv" else ""
    return line.count("|") in (1, 2) and not line.startswith("|") and "file_name" not in line


def _kind(path: Path) -> str | None:
    """What a file of transcripts is called; none for other files."""
    if path.name.endswith(".trans.txt"):
        return ".trans.txt"
    if is_piped(path) or (path.name == "transcripts.txt" and "\t" in first_line(path)):
        return path.name
    return None


def _take(root: Path, name: str, by_stem: Mapping[str, list[str]], said: Described) -> None:
    """Note the transcripts of a file; of missing recordings where the first that is there would be."""
    lines = [(_places(name[: name.rfind("/") + 1], key), text) for key, text in _lines(root / name)]
    usual = next((at for places, _ in lines for at, place in enumerate(places) if place in by_stem), 0)
    for places, text in lines:
        stem = next((place for place in places if place in by_stem), None)
        samples = by_stem[stem] if stem else [places[usual]]
        said.names.update(samples)
        said.missing.update([] if stem else samples)
        for sample in samples:
            if said.texts.setdefault(sample, text) != text:
                said.texts[sample] = None
                said.mended[sample] = f"lines of {name} that contradict each other ignored"


def _places(above: str, key: str) -> tuple[str, str, str]:
    """Where a recording can be, without its extension: beside its transcript, or below it in one of two ways."""
    key = _stem(key) if extension_of(key) in RECORDINGS.extensions else key
    return f"{above}{key}", f"{above}wavs/{key}", f"{above}audio/{'/'.join(key.split('_')[:-1])}/{key}"


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """The name of a recording and its transcript, of each line."""
    piped, tabbed = path.suffix.lower() == ".csv", path.name == "transcripts.txt"
    between = "|" if piped else "\t" if tabbed else None  # else any spaces
    for number, line in enumerate(text_of(path).split("\n"), 1):
        key, *texts = line.strip().split(between, -1 if piped else 1) or [""]
        if not key and not texts:
            continue
        if not key or len(texts) not in ((1, 2) if piped else (1,)):
            what = f"the name of a recording, {'a pipe' if piped else 'a tab' if tabbed else 'a space'} and its text"
            raise UserError(f"{path}: line {number} is {line[:80]!r}; it must be {what}")
        yield key.strip(), texts[-1].strip() or texts[0].strip()


def _beside(
    root: Path, files: Mapping[str, list[str]], by_stem: Mapping[str, list[str]], said: Described
) -> dict[str, str]:
    """Note the texts beside recordings, and return which they are; label tracks are none, nor are long texts."""
    there = {_stem(name) + end: name for end in (".txt", ".lab") for name in files.get(end, ())}
    texts, unread = dict[str, tuple[str, str]](), []
    for stem in by_stem if there else ():
        end = next((end for end in _BESIDE if stem + end in there), None)
        if end is None:
            continue
        path = root / (name := there[stem + end])
        try:
            text = text_of(path) if path.stat().st_size <= _LONGEST else None
        except (OSError, UserError):
            text = None
        if text is None:
            unread.append(name)
        elif not _is_track(text):
            texts[name] = stem, text
    timed = bool(texts) and all(_TIMIT.match(text) for _, text in texts.values())
    for stem, text in texts.values():
        spoken = _TIMIT.sub("", text, count=1) if timed else text
        said.texts.update(dict.fromkeys(by_stem[stem], " ".join(spoken.split())))
    if unread:
        what = "are longer than a transcript, or not UTF-8; they are not read"
        said.remarks.append(f"{len(unread):,} texts beside recordings ({some(unread, 3)}) {what}")
    if timed:
        said.remarks.append("numbers of samples in front of transcripts are not read")
    return {name: name[len(stem) :].lower() for name, (stem, _) in texts.items()}


def _is_track(text: str) -> bool:
    """Whether it has lines of start, end and label, or no line."""
    lines = [line for line in text.split("\n") if line.strip() and not line.startswith("\\")]
    return all(map(_TIMES.match, lines)) and (len(lines) != 1 or "\t" in lines[0])


def _stem(name: str) -> str:
    return name[: len(name) - len(extension_of(name))]


def _by_lists(root: Path, files: Mapping[str, list[str]], lists: Sequence[str]) -> Listing | None:
    """Recordings in folders of their classes, those in no list to train on; of noise there is no class."""
    listing = folder.read(root, files, RECORDINGS)
    if len(listing.parts) > 1:
        return None
    named = dict[str, str]()
    for name in lists:
        path = PurePosixPath(name)
        lines = filter(None, map(str.strip, text_of(root / name).split("\n")))
        named |= {(path.parent / line).as_posix(): _LISTS[path.name] for line in lines}
    account, whole = listing.account, listing.parts["train"]
    noise = [name for name in whole.names if f"/{_NOISE}/" in f"/{name}"]
    of = dict.fromkeys(whole.names, "train") | named | dict.fromkeys(noise, _NOISE)
    places = {
        part: [place for place, name in enumerate(whole.names) if of[name] == part] for part in ("train", "val", "test")
    }
    for name in sorted(named.keys() - {*whole.names}):
        account.part(named[name]).bad[name] = MISSING
    account.beside = {name: why for name, why in account.beside.items() if name not in lists}
    account.beside |= dict.fromkeys(noise, _NOISE)
    account.choices.append(f"parts by {' and '.join(lists)}")
    classes = tuple(one for one in listing.classes or () if one != _NOISE)
    parts = {part: _some(whole, of_part) for part, of_part in places.items() if of_part or part == "train"}
    return Listing(listing.kind, parts, classes or None, account)


def _some(split: Split, places: Sequence[int]) -> Split:
    """The samples at places, which have no transcripts."""
    names, labels = (tuple(of[place] for place in places) for of in (split.names, split.labels))
    return Split(names, labels, split.source.select(np.array(places, dtype=np.int64)))
