"""What single patches know: `python benchmarks/patch_retrieval.py MODEL pictures.npz`.

For each patch of a test picture, the nearest patch (cosine) of the training pictures: how often is its picture of the
same class? Patches without a bright pixel are left out. Beside the model are an untrained network, the pixels of the
patch, and those of three by three patches around it, so that what context alone is worth can be seen. The file is as
the bundled Fashion-MNIST: `x_train` and `x_test` (NHW uint8, dark ground, as large as the model's pictures), `y_train`
and `y_test`; also those of make_perturbed.py.

Shapes: `N` pictures, `T` patches, `P` values of a patch, `D` of a feature, `Q` test patches, `K` training patches.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import torch
import torch.nn.functional as F

import data2vec2
from data2vec2.modalities.fields import build_encoder

BRIGHT = 32
"""Of 255: a patch whose pixels are all below it shows nothing."""
CHUNK = 4_096


def patches(pictures: NDArray[np.uint8], size: int, around: int = 0) -> NDArray[np.float32]:
    """Pixels `NTP` of each patch and of so many patches on each side of it, dark beyond the edge."""
    x = torch.from_numpy(pictures)[:, None].float()
    found = F.unfold(x, size * (1 + 2 * around), padding=size * around, stride=size)
    return found.transpose(1, 2).contiguous().numpy()


def right(
    keys_KD: NDArray[np.float32], known_K: NDArray[np.int64], asked_QD: NDArray[np.float32], true_Q: NDArray[np.int64]
) -> float:
    """Share of patches whose nearest one has their class."""
    keys, asked = (F.normalize(torch.from_numpy(x), dim=-1) for x in (keys_KD, asked_QD))
    nearest_Q = torch.cat([(some @ keys.T).argmax(-1) for some in torch.split(asked, CHUNK)]).numpy()
    return float((known_K[nearest_Q] == true_Q).mean())


def main() -> None:
    """A table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="of pictures: a run folder or an exported model")
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--most", type=int, default=2_000, help="pictures of each part")
    parser.add_argument("--seed", type=int, default=0, help="of the untrained network")
    args = parser.parse_args()
    model = data2vec2.load(args.model)
    shape: Any = model.info.model.modality
    with np.load(args.pictures) as file:
        parts = [(file[f"x_{name}"][: args.most], file[f"y_{name}"][: args.most]) for name in ("train", "test")]
    for pictures, _ in parts:
        if pictures.shape[1:] != (shape.image_size, shape.image_size):
            raise SystemExit(f"{args.pictures} has pictures of {pictures.shape[1:]}, the model {shape.image_size}")
    shown = [patches(pictures, shape.patch_size).max(-1) >= BRIGHT for pictures, _ in parts]
    known_K, true_Q = (
        np.repeat(y_N[:, None], shown_NT.shape[1], 1)[shown_NT] for (_, y_N), shown_NT in zip(parts, shown, strict=True)
    )

    def accuracy(of: Callable[[NDArray[np.uint8]], NDArray[np.float32]]) -> float:
        keys_KD, asked_QD = (of(pictures)[shown_NT] for (pictures, _), shown_NT in zip(parts, shown, strict=True))
        return right(keys_KD, known_K, asked_QD, true_Q)

    def features(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.stack(model.embed(pictures, pool="none"))

    rows = {"data2vec2": accuracy(features)}
    torch.manual_seed(args.seed)
    model.model = build_encoder(model.info.model).to(model.device).eval()
    rows["random initialisation"] = accuracy(features)
    rows["pixels of the patch"] = accuracy(lambda pictures: patches(pictures, shape.patch_size))
    rows["pixels of three by three patches"] = accuracy(lambda pictures: patches(pictures, shape.patch_size, around=1))
    rows["majority class"] = float(np.bincount(true_Q).max() / len(true_Q))
    print(f"{len(true_Q):,} patches of {len(parts[1][0]):,} pictures among {len(known_K):,}, right (%):\n")
    print("| features | nearest patch |\n|---|---|")
    for name, share in rows.items():
        print(f"| {name} | {100 * share:.1f} |")


if __name__ == "__main__":
    main()
