"""Speed of reading pictures: `python benchmarks/loader.py --training-rate 350`.

Makes JPEG pictures of about 500 pixels, keeps them as a folder, as Parquet and as a .tar file, and counts how many
random 224-pixel crops a second come out of the training loader, with none, one and two workers. Prints a Markdown
table. A rate above that of training (pictures/s, see benchmarks/throughput.py) is enough.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from data2vec2.data.batch import Batches, iterate
from data2vec2.modalities import get_recipe
from data2vec2.modalities.tools import tools_of
from data2vec2.tasks.pretrain import Masks

BATCH = 16


def make_pictures(count: int) -> list[bytes]:
    """JPEG files of 500 x 375 pixels: parts of a photograph."""
    photo = Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg").convert("RGB")
    generator, pictures = np.random.default_rng(0), []
    for _ in range(count):
        width = int(generator.integers(300, photo.width))
        height = width * 3 // 4
        left, top = generator.integers(photo.width - width + 1), generator.integers(photo.height - height + 1)
        box = (int(left), int(top), int(left) + width, int(top) + height)
        file = io.BytesIO()
        photo.resize((500, 375), Image.Resampling.BICUBIC, box).save(file, "JPEG", quality=92)
        pictures.append(file.getvalue())
    return pictures


def make_sources(root: Path, pictures: list[bytes]) -> dict[str, Path]:
    """The same pictures in every kind of source."""
    folder = root / "folder"
    folder.mkdir()
    with tarfile.open(root / "shard.tar", "w") as tar:
        for place, content in enumerate(pictures):
            (folder / f"{place:05}.jpg").write_bytes(content)
            tar.add(folder / f"{place:05}.jpg", f"{place:05}.jpg")
    pq.write_table(pa.table({"image": pictures}), root / "table.parquet")
    return {"folder": folder, "parquet": root / "table.parquet", "tar": root / "shard.tar"}


def measure(source: Path, workers: int, steps: int) -> float:
    """Pictures a second, without the start of the workers."""
    recipe, tools = get_recipe("image_base"), tools_of("image")
    reader = tools.reader(tools.open(source, recipe, print).train, recipe.model, recipe.data, seed=0)
    batches = Batches(reader, reader.order(BATCH), [Masks(recipe.model.masks, reader)])
    prepared = 1 + 4 * workers  # while the first one was waited for
    iterator = iterate(batches, 0, prepared + steps, workers=workers)
    for _ in range(prepared):
        next(iterator)
    started = time.perf_counter()
    for _ in iterator:
        pass
    return steps * BATCH / (time.perf_counter() - started)


def main() -> None:
    """Print a row for each source."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=400, help="how many different pictures to make")
    parser.add_argument("--steps", type=int, default=15, help=f"batches of {BATCH} for each number")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="reader processes")
    parser.add_argument("--training-rate", type=float, help="pictures a second that training takes, to compare with")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pictures = make_pictures(args.pictures)
        os.environ["XDG_CACHE_HOME"] = folder
        sources = make_sources(Path(folder), pictures)
        mean = sum(map(len, pictures)) / len(pictures)
        print(f"pictures/s at 224 px, from JPEG files of 500 x 375 pixels and {mean / 1000:.0f} kB\n")
        print("| source |" + "".join(f" {count} workers |" for count in args.workers))
        print("|---|" + "---|" * len(args.workers))
        for name, path in sources.items():
            rates = [measure(path, workers, args.steps) for workers in args.workers]
            shown = [f" {rate:.0f}{_share(rate, args.training_rate)} |" for rate in rates]
            print(f"| {name} |" + "".join(shown), flush=True)


def _share(rate: float, training: float | None) -> str:
    return f" ({rate / training:.1f} x training)" if training else ""


if __name__ == "__main__":
    main()
