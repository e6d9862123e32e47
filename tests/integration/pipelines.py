"""Transformers' pipelines as a user calls them: in a process of its own that imports data2vec2 and trains nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

Question = tuple[str, Path, Sequence[object]]
"""A pipeline's task, its model's folder, and what it is asked: files of pictures or sounds, or texts."""

ASK = """
import json, sys
import data2vec2
from transformers import pipeline
import soundfile
answers = []
for task, model, values in json.loads(sys.argv[1]):
    pipe = pipeline(task, model=model, device="cpu")
    if "audio" in task or "speech" in task:
        values = [{"raw": soundfile.read(value, dtype="float32")[0], "sampling_rate": 16_000} for value in values]
    more = {"return_timestamps": "word"} if "speech" in task else {}
    answers.append([pipe(value, **more) for value in values])
print(json.dumps(answers, default=float))
assert not {"torchaudio", "torchcodec", "pyctcdecode"} & set(sys.modules)
"""


def ask_each(*questions: Question) -> list[list]:
    """What each pipeline says of each of its values; all in one fresh process."""
    asked = [(task, str(model), [str(value) for value in values]) for task, model, values in questions]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", ASK, json.dumps(asked)], capture_output=True, text=True, env=offline)
    assert done.returncode == 0, done.stderr
    assert "not supported" not in done.stderr, done.stderr
    answers: list[list] = json.loads(done.stdout.splitlines()[-1])
    return answers


def ask(task: str, model: Path, *values: object) -> list:
    """What one pipeline says of each value."""
    return ask_each((task, model, values))[0]
