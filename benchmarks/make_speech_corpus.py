"""Make speech for longer experiments: `python benchmarks/make_speech_corpus.py UNPACKED OUT OUT_CTC`.

UNPACKED is the folder into which `dpkg -x` unpacked these Debian packages: `asterisk-core-sounds-LANGUAGE` and
`asterisk-core-sounds-LANGUAGE-g722` for en, es, fr, it and ru, and `tuxpaint-stamps-default`. Needs
`pip install soundfile soxr G722`.

OUT_CTC gets the folders 1, 5 and 15 (minutes of train; each holds those before it), each with the same val and test, of
one language, for recognition. OUT becomes one folder of all languages (16 kHz FLAC, metadata.csv), for pre-training:
without what is in val and test. A package that is not there is left out.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr
from prompts import RATE, Recording, chance, group, read_prompts, words

PROMPTS = ("en", "es", "fr", "it", "ru")
STAMPS = ("be", "bg", "da", "el", "en", "es", "fr", "ro", "ru")
SEED = 0
TEST_MINUTES, VAL_MINUTES, TRAIN_MINUTES = 5, 2, (1, 5, 15)
HEADER = ("file_name", "transcription", "language")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("unpacked", type=Path, help="the folder of the unpacked packages")
    parser.add_argument("out", type=Path, help="the folder to make for all languages")
    parser.add_argument("out_ctc", type=Path, help="the folder to make for recognition in one language")
    parser.add_argument("--language", choices=PROMPTS, default="en", help="to recognise")
    arguments = parser.parse_args()
    rows: list[tuple[str, str, str]] = []
    minutes: dict[tuple[str, str], float] = Counter()
    recognised: dict[str, float] = {}
    for language, source, recording in recordings(arguments.unpacked):
        name = f"{language}/{source}/{recording.name}.flac"
        path = arguments.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, recording.samples, RATE)
        rows.append((name, recording.text, language))
        minutes[language, source] += recording.minutes
        if language == arguments.language:
            recognised[name] = recording.minutes
    held_out = make_ctc(arguments.out, arguments.out_ctc, [row for row in rows if row[0] in recognised], recognised)
    for name in held_out:
        (arguments.out / name).unlink()
    rows = [row for row in rows if row[0] not in held_out]
    write_metadata(arguments.out, rows)
    table = "\n".join(f"{language} {source}: {value:.1f} min" for (language, source), value in minutes.items())
    write_readme(arguments.out, f"{len(rows):,} recordings; with {len(held_out)} held out for val and test:\n\n{table}")


def recordings(unpacked: Path) -> Iterator[tuple[str, str, Recording]]:
    """All recordings, with their languages and sources."""
    for language in PROMPTS:
        if not (unpacked / f"usr/share/doc/asterisk-core-sounds-{language}").is_dir():
            continue
        for recording in read_prompts(unpacked, language):
            yield language, "prompts", recording
    for language in STAMPS:
        for recording in read_stamps(unpacked, language):
            yield language, "stamps", recording


def read_stamps(unpacked: Path, language: str) -> Iterator[Recording]:
    """Tux Paint's spoken descriptions of its stamps in one language, where they have a text, at 16 kHz.

    English is the language without a suffix, and its text is the first line of the file of texts.
    """
    folder = unpacked / "usr" / "share" / "tuxpaint" / "stamps"
    ending = "_desc.ogg" if language == "en" else f"_desc_{language}.ogg"
    for path in sorted(folder.rglob(f"*{ending}")):
        texts = path.with_name(path.name.removesuffix(ending) + ".txt")
        lines = texts.read_text(encoding="utf-8", errors="replace").splitlines() if texts.exists() else []
        marker = "" if language == "en" else f"{language}.utf8="
        text = next((line.removeprefix(marker).strip() for line in lines if line.startswith(marker)), "")
        wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
        if words(text) and len(wave):
            name = path.relative_to(folder).as_posix().removesuffix(ending)
            wave = np.clip(soxr.resample(wave.mean(axis=1), rate, RATE), -1, 1)
            yield Recording(name, text, np.round(wave * 32767).astype(np.int16))


def make_ctc(corpus: Path, out: Path, rows: list[tuple[str, str, str]], minutes: dict[str, float]) -> set[str]:
    """Copy recordings into the parts: whole groups of texts that begin alike, in a random order, while they fit.

    No group is more than a tenth of its part, so that no part hangs on a few long texts. Returns the names in val and
    test.
    """
    groups: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for row in rows:
        groups[group(row[1])].append(row)
    left = sorted(groups, key=lambda key: chance(SEED, key))

    def fill(limit: float, chosen: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
        chosen = list(chosen)
        for key in list(left):
            size = sum(minutes[row[0]] for row in groups[key])
            if size <= limit / 10 and size + sum(minutes[row[0]] for row in chosen) <= limit:
                chosen += groups[key]
                left.remove(key)
        return chosen

    held_out = {"test": fill(TEST_MINUTES, []), "val": fill(VAL_MINUTES, [])}
    train: list[tuple[str, str, str]] = []
    facts = [said(part, chosen, minutes) for part, chosen in held_out.items()]
    for limit in TRAIN_MINUTES:
        train = fill(limit, train)
        facts.append(said(f"{limit}/train", train, minutes))
        for part, chosen in {**held_out, "train": train}.items():
            folder = out / str(limit) / part
            for name, _, _ in chosen:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(corpus / name, folder / name)
            write_metadata(folder, sorted(chosen))
    write_readme(out, "Texts that begin with the same four words are in one part.\n\n" + "\n".join(facts))
    return {name for chosen in held_out.values() for name, _, _ in chosen}


def said(part: str, chosen: list[tuple[str, str, str]], minutes: dict[str, float]) -> str:
    """A line about a part."""
    return f"{part}: {len(chosen)} recordings, {sum(minutes[name] for name, _, _ in chosen):.2f} min"


def write_metadata(folder: Path, rows: list[tuple[str, str, str]]) -> None:
    """Write metadata.csv."""
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(rows)


def write_readme(folder: Path, facts: str) -> None:
    """Say what a folder holds, and print it."""
    text = f"""# {folder.name}

Made by benchmarks/make_speech_corpus.py (seed {SEED}) from Debian's asterisk-core-sounds-* (prompts; en, es, fr:
CC-BY-SA-3.0, it, ru: CC-BY-3.0) and tuxpaint-stamps-default (stamps; GPL-2). 16 kHz, one channel, FLAC; not trimmed.
metadata.csv: {", ".join(HEADER)}. Transcriptions as in the packages, less remarks in brackets.

{facts}
"""
    (folder / "README.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
