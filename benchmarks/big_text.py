"""Tokenise and train on a generated file of gigabytes, with flat memory: `big_text.py FOLDER --gigabytes 2`.

A file of a hundredth of the size goes first. Both are made of the bundled glosses, drawn at random, with numbers among
them; `data2vec2 pretrain text_tiny` makes a tokenizer, shards and a few updates of each. Prints a Markdown table: time,
and the most anonymous memory (what is not a mapped file) that the command and its processes had at once. Needs Linux.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from data2vec2.modalities.text import wordnet_glosses

SEED, AT_ONCE = 0, 20_000
"""Of the drawing; lines that are written at once."""


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="for the texts, runs and cache; what is in it is written again")
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--updates", type=int, default=20)
    args = parser.parse_args()
    rows = []
    for share in (0.01, 1.0):
        text = args.folder / f"text-{share}.txt"
        write_text(text, int(args.gigabytes * share * 1e9))
        command = [sys.executable, "-m", "data2vec2", "pretrain", "text_tiny", str(text), "--overwrite"]
        command += ["--out", str(args.folder / f"run-{share}"), "--train.updates", str(args.updates)]
        cache = args.folder / f"cache-{share}"
        package = Path(__file__).resolve().parents[1] / "src"
        environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(package)}
        started = time.perf_counter()
        peak = peak_memory(subprocess.Popen(command, env=environment))
        seconds = time.perf_counter() - started
        rows.append(f"| {text.stat().st_size / 1e9:.2f} GB | {seconds:.0f} s | {peak / 1e6:.0f} MB |")
    print("\n".join(["| text | time | peak memory |", "|---|---|---|", *rows]))


def write_text(path: Path, size: int) -> None:
    """At least `size` bytes of glosses, each with a number in front."""
    glosses = pq.read_table(wordnet_glosses() / "train.parquet", columns=["text"]).column(0).to_pylist()
    draws, written = np.random.default_rng(SEED), 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        while written < size:
            numbers, places = draws.integers(1 << 16, size=AT_ONCE), draws.integers(len(glosses), size=AT_ONCE)
            pairs = zip(numbers.tolist(), places.tolist(), strict=True)
            written += file.write("".join(f"{number} {glosses[place]}\n" for number, place in pairs).encode())


def peak_memory(process: subprocess.Popen[bytes]) -> int:
    """Wait for a command; the most bytes of anonymous memory that it and its descendants had together."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(anonymous, descendants(process.pid))))
        time.sleep(0.2)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, process.args))} ended with {process.returncode}")
    return peak


def descendants(pid: int) -> list[int]:
    """A process and all that come from it."""
    try:
        children = [(task / "children").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return []
    return [pid, *(one for child in " ".join(children).split() for one in descendants(int(child)))]


def anonymous(pid: int) -> int:
    """Bytes of anonymous memory of a process; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem")))


if __name__ == "__main__":
    main()
