"""Asterisk's core sounds: spoken prompts of one voice a language, as their Debian packages have them.

Two packages a language, unpacked into one folder with `dpkg -x`: `asterisk-core-sounds-LANGUAGE` has the texts and the
licence, `asterisk-core-sounds-LANGUAGE-g722` the recordings (16 kHz, one channel).
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from G722 import G722
from numpy.typing import NDArray

RATE = 16_000
_BITS = 64_000
_SAME_START = 4


@dataclass(frozen=True, eq=False)
class Recording:
    """One recording: name without extension (posix), what is said, samples at 16 kHz."""

    name: str
    text: str
    samples: NDArray[np.int16]

    @property
    def minutes(self) -> float:
        """Length in minutes."""
        return len(self.samples) / RATE / 60


def documents(unpacked: Path, language: str) -> Path:
    """The folder of a language's texts and licence."""
    return unpacked / "usr" / "share" / "doc" / f"asterisk-core-sounds-{language}"


def read_prompts(unpacked: Path, language: str) -> Iterator[Recording]:
    """Prompts that are speech, in the order of their names.

    What stands in brackets is not said: beeps, silence and noises are left out, and remarks are taken from the texts.
    Two recordings of one length and one text are the same recording; the first is kept.
    """
    texts = read_texts(documents(unpacked, language) / f"core-sounds-{language}.txt.gz")
    (folder,) = (unpacked / "usr" / "share" / "asterisk" / "sounds").glob(f"{language}_*")
    seen: set[tuple[int, str]] = set()
    for path in sorted(folder.rglob("*.g722")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        text, size = texts.get(name, ""), path.stat().st_size
        if not words(text) or not size or (size, normalise(text)) in seen:
            continue
        seen.add((size, normalise(text)))
        yield Recording(name, text, np.asarray(G722(RATE, _BITS).decode(path.read_bytes()), dtype=np.int16))


def read_texts(path: Path) -> dict[str, str]:
    """Texts by name, of lines `name: text`, without what stands in brackets."""
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").splitlines()
    pairs = (line.split(":", 1) for line in lines if ":" in line and not line.startswith(";"))
    return {name.strip(): " ".join(re.sub(r"\[.*?]|\(.*?\)|<.*?>", "", text).split()) for name, text in pairs}


def words(text: str) -> list[str]:
    """Words and numbers in small letters; apostrophes stay inside words."""
    return re.findall(r"[^\W_]+(?:['\u2019][^\W_]+)*", text.lower())


def normalise(text: str) -> str:
    """Words alone: texts that differ in case and punctuation are one text."""
    return " ".join(words(text))


def group(text: str) -> str:
    """The first words. Texts that begin alike are often nearly the same, so they go to the same part of a split."""
    return " ".join(words(text)[:_SAME_START])


def chance(seed: int, key: str) -> float:
    """A number in [0, 1) that depends on the seed and the key alone."""
    return int.from_bytes(hashlib.sha256(f"{seed} {key}".encode()).digest()[:8]) / 2**64
