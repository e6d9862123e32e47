"""Test pictures moved, made smaller or put on clutter: `python benchmarks/make_perturbed.py pictures.npz OUT`.

What pixels alone can't tell and a model should: `data2vec2 evaluate RUN OUT/shifted.npz` has the model beside raw
pixels and an untrained network, all of which know the training pictures as they are. The file given has `x_train` (NHW
uint8, dark ground), `y_train`, `x_test`, `y_test` and `classes`, as the bundled Fashion-MNIST; OUT gets the same with
other test pictures, all by a fixed seed:

- as-they-are.npz
- shifted.npz: by up to a seventh of the side each way, what leaves on one side is lost
- smaller.npz: 70 % of the side, anywhere
- cluttered.npz: on pieces of other pictures (a quarter of the side) at half brightness, where the ground is dark
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pictures = NDArray[np.uint8]
SEED = 0


def shifted(pictures: Pictures, rng: np.random.Generator) -> Pictures:
    """Moved over a dark ground."""
    side, most = pictures.shape[1], pictures.shape[1] // 7
    wide = np.pad(pictures, ((0, 0), (most, most), (most, most)))
    places = rng.integers(0, 2 * most + 1, (len(pictures), 2))
    return np.stack([one[y : y + side, x : x + side] for one, (y, x) in zip(wide, places, strict=True)])


def smaller(pictures: Pictures, rng: np.random.Generator) -> Pictures:
    """Reduced, and somewhere on a dark ground."""
    side = pictures.shape[1]
    less = round(0.7 * side)
    found = np.zeros_like(pictures)
    for out, one, (y, x) in zip(found, pictures, rng.integers(0, side - less + 1, (len(pictures), 2)), strict=True):
        out[y : y + less, x : x + less] = Image.fromarray(one).resize((less, less), Image.Resampling.BOX)
    return found


def cluttered(pictures: Pictures, rng: np.random.Generator) -> Pictures:
    """Pieces of any of the pictures side by side, and the picture where it is brighter."""
    count, side = pictures.shape[:2]
    piece = side // 4
    ground = np.zeros_like(pictures)
    for y in range(0, side - piece + 1, piece):
        for x in range(0, side - piece + 1, piece):
            others, (v, u) = rng.integers(0, count, count), rng.integers(0, side - piece + 1, 2)
            ground[:, y : y + piece, x : x + piece] = pictures[others, v : v + piece, u : u + piece] // 2
    return np.maximum(pictures, ground)


def main() -> None:
    """Write all four."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("out", type=Path, help="folder to make")
    args = parser.parse_args()
    with np.load(args.pictures) as file:
        arrays = dict(file)
    args.out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(args.out / "as-they-are.npz", **arrays)
    for change in (shifted, smaller, cluttered):
        found = change(arrays["x_test"], np.random.default_rng(SEED))
        np.savez_compressed(args.out / f"{change.__name__}.npz", **{**arrays, "x_test": found})


if __name__ == "__main__":
    main()
