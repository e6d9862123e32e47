"""Make the bundled notes of instruments: `python benchmarks/make_notes.py SOUNDFONT OUT`.

SOUNDFONT is usr/share/sounds/sf2/FluidR3_GM.sf2 of the unpacked Debian package fluid-soundfont-gm. Its recordings of
single notes are sorted into families of instruments by their names; of stereo ones the left channel is taken. A note
has SECONDS at most; one whose recording is shorter than SHORTEST_S goes on by its loop, as a synthesiser holds it. Of
each instrument every third note is for the test part. OUT gets train.parquet and test.parquet, with Opus of one channel
and 16 kHz.
"""

from __future__ import annotations

import argparse
import io
import re
import struct
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import soxr
from numpy.typing import NDArray

SECONDS, RATE, SHORTEST_S, EVERY = 0.8, 16_000, 0.25, 3
FAMILIES = {
    "basses": "Acoustic Bass|Bass|Finger Bass|Fretless|Picked Bass|Pop|Slap Bass",
    "bowed_strings": "Cello|Strings|Viola|Violin",
    "brass": "Brass Section|French Horns|tp|trombone|Tuba",
    "flutes": "Flute|Ocar|pan flute|Piccolo|Recorder",
    "guitars": "Banjo|Clean|Distortion|Jazz Guitar|Nylon|PalmMuted Guitar|sitar|Steel",
    "keyboards": "Clavinet|Electric Piano|Harpsichord|P200 Piano|Rhodes",
    "mallets": "Celesta|Glocken|Kalimba|Marimba|Music Box|Vibraphone|Xylophone",
    "organs": "Accordian|Church Organ|reed organ|Rock Organ",
    "plucked_strings": "dulci|Harp|Pizz|Shamisen",
    "reeds": "Bagpipe|Clarinet|E's Bassoon|English Horn|Oboe|Shenai",
    "saxophones": "Alto|Baritone|Soprano|Tenor",
    "voices": "Ahh Choir|Ohh Voices|solo_vox",
}
"""Names in the soundfont, but for the note."""


def main() -> None:
    """Write both parts and say how many notes they have."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("soundfont", type=Path, help="FluidR3_GM.sf2")
    parser.add_argument("out", type=Path, help="folder to make")
    args = parser.parse_args()
    family_of = {name: family for family, names in FAMILIES.items() for name in names.split("|")}
    found = defaultdict(list)
    for name, wave in notes(args.soundfont.read_bytes()):
        if (instrument := instrument_of(name)) in family_of:
            found[instrument].append((name, wave))
    parts: dict[str, list[tuple[str, bytes, str]]] = {"train": [], "test": []}
    for instrument, waves in sorted(found.items()):
        for place, (name, wave) in enumerate(waves):
            parts["test" if place % EVERY == 1 else "train"].append((name, opus(wave), family_of[instrument]))
    args.out.mkdir(parents=True)
    for part, rows in parts.items():
        names, contents, labels = zip(*rows, strict=True)
        sounds = [{"bytes": content, "path": f"{name}.opus"} for name, content in zip(names, contents, strict=True)]
        pq.write_table(
            pa.table({"audio": sounds, "label": list(labels)}), args.out / f"{part}.parquet", compression="none"
        )
        print(part, len(rows), {family: labels.count(family) for family in FAMILIES})


def instrument_of(name: str) -> str:
    """The name of a recording without its note and channel."""
    name = re.sub(r"\(L\)?$", "", name).strip()
    return re.sub(r"[ _]?([A-Ga-g][#b]?)?-?\d*L?$", "", name).strip()


def notes(content: bytes) -> list[tuple[str, NDArray[np.float32]]]:
    """Names and waveforms of a soundfont's recordings, without right channels and what is too short."""
    chunks = _chunks(content)
    samples = np.frombuffer(chunks[b"smpl"], "<i2").astype(np.float32) / 32768
    found = []
    for name, start, end, loop, loop_end, rate, _, _, _, kind in struct.iter_unpack("<20s5IBbHH", chunks[b"shdr"]):
        title, wave = name.split(b"\0")[0].decode("latin1"), samples[start:end]
        if kind == 2 or re.search(r"[\dL]R$", title) or not rate or not len(wave):  # a right channel, or none
            continue
        if len(wave) < SHORTEST_S * rate:
            if loop_end - loop < 8:
                continue
            held = np.resize(samples[loop:loop_end], round(SECONDS * rate))
            wave = np.concatenate([samples[start:loop_end], held])
        wave = soxr.resample(wave[: round(SECONDS * rate)], rate, RATE)
        fade = np.minimum(1, np.arange(len(wave))[::-1] / (0.02 * RATE))  # no click where it is cut
        found.append((title, (wave * fade).astype(np.float32)))
    return found


def _chunks(content: bytes) -> dict[bytes, bytes]:
    """What stands under each name of a soundfont, which is a RIFF file of lists."""
    found, place = {}, 12
    while place < len(content):
        size = struct.unpack("<I", content[place + 4 : place + 8])[0]
        inner, end = place + 12, place + 8 + size
        while inner < end:
            length = struct.unpack("<I", content[inner + 4 : inner + 8])[0]
            found[content[inner : inner + 4]] = content[inner + 8 : inner + 8 + length]
            inner += 8 + length + length % 2
        place = end + size % 2
    return found


def opus(wave: NDArray[np.float32]) -> bytes:
    """As a file."""
    content = io.BytesIO()
    soundfile.write(content, wave / max(1.0, np.abs(wave).max()), RATE, format="OGG", subtype="OPUS")
    return content.getvalue()


if __name__ == "__main__":
    main()
