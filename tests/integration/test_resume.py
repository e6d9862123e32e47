"""A run that is killed and resumed ends with the same bits as one that was left alone."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.integration.helpers import (
    SMALL,
    Child,
    assert_same_run,
    jpeg_folder,
    last_step,
    metrics,
    small_npz,
    words,
)

UPDATES = 60
FLAGS = (*SMALL, *words(f"--train.updates {UPDATES} --train.log-every 1 --train.save-every 7 --train.eval-every 25"))


@pytest.fixture(scope="module")
def data(small: Path) -> Path:
    """200 pictures: of batches of 32, every sixth spans two epochs."""
    return small


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """The uninterrupted run."""
    return uninterrupted(tmp_path_factory.mktemp("whole"), data)


def uninterrupted(folder: Path, data: Path, *flags: str) -> Path:
    run = folder / "run"
    child = start(run, data, *flags)
    assert child.wait() == 0, child.output
    assert last_step(run) == UPDATES
    return run


def start(run: Path, data: Path, *flags: str) -> Child:
    return Child(["pretrain", "image_tiny", data, "--out", run, *FLAGS, *flags], run.with_suffix(".out"))


def kill_and_resume(run: Path, data: Path, kills: int, *flags: str, workers: Sequence[int] = (0,)) -> None:
    """Kill a run so many times at random moments, always starting it again at once, then let it finish.

    `workers` read the data, after each start another number.
    """
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    print(f"moments of the kills come from seed {seed}")
    stride = UPDATES / (kills + 1)

    def begin(number: int) -> Child:
        read = ("--data.workers", str(workers[number % len(workers)]))
        return start(run, data, *flags, *read, *(["--resume"] if number else []))

    for number in range(kills):
        child = begin(number)
        aim = int(stride * (number + chance.random())) + 1
        child.until(lambda: last_step(run) >= aim)  # noqa: B023
        time.sleep(chance.random() * 0.05)
        child.signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL, child.output
    child = begin(kills)
    assert child.wait() == 0, child.output


def test_ten_kills(tmp_path: Path, data: Path, whole: Path) -> None:
    kill_and_resume(tmp_path / "run", data, 10)
    assert_same_run(tmp_path / "run", whole, UPDATES)
    scored = [line["step"] for line in metrics(tmp_path / "run") if "val_knn" in line]
    assert scored == [0, 25, 50, 60]  # once before the first update, and not again on resume


def test_kills_with_gradient_accumulation(tmp_path: Path, data: Path) -> None:
    flags = words("--train.micro-batch 8 --train.log-every 2")  # some checkpoints fall between two lines of metrics
    (tmp_path / "whole").mkdir()
    expected = uninterrupted(tmp_path / "whole", data, *flags)
    kill_and_resume(tmp_path / "run", data, 2, *flags)
    assert_same_run(tmp_path / "run", expected, UPDATES)


def test_kills_with_workers_on_a_folder_of_jpegs(tmp_path: Path) -> None:
    """What is expected was read without workers, so that their number is shown to change nothing either."""
    data = jpeg_folder(tmp_path / "jpegs")
    (tmp_path / "whole").mkdir()
    expected = uninterrupted(tmp_path / "whole", data, "--data.workers", "0")
    kill_and_resume(tmp_path / "run", data, 2, workers=(2, 0, 1))
    assert_same_run(tmp_path / "run", expected, UPDATES)


def test_a_kill_while_a_checkpoint_is_written(tmp_path: Path, data: Path, whole: Path) -> None:
    run = tmp_path / "run"
    caught = 0
    for attempt in range(8):
        child = start(run, data, *(["--resume"] if (run / "config.yaml").exists() else []))
        first = attempt * 7
        child.until(lambda: last_step(run) > first)  # noqa: B023
        child.until(lambda: any(run.glob("checkpoints/.step-*.tmp")), pause=0.0005)
        child.signal(signal.SIGKILL)
        if child.wait() == 0:
            break
        caught += any(run.glob("checkpoints/.step-*.tmp"))
        if caught == 2:
            break
    assert caught, "no kill hit a checkpoint that was being written"
    child = start(run, data, "--resume")
    assert child.wait() == 0, child.output
    assert not list(run.glob("checkpoints/.step-*.tmp"))
    assert_same_run(run, whole, UPDATES)


def test_ctrl_c_saves_the_step_it_stopped_at(tmp_path: Path, data: Path, whole: Path) -> None:
    run = tmp_path / "run"
    child = start(run, data)
    child.until(lambda: last_step(run) >= 17)
    child.signal(signal.SIGINT)
    assert child.wait() == 75, child.output
    stopped = int(re.findall(r"interrupted at update (\d+)", child.output)[-1])
    assert (run / "checkpoints" / f"step-{stopped}" / "state.json").is_file()
    assert last_step(run) == stopped
    assert "--resume" in child.output
    assert start(run, data, "--resume").wait() == 0
    assert_same_run(run, whole, UPDATES)


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path, data: Path, whole: Path) -> None:
    run = tmp_path / "run"
    child = start(run, data)
    child.until(lambda: last_step(run) >= 10)
    with contextlib.suppress(ProcessLookupError):  # it has ended
        for _ in range(50):  # the first asks; the second may come after the loop has left, so that it is tried again
            child.signal(signal.SIGINT)
            time.sleep(0.002)
    code = child.wait()
    assert code == 130, child.output
    assert start(run, data, "--resume").wait() == 0
    assert_same_run(run, whole, UPDATES)


def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path: Path, data: Path, whole: Path) -> None:
    run = tmp_path / "run"
    child = start(run, data)
    child.until(lambda: last_step(run) >= 24)
    child.signal(signal.SIGTERM)
    assert child.wait() == 75
    newest, older = sorted(run.glob("checkpoints/step-*"), key=lambda path: -int(path.name[5:]))[:2]
    file = newest / "optimizer.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert start(run, data, "--resume").wait() == 0
    log = (run / "train.log").read_text()
    assert "damaged checkpoint passed over" in log
    assert newest.name in log
    assert f"going on from update {older.name[5:]}" in log
    assert_same_run(run, whole, UPDATES)


def test_other_data_is_refused(tmp_path: Path, data: Path) -> None:
    run = tmp_path / "run"
    child = start(run, data)
    child.until(lambda: last_step(run) >= 9)
    child.signal(signal.SIGKILL)
    child.wait()
    before = metrics(run)
    other = start(run, small_npz(tmp_path / "other.npz", 190), "--resume")
    assert other.wait() == 1
    assert "data has changed" in other.output
    assert "Traceback" not in other.output
    assert metrics(run) == before


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path, data: Path, whole: Path) -> None:
    before = metrics(whole), (whole / "exported" / "model.safetensors").read_bytes()
    child = Child(["pretrain", "image_tiny", data, "--out", whole, *FLAGS, "--resume"], tmp_path / "out")
    assert child.wait() == 0
    assert "finished at update 60" in child.output
    assert (metrics(whole), (whole / "exported" / "model.safetensors").read_bytes()) == before


def test_sigterm_to_the_command_itself(tmp_path: Path, data: Path, whole: Path) -> None:
    """With `python -m data2vec2`, as a user or a batch system starts it."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "data2vec2", "pretrain", "image_tiny", str(data), "--out", str(run), *FLAGS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and last_step(run) < 20:
            time.sleep(0.01)
        process.terminate()
        message = process.communicate()[1]
    assert process.returncode == 75, message
    assert "Traceback" not in message
    child = Child(["pretrain", run / "config.yaml", data, "--out", run, "--resume"], tmp_path / "out")
    assert child.wait() == 0, child.output
    assert_same_run(run, whole, UPDATES)
