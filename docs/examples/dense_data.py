"""Write three small data sets with a class of each word, frame or pixel, made of what comes with the package.

    python docs/examples/dense_data.py words spoken masked

words: WordNet's explanations without their brackets; which words stood in these (tags B-ASIDE, I-ASIDE, O).
spoken: telephone prompts, and in which seconds somebody speaks.
masked: pictures of clothes, and masks of what they show.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from data2vec2.modalities.audio import english_prompts
from data2vec2.modalities.audio.phones import read_phones
from data2vec2.modalities.image import fashion_mnist
from data2vec2.modalities.text import wordnet_glosses


def write_words(folder: Path) -> None:
    """JSON lines with `tokens` and `tags`."""
    folder.mkdir(parents=True)
    for part in ("train", "test"):
        lines = []
        for text in pq.read_table(wordnet_glosses() / f"{part}.parquet")["text"].to_pylist():
            if not re.search(r"\([^()]+\)", text):
                continue
            tokens, tags, tag = [], [], "O"
            for piece in re.findall(r"[()]|[^\s()]+", text):
                if piece in "()":
                    tag = "B-ASIDE" if piece == "(" else "O"
                    continue
                tokens.append(piece)
                tags.append(tag)
                tag = "I-ASIDE" if tag != "O" else "O"
            lines.append(json.dumps({"tokens": tokens, "tags": tags}))
        (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_spoken(folder: Path) -> None:
    """Recordings, and metadata.jsonl with `segments`."""
    lines = []
    for name, alignment in read_phones(english_prompts() / "phones.csv").items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(english_prompts() / name, folder / name)
        segments: list[dict[str, float | str]] = []
        for start, end, phone in alignment:
            if phone != "SIL" and segments and segments[-1]["end"] == start:
                segments[-1]["end"] = end
            elif phone != "SIL":
                segments.append({"start": start, "end": end, "label": "speech"})
        lines.append(json.dumps({"file_name": name, "segments": segments}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_masked(folder: Path) -> None:
    """PNG files of the same names in `images` and `masks`, and classes.txt."""
    with np.load(fashion_mnist()) as arrays:
        for part, count in (("train", 2_000), ("test", 500)):
            for kind in ("images", "masks"):
                (folder / part / kind).mkdir(parents=True)
            for place, (pixels, label) in enumerate(zip(arrays[f"x_{part}"], arrays[f"y_{part}"], strict=True)):
                if place < count:
                    mask = np.where(pixels > 0, label + 1, 0).astype(np.uint8)
                    Image.fromarray(pixels).save(folder / part / "images" / f"{place:04}.png")
                    Image.fromarray(mask).save(folder / part / "masks" / f"{place:04}.png")
        (folder / "classes.txt").write_text("\n".join(["background", *arrays["classes"].tolist()]) + "\n")


if __name__ == "__main__":
    words, spoken, masked = map(Path, sys.argv[1:4])
    write_words(words)
    write_spoken(spoken)
    write_masked(masked)
