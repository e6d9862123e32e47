"""Lay emoji out as a labelled folder of pictures: `python benchmarks/make_emoji.py PACKAGE OUT`.

PACKAGE is the unpacked npm package emoji-datasource-google (`npm pack emoji-datasource-google@16.0.0`, then tar). OUT
gets {train,test}/CLASS/CODE.png, 64 pixels, the class being the emoji's category. Variants of other skin tones are left
out, and so is the category of the tones themselves. A fifth of each class, drawn by a fixed seed, is for the test.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from data2vec2.data.sampler import split_validation

TEST_FRACTION, SEED = 0.2, 0


def main() -> None:
    """Copy the pictures and say how many there are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path, help="the package's folder, with emoji.json")
    parser.add_argument("out", type=Path, help="folder to make")
    args = parser.parse_args()
    emoji = [one for one in json.loads((args.package / "emoji.json").read_text("utf-8")) if one["has_img_google"]]
    emoji = sorted((one for one in emoji if one["category"] != "Component"), key=lambda one: one["image"])
    classes, labels = np.unique([one["category"] for one in emoji], return_inverse=True)
    test = split_validation(labels, TEST_FRACTION, SEED)[1]
    for place, one in enumerate(emoji):
        folder = args.out / ("test" if place in test else "train") / one["category"]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(args.package / "img" / "google" / "64" / one["image"], folder / one["image"])
    print(f"{args.out}: {len(emoji) - len(test):,} to train on, {len(test):,} to test on, {len(classes)} classes")


if __name__ == "__main__":
    main()
