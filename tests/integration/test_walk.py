"""The walk in CONTRIBUTING.md is what really calls what."""

import re
import traceback
from pathlib import Path

import pytest

import data2vec2
from data2vec2.method import losses
from data2vec2.modalities.image.reader import ImageReader
from tests.integration.helpers import SMALL, jpeg_folder, run_here, words

SOURCE = Path(data2vec2.__file__).parent
WALK = Path(__file__).parents[2] / "CONTRIBUTING.md"


def on_the_stack() -> list[str]:
    """Our files on the call stack, each once, from the command down."""
    files = [Path(frame.filename) for frame in traceback.extract_stack()]
    names = [file.relative_to(SOURCE).as_posix() for file in files if file.is_relative_to(SOURCE)]
    return list(dict.fromkeys(names))


def test_the_steps_are_the_call_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, list[str]] = {}

    def noted(owner: object, name: str) -> None:
        original = getattr(owner, name)

        def call(*args: object, **kwargs: object) -> object:
            found[name] = on_the_stack()
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    noted(losses, "regression")
    noted(ImageReader, "crop")
    flags = words("--train.updates 1 --train.micro-batch 4 --train.batch-size 4 --data.workers 0 --train.eval-every 0")
    pictures, run = jpeg_folder(tmp_path / "pictures"), tmp_path / "run"
    assert run_here(["pretrain", "image_tiny", pictures, "--out", run, *SMALL, *flags]) == 0

    section = WALK.read_text("utf-8").split("## From the command to the loss")[1].split("\n## ")[0]
    rows = re.findall(r"^\| \d+ \| (.+?) \|", section, flags=re.MULTILINE)
    assert len(rows) <= 8
    steps = [re.findall(r"`([^`]+)`", row) for row in rows]
    walked = [file for step in steps for file in step]
    assert found["regression"] == [file for file in walked[:-1] if file != "data/batch.py"]
    down = walked[: walked.index("data/batch.py") + 1]
    assert found["crop"] == [
        *down[:-1],
        "tasks/__init__.py",
        "data/batch.py",
        "data/reader.py",
    ]  # the base of `ImageReader`
