"""A run that is killed at any moment and resumed ends with the same bits as one that was left alone."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.integration.helpers import (
    UPDATES,
    Child,
    assert_same_run,
    jpeg_folder,
    last_step,
    metrics,
    start,
    uninterrupted,
    words,
)


def kill_and_resume(run: Path, data: Path, kills: int, *flags: str, workers: Sequence[int] = (0,)) -> None:
    """Kill a run so many times at random moments, always starting it again at once, then let it finish.

    `workers` read the data, after each start another number.
    """
    chance = chance_said()
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


def chance_said() -> random.Random:
    seed = random.randrange(10**6)
    print(f"moments of the kills come from seed {seed}")
    return random.Random(seed)


def goes_on(run: Path) -> list[str]:
    """The flag with which a run that was killed is started again."""
    return ["--resume"] if (run / "config.yaml").exists() else []


def test_ten_kills(tmp_path: Path, small: Path, whole: Path) -> None:
    kill_and_resume(tmp_path / "run", small, 10)
    assert_same_run(tmp_path / "run", whole, UPDATES)
    scored = [line["step"] for line in metrics(tmp_path / "run") if "val_knn" in line]
    assert scored == [0, 25, 50, 60]  # once before the first update, and not again on resume


@pytest.mark.fault
def test_kills_with_gradient_accumulation(tmp_path: Path, small: Path) -> None:
    flags = words("--train.micro-batch 8 --train.log-every 2")  # some checkpoints fall between two lines of metrics
    expected = uninterrupted(tmp_path / "whole", small, *flags)
    kill_and_resume(tmp_path / "run", small, 4, *flags)
    assert_same_run(tmp_path / "run", expected, UPDATES)


@pytest.mark.fault
def test_kills_with_workers_on_a_folder_of_jpegs(tmp_path: Path) -> None:
    """What is expected was read without workers, so that their number is shown to change nothing either."""
    data = jpeg_folder(tmp_path / "jpegs")
    expected = uninterrupted(tmp_path / "whole", data, "--data.workers", "0")
    kill_and_resume(tmp_path / "run", data, 2, workers=(2, 0, 1))
    assert_same_run(tmp_path / "run", expected, UPDATES)


@pytest.mark.fault
def test_kills_at_any_moment_from_start_to_end(tmp_path: Path, small: Path, whole: Path) -> None:
    """By the clock: while files are opened, before the first update, in updates, checkpoints, export and report."""
    run, chance, last = tmp_path / "run", chance_said(), whole_seconds(tmp_path, small)
    for _ in range(40):
        child = start(run, small, *goes_on(run))
        child.process.join(chance.random() * last)
        child.signal(signal.SIGKILL)
        assert child.wait() in (0, -signal.SIGKILL), child.output
        assert "Traceback" not in child.output
    child = start(run, small, *goes_on(run))
    assert child.wait() == 0, child.output
    assert_same_run(run, whole, UPDATES)
    assert not list(run.rglob(".*"))


def whole_seconds(tmp_path: Path, data: Path) -> float:
    """How long a run takes that nothing stops."""
    before = time.monotonic()
    uninterrupted(tmp_path / "timed", data)
    return time.monotonic() - before


def test_a_kill_while_a_checkpoint_is_written(tmp_path: Path, small: Path, whole: Path) -> None:
    run = tmp_path / "run"
    caught = 0
    for attempt in range(8):
        child = start(run, small, *goes_on(run))
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
    child = start(run, small, "--resume")
    assert child.wait() == 0, child.output
    assert not list(run.glob("checkpoints/.step-*.tmp"))
    assert_same_run(run, whole, UPDATES)


@pytest.mark.parametrize("name", ["exported", "report.html"])
def test_a_kill_while_the_end_of_a_run_is_written(tmp_path: Path, small: Path, whole: Path, name: str) -> None:
    """All of its updates are saved then, so that only the end is written again, and leftovers are gone."""
    run = tmp_path / "run"
    for _ in range(20):
        child = start(run, small, *goes_on(run))
        child.until(lambda: any(run.glob(f".{name}.*tmp")), pause=0.0002)
        child.signal(signal.SIGKILL)
        if child.wait() and any(run.glob(f".{name}.*tmp")):
            break
    else:
        pytest.fail(f"no kill hit {name} while it was written")
    child = start(run, small, "--resume")
    assert child.wait() == 0, child.output
    assert "only export and report are rewritten" in child.output
    assert not list(run.rglob(".*"))
    assert_same_run(run, whole, UPDATES)
