"""Damage real files at random and see that nothing breaks: `python benchmarks/mutate.py [--count N] [KIND ...]`.

Kinds are pictures, recordings, tables and tars. Every file is a bundled sample in one of its formats, with flipped bits
and with bytes cut off, put in or zeroed. Fifty pictures or recordings at once are one data set; a table or a tar is one
alone. They are inspected in a process of their own. A traceback, a crash, more than five minutes for fifty files and an
account that does not add up are faults. Beside the number of samples used stands that of another decoder: Pillow alone,
soundfile reading to the end, pandas and tarfile. Prints a Markdown table; ends with 1 for a fault.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
from PIL import Image

from data2vec2.modalities.audio import english_prompts
from data2vec2.modalities.image import fashion_mnist
from data2vec2.modalities.text import wordnet_glosses

AT_ONCE = 50
TOGETHER = {"pictures", "recordings"}
"""Kinds of which many files are one data set."""
AS = {"pictures": "image", "recordings": "audio", "tables": "text", "tars": "image"}
LIMIT_S = 300
CHILD = """
import json, sys, traceback
import data2vec2
from data2vec2.errors import UserError
for path in sys.argv[2:]:
    try:
        parts, error = data2vec2.inspect(path, kind=sys.argv[1]).to_dict()["account"]["parts"], ""
    except UserError as found:
        parts, error = None, str(found)
    print(json.dumps([path, parts, error]), flush=True)
"""


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The content with one to four injuries."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        place, size = draw.randrange(max(1, len(data))), draw.choice((1, 1, 2, 8, 64, 512))
        injury = draw.choice(("flip", "flip", "zero", "cut", "insert", "noise"))
        there = max(0, min(size, len(data) - place))
        if injury == "flip" and data:
            data[place] ^= 1 << draw.randrange(8)
        elif injury == "cut":
            del data[place : place + size * draw.choice((1, 10_000))]
        elif injury == "insert":
            data[place:place] = draw.randbytes(size)
        else:
            data[place : place + there] = bytes(there) if injury == "zero" else draw.randbytes(there)
    return bytes(data)


def pictures() -> Iterator[tuple[str, bytes]]:
    """Real pictures, each in every format."""
    with np.load(fashion_mnist()) as arrays:
        some = arrays["x_train"][:20]
    for place, pixels in enumerate(some):
        picture = Image.fromarray(pixels).resize((64, 64)).convert("RGB")
        for extension in ("png", "jpg", "webp", "gif", "bmp", "tif"):
            file = io.BytesIO()
            picture.save(file, {"jpg": "JPEG", "tif": "TIFF"}.get(extension, extension))
            yield f"{place}.{extension}", file.getvalue()


def recordings() -> Iterator[tuple[str, bytes]]:
    """Real recordings, each in every format."""
    for place, path in enumerate(sorted((english_prompts() / "train/digits").glob("*.ogg"))[:10]):
        wave, rate = soundfile.read(path)
        yield f"{place}.opus", path.read_bytes()
        for extension, kind in (("wav", "WAV"), ("flac", "FLAC"), ("ogg", "OGG"), ("mp3", "MP3"), ("aiff", "AIFF")):
            file = io.BytesIO()
            soundfile.write(file, wave, rate, format=kind)
            yield f"{place}.{extension}", file.getvalue()


def tables() -> Iterator[tuple[str, bytes]]:
    """Real texts with labels, in every format."""
    frame = pd.read_parquet(wordnet_glosses() / "test.parquet")[["text", "label"]]
    for place in range(5):
        rows = frame[place * 200 : place * 200 + 200]
        yield f"{place}.csv", rows.to_csv(index=False).encode()
        yield f"{place}.tsv", rows.replace('[\t\n"]', " ", regex=True).to_csv(index=False, sep="\t").encode()
        yield f"{place}.jsonl", rows.to_json(orient="records", lines=True).encode()
        yield f"{place}.parquet", rows.to_parquet()


def tars() -> Iterator[tuple[str, bytes]]:
    """Shards of real pictures with classes."""
    some = [(name, content) for name, content in pictures() if name.endswith(("png", "jpg"))]
    for place in range(5):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as tar:
            for name, content in some[place * 8 : place * 8 + 8]:
                for member, inside in ((name, content), (f"{name.split('.')[0]}.cls", str(place % 2).encode())):
                    info = tarfile.TarInfo(member)
                    info.size = len(inside)
                    tar.addfile(info, io.BytesIO(inside))
        yield f"{place}.tar", file.getvalue()


def by_pillow(file: Any) -> int:
    """1 if Pillow alone decodes a picture."""
    with Image.open(file) as image:
        image.load()
    return 1


def by_soundfile(path: Path) -> int:
    """1 if soundfile alone reads a recording to the end, and there is something to hear."""
    wave, _ = soundfile.read(path, dtype="float32", always_2d=True)
    return int(len(wave) > 0 and np.isfinite(wave).all() and wave.mean(axis=1).std() > 1e-5)


def by_pandas(path: Path) -> int:
    """Rows with text that pandas reads."""
    read: dict[str, Callable[[], Any]] = {
        ".csv": lambda: pd.read_csv(path),
        ".tsv": lambda: pd.read_csv(path, sep="\t", quoting=3),
        ".jsonl": lambda: pd.read_json(path, lines=True),
        ".parquet": lambda: pd.read_parquet(path),
    }
    return int(read[path.suffix]()["text"].notna().sum())


def by_tarfile(path: Path) -> int:
    """Pictures of a tar that Pillow decodes."""
    count = 0
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            if member.isfile() and member.name.endswith(("png", "jpg")):
                count += tried(lambda: by_pillow(tar.extractfile(member)))  # noqa: B023
    return count


def tried(read: Callable[[], int]) -> int:
    """What it returns, or 0."""
    try:
        return read()
    except Exception:  # whatever another library raises, it does not read the file
        return 0


SOURCES = {"pictures": pictures, "recordings": recordings, "tables": tables, "tars": tars}
OTHERS = {"pictures": by_pillow, "recordings": by_soundfile, "tables": by_pandas, "tars": by_tarfile}


def inspect(paths: list[Path], kind: str) -> tuple[Counter[str], int, list[str]]:
    """How many data sets were read and refused, the samples used, and faults."""
    command = [sys.executable, "-c", CHILD, AS[kind], *map(str, paths)]
    ends, used, faults = Counter[str](), 0, []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, errors="replace")
        said, out = done.stderr, done.stdout
    except subprocess.TimeoutExpired as error:
        said, out = f"no end within {LIMIT_S} s", (error.stdout or b"").decode()
    lines = [json.loads(line) for line in out.splitlines()]
    for path, parts, error in lines:
        ends["refused" if error else "read"] += 1
        for name, part in (parts or {}).items():
            left = len(part["bad"]) + len(part["left_out"]) + sum(part["left_out_as_asked"].values())
            if part["found"] != part["used"] + left:
                faults.append(f"{path}: {name} does not add up")
            used += part["used"]
    if len(lines) < len(paths):
        last = said.strip().splitlines()[-1] if said.strip() else "it ended without a word"
        faults.append(f"{paths[len(lines)]}: {last}")
    return ends, used, faults


def run(kind: str, count: int, seed: int, place: Path) -> list[str]:
    """Damage and read so many files of a kind; prints a row of the table and returns faults."""
    draw, originals = random.Random(f"{kind} {seed}"), list(SOURCES[kind]())
    ends, faults, ours, theirs = Counter[str](), list[str](), 0, 0
    for start in range(0, count, AT_ONCE):
        folder = place / kind / str(start)
        folder.mkdir(parents=True)
        paths = []
        for number in range(start, min(count, start + AT_ONCE)):
            name, content = draw.choice(originals)
            paths.append(folder / f"{number}-{name}")
            paths[-1].write_bytes(damaged(content, draw))
        ended, used, wrong = inspect([folder] if kind in TOGETHER else paths, kind)
        ends, ours, faults = ends + ended, ours + used, faults + wrong
        theirs += sum(tried(lambda: OTHERS[kind](path)) for path in paths)  # noqa: B023
    print(f"| {kind} | {count} | {ends['read']} | {ends['refused']} | {ours} | {theirs} | {len(faults)} |", flush=True)
    return faults


def main() -> int:
    """Run all kinds that were named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("kinds", nargs="*", default=list(SOURCES), metavar="KIND")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    print("| kind | files | data sets read | refused | samples used | another decoder reads | faults |")
    print("|---|---|---|---|---|---|---|")
    place = Path(tempfile.mkdtemp())
    faults = [fault for kind in given.kinds for fault in run(kind, given.count, given.seed, place)]
    print(f"\n{len(faults)} faults; the files are in {place}", *faults, sep="\n")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
