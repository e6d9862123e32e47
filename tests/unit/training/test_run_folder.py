"""Who may write to a run folder, and what is read back from it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from data2vec2.errors import UserError
from data2vec2.files import WriteError
from data2vec2.training.run import RunFolder

HOLD = """
import os, sys, time
from pathlib import Path
from data2vec2.training.run import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    if os.fork() == 0:  # as a reader process, which outlives a killed run for some seconds
        print(os.getpid(), flush=True)
        time.sleep(60)
        os._exit(0)
    time.sleep(60)
"""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def make_run(run: RunFolder) -> None:
    run.checkpoints.mkdir(parents=True)
    (run.path / "config.yaml").write_text("recipe: image_tiny\n")


def test_a_new_or_empty_folder_is_fine(run: RunFolder) -> None:
    run.check(resume=False, overwrite=False)
    assert not run.path.exists()
    run.path.mkdir()
    run.check(resume=False, overwrite=False)
    (run.path / "lock").write_text("1")  # of a run that was refused before it began
    run.check(resume=False, overwrite=False)
    run.check(resume=False, overwrite=True)


def test_a_folder_with_a_run(run: RunFolder) -> None:
    make_run(run)
    with pytest.raises(UserError, match=r"already holds a run; --resume continues it, --overwrite deletes it"):
        run.check(resume=False, overwrite=False)
    run.check(resume=True, overwrite=False)
    run.check(resume=False, overwrite=True)


def test_a_folder_with_something_else_is_never_deleted(run: RunFolder) -> None:
    run.path.mkdir()
    (run.path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="is not empty; give another folder"):
        run.check(resume=False, overwrite=False)
    with pytest.raises(UserError, match="--overwrite only deletes runs"):
        run.check(resume=False, overwrite=True)
    with pytest.raises(UserError, match="nothing to resume"):
        run.check(resume=True, overwrite=False)


def test_nothing_to_resume_and_a_file(run: RunFolder) -> None:
    with pytest.raises(UserError, match="nothing to resume"):
        run.check(resume=True, overwrite=False)
    run.path.write_text("x")
    for flags in ((False, False), (True, False), (False, True)):
        with pytest.raises(UserError, match="is a file"):
            run.check(resume=flags[0], overwrite=flags[1])


def test_clear_leaves_the_lock_alone_and_follows_no_link(run: RunFolder, tmp_path: Path) -> None:
    make_run(run)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    (run.path / "link").symlink_to(outside, target_is_directory=True)
    with run.locked():
        run.clear()
        assert [path.name for path in run.path.iterdir()] == ["lock"]
    assert (outside / "kept").exists()


@pytest.mark.skipif(os.name == "nt", reason="forks")
def test_a_second_process_is_refused_and_a_killed_one_is_not_waited_for(run: RunFolder) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(run.path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        orphan = int(holder.stdout.readline())
        try:
            with (
                pytest.raises(UserError, match=f"in use by process {holder.pid}; wait for it or stop it"),
                run.locked(),
            ):
                pass
            holder.kill()
            holder.wait()
            with run.locked():
                assert (run.path / "lock").read_text() == str(os.getpid())
        finally:
            os.kill(orphan, signal.SIGKILL)


def test_a_line_that_was_cut_short_is_left_out(run: RunFolder) -> None:
    run.path.mkdir()
    assert run.read_metrics() == []
    lines = [{"step": step, "loss": step / 3} for step in (1, 2, 3)]
    for line in lines:
        run.append_metrics(line)
    assert run.read_metrics() == lines
    whole = run.metrics_path.read_text()
    start = whole.rindex('{"step": 3')
    for end in range(start, len(whole) - 1):
        run.metrics_path.write_text(whole[:end])
        assert run.read_metrics() == lines[:2]


def test_cutting_metrics_drops_what_a_resumed_run_writes_again(run: RunFolder) -> None:
    run.path.mkdir()
    lines: list[dict[str, float]] = [
        {"step": 10, "loss": float("inf")},
        {"step": 20, "loss": 0.1},
        {"step": 20, "val_knn": 0.5},
        {"step": 30},
    ]
    for line in lines:
        run.append_metrics(line)
    with run.metrics_path.open("a") as file:
        file.write('{"step": 3')
    assert run.cut_metrics(20) == lines[:3]
    assert run.read_metrics() == lines[:3]
    assert run.metrics_path.read_text().count("\n") == 3
    assert run.cut_metrics(-1) == []
    assert run.read_metrics() == []


def test_json_and_log(run: RunFolder) -> None:
    run.path.mkdir()
    run.write_json("status.json", {"state": "finished"})
    assert json.loads((run.path / "status.json").read_text()) == {"state": "finished"}
    said: list[str] = []
    log = run.logger(said.append)
    log("one")
    log("two")
    assert said == ["one", "two"]
    assert [line.split()[-1] for line in (run.path / "train.log").read_text().splitlines()] == said
    assert not list(run.path.glob(".*"))


def test_what_a_killed_process_left_goes_when_the_next_has_the_lock(run: RunFolder) -> None:
    left = [".exported.1a2b3c4d.tmp", ".exported.1a2b3c4d.old.tmp", ".exported.old-123", ".status.json.tmp"]
    left += ["checkpoints/.step-7.1a2b3c4d.tmp", "best/.step-7.1a2b3c4d.tmp"]
    make_run(run)
    for name in left:
        (run.path / name).mkdir(parents=True)
        (run.path / name / "model.safetensors").write_text("x")
    (run.path / ".status.json.tmp" / "model.safetensors").rename(run.path / ".report.html.tmp")
    (run.path / "tb.tmp").write_text("not ours")
    run.check(resume=True, overwrite=False)
    assert (run.path / left[0]).exists(), "it may be of a process that lives"
    with run.locked():
        assert {path.name for path in run.path.iterdir()} == {"best", "checkpoints", "config.yaml", "lock", "tb.tmp"}
        assert not [*(run.path / "best").iterdir(), *run.checkpoints.iterdir()]


@pytest.mark.parametrize(
    "odd",
    [
        "{", "[1, 2]", "7", "null", '{"loss": 1.0}', '{"step": "3"}', '{"step": true}', '{"step": 2.5}',
        '{"step": 3, "loss": "low"}', '{"step": 3, "loss": [1]}', '{"step": 3, "n": ' + "9" * 400 + "}",
        '{"step": 3, "n": ' + "9" * 5000 + "}", "[" * 100_000, "\x00\xff\ufffd",
    ],
    ids=lambda text: text[:24],
)  # fmt: skip
def test_lines_that_are_no_figures_are_left_out_and_named(run: RunFolder, odd: str) -> None:
    run.path.mkdir()
    said: list[str] = []
    run.logger(said.append)
    lines: list[dict[str, float]] = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("inf")}]
    texts = [json.dumps(lines[0]), odd, json.dumps(lines[1])]
    run.metrics_path.write_bytes("".join(f"{text}\n" for text in texts).encode("latin1", "replace"))
    assert run.read_metrics() == lines
    assert said == [f"{run.metrics_path}: what is no line of figures is left out: line 2"]
    assert run.cut_metrics(1) == lines[:1]


def test_lines_wait_for_a_folder_that_can_be_written(run: RunFolder, tmp_path: Path) -> None:
    run.path.mkdir()
    said: list[str] = []
    log = run.logger(said.append)
    run.append_metrics({"step": 1})
    run.path.rename(tmp_path / "gone")
    for step in (2, 3):
        run.append_metrics({"step": step})
    log("goes on")
    assert [line for line in said if "metrics" in line] == [
        f"can't write {run.metrics_path}: No such file or directory; its lines wait in memory, and the run goes on"
    ]
    assert sum("train.log" in line for line in said) == 1
    with pytest.raises(WriteError, match=r"can't write .*metrics.jsonl: No such file"):
        run.finish_lines()
    (tmp_path / "gone").rename(run.path)
    run.append_metrics({"step": 4})
    log("ends")
    assert run.read_metrics() == [{"step": step} for step in (1, 2, 3, 4)]
    logged = (run.path / "train.log").read_text()
    assert [said.count(f"{run.path / name} has the lines that waited") for name in ("metrics.jsonl", "train.log")] == [
        1,
        1,
    ]
    assert logged.count("can't write") == 1 and logged.index("goes on") < logged.index("ends")


def test_lines_that_wait_when_a_run_ends_are_written(run: RunFolder, tmp_path: Path) -> None:
    """There is room again, but no further line that would take them along."""
    run.path.mkdir()
    run.append_metrics({"step": 1})
    run.path.rename(tmp_path / "gone")
    run.append_metrics({"step": 2})
    (tmp_path / "gone").rename(run.path)
    run.finish_lines()
    assert run.read_metrics() == [{"step": 1}, {"step": 2}]
