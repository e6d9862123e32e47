"""Runs that can't go well stop, say what to change, and leave no useless checkpoint."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.integration.helpers import SMALL, Child, last_step, metrics, run_here


@pytest.fixture(scope="module")
def data(small: Path) -> Path:
    return small


def assert_finite_checkpoints(run: Path) -> None:
    for file in run.glob("checkpoints/*/*.safetensors"):
        for name, tensor in load_file(file).items():
            assert torch.isfinite(tensor).all(), f"{file}: {name}"


@pytest.mark.parametrize(("log_every", "save_every"), [(1, 1), (100, 1), (1, 100), (7, 5)])
def test_a_diverged_run_stops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: Path, log_every: int, save_every: int
) -> None:
    """Whether a log line or a checkpoint comes first."""
    run = tmp_path / "run"
    flags = "--optim.lr 1e6 --optim.warmup-updates 2 --optim.clip-norm 1e9 --train.updates 100 --train.batch-size 8"
    every = f"--train.log-every {log_every} --train.save-every {save_every} --train.keep 100"
    code = run_here(["pretrain", "image_tiny", data, "--out", run, *SMALL, *flags.split(), *every.split(), "--json"])
    out, err = capsys.readouterr()
    assert code == 3, err
    outcome = json.loads(out)
    assert outcome["state"] == "diverged"
    assert "--optim.lr" in outcome["message"]
    assert outcome["message"] in " ".join(err.split())
    assert "Traceback" not in err
    assert_finite_checkpoints(run)
    status = json.loads((run / "status.json").read_text())
    assert (status["state"], status["step"]) == ("diverged", outcome["step"])
    assert not (run / "exported").exists()
    assert (run / "report.html").exists()
    assert "diverged at update" in (run / "train.log").read_text()

    again = run_here(["pretrain", "image_tiny", data, "--out", run, *SMALL, "--resume"])
    assert again == 3  # the same numbers again
    assert "Traceback" not in capsys.readouterr().err


def test_a_collapsed_run_stops(tmp_path: Path, capsys: pytest.CaptureFixture[str], data: Path) -> None:
    """Without decoupling teacher and student (decay 0) and at a high rate, all outputs become the same."""
    run = tmp_path / "run"
    flags = (
        "--ema.start 0 --ema.end 0 --optim.lr 0.05 --optim.warmup-updates 1 --train.updates 400 --train.batch-size 16 "
        "--model.masks.mask-ratio 0.9 --train.log-every 5 --train.eval-every 0"
    )
    code = run_here(["pretrain", "image_tiny", data, "--out", run, *SMALL, *flags.split(), "--json"])
    out, err = capsys.readouterr()
    assert code == 3, metrics(run)[-1]
    outcome = json.loads(out)
    assert outcome["state"] == "collapsed"
    assert "hardly depend on the input" in outcome["message"]
    assert "--optim.lr" in outcome["message"]
    assert "Traceback" not in err
    assert outcome["step"] < 400
    assert not (run / "exported").exists()
    assert_finite_checkpoints(run)


def test_a_reader_that_the_system_kills(tmp_path: Path, data: Path) -> None:
    """As it does where shared memory is full (bus error) or all memory."""
    run = tmp_path / "run"
    flags = ["--train.updates", "100000", "--train.log-every", "1", "--data.workers", "1"]
    child = Child(["pretrain", "image_tiny", data, "--out", run, *SMALL, *flags], tmp_path / "output")
    child.until(lambda: last_step(run) >= 3)
    for pid in Path(f"/proc/{child.process.pid}/task/{child.process.pid}/children").read_text().split():
        if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(int(pid), signal.SIGBUS)
    assert child.wait() == 1
    assert "data2vec2: DataLoader worker (" in child.output, child.output
    assert "--data.workers 0" in child.output, child.output
    assert "Traceback" not in child.output, child.output
    assert json.loads((run / "status.json").read_text())["state"] == "failed"
