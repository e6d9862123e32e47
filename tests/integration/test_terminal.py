"""What a terminal shows: help, hints, completion, the bar, the next command; and how a second Ctrl-C ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

import data2vec2
from data2vec2.cli import VERBS
from data2vec2.commands import doctor
from data2vec2.training.progress import TrainingBar
from tests.integration.helpers import PRETRAINED, SMALL, jpeg_folder, last_step, run_here, words

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = run_here(arguments)
    out, err = capsys.readouterr()
    return code, out, " ".join(err.split())


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "help") == said(capsys, "--help")
    assert said(capsys, "help", "doctor") == said(capsys, "doctor", "--help")
    assert said(capsys, "-v")[1] == f"data2vec2 {data2vec2.__version__}\n"


@pytest.mark.parametrize(
    ("flag", "ours"),
    [
        ("--epochs", "--train.epochs"),
        ("--lr", "--optim.lr"),
        ("--learning_rate", "--optim.lr"),
        ("--batch-size", "--train.batch-size"),
        ("--seed", "--train.seed"),
        ("--gpus", "--train.processes"),
        ("--device", "--train.device"),
        ("--ou", "--out"),
        ("--train.update", "--train.updates"),
    ],
)
def test_flags_that_are_meant(flag: str, ours: str, capsys: pytest.CaptureFixture[str], small: Path) -> None:
    for command in (["pretrain", "image_tiny", small], ["demo"], ["finetune", "classify", "model", small]):
        if flag != "--seed" or command[0] != "finetune":  # which has --seeds and means train.seed all the same
            code, out, err = said(capsys, *command, "--out", "run", flag, "1")
            assert (code, out, err) == (2, "", f"data2vec2: unknown flag {flag}; did you mean {ours}?")


def test_commands_that_are_meant(capsys: pytest.CaptureFixture[str]) -> None:
    for word, verb in {
        "pretain": "pretrain",
        "train": "pretrain",
        "evalute": "evaluate",
        "completions": "completion",
    }.items():
        assert said(capsys, word) == (2, "", f"data2vec2: unknown command {word!r}; did you mean {verb}?")
    assert "there are demo, recipes" in said(capsys, "xyz")[2]


BASH = """
source data2vec2.bash
for line in "$@"; do
    COMP_WORDS=($line); [[ $line == *" " ]] && COMP_WORDS+=(""); COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 )); _data2vec2
    echo "${COMPREPLY[*]}"
done
complete -p data2vec2
"""


def test_a_shell_completes_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for shell in ("bash", "zsh", "fish"):
        code, script, _ = said(capsys, "completion", shell)
        assert code == 0
        Path(f"data2vec2.{shell}").write_text(script)
    asked = {
        "data2vec2 pre": "pretrain predict",
        "data2vec2 pretrain image_ti": "image_tiny",
        "data2vec2 pretrain image_tiny --train.updat": "--train.updates",
        "data2vec2 pretrain image_tiny pictu": "",  # names of files
        "data2vec2 finetune ": "classify patches ctc frames regress tokens answers",
        "data2vec2 evaluate run data --max": "--max-samples",
        "data2vec2 help do": "doctor",
    }
    done = subprocess.run(["bash", "-c", BASH, "bash", *asked], capture_output=True, text=True, check=True)
    *found, registered = done.stdout.splitlines()
    assert dict(zip(asked, found, strict=True)) == asked
    assert "-o default" in registered
    for shell in ("zsh", "fish"):
        script = Path(f"data2vec2.{shell}").read_text()
        assert all(verb in script for verb in VERBS)
        if subprocess.run(["which", shell], capture_output=True, check=False).returncode == 0:
            subprocess.run([shell, "-n", f"data2vec2.{shell}"], check=True)
    code, _, err = said(capsys, "completion", "csh")
    assert (code, err) == (2, "data2vec2: name one shell: data2vec2 completion bash|zsh|fish")


def test_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], small: Path, tuned: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["pretrain", "image_tiny", small, "--out", "a run", *PRETRAINED]
    again = f"next: data2vec2 pretrain image_tiny {small} --out 'a run' {' '.join(PRETRAINED)}"
    assert said(capsys, *command, "--dry-run")[2].endswith(again)
    evaluated = f"next: data2vec2 evaluate 'a run' {small} (without labels: data2vec2 embed 'a run' {small} --out"
    assert evaluated in said(capsys, *command)[2]
    assert said(capsys, "inspect", small)[2].endswith(f"data2vec2 pretrain image_tiny {small} --out runs/pretrained")
    pictures = jpeg_folder(tmp_path / "pictures", 3)
    assert said(capsys, "predict", tuned, pictures)[2] == f"next: data2vec2 export {tuned} OUT"
    assert said(capsys, "predict", tuned, pictures, "--json")[2] == ""


def test_the_bar_of_a_run(tmp_path: Path, small: Path) -> None:
    """On a terminal: passes, updates, loss, rate, time left and memory."""
    import pty

    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "data2vec2",
        "pretrain",
        "image_tiny",
        small,
        "--out",
        tmp_path / "run",
        *PRETRAINED,
    ]
    environment = ENVIRONMENT | {"TERM": "xterm", "COLUMNS": "160", "LINES": "30"}
    with subprocess.Popen(list(map(str, command)), stderr=theirs, stdout=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 1 << 16)
            except OSError:  # the other side is closed
                break
    os.close(ours)
    assert process.returncode == 0
    for part in ("training", "12/12 updates", "left", "loss ", "pictures a second", "pass 1.0 of 1.0", "GiB"):
        assert part.encode() in shown.replace(b"\x1b[0m", b""), part


def test_a_bar_goes_on_where_a_run_does() -> None:
    bar = TrainingBar(100)
    bar.update(bar.task, completed=60)
    time.sleep(0.01)
    bar.update(bar.task, completed=61)
    time.sleep(0.01)
    bar.update(bar.task, completed=62)
    (task,) = bar.tasks
    assert task.speed is not None and task.speed < 200, "the updates of before took no time of now"


def test_a_second_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    pictures, run = jpeg_folder(tmp_path / "pictures", 40), tmp_path / "run"
    flags = [*SMALL, *words("--train.updates 500 --train.log-every 1 --train.eval-every 0 --data.workers 1")]
    flags += words("--train.batch-size 2048 --train.micro-batch 128")  # steps that last longer than a pause of 20 ms
    command = [sys.executable, "-m", "data2vec2", "pretrain", "image_tiny", pictures, "--out", run, *flags]
    with subprocess.Popen(list(map(str, command)), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and last_step(run) < 1:
            time.sleep(0.01)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        message = process.communicate(timeout=120)[1]
    assert process.returncode == 130, message
    assert "leaked" not in message and "Traceback" not in message, message
    assert message.splitlines()[-1] == "data2vec2: stopped"


def test_doctor_names_extras_places_and_recipes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert set(doctor.EXTRAS) == set(project["project"]["optional-dependencies"]) - {"docs", "dev"}
    monkeypatch.setitem(doctor.EXTRAS, "lm", ("no_such_module", "for language models"))
    found = json.loads(said(capsys, "doctor", "--device", "cpu", "--json")[1])
    assert found["extra lm"] == "missing, for language models: pip install 'data2vec2[lm]'"
    assert found["extra vision"] == "installed"
    assert found["free disk here (GiB)"] > 0 and found["free disk in the cache (GiB)"] > 0
    assert ("free disk in /dev/shm (GiB)" in found) == Path("/dev/shm").exists()
    (fitting,) = (value for name, value in found.items() if name.startswith("recipes that fit"))
    assert fitting.startswith("image_tiny ")
    assert "image_huge14 " not in fitting or found["free memory (GiB)"] > 10  # with its optimiser
