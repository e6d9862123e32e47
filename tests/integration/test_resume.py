"""A run that is stopped and resumed ends with the same bits as one that was left alone (killed: tests/fault)."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data2vec2.modalities import spec_of
from tests.integration.helpers import (
    SMALL,
    STOPPED,
    UPDATES,
    Child,
    assert_same_run,
    last_step,
    metrics,
    run_here,
    small_npz,
    start,
    uninterrupted,
    words,
)


def test_ctrl_c_saves_the_step_it_stopped_at(tmp_path: Path, small: Path, whole: Path) -> None:
    run = tmp_path / "run"
    child = start(run, small)
    child.until(lambda: last_step(run) >= 17)
    child.signal(signal.SIGINT)
    assert child.wait() == 75, child.output
    stopped = int(re.findall(r"interrupted at update (\d+)", child.output)[-1])
    assert (run / "checkpoints" / f"step-{stopped}" / "state.json").is_file()
    assert last_step(run) == stopped
    assert "--resume" in child.output
    assert start(run, small, "--resume").wait() == 0
    assert_same_run(run, whole, UPDATES)


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path, small: Path, whole: Path) -> None:
    run = tmp_path / "run"
    child = start(run, small)
    child.until(lambda: last_step(run) >= 10)
    with contextlib.suppress(ProcessLookupError):  # it has ended
        for _ in range(50):  # the first asks; the second may come after the loop has left, so that it is tried again
            child.signal(signal.SIGINT)
            time.sleep(0.002)
    code = child.wait()
    assert code == 130, child.output
    assert start(run, small, "--resume").wait() == 0
    assert_same_run(run, whole, UPDATES)


def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path: Path, small: Path, whole: Path) -> None:
    run = tmp_path / "run"
    child = start(run, small)
    child.until(lambda: last_step(run) >= 24)
    child.signal(signal.SIGTERM)
    assert child.wait() == 75
    newest, older = sorted(run.glob("checkpoints/step-*"), key=lambda path: -int(path.name[5:]))[:2]
    file = newest / "optimizer.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert start(run, small, "--resume").wait() == 0
    log = (run / "train.log").read_text()
    assert "skipped a damaged checkpoint" in log
    assert newest.name in log
    assert f"resuming from update {older.name[5:]}" in log
    assert_same_run(run, whole, UPDATES)


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_anew(tmp_path: Path, whole: Path, small: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    for file in run.glob("checkpoints/*/model.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])

    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "lock"}

    before = contents()
    child = start(run, small, "--resume")
    assert child.wait() == 1
    assert f"no checkpoint of {run} can be used" in child.output and "--overwrite" in child.output
    assert contents() == before


def test_other_data_is_refused(tmp_path: Path, small: Path) -> None:
    run, long = tmp_path / "run", ("--train.updates", "6000")  # it does not end before it is killed
    child = start(run, small, *long)
    child.until(lambda: last_step(run) >= 9)
    child.signal(signal.SIGKILL)
    child.wait()
    before = metrics(run)
    other = start(run, small_npz(tmp_path / "other.npz", 190), *long, "--resume")
    assert other.wait() == 1
    assert "have changed since the run started" in other.output
    assert "Traceback" not in other.output
    assert metrics(run) == before


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path, small: Path, whole: Path) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    child = start(run, small, "--resume")
    assert child.wait() == 0
    assert "finished at update 60" in child.output
    assert_same_run(run, whole, UPDATES)


def test_sigterm_to_the_command_itself(tmp_path: Path, small: Path, whole: Path) -> None:
    """With `python -m data2vec2`, as a user or a batch system starts it."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "data2vec2", "pretrain", "image_tiny", str(small), "--out", str(run), *STOPPED]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and last_step(run) < 20:
            time.sleep(0.01)
        process.terminate()
        message = process.communicate()[1]
    assert process.returncode == 75, message
    assert "Traceback" not in message
    child = Child(["pretrain", run / "config.yaml", small, "--out", run, "--resume"], tmp_path / "out")
    assert child.wait() == 0, child.output
    assert_same_run(run, whole, UPDATES)


def test_activations_may_be_checkpointed_on_resume(tmp_path: Path, small: Path) -> None:
    """With dropout and layer-drop, whose draws are made twice."""
    flags = words("--model.encoder.dropout 0.1 --model.encoder.attention-dropout 0.1 --model.encoder.layer-drop 0.3")
    expected, run = uninterrupted(tmp_path / "whole", small, *flags), tmp_path / "run"
    child = start(run, small, *flags)
    child.until(lambda: last_step(run) >= 20)
    child.signal(signal.SIGINT)
    assert child.wait() == 75, child.output
    child = start(run, small, *flags, "--resume", "--train.checkpoint-activations")
    assert child.wait() == 0, child.output
    assert "checkpoint_activations: true" in (run / "config.yaml").read_text()
    assert_same_run(run, expected, UPDATES)


def test_a_demo_goes_on_and_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = spec_of("image").demo
    assert shown
    monkeypatch.setitem(shown.evaluation, "max_samples", 20)
    run, flags = tmp_path / "runs" / "demo-image", [*SMALL, *words("--train.log-every 1 --train.eval-every 0")]
    for asked in ("--resume", "--overwrite"):
        assert run_here(["demo", asked]) == 2
        assert "there is no runs/demo-image to continue or replace" in " ".join(capsys.readouterr().err.split())
    child = Child(["demo", "--out", run, *flags, "--train.updates", "60"], tmp_path / "demo.out")
    child.until(lambda: last_step(run) >= 5)
    child.signal(signal.SIGINT)
    assert child.wait() == 75, child.output
    stopped = last_step(run)
    assert 5 <= stopped < 60 and not (run / "scores.json").exists()
    assert run_here(["demo", "--resume", *flags]) == 0
    assert f"resuming from update {stopped}\n" in capsys.readouterr().err
    assert [line["step"] for line in metrics(run)] == [*range(1, 61)] and (run / "scores.json").exists()
    assert run_here(["demo", "--overwrite", *flags, "--train.updates", "3"]) == 0
    assert [line["step"] for line in metrics(run)] == [1, 2, 3] and (run / "scores.json").exists()
    assert [path.name for path in run.parent.iterdir()] == ["demo-image"]
    assert run_here(["demo", "--resume", "--overwrite"]) == 2
    assert last_step(run) == 3
