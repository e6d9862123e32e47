"""Whatever signal comes at whatever moment: a sentence, a code that says what is saved, and the same bits on resume."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from data2vec2.training.checkpoint import list_checkpoints
from tests.integration.helpers import STOPPED, UPDATES, Child, assert_same_run, last_step, start

ASKING = [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
OTHERS = [pytest.param(number, marks=pytest.mark.fault) for number in ASKING if number != signal.SIGHUP]


def assert_goes_on(run: Path, data: Path, whole: Path) -> None:
    child = start(run, data, "--resume")
    assert child.wait() == 0, child.output
    assert_same_run(run, whole, UPDATES)
    assert not list(run.rglob(".*"))


@pytest.mark.parametrize("number", [signal.SIGHUP, *OTHERS])
def test_a_signal_saves_the_step_it_stopped_at(
    tmp_path: Path, small: Path, whole: Path, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    child = start(run, small)
    child.until(lambda: last_step(run) >= 17)
    child.signal(number)
    assert child.wait() == 75, child.output
    stopped = int(re.findall(r"interrupted at update (\d+)", child.output)[-1])
    assert list_checkpoints(run / "checkpoints")[0].name == f"step-{stopped}"
    assert "Traceback" not in child.output
    assert_goes_on(run, small, whole)


@pytest.mark.parametrize("number", [*ASKING, signal.SIGINT])
def test_a_signal_before_the_first_update(tmp_path: Path, small: Path, number: signal.Signals) -> None:
    """Nothing is there to go on from, so that the code is the signal's; of a resumed run it is 75."""
    run = tmp_path / "run"
    child = start(run, small, "--train.eval-every", "0")
    child.until(lambda: "data:" in child.output)
    child.signal(number)
    code = child.wait()
    assert "Traceback" not in child.output
    if code == 75:  # it was in the first update already
        assert list_checkpoints(run / "checkpoints")
    else:
        assert code == 128 + number
        assert child.output.splitlines()[-1] == f"data2vec2: stopped by {number.name}"
        assert not list_checkpoints(run / "checkpoints")


def test_a_signal_while_a_run_is_resumed(tmp_path: Path, small: Path, whole: Path) -> None:
    run = tmp_path / "run"
    child = start(run, small)
    child.until(lambda: last_step(run) >= 10)
    child.signal(signal.SIGKILL)
    child.wait()
    saved = list_checkpoints(run / "checkpoints")
    again = Child(["pretrain", "image_tiny", small, "--out", run, *STOPPED, "--resume"], tmp_path / "again")
    again.until(lambda: "data:" in again.output)
    again.signal(signal.SIGTERM)
    assert again.wait() == 75, again.output
    assert "Traceback" not in again.output
    assert re.search(r"--resume (goes on from update 7|continues here)", again.output)
    assert set(saved) <= set(list_checkpoints(run / "checkpoints"))
    assert_goes_on(run, small, whole)


@pytest.mark.fault
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", [".exported", ".report.html"])
def test_a_signal_while_the_end_is_written(
    tmp_path: Path, small: Path, whole: Path, moment: str, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    for _ in range(20):
        child = start(run, small, *(["--resume"] if run.exists() else []))
        child.until(lambda: any(run.glob(f"{moment}.*tmp")), pause=0.0002)
        child.signal(number)
        if (code := child.wait()) == 75:
            break
        assert code == 0, child.output
    else:
        pytest.fail(f"no signal came while {moment} was written")
    assert "Traceback" not in child.output
    assert not list(run.rglob(".*"))
    assert f"stopped by {number.name}; --resume goes on from update {UPDATES}" in child.output
    assert_goes_on(run, small, whole)


@pytest.mark.fault
def test_sigterm_and_then_one_ctrl_c_is_no_second_ctrl_c(tmp_path: Path, small: Path, whole: Path) -> None:
    run = tmp_path / "run"
    child = start(run, small)
    child.until(lambda: last_step(run) >= 10)
    child.signal(signal.SIGTERM)
    child.signal(signal.SIGINT)
    assert child.wait() == 75, child.output
    assert_goes_on(run, small, whole)


@pytest.mark.fault
def test_a_terminal_that_is_closed(tmp_path: Path, small: Path, whole: Path) -> None:
    """A real one: nothing can be printed any more, and the run still saves; under nohup it goes on to the end."""
    for first, code in (([], 75), (["nohup"], 0)):
        run = tmp_path / f"run{code}"
        given = ["pretrain", "image_tiny", str(small), "--out", str(run), *STOPPED, "--data.workers", "1"]
        command = [sys.executable, "-m", "data2vec2", *given]
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [*first, *command], stdin=slave, stdout=slave, stderr=slave, start_new_session=True, cwd=tmp_path,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # SIGHUP comes when it ends
        )  # fmt: skip
        os.close(slave)
        os.set_blocking(master, False)
        while process.poll() is None and last_step(run) < 10:
            try:
                os.read(master, 1 << 16)
            except OSError:  # nothing yet; or no one writes there, under nohup
                time.sleep(0.01)
        os.close(master)
        assert process.wait(120) == code
        log = (run / "train.log").read_text()
        assert ("interrupted at update" in log) == (code == 75)
        assert "Traceback" not in log
        if code:
            assert_goes_on(run, small, whole)
        else:
            assert_same_run(run, whole, UPDATES)


@pytest.mark.parametrize("number", ASKING)
def test_other_verbs_leave_nothing_behind(tmp_path: Path, tuned: Path, parted: Path, number: signal.Signals) -> None:
    out = tmp_path / "features" / "out.csv"
    child = Child(["embed", tuned, parted, "--out", out], tmp_path / "out")
    child.until(lambda: out.parent.exists(), pause=0.0002)
    child.signal(number)
    assert (code := child.wait()) in (0, 128 + number), child.output
    assert "Traceback" not in child.output
    assert [path.name for path in out.parent.iterdir()] == ([] if code else ["out.csv"])


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("number", [*ASKING, signal.SIGINT])
def test_a_signal_before_anything_is_imported(tmp_path: Path, number: signal.Signals, resume: bool) -> None:
    """Of a job that is stopped as it starts; here while the first library is imported."""
    (tmp_path / "tyro.py").write_text(f"import os, time\nos.kill(os.getpid(), {int(number)})\ntime.sleep(60)\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "data2vec2", "pretrain", "image_tiny", "x", "--out", str(tmp_path / "run")]
    command += ["--resume"] if resume else []
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, timeout=60)
    assert done.returncode == (75 if resume else 128 + number)
    assert done.stderr == f"data2vec2: stopped by {number.name}\n"
