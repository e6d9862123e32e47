"""Make the bundled English prompts: `python benchmarks/make_speech_samples.py UNPACKED`.

UNPACKED is the folder into which `dpkg -x` unpacked the Debian packages `asterisk-core-sounds-en` and
`asterisk-core-sounds-en-g722`. Needs `pip install soundfile G722 pocketsphinx`. Everything but README.md is made anew:
recordings, metadata.csv, phones.csv and LICENSE.
"""

from __future__ import annotations

import argparse
import csv
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from pocketsphinx import Decoder
from prompts import RATE, Recording, chance, documents, group, read_prompts

from data2vec2.modalities.audio import english_prompts
from data2vec2.modalities.audio.phones import PHONES, SILENCE

COMPRESSION = 0.94  # of 0 to 1; about 23 kbit/s
TEST_SHARE, SEED = 0.3, 0
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CATEGORIES = ("digits", "letters", "phonetic")
SYMBOLS = {"*": "star", "#": "pound", "&": "and"}
HOP, WINDOW = 160, 410  # samples of the aligner's frames
QUIET_DB = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("unpacked", type=Path, help="the folder of the unpacked packages")
    unpacked = parser.parse_args().unpacked
    prompts = list(read_prompts(unpacked, "en"))
    folder = english_prompts()
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
        elif old.name != "README.md":
            old.unlink()
    prompts = sorted((replace(prompt, name=placed(prompt)) for prompt in prompts), key=lambda prompt: prompt.name)
    for prompt in prompts:
        write_opus(folder / f"{prompt.name}.ogg", prompt.samples)
    write_table(folder / "metadata.csv", ("file_name", "transcription"), ((f"{p.name}.ogg", p.text) for p in prompts))
    phones = align_all(prompts)
    runs = {name: " ".join(f"{phone}:{count}" for phone, count in found) for name, found in phones.items()}
    write_table(folder / "phones.csv", ("file_name", "phones"), ((f"{name}.ogg", text) for name, text in runs.items()))
    (folder / "LICENSE").write_text(licence(documents(unpacked, "en") / "copyright"), encoding="utf-8")
    report(folder, prompts, phones)


def placed(prompt: Recording) -> str:
    """PART/CATEGORY/NAME."""
    part = "test" if chance(SEED, group(prompt.text)) < TEST_SHARE else "train"
    top, _, rest = prompt.name.partition("/")
    category, name = (top, rest) if rest and top in CATEGORIES else ("prompts", prompt.name)
    return f"{part}/{category}/{name.replace('/', '-')}"


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_opus(path: Path, samples: NDArray[np.int16]) -> None:
    """Write Opus in OGG; raises `ValueError` if it decodes to another length or clips."""
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, samples, RATE, format="OGG", subtype="OPUS", compression_level=COMPRESSION)
    decoded, rate = soundfile.read(path, dtype="float32")
    if rate != RATE or decoded.shape != samples.shape or np.abs(decoded).max() >= 1:
        raise ValueError(f"{path}: {decoded.shape} at {rate} Hz, up to {np.abs(decoded).max():.2f}")


def align_all(prompts: Sequence[Recording]) -> dict[str, list[tuple[str, int]]]:
    """Phones and their numbers of 10 ms frames, by name, of the prompts that align."""
    decoder = Decoder(lm=None, loglevel="FATAL")
    found: dict[str, list[tuple[str, int]]] = {}
    left: Counter[str] = Counter()
    for prompt in prompts:
        spoken = say(prompt.text, decoder)
        phones = align(decoder, spoken, prompt.samples) if spoken else None
        if phones:
            found[prompt.name] = phones
        else:
            left["doesn't fit its text" if spoken else "a word that the dictionary lacks"] += 1
    print(f"{len(found)} of {len(prompts)} aligned; not: {dict(left)}")
    return found


def say(text: str, decoder: Decoder) -> list[str]:
    """Words of the pronouncing dictionary; none if the text has others, such as numbers of several digits."""
    spoken: list[str] = []
    for raw in re.findall(r"[\w'.*#&]+", text):
        word = raw.strip("'.")
        if re.fullmatch(r"(\w\.)+", raw):
            spoken += raw.lower().split(".")[:-1]
        elif raw in SYMBOLS:
            spoken.append(SYMBOLS[raw])
        elif re.fullmatch(r"\d", word):
            spoken.append(DIGITS[int(word)])
        elif decoder.lookup_word(word.lower()):
            spoken.append(word.lower())
        elif re.fullmatch(r"[A-Z]{2,4}", word):
            spoken += word.lower()
        elif word:
            return []
    return spoken


def align(decoder: Decoder, spoken: list[str], samples: NDArray[np.int16]) -> list[tuple[str, int]] | None:
    """Phones and their numbers of frames, from the first frame on without gaps; None if the words don't fit.

    The aligner often has the first phone begin with the file. What is before the first and after the last frame within
    40 dB of the loudest is silence.
    """
    try:
        decoder.set_align_text(" ".join(spoken))
        decode(decoder, samples)
        decoder.set_alignment()  # the second pass, which finds the phones inside the words
        decode(decoder, samples)
    except RuntimeError:
        return None
    found = [
        (phone.name, phone.start, phone.start + phone.duration) for word in decoder.get_alignment() for phone in word
    ]
    total = (len(samples) - WINDOW) // HOP + 1  # the aligner goes on into padding
    first, last = loud_frames(samples, total)
    runs: list[tuple[str, int]] = []
    done = 0
    for phone, start, end in found:
        start, end = max(start, first), min(end, last + 1)
        if phone in PHONES and start < end:
            runs += [(SILENCE, start - done)] if start > done else []
            runs.append((phone, end - start))
            done = end
    return runs + ([(SILENCE, total - done)] if total > done else [])


def decode(decoder: Decoder, samples: NDArray[np.int16]) -> None:
    """One pass over a whole recording."""
    decoder.start_utt()
    decoder.process_raw(samples.tobytes(), full_utt=True)
    decoder.end_utt()


def loud_frames(samples: NDArray[np.int16], num_frames: int) -> tuple[int, int]:
    """The first and the last frame within 40 dB of the loudest."""
    power = np.square(samples.astype(np.float64))
    energy = np.array([power[at * HOP : at * HOP + WINDOW].mean() for at in range(num_frames)])
    loud = np.flatnonzero(energy > energy.max() * 10 ** (-QUIET_DB / 10))
    return int(loud[0]), int(loud[-1])


def licence(path: Path) -> str:
    """The recordings' part of a Debian copyright file: who made them, and the full text of their licence."""
    paragraphs = re.split(r"\n\n+", path.read_text(encoding="utf-8"))
    about = next(text for text in paragraphs if text.startswith("Files: *"))
    terms = next(text for text in paragraphs if re.match(r"License: CC-BY-SA-3.0\n THE WORK", text))
    credit = [line for line in about.split("\n")[1:] if not line.strip().startswith("License:")]
    lines = [*credit, "", *terms.split("\n")]
    return "\n".join("" if line == " ." else line.removeprefix(" ") for line in lines).rstrip() + "\n"


def report(folder: Path, prompts: list[Recording], phones: dict[str, list[tuple[str, int]]]) -> None:
    """Print what was made."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    print(f"{folder}: {size:.1f} MB, {len(prompts)} prompts, {sum(p.minutes for p in prompts):.1f} min")
    for part in ("train", "test"):
        mine = [p for p in prompts if p.name.startswith(part)]
        runs = [run for p in mine for run in phones.get(p.name, [])]
        frames = sum(count for _, count in runs)
        spoken = sum(count for phone, count in runs if phone != SILENCE)
        kinds = len({phone for phone, _ in runs} - {SILENCE})
        print(
            f"{part}: {len(mine)} prompts, {sum(p.minutes for p in mine):.1f} min; "
            f"{sum(p.name in phones for p in mine)} aligned: {frames:,} frames, {spoken:,} in {kinds} phones; "
            f"{dict(Counter(p.name.split('/')[1] for p in mine))}"
        )


if __name__ == "__main__":
    main()
