"""How many processes read, and whether a run says that it waits for them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data2vec2.commands.flags import applied
from data2vec2.commands.pretrain import Pretraining
from data2vec2.commands.training import completed, quiet
from tests.integration.helpers import SMALL, jpeg_folder, run_here, words


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures that take much longer to read than a small model takes to learn from them."""
    root, generator = tmp_path_factory.mktemp("slow"), np.random.default_rng(0)
    for number in range(3):
        noise = generator.integers(256, size=(2500, 2500, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / f"{number}.png", compress_level=1)
    return root


def test_a_run_that_waits_for_data_says_so_once(slow: Path, tmp_path: Path) -> None:
    flags = words("--train.updates 5 --train.batch-size 8 --train.log-every 3 --data.workers 0 --data.val-fraction 0")
    run = tmp_path / "run"
    assert run_here(["pretrain", "image_tiny", slow, "--out", run, *SMALL, *flags, "--train.eval-every", 0]) == 0
    said = [line for line in (run / "train.log").read_text().splitlines() if "waiting for data" in line]
    assert len(said) == 1
    assert "since update 1 " in said[0]
    assert "by this process itself; more (--data.workers) help" in said[0]


def test_readers_are_as_many_as_the_model_needs(slow: Path, small: Path, tmp_path: Path) -> None:
    """All cores for large pictures and a small model, one for small pictures, none for arrays in memory."""
    flags = [*SMALL, *words("--train.batch-size 2 --data.val-fraction 0")]
    training, found = Pretraining(), []
    for data in (slow, small, jpeg_folder(tmp_path / "jpegs")):
        chosen = [*flags, *(words("--model.encoder.embed-dim 256") if data.name == "jpegs" else ())]
        config = training.started(applied(training.named("image_tiny"), chosen), [str(data)], quiet)
        found.append(completed(training, config, [str(data)], None, quiet, False)[0].config.data.workers)
    assert found == [os.cpu_count(), 0, 1]
