"""Make the bundled part of Fashion-MNIST from its original IDX files: `python benchmarks/make_samples.py FOLDER`.

FOLDER holds train-images-idx3-ubyte.gz and its three companions (Debian package `dataset-fashion-mnist`, or
https://github.com/zalandoresearch/fashion-mnist). The first 10,000 training and the first 2,000 test pictures are
taken, in their order.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from data2vec2.modalities.image import fashion_mnist
from data2vec2.modalities.image.arrays import read_idx

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
NUM_TRAIN, NUM_TEST = 10_000, 2_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder of the four IDX files")
    folder = parser.parse_args().folder
    parts = read_idx(sorted(folder.glob("*-images-idx3-ubyte*"))).parts
    train, test = parts["train"], parts["test"]
    if None in (*train.labels, *test.labels):
        raise SystemExit(f"{folder} has no labels")
    arrays = {}
    for name, part, count in (("train", train, NUM_TRAIN), ("test", test, NUM_TEST)):
        arrays[f"x_{name}"] = np.stack([part.source.read(place) for place in range(min(count, len(part.names)))])
        arrays[f"y_{name}"] = np.array(part.labels[:count], dtype=np.uint8)
    fashion_mnist().parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(fashion_mnist(), **arrays, classes=np.array(CLASSES))
    counts = np.bincount(arrays["y_train"]), np.bincount(arrays["y_test"])
    size = fashion_mnist().stat().st_size / 1e6
    print(f"{fashion_mnist()}: {size:.1f} MB; pictures of each class: train {counts[0]}, test {counts[1]}")


if __name__ == "__main__":
    main()
