"""One dataclass a verb: signature, docstring and --help come from it; flags set fields; errors have their exit codes."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
import typing
from typing import Any

import pytest
import tyro

import data2vec2
from data2vec2 import api
from data2vec2.cli import VERBS, main
from data2vec2.commands import evaluate, flags
from data2vec2.config import FinetuneConfig, RunConfig
from data2vec2.errors import UsageError, UserError
from data2vec2.modalities import get_finetune_recipe, get_recipe
from tests.integration.helpers import run_here, words

FUNCTIONS = {**{verb: kind for verb, (kind, _) in VERBS.items()}, "evaluate_recognizer": VERBS["evaluate"][0]}
LINES = {
    "demo": "",
    "pretrain": "image_tiny DATA --out RUN",
    "finetune": "classify MODEL DATA --out RUN",
    "evaluate": "MODEL DATA",
    "embed": "MODEL DATA --out FILE",
    "predict": "MODEL FILE",
    "transcribe": "MODEL FILE",
    "convert": "SOURCE OUT",
    "export": "MODEL OUT",
    "report": "RUN",
    "tokenizer": "train DATA --out FOLDER",
    "doctor": "",
}
"""The fewest words that each verb takes."""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_option_is_described_and_an_argument_of_the_function(name: str) -> None:
    kind, function = FUNCTIONS[name], getattr(api, name)
    described = api.descriptions(kind)
    assert sorted(described) == sorted(field.name for field in dataclasses.fields(kind))
    assert all(text.endswith((".", ")")) for text in described.values())
    assert list(inspect.signature(function).parameters) == list(described)
    said, _, arguments = function.__doc__.partition("\n\nArgs:\n")
    assert said and arguments == "".join(f"    {option}: {text}\n" for option, text in described.items())
    assert name == "tokenizer" or getattr(data2vec2, name) is function


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_the_same_options(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")  # so that no description is broken
    assert run_here([verb, "--help"]) == 0
    shown, _, fields = capsys.readouterr().out.partition("\nFields of the configuration")
    assert bool(fields) == (verb in ("demo", "pretrain", "finetune"))
    kind = VERBS[verb][0]
    expected = {"--help", "--json"} | ({"--out", "--overwrite"} if verb == "predict" else set())
    for name, text in api.descriptions(kind).items():
        marks = getattr(typing.get_type_hints(kind, include_extras=True)[name], "__metadata__", ())
        if tyro.conf.Suppress not in marks:
            assert text in shown, name
            other = {key: next(filter(None, (getattr(mark, key, None) for mark in marks)), None) for key in ("name", "metavar")}
            positional = tyro.conf.Positional in marks
            expected.add(other["metavar"] if positional else f"--{(other['name'] or name).replace('_', '-')}")
    assert set(re.findall(r"^│ (?:-h, )?(--[a-z-]+|[A-Z]+|\{[a-z,]+\})", shown, re.MULTILINE)) == expected
    assert set(re.findall(r"[A-Z]+", LINES[verb].replace("--out ", ""))) - {"RUN", "FOLDER", "FILE"} <= {
        *re.findall("[A-Z]+", shown)
    }
