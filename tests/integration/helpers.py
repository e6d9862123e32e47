"""Command lines as tests run them: in this process, or in one of its own that can be killed."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from data2vec2.cli import main
from data2vec2.modalities.image import fashion_mnist


def words(text: str) -> tuple[str, ...]:
    """The words of a command line."""
    return tuple(text.split())


SMALL = words(
    "--model.encoder.embed-dim 16 --model.encoder.num-heads 2 --model.encoder.depth 2 --model.targets.average-layers 2 "
    "--model.decoder.dim 16 --model.decoder.depth 2 --train.precision float32 --train.device cpu --train.processes 1"
)
"""Flags of a model that takes a few milliseconds a step."""
PRETRAINED = (*SMALL, *words("--train.updates 12 --train.log-every 1 --train.save-every 5 --train.batch-size 16"))
"""Of the run that the fixture `pretrained` is."""
FINETUNED = words(
    "--train.updates 30 --train.batch-size 16 --train.log-every 1 --train.eval-every 10 --train.save-every 7 "
    "--train.precision float32 --train.device cpu --train.processes 1 --data.val-fraction 0.2"
)
"""Of the run that the fixture `tuned` is."""
UPDATES = 60
STOPPED = (*SMALL, *words(f"--train.updates {UPDATES} --train.log-every 1 --train.save-every 7 --train.eval-every 25"))
"""Of runs that are stopped, and of the fixture `whole`: every sixth batch (32 of 200 pictures) spans two epochs."""

# Importing takes seconds; children forked from a server that has imported everything start at once.
PRELOADED = [
    *(f"data2vec2.{name}" for name in ("commands.demo", "commands.finetune", "modalities.transformers")),
    *(f"data2vec2.modalities.{kind}.tools" for kind in ("image", "audio", "text")),
    *("torch._dynamo", "torch.utils.tensorboard", "sklearn.linear_model", "sklearn.manifold", "sklearn.neighbors"),
    "tests.integration.helpers",
]
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(PRELOADED)


def small_npz(path: Path, count: int = 200, tested: int = 0) -> Path:
    """Bundled pictures and labels to train on, and others to test on, in equal parts of every class."""
    parts = {}
    with np.load(fashion_mnist()) as arrays:
        for part, number in (("train", count), ("test", tested)):
            if number:
                y = arrays[f"y_{part}"]
                chosen = np.sort(np.concatenate([np.flatnonzero(y == label)[: number // 10] for label in range(10)]))
                parts |= {f"x_{part}": arrays[f"x_{part}"][chosen], f"y_{part}": y[chosen]}
    np.savez(path, **parts)
    return path


def jpeg_folder(path: Path, count: int = 100) -> Path:
    """Bundled pictures as JPEG files, a folder for each class."""
    with np.load(fashion_mnist()) as arrays:
        x, y = arrays["x_train"][:count], arrays["y_train"][:count]
    for place, (pixels, label) in enumerate(zip(x, y, strict=True)):
        folder = path / f"class{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{place:03}.jpg", quality=95)
    return path


def run_here(arguments: Sequence[object]) -> int:
    """Exit code of a command line that runs in this process."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1


class Child:
    """A command line in a process of its own; `output` is what it has written to stdout and stderr together."""

    def __init__(self, arguments: Sequence[object], log: Path) -> None:
        self.log = log
        self.process: ForkServerProcess = _SERVER.Process(
            target=_child, args=([str(argument) for argument in arguments], log, dict(os.environ))
        )
        self.process.start()

    @property
    def output(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def signal(self, number: int) -> None:
        if self.process.pid and self.process.is_alive():
            os.kill(self.process.pid, number)

    def wait(self, timeout: float = 240) -> int:
        """The exit code; minus the signal's number for a process that died of one."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            pytest.fail(f"still running after {timeout} s:\n{self.output}")
        return self.process.exitcode

    def until(self, condition: Callable[[], bool], timeout: float = 240, pause: float = 0.005) -> None:
        """Wait for a condition, or for the end of the process, looking every `pause` seconds."""
        limit = time.monotonic() + timeout
        while self.process.is_alive() and not condition():
            if time.monotonic() > limit:
                self.process.kill()
                pytest.fail(f"waited {timeout} s in vain:\n{self.output}")
            time.sleep(pause)


def start(run: Path, data: Path, *flags: object) -> Child:
    """A run with the flags `STOPPED` and others."""
    return Child(["pretrain", "image_tiny", data, "--out", run, *STOPPED, *flags], run.with_suffix(".out"))


def uninterrupted(folder: Path, data: Path, *flags: object) -> Path:
    """Such a run from beginning to end, in a folder of its own in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    run = folder / "run"
    child = start(run, data, *flags)
    assert child.wait() == 0, child.output
    assert last_step(run) == UPDATES
    return run


def _child(arguments: list[str], log: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)  # that of the server is of when it began
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    torch.set_num_threads(1)
    sys.exit(run_here(arguments))


def metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what differs from clock to clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    clocks = ("elapsed_s", "samples_per_s", "units_per_s", "waited_for_data")
    return [{k: v for k, v in line.items() if k not in clocks} for line in lines]


def scores(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "scores.json").read_text())
    return found


def embedded(*arguments: object) -> list[dict[str, Any]]:
    """Rows that a command line writes, which ends with the file."""
    assert run_here(["embed", *arguments]) == 0
    rows: list[dict[str, Any]] = pq.read_table(arguments[-1]).to_pylist()
    return rows


def write_csv(path: Path, rows: Sequence[tuple[Any, ...]], header: Sequence[str] = ("text", "label")) -> Path:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def last_step(run: Path) -> int:
    """The last update in metrics.jsonl, which may be in the middle of being written."""
    path = run / "metrics.jsonl"
    lines = path.read_bytes().rsplit(b"\n", 2)[:-1] if path.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


def assert_same_run(run: Path, expected: Path, step: int) -> None:
    """Metrics and every tensor of checkpoint and export are the same, bit for bit."""
    assert metrics(run) == metrics(expected)
    for name in ("model", "optimizer"):
        file = Path("checkpoints") / f"step-{step}" / f"{name}.safetensors"
        assert_same_tensors(run / file, expected / file)
    exported = Path("exported") / "model.safetensors"
    assert_same_tensors(run / exported, expected / exported)


def assert_same_tensors(file: Path, expected_file: Path) -> None:
    found, expected = load_file(file), load_file(expected_file)
    assert found.keys() == expected.keys()
    assert expected
    different = [name for name in expected if not torch.equal(found[name], expected[name])]
    assert not different, f"{file}: {different} differ"


def files(folder: Path) -> set[str]:
    """Every path below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
