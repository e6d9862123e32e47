"""Make the bundled clip art: `python benchmarks/make_clip_art.py FOLDER OUT`.

FOLDER is usr/share/openclipart/png of the unpacked Debian package openclipart-png; its sub-folders are the classes.
Pictures with the same pixels are taken once. Those of one name but for its digits (star_12pt, star_13pt) are a family,
of which eight at most are taken, all for one part: no test picture has a near copy to be learned from. Of a class there
are LARGEST pictures at most; classes with fewer than SMALLEST are left out. OUT gets train.parquet and test.parquet,
with pictures on white, 64 pixels on the longer side.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SIDE, FAMILY, SMALLEST, LARGEST, TEST_FRACTION, SEED = 64, 8, 90, 300, 0.2, 0
Image.MAX_IMAGE_PIXELS = None  # one has 231 million
LEFT_OUT = {"unsorted", "special"}
"""Folders that are no classes."""


def main() -> None:
    """Write both parts and say how many pictures they have."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the package's png folder")
    parser.add_argument("out", type=Path, help="folder to make")
    args = parser.parse_args()
    families: dict[tuple[str, str], list[Path]] = defaultdict(list)
    seen = set()
    for path in sorted(args.folder.rglob("*.png")):
        name = path.relative_to(args.folder).as_posix()
        category = name.split("/")[0]
        if category in LEFT_OUT:
            continue
        with Image.open(path) as picture:
            pixels = hashlib.sha256(picture.convert("RGBA").resize((32, 32)).tobytes()).digest()
        if pixels not in seen:
            seen.add(pixels)
            families[category, re.sub(r"[\d_]+", "", path.stem.lower())[:12]].append(path)
    random = np.random.default_rng(SEED)
    chosen: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for place in random.permutation(len(families)):
        (category, _), paths = sorted(families.items())[place]
        part = "test" if random.random() < TEST_FRACTION else "train"
        chosen[category] += [(part, paths[one]) for one in random.permutation(len(paths))[:FAMILY]]
    classes = sorted(category for category, found in chosen.items() if len(found) >= SMALLEST)
    parts: dict[str, list[tuple[str, bytes, str]]] = {"train": [], "test": []}
    for category in classes:
        for part, path in sorted(chosen[category][:LARGEST]):
            parts[part].append((path.relative_to(args.folder).as_posix(), small(path), category))
    args.out.mkdir(parents=True)
    for part, rows in parts.items():
        names, contents, labels = zip(*rows, strict=True)
        table = pa.table(
            {"image": [{"bytes": content, "path": name} for name, content in zip(names, contents, strict=True)]}
            | {"label": list(labels)}
        )
        pq.write_table(table, args.out / f"{part}.parquet", compression="none")
        print(part, len(rows), {name: labels.count(name) for name in classes})


def small(path: Path) -> bytes:
    """The picture on white, as WebP."""
    with Image.open(path) as picture:
        rgba = picture.convert("RGBA")
    rgba.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=None)
    white = Image.new("RGBA", rgba.size, "white")
    content = io.BytesIO()
    Image.alpha_composite(white, rgba).convert("RGB").save(content, "webp", quality=80, method=6)
    return content.getvalue()


if __name__ == "__main__":
    main()
