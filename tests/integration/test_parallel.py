"""Two processes on one batch: the same learning as one, resumable to the bit, and nobody left over."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from data2vec2.commands.fitting import placed
from data2vec2.config.run import TrainConfig
from data2vec2.modalities.audio import english_prompts
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
        if lines["PPid"] == parent and b"assist" in command:
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


def test_a_run_goes_on_with_any_number_of_processes_sharded_or_not(tmp_path: Path, data: Path) -> None:
    """They take 5, 6 or 8 of 16 pictures, or have parts of the model, and learn as one."""
    flags = words("--model.decoder.noise-std 0 --optim.lr 1e-4 --train.log-every 1 --train.eval-every 10")
    alone = tmp_path / "alone"
    child = start(alone, data, *flags, "--train.processes", "1")
    assert child.wait() == 0, child.output
    run, stages = tmp_path / "run", ("1", "2 --train.shard", "3", "2 --train.no-shard", "3 --train.shard", "1")
    for place, how in enumerate(stages):
        last = place == len(stages) - 1
        child = start(run, data, *flags, "--train.processes", *words(how), *(["--resume"] if place else []))
        child.until(lambda: last_step(run) >= 5 * (place + 1))  # noqa: B023
        if not last:
            child.signal(signal.SIGINT)
        assert child.wait() == (0 if last else 75), child.output
    expected, found = ([line["loss"] for line in metrics(path) if "loss" in line] for path in (alone, run))
    assert len(found) == UPDATES
    assert found != expected, "there really were several"
    assert found == pytest.approx(expected, rel=1e-5)
    expected, found = ([line["val_knn"] for line in metrics(path) if "val_knn" in line] for path in (alone, run))
    assert found == expected and len(found) == 4


def test_what_a_machine_can_not_do_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said = list[str]()
    alone = placed(TrainConfig(device="cpu", processes=1, shard=True), said.append)
    assert (alone.processes, said.pop()) == (1, "plan: --train.shard has no effect with one process")
    assert placed(TrainConfig(device="cpu", processes=3, shard=True), said.append).processes == 3 and not said
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert placed(TrainConfig(device="cpu", processes=3), said.append).processes == 2
    assert said == ["plan: 2 processes, not 3 as --train.processes says: torchrun has started so many"]


def test_speech_is_sharded_too_with_less_memory_and_blocks_left_out(tmp_path: Path) -> None:
    """Recomputed activations change nothing; blocks that layer-drop leaves out are the same ones in all processes."""
    data = Path(shutil.copytree(english_prompts() / "train" / "letters", tmp_path / "data"))
    flags = words(
        "--train.updates 8 --train.log-every 1 --train.eval-every 0 --train.batch-size 16 --train.processes 2"
    )
    flags = (*SMALL, *flags, *words("--model.decoder.noise-std 0 --optim.lr 1e-4 --data.workers 0"))

    def losses(name: str, more: str) -> list[float]:
        run = tmp_path / name
        child = Child(
            ["pretrain", "audio_mel_tiny", data, "--out", run, *flags, *words(more)], tmp_path / f"{name}.out"
        )
        assert child.wait() == 0, child.output
        return [line["loss"] for line in metrics(run) if "loss" in line]

    expected = losses("ddp", "--model.encoder.layer-drop 0")
    sharded = losses("sharded", "--model.encoder.layer-drop 0 --train.shard --train.checkpoint-activations")
    assert len(expected) == 8 and sharded == pytest.approx(expected, rel=1e-5)
    dropped = losses("dropped", "--model.encoder.layer-drop 0.5 --train.shard")
    assert len(dropped) == 8 and dropped != pytest.approx(expected, rel=1e-5)


def test_whoever_dies_the_run_goes_on(tmp_path: Path, data: Path, whole: Path) -> None:
    """First a reader of the helper, then the helper, which the run says; then the run itself; then it is stopped."""
    run = tmp_path / "run"
    child = start(run, data, "--data.workers", "1")
    child.until(lambda: last_step(run) >= 4)
    os.kill(psutil.Process(helpers_of(run)[0]).children()[-1].pid, signal.SIGKILL)
    assert child.wait() == 1, child.output
    assert re.search(r"process 1 \(.+\) has ended: DataLoader worker \(pid.* \d+\)", child.output)
    assert "Traceback" not in child.output
    resume = ["--resume"] if list(run.glob("checkpoints/*")) else ["--overwrite"]
    child = start(run, data, *resume)
    child.until(lambda: last_step(run) >= 9)
    os.kill(helpers_of(run)[0], signal.SIGKILL)
    assert child.wait() == 1, child.output
    assert re.search(r"process 1 \(.+, process ID \d+\) has ended without a word", child.output)
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


def test_a_helper_that_is_killed_before_it_is_connected(tmp_path: Path, data: Path) -> None:
    """A soak found a run that waited for such a one."""
    run = tmp_path / "run"
    child = start(run, data)
    child.until(lambda: (run / "lock").exists() and bool(helpers_of(run)), pause=0.0005)
    os.kill(helpers_of(run)[0], signal.SIGKILL)
    assert child.wait(60) == 1, child.output
    assert "process 1 has ended (killed by SIGKILL); --resume continues from the last checkpoint" in child.output
    assert "Traceback" not in child.output
    assert json.loads((run / "status.json").read_text())["state"] == "failed"


def test_under_torchrun(tmp_path: Path, data: Path, whole: Path) -> None:
    run = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "data2vec2", "pretrain", "image_tiny", str(data), "--out", str(run), *FLAGS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("model: ") == 1
    assert_same_run(run, whole, UPDATES)


def started_by_hand(run: Path, data: Path, rank: int, port: int, *flags: str) -> subprocess.Popen[str]:
    """A process as a scheduler starts it on a machine of its own."""
    place = {
        "RANK": str(rank),
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
    }
    command = [
        sys.executable,
        "-m",
        "data2vec2",
        "pretrain",
        "image_tiny",
        str(data),
        "--out",
        str(run),
        *FLAGS,
        *flags,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **place}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def test_on_two_machines_a_signal_stops_all_and_each_says_why(tmp_path: Path, data: Path, whole: Path) -> None:
    run = tmp_path / "run"
    for flags, expected in (((), 75), (("--resume",), 0)):
        with socket.create_server(("localhost", 0)) as free:
            port = free.getsockname()[1]
        both = [started_by_hand(run, data, rank, port, *flags) for rank in (0, 1)]
        while not flags and last_step(run) < 5 and all(one.poll() is None for one in both):
            time.sleep(0.02)
        if not flags:
            for one in both:
                one.send_signal(signal.SIGTERM)
        said = [one.communicate(timeout=300)[1] for one in both]
        assert [one.returncode for one in both] == [expected] * 2, said
        assert flags or all("interrupted at update" in of_one for of_one in said), said
        assert "Traceback" not in "".join(said)
    assert_same_run(run, whole, UPDATES)


def test_a_process_whose_run_is_killed_says_so_and_ends(tmp_path: Path, data: Path) -> None:
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    run = tmp_path / "run"
    first, second = (started_by_hand(run, data, rank, port, "--train.updates", "2000") for rank in (0, 1))
    while last_step(run) < 5 and first.poll() is None:
        time.sleep(0.02)
    first.kill()
    said = second.communicate(timeout=30)[1]
    assert second.returncode == 1
    assert "has ended without a word" in said and "Traceback" not in said, said
    first.communicate()


def test_torchrun_with_the_run_s_exit_code(tmp_path: Path, data: Path, whole: Path) -> None:
    run = tmp_path / "run"
    torchrun = [sys.executable, "-m", "data2vec2.torchrun", "--standalone", "--nproc-per-node", "2", "-m", "data2vec2"]
    command = [*torchrun, "pretrain", "image_tiny", str(data), "--out", str(run), *FLAGS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as stopped:
        while last_step(run) < 5 and stopped.poll() is None:
            time.sleep(0.02)
        stopped.send_signal(signal.SIGTERM)
        said = stopped.communicate(timeout=300)[1]
    assert stopped.returncode == 75, said
    done = subprocess.run([*command, "--resume"], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert_same_run(run, whole, UPDATES)
    assert subprocess.run(command, env=environment, capture_output=True, timeout=300).returncode == 1, "a folder in use"


def test_a_batch_that_can_not_be_shared_is_refused(tmp_path: Path, data: Path) -> None:
    child = start(tmp_path / "run", data, "--train.processes", "17")
    assert child.wait() == 2
    assert "train.processes is 17" in child.output
    assert not (tmp_path / "run").exists()


def test_no_helper_is_left_over(whole: Path) -> None:
    time.sleep(0.5)
    assert not helpers_of(whole)
