"""What a folder of very many files takes before training: `python benchmarks/listing.py FOLDER --files 1000000`.

Makes a folder of that many small pictures in 1,000 classes, and a manifest of as many recordings, unless they are
there. Then opens each in fresh processes: as if never seen, again, and what a reader process gets of it. Prints a
Markdown table of processor seconds, and of the anonymous memory (what is not a mapped file) that is added. Needs Linux.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "src"))

CLASSES = 1_000


def main() -> None:
    """Parse and run; with --one, a single measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--one", choices=("folder", "manifest"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure(args.folder, args.one)
        return
    make(args.folder, args.files)
    environment = {**os.environ, "XDG_CACHE_HOME": str(args.folder / f"cache-{time.time():.0f}")}
    print("| data | start | open | memory | fingerprint | memory | reader: bytes sent | to load | memory |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for kind in ("folder", "manifest"):
        for start in ("first", "later"):
            command = [sys.executable, __file__, str(args.folder), "--one", kind]
            row = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
            print(f"| {kind} of {args.files:,} | {start} | {row.strip()}", flush=True)


def make(folder: Path, count: int) -> None:
    """Files without content: listing opens none."""
    pictures, manifest = folder / "pictures", folder / "manifest" / "train.tsv"
    if not pictures.is_dir():
        for label in range(CLASSES):
            (pictures / f"n{label:08}").mkdir(parents=True)
            for place in range(label, count, CLASSES):
                (pictures / f"n{label:08}" / f"n{label:08}_{place:08}.JPEG").touch()
    if not manifest.is_file():
        manifest.parent.mkdir(parents=True)
        lines = (f"{n % 900:03}/{n % 7:04}/{n:010}.flac\t{160_000 + n % 90_000}" for n in range(count))
        manifest.write_text("\n".join([str(manifest.parent), *lines]) + "\n")
    time.sleep(3)  # what has just changed is not indexed


def anonymous() -> int:
    """Bytes of this process that are not mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024


def measure(folder: Path, kind: str) -> None:
    """Print the cells of a row."""
    from data2vec2.data.records import open_data
    from data2vec2.modalities.audio.manifests import MANIFESTS
    from data2vec2.modalities.audio.reader import RECORDINGS
    from data2vec2.modalities.image.arrays import ARRAYS
    from data2vec2.modalities.image.reader import PICTURES

    what = (PICTURES, ARRAYS) if kind == "folder" else (RECORDINGS, MANIFESTS)
    place, cells = folder / ("pictures" if kind == "folder" else "manifest"), []
    before, then = anonymous(), time.process_time()
    train = open_data(place, *what).train
    cells += [f"{time.process_time() - then:.1f} s", f"{(anonymous() - before) / 1e6:.0f} MB"]
    then = time.process_time()
    _ = train.fingerprint
    cells += [f"{time.process_time() - then:.1f} s", f"{(anonymous() - before) / 1e6:.0f} MB"]
    sent = bytes(ForkingPickler.dumps(train))
    reader = subprocess.Popen([sys.executable, "-c", READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    out, _ = reader.communicate(sent)
    cells += [f"{len(sent) / 1e6:.1f} MB", *out.decode().split("|")]
    print(" | ".join(cell.strip() for cell in cells), "|")


READER = f"""
import sys, time
from multiprocessing.reduction import ForkingPickler
sys.path[:0] = {sys.path!r}
import data2vec2.modalities.image.reader, data2vec2.modalities.audio.reader
from listing import anonymous
sent = sys.stdin.buffer.read()
before, then = anonymous(), time.process_time()
records = ForkingPickler.loads(sent)
assert records.names[len(records) // 2]
print(f"{{time.process_time() - then:.1f}} s | {{(anonymous() - before) / 1e6:.0f}} MB")
"""

if __name__ == "__main__":
    main()
