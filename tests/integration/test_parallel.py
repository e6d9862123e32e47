"""Two processes on one batch: the same learning as one, resumable to the bit, and nobody left over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.helpers import SMALL, Child, assert_same_run, last_step, metrics, words

UPDATES = 30
FLAGS = (
    *SMALL,
    *words(f"--train.updates {UPDATES} --train.log-every 1 --train.save-every 7 --train.eval-every 15"),
    *words("--train.batch-size 16 --train.processes 2"),
)


@pytest.fixture(scope="module")
def data(small: Path) -> Path:
    return small


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """An uninterrupted run of two processes."""
    run = tmp_path_factory.mktemp("whole") / "run"
    child = start(run, data)
    assert child.wait() == 0, child.output
    assert last_step(run) == UPDATES
    return run


def start(run: Path, data: Path, *flags: str) -> Child:
    return Child(["pretrain", "image_tiny", data, "--out", run, *FLAGS, *flags], run.with_suffix(".out"))


def helpers_of(run: Path) -> list[int]:
    """Process numbers of a run's helpers: what its first process has started from Python statements."""
    parent = (run / "lock").read_text()
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            command = status.with_name("cmdline").read_bytes()
        except OSError:  # it has ended meanwhile
            continue
        if lines["PPid"] == parent and b"help_run" in command:
            found.append(int(status.parent.name))
    return found


def alive(pid: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_two_processes_learn_as_one(tmp_path: Path, data: Path) -> None:
    """Without noise, whose numbers differ from process to process, only the order of sums is another."""
    flags = ("--model.decoder.noise-std", "0", "--train.micro-batch", "4")
    runs = []
    for processes in ("1", "2"):
        run = tmp_path / processes
        child = start(run, data, *flags, "--train.processes", processes)
        assert child.wait() == 0, child.output
        runs.append([line["loss"] for line in metrics(run) if "loss" in line])
    assert len(runs[0]) == UPDATES
    assert runs[0] != runs[1]  # there really were two
    assert runs[1] == pytest.approx(runs[0], rel=1e-3)
    assert runs[1][:3] == pytest.approx(runs[0][:3], rel=1e-5)


def test_whoever_dies_the_run_goes_on(tmp_path: Path, data: Path, whole: Path) -> None:
    """First the helper, which the run then says; then the run, whose helper ends; then somebody stops it."""
    run = tmp_path / "run"
    child = start(run, data)
    child.until(lambda: last_step(run) >= 9)
    os.kill(helpers_of(run)[0], signal.SIGKILL)
    assert child.wait() == 1, child.output
    assert "a helper process has ended" in child.output
    assert json.loads((run / "status.json").read_text())["state"] == "failed"
    child = start(run, data, "--resume")
    child.until(lambda: last_step(run) >= 16)
    helpers = helpers_of(run)
    assert len(helpers) == 1
    child.signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    child = start(run, data, "--resume")
    child.until(lambda: last_step(run) >= 23)
    child.signal(signal.SIGINT)
    assert child.wait() == 75, child.output
    child = start(run, data, "--resume")
    assert child.wait() == 0, child.output
    assert_same_run(run, whole, UPDATES)
    assert "Traceback" not in child.output
    assert not [pid for pid in helpers if alive(pid)]


def test_under_torchrun(tmp_path: Path, data: Path, whole: Path) -> None:
    run = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "data2vec2", "pretrain", "image_tiny", str(data), "--out", str(run), *FLAGS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("model: ") == 1
    assert_same_run(run, whole, UPDATES)


def test_a_batch_that_can_not_be_shared_is_refused(tmp_path: Path, data: Path) -> None:
    child = start(tmp_path / "run", data, "--train.processes", "3")
    assert child.wait() == 2
    assert "train.processes is 3" in child.output
    assert not (tmp_path / "run").exists()


def test_no_helper_is_left_over(whole: Path) -> None:
    time.sleep(0.5)
    assert not helpers_of(whole)
