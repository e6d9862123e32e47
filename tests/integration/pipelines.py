"""Transformers' pipelines as a user calls them: in a process of its own that imports data2vec2 and trains nothing.

Or in an environment without data2vec2, which runs the code that stands beside the weights.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

Question = tuple[str, Path, Sequence[object]]
"""A pipeline's task, its model's folder, and what it is asked: files of pictures or sounds, or texts."""

ASK = """
import importlib.util, json, sys
alone = sys.argv[2:] == ["alone"]
if alone:
    assert importlib.util.find_spec("data2vec2") is None
else:
    import data2vec2
from transformers import pipeline
import soundfile
answers = []
for task, model, values in json.loads(sys.argv[1]):
    pipe = pipeline(task, model=model, device="cpu", trust_remote_code=alone)
    if "audio" in task or "speech" in task:
        values = [{"raw": soundfile.read(value, dtype="float32")[0], "sampling_rate": 16_000} for value in values]
    more = {"return_timestamps": "word"} if "speech" in task else {}
    answers.append([pipe(value, **more) for value in values])
print(json.dumps(answers, default=float))
assert ("data2vec2" in sys.modules) != alone
assert not {"torchaudio", "torchcodec", "pyctcdecode"} & set(sys.modules)
"""


def python_alone(folder: Path) -> Path:
    """Make an environment that has what this one has but for data2vec2; returns its Python."""
    venv.create(folder, symlinks=True)
    [packages] = folder.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")  # whose own .pth files are not read
    return folder / "bin" / "python"


def ask_each(*questions: Question, alone: Path | None = None) -> list[list]:
    """What each pipeline says of each of its values; all in one fresh process, of the Python `alone` if it is given."""
    asked = [(task, str(model), [str(value) for value in values]) for task, model, values in questions]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [str(alone or sys.executable), "-c", ASK, json.dumps(asked)]
    if alone:
        environment |= {"HF_MODULES_CACHE": str(alone.parents[1] / "code")}
        environment.pop("PYTHONPATH", None)
        command.append("alone")
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "not supported" not in done.stderr, done.stderr
    answers: list[list] = json.loads(done.stdout.splitlines()[-1])
    return answers


def ask(task: str, model: Path, *values: object) -> list:
    """What one pipeline says of each value."""
    return ask_each((task, model, values))[0]
