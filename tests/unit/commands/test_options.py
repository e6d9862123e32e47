"""One dataclass a verb makes signature, docstring and --help; flags set fields; errors have their exit codes."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest
import tyro

import data2vec2
from data2vec2 import api
from data2vec2.cli import VERBS, main
from data2vec2.commands import evaluate, flags, options
from data2vec2.config.run import FinetuneConfig, RunConfig
from data2vec2.errors import UsageError, UserError
from data2vec2.modalities import get_finetune_recipe, get_recipe, run_config
from tests.integration.helpers import run_here, words

FUNCTIONS = {
    **{verb: kind for verb, (kind, _) in VERBS.items()},
    **dict.fromkeys(("evaluate_recognizer", "evaluate_classifier", "evaluate_dense"), VERBS["evaluate"][0]),
}
LINES = {
    "demo": "",
    "recipes": "",
    "estimate": "image_tiny DATA",
    "pretrain": "image_tiny DATA --out RUN",
    "finetune": "classify MODEL DATA --out RUN",
    "evaluate": "MODEL DATA",
    "inspect": "DATA",
    "embed": "MODEL DATA --out FILE",
    "predict": "MODEL FILE",
    "transcribe": "MODEL FILE",
    "convert": "SOURCE OUT",
    "export": "MODEL OUT",
    "report": "RUN",
    "tokenizer": "train DATA --out FOLDER",
    "doctor": "",
    "bench": "",
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
def test_help_names_the_same_options(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    kind, expected = VERBS[verb][0], {"--help", "--json"}
    expected |= {"--out", "--overwrite"} if verb == "predict" else set()  # a function returns them, and writes no file
    assert run_here([verb, "--help"]) == 0
    shown, _, fields = capsys.readouterr().out.partition("\nFields of the configuration")
    assert bool(fields) == (verb in ("bench", "demo", "estimate", "pretrain", "finetune"))
    for flag in re.findall(r"--[a-z0-9-]+\.[a-z0-9.-]*[a-z0-9]", fields):
        assert flags.split([flag], FinetuneConfig if verb == "finetune" else RunConfig) == ([flag], [])
    letters = re.sub(r"[│\s]", "", shown)  # lines are broken anywhere
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        marks = getattr(hint, "__metadata__", ())
        if name == "_" or tyro.conf.Suppress in marks:
            continue
        assert "".join(api.descriptions(kind)[name].split()) in letters
        called, metavar = (
            next(filter(None, (getattr(mark, key, None) for mark in marks)), "") for key in ("name", "metavar")
        )
        expected.add(metavar if tyro.conf.Positional in marks else f"--{called or name.replace('_', '-')}")
    assert set(re.findall(r"^[│ ] (?:-h, )?(--[a-z0-9-]+|[A-Z]+|\{[a-z,]+\})", shown, re.MULTILINE)) == expected


def test_help_imports_no_torch() -> None:
    program = """
import contextlib, io, sys
from data2vec2.cli import VERBS, main

lines = ["--help", "--version", *(f"{verb} --help" for verb in VERBS), "pretrain text_tiny --help"]
for line in (*lines, "finetune ctc --help", "finetune regress --help", "demo audio --help"):
    try:
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            code = main(line.split())
    except SystemExit as stop:
        code = stop.code
    assert not code and shown.getvalue(), line
    assert not {"torch", "transformers"} & set(sys.modules), line
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr


def test_a_function_takes_lists_as_the_command_line_has_them() -> None:
    assert options.Evaluate("model", "data", probes="knn,linear").probes == ("knn", "linear")
    assert options.Pretrain("image_tiny", "data", "out", track="wandb").track == ("wandb",)


@pytest.mark.parametrize(
    ("given", "labels"), [("1, 5", (1, 5)), ("1e3", (1000,)), ([1, 5], (1, 5)), (5, (5,)), ("", ())]
)
def test_numbers_of_labels(given: Any, labels: tuple[int, ...]) -> None:
    assert options.Evaluate("model", "data", labels=given).labels == labels


def test_the_configuration_is_shown_by_a_dry_run_alone() -> None:
    with pytest.raises(UsageError, match="--show-config goes with --dry-run"):
        options.Pretrain("image_tiny", "data", "out", show_config=True)


def test_words_that_are_no_numbers() -> None:
    words: Any = "1,few"
    with pytest.raises(UsageError, match="--labels is '1,few': 'few' is not a whole number"):
        options.Evaluate("model", "data", labels=words)


def test_flags_are_the_words_that_set_fields() -> None:
    line = (
        "image_tiny DATA --train.updates 20 --out RUN --data.mean 0.5 0.25 --data.std 0.5 0.5 --resume "
        "--model.masks.no-inverse --optim.lr=0.5 --init-from OTHER --train.batch_size 8"
    )
    found, others = flags.split(words(line), RunConfig)
    assert others == list(words("image_tiny DATA --out RUN --resume --init-from OTHER"))
    config, before = flags.applied(get_recipe("image_tiny"), found), get_recipe("image_tiny")
    assert (config.train.updates, config.train.batch_size, config.optim.lr) == (20, 8, 0.5)
    assert (config.data.mean, config.model.masks.inverse) == ((0.5, 0.25), False)  # type: ignore[attr-defined]
    assert config.model.encoder == before.model.encoder and flags.applied(before, ()) is before


@pytest.mark.parametrize(
    ("recipe", "line", "message"),
    [
        ("text_tiny", "--model.masks.adjust .1", "--model.masks.adjust is for blocks of tokens"),
        ("text_tiny", "--model.loss.cls-loss-weight 1", "needs a model with CLS or extra tokens"),
        ("audio_tiny", "--model.loss.cls-loss-weight 1", "needs a model with CLS or extra tokens"),
        ("audio_tiny", "--model.loss.cls-loss-weight 1 --model.modality.num-extra-tokens 2", ""),
        ("text_tiny", "--model.masks.adjust .1 --model.masks.block-length 2", ""),
        ("image_tiny", "--model.loss.cls-loss-weight 1 --model.masks.block-length 1", ""),
    ],
)
def test_fields_of_the_objective_without_a_use_are_refused(recipe: str, line: str, message: str) -> None:
    if message:
        with pytest.raises(UsageError, match=message):
            flags.applied(get_recipe(recipe), line.split())
    else:
        assert flags.applied(get_recipe(recipe), line.split()) != get_recipe(recipe)


@pytest.mark.parametrize("section", ["masks: {adjust: 0.1}", "loss: {cls_loss_weight: 1.0}"])
def test_and_so_they_are_in_a_file(section: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"recipe: text_tiny\nmodel: {{{section}}}\n")
    with pytest.raises(UsageError, match=r"blocks of tokens|CLS or extra tokens"):
        flags.applied(run_config(str(tmp_path / "mine.yaml")), ())


@pytest.mark.parametrize(
    ("recipe", "line", "changed"),
    [
        ("image_finetune_tiny", "--model.drop-path 0.25 --augment.label-smoothing 0.25", ("model", "drop_path", 0.25)),
        ("audio_classify_tiny", "--masks.time-share 0.5 --model.no-freeze-stem", ("masks", "time_share", 0.5)),
        ("text_finetune_tiny", "--model.pooling first --optim.schedule cosine", ("model", "pooling", "first")),
    ],
)
def test_flags_of_a_task_stand_without_its_name(recipe: str, line: str, changed: tuple[str, str, object]) -> None:
    found, others = flags.split(words(line), FinetuneConfig)
    assert (found, others) == (line.split(), [])
    section, field, value = changed
    assert getattr(getattr(flags.applied(get_finetune_recipe(recipe), found).task, section), field) == value


@pytest.mark.parametrize(
    ("line", "near"),
    [
        ("--train.update 20", "; did you mean --train.updates?"),
        ("--model.modality.patchsize=4", "; did you mean --model.modality.patch-size?"),
        ("--zzz.qqq 3", ""),
    ],
)
def test_an_unknown_flag_is_refused_with_the_nearest(line: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        flags.split(["image_tiny", *line.split()], RunConfig)
    assert str(caught.value) == f"unknown flag {line.replace('=', ' ').split()[0]}{near}"


def test_a_flag_of_another_modality_ends_as_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    found, _ = flags.split(words("--model.modality.vocab-size 100"), RunConfig)
    with pytest.raises(SystemExit, match="2"):
        flags.applied(get_recipe("image_tiny"), found)
    assert "vocab-size" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_only_errors_that_are_the_users_to_mend_have_exit_codes(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(error: Exception) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr(*((evaluate, "evaluate_any") if verb == "evaluate" else (api, verb)), fail)

    line = [verb, *LINES[verb].split()]
    for error, code in ((UserError("what to do"), 1), (UsageError("--flag is 3"), 2)):
        failing(error)
        assert main(line) == code
        assert capsys.readouterr().err == f"data2vec2: {error}\n"
    failing(ValueError("a mistake in the code"))
    with pytest.raises(ValueError, match="a mistake"):
        main(line)
