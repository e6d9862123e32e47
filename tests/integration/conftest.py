"""What several files of tests start from: each thing is made once, by the first process of pytest-xdist that asks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from data2vec2.config.model import ArchitectureConfig, EncoderConfig
from data2vec2.interop.folder import export_model
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.fields import build_encoder
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig
from tests.integration.helpers import FINETUNED, PRETRAINED, run_here, small_npz, uninterrupted

Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """A path by its name, which exists when it is returned. A test that changes what is there copies it first."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"
    root.mkdir(exist_ok=True)

    def made(name: str, make: Callable[[Path], object]) -> Path:
        path, unfinished = root / name, root / "unfinished" / name
        with FileLock(root / f"{name}.lock"):
            if not path.exists():
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.parent.mkdir(exist_ok=True)
                make(unfinished)
                unfinished.rename(path)
        return path

    return made


@pytest.fixture(scope="session")
def small(once: Once) -> Path:
    """200 bundled pictures, in equal parts of ten classes."""
    return once("small.npz", small_npz)


@pytest.fixture(scope="session")
def parted(once: Once) -> Path:
    """The same to train on, and 100 others to test on."""
    return once("parted.npz", partial(small_npz, tested=100))


@pytest.fixture(scope="session")
def whole(once: Once, small: Path) -> Path:
    """A run with the flags `STOPPED` that nothing stops."""
    return once("whole", lambda folder: uninterrupted(folder, small)) / "run"


@pytest.fixture(scope="session")
def pretrained(once: Once, small: Path) -> Path:
    """A finished run of pre-training on the small pictures, with the flags `PRETRAINED`."""

    def make(run: Path) -> None:
        assert run_here(["pretrain", "image_tiny", small, "--out", run, *PRETRAINED]) == 0

    return once("pretrained", make)


@pytest.fixture(scope="session")
def untrained(once: Once) -> Path:
    """An exported encoder of pictures with random weights, which takes a few milliseconds a step."""

    def make(folder: Path) -> None:
        torch.manual_seed(7)
        shape = ArchitectureConfig(
            modality=ImageConfig(image_size=28, patch_size=7, num_channels=1),
            encoder=EncoderConfig(embed_dim=16, num_heads=2, prenet_depth=1, depth=2),
        )
        info = ModelInfo(model=shape, data=ImageDataConfig(mean=(0.29,), std=(0.35,), eval_crop=1.0))
        export_model(build_encoder(shape), info, folder, "")

    return once("untrained", make)


@pytest.fixture(scope="session")
def tuned(once: Once, untrained: Path, parted: Path) -> Path:
    """A finished run of fine-tuning of that encoder on the parted pictures, with the flags `FINETUNED`."""

    def make(run: Path) -> None:
        assert run_here(["finetune", "classify", untrained, parted, "--out", run, *FINETUNED]) == 0

    return once("tuned", make)
