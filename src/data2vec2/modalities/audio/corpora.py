"""Transcripts and parts of recordings in folders as corpora have them.

LibriSpeech has SPEAKER-CHAPTER.trans.txt beside recordings; Multilingual LibriSpeech transcripts.txt above `audio`;
LJSpeech metadata.csv with pipes above `wavs`; LibriTTS and others a text beside each recording, or below a folder `txt`
beside theirs, as VCTK. Speech Commands lists the recordings to validate and to test on.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path, PurePosixPath

import numpy as np

from data2vec2.data import folder
from data2vec2.data.folder import MISSING, Described
from data2vec2.data.labels import some
from data2vec2.data.reading import text_of
from data2vec2.data.source import Listing, Split, extension_of, numbered
from data2vec2.errors import UserError
from data2vec2.modalities.audio.reader import RECORDINGS

_BESIDE = (".normalized.txt", ".txt", ".lab", ".original.txt", ".wrd")
"""Endings of the text beside a recording; the first that is there is taken."""
_ASIDE = ("txt", "text", "transcript", "transcripts")
"""Folders of such texts beside that of the recordings."""
_MICROPHONE = re.compile(r"[_-]mic\d+$", re.IGNORECASE)
"""How names end of what several microphones recorded at once."""
_LONGEST = 10_000
"""Bytes of such a text, at most."""
_TIMES = re.compile(r"\d[\d.]*[\t ]+\d[\d.]*(\s|$)")
"""How a line of a label track begins."""
_TIMIT = re.compile(r"0 \d{4,} (?=\D)")
"""First and last sample in front of a text of TIMIT."""
_WORD = re.compile(r"\d+ \d+ (.*)")
"""Such a line for each word."""
_LISTS = {"validation_list.txt": "val", "testing_list.txt": "test"}
_NOISE = "_background_noise_"


def read(root: Path, files: Mapping[str, list[str]]) -> Listing | None:
    """The recordings among scanned `files` with a corpus' transcripts or parts; none where nothing says either.

    A recording has no transcript if lines for it differ; one that a line names and that is not there is a bad sample.
    One in several formats, or of several microphones, is a group. `UserError` for a line that is no transcript.
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
    said = Described()
    used = _lists(root, (*files.get(".txt", ()), *files.get(".csv", ())), by_stem, said)
    used = used or _beside(root, files, by_stem, said) or _lists(root, files.get(".tsv", ()), by_stem, said)
    if not used and not said.remarks and len({*map(_utterance, samples)}) == len(samples):
        return None
    others = {extension: [name for name in names if name not in used] for extension, names in files.items()}
    listing = folder.read(root, others, RECORDINGS, said)
    parts = {key: replace(part, groups=numbered(map(_utterance, part.names))) for key, part in listing.parts.items()}
    listing = replace(listing, parts=parts)
    if used:
        ends = (f"{count:,} {end} file{'s' * (count > 1)}" for end, count in Counter(used.values()).items())
        listing.account.choices.append(f"transcripts from {', '.join(ends)}")
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


def _lists(root: Path, names: Iterable[str], by_stem: Mapping[str, list[str]], said: Described) -> dict[str, str]:
    """Note the transcripts of those files that are lists of them, and return which these are."""
    used = {name: what for name in names if (what := _kind(root / name))}
    for name in used:
        _take(root, name, by_stem, said)
    return used


def _kind(path: Path) -> str | None:
    """What a file of transcripts is called; none for other files."""
    if path.name.endswith((".trans.txt", ".trans.tsv")):
        return path.name[-len(".trans.txt") :]
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
    most, between, called = {
        ".csv": (2, "|", "a pipe"),
        ".tsv": (2, "\t", "a tab"),
    }.get(path.suffix.lower(), (1, "\t", "a tab") if path.name == "transcripts.txt" else (1, None, "a space"))
    for number, line in enumerate(text_of(path).split("\n"), 1):
        key, *texts = line.strip().split(between, -1 if most > 1 else 1) or [""]
        if not key and not texts:
            continue
        if not key or not 1 <= len(texts) <= most:
            what = f"the name of a recording, {called} and its text"
            raise UserError(f"{path}: line {number} is {line[:80]!r}; it must be {what}")
        yield key.strip(), texts[-1].strip() or texts[0].strip()


def _beside(
    root: Path, files: Mapping[str, list[str]], by_stem: Mapping[str, list[str]], said: Described
) -> dict[str, str]:
    """Note the texts beside recordings, and return which they are; label tracks are none, nor are long texts."""
    there = {_stem(name) + end: name for end in (".txt", ".lab", ".wrd") for name in files.get(end, ())}
    asides = [one for one in _ASIDE if any(f"/{one}/" in f"/{name}" for name in there)]
    found, of = dict[str, str](), defaultdict[str, list[str]](list)  # of a text its ending and its recordings
    for stem, samples in by_stem.items() if there else ():
        places = (place + end for place, end in product(_text_places(stem, asides), _BESIDE))
        if place := next((place for place in places if place in there), None):
            name = there[place]
            found[name] = next(end for end in sorted(_BESIDE, key=len, reverse=True) if name.lower().endswith(end))
            of[name] += samples
    texts, unread = dict[str, str](), []
    for name, end in found.items():
        text = _short_text(root / name)
        if text is None:
            unread.append(name)
        elif end == ".wrd":
            words = [_WORD.fullmatch(line.strip()) for line in text.split("\n") if line.strip()]
            texts |= {name: " ".join(word[1] for word in words if word)} if all(words) else {}
        elif not _is_track(text):
            texts[name] = text
    lines = [text for name, text in texts.items() if found[name] != ".wrd"]
    timed = bool(lines) and all(map(_TIMIT.match, lines))
    for name, text in texts.items():
        spoken = _TIMIT.sub("", text, count=1) if timed else text
        said.texts.update(dict.fromkeys(of[name], " ".join(spoken.split())))
    if unread:
        what = "are longer than a transcript, or not UTF-8; they are not read"
        said.remarks.append(f"{len(unread):,} texts beside recordings ({some(unread, 3)}) {what}")
    if timed:
        said.remarks.append("numbers of samples in front of transcripts are not read")
    return {name: found[name] for name in texts}


def _text_places(stem: str, asides: Sequence[str]) -> Iterator[str]:
    """Where the text of a recording can be, without its ending; all microphones can have the same."""
    for one in dict.fromkeys((stem, _MICROPHONE.sub("", stem))):
        yield one
        *folders, name = one.split("/")
        for place, aside in product(range(len(folders) + 1), asides):
            yield "/".join((*folders[:place], aside, *folders[place + 1 :], name))


def _short_text(path: Path) -> str | None:
    """A text that is short enough for a transcript, and can be read."""
    with suppress(OSError, UserError):
        return text_of(path) if path.stat().st_size <= _LONGEST else None
    return None


def _is_track(text: str) -> bool:
    """Whether it has lines of start, end and label, perhaps behind a "#", or no line."""
    lines = [line for line in text.split("\n") if line.strip() not in ("", "#") and not line.startswith("\\")]
    return all(map(_TIMES.match, lines)) and (len(lines) != 1 or "\t" in lines[0])


def _stem(name: str) -> str:
    """A name without what it ends in, also where that is put behind another ("SA1.WAV.wav", "SA1.wav.txt")."""
    name = name[: len(name) - len(extension_of(name))]
    return _stem(name) if extension_of(name) in RECORDINGS.extensions else name


def _utterance(name: str) -> str:
    """What all recordings of the same have in common: neither the format nor the microphone tells them apart."""
    return _MICROPHONE.sub("", _stem(name))


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
