"""A tiny encoder of audio, and bundled recordings, for tests."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import torch

from data2vec2.config.model import ArchitectureConfig, EncoderConfig
from data2vec2.interop.folder import export_model
from data2vec2.modalities.audio import english_prompts
from data2vec2.modalities.audio.config import AudioConfig, AudioDataConfig
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.fields import build_encoder
from tests.integration.helpers import words

FLAGS = words(
    "--train.updates 12 --train.batch-size 12 --train.micro-batch 6 --train.log-every 1 --train.eval-every 6 "
    "--train.save-every 4 --train.precision float32 --train.device cpu --train.processes 1 --data.val-fraction 0.2 "
    "--data.max-seconds 5 --data.workers 0"
)


def tiny_encoder(folder: Path) -> Path:
    """An exported encoder of width 32, with random weights."""
    torch.manual_seed(7)
    shape = ArchitectureConfig(
        modality=AudioConfig(stem="mel", position_depth=2, position_groups=4),
        encoder=EncoderConfig(embed_dim=32, num_heads=2, prenet_depth=0, depth=2, norm_eps=1e-5),
    )
    export_model(build_encoder(shape), ModelInfo(model=shape, data=AudioDataConfig()), folder, "")
    return folder


def spoken_folder(path: Path, categories: tuple[str, ...] = ("digits",), train: int = 40, test: int = 10) -> Path:
    """Some of the bundled recordings, with their transcripts: folders train and test, in each a folder a category."""
    rows = list(csv.DictReader((english_prompts() / "metadata.csv").open(encoding="utf-8")))
    path.mkdir()
    kept = []
    for part, count in (("train", train), ("test", test)):
        for category in categories:
            kept += [row for row in rows if row["file_name"].startswith(f"{part}/{category}/")][:count]
    with (path / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(kept[0]))
        writer.writeheader()
        writer.writerows(kept)
    for row in kept:
        (path / row["file_name"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(english_prompts() / row["file_name"], path / row["file_name"])
    return path
