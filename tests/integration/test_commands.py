"""Every command with every kind of mistake, and that its results are the same however it is called."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image, ImageOps

import data2vec2
from data2vec2.cli import VERBS
from data2vec2.config.tree import to_dict
from data2vec2.modalities import get_recipe, read_run_config
from data2vec2.training.checkpoint import load_newest, save_checkpoint
from tests.integration.helpers import (
    PRELOADED,
    PRETRAINED,
    SMALL,
    assert_same_run,
    files,
    jpeg_folder,
    metrics,
    run_here,
    small_npz,
)

UPDATES = 12


@pytest.fixture(scope="module")
def data(small: Path) -> Path:
    return small


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, pretrained: Path) -> Path:
    """A finished run that may be scored."""
    return Path(shutil.copytree(pretrained, tmp_path_factory.mktemp("finished") / "run"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder, in which a refused command must not leave anything."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def refused(capsys: pytest.CaptureFixture[str], code: int, says: str, *arguments: object) -> None:
    """The command ends with this code and says this, on stderr, without a traceback, and writes nothing here."""
    before = files(Path())
    capsys.readouterr()
    assert run_here(list(arguments)) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert says in " ".join(err.replace("|", " ").split()), err
    assert "Traceback" not in err
    assert files(Path()) == before


def test_mistakes_in_words(place: Path, capsys: pytest.CaptureFixture[str], data: Path) -> None:
    refused(capsys, 2, f"unknown command 'xyz'; there are {', '.join(VERBS)}", "xyz")
    refused(capsys, 2, "usage: data2vec2 COMMAND")
    refused(capsys, 2, "--out", "pretrain", "image_tiny", data)
    refused(capsys, 2, "there is no DATA: name a folder", "pretrain", "image_tiny", "--out", "run")
    refused(capsys, 2, "the recipe comes first", "pretrain")
    refused(
        capsys, 2, "no recipe 'image_tinny'; did you mean 'image_tiny'?", "pretrain", "image_tinny", data, "--out", "r"
    )
    refused(capsys, 2, "unknown demo 'smells'; there are: image, audio, text, sound", "demo", "smells")
    refused(capsys, 2, "A run folder or an exported model", "evaluate")
    for verb, *rest in (
        ("pretrain", "image_tiny", data, "--out", "run"),
        ("demo",),
        ("evaluate", "m", data),
        ("doctor",),
    ):
        refused(capsys, 2, "--flog", verb, *rest, "--flog", "3")


WRONG_VALUES = [
    ("--model.modality.image-size", "30", "model.modality.image_size is 30; it must be a multiple of patch_size (4)"),
    ("--model.modality.patch-size", "0", "model.modality.patch_size is 0; it must be at least 1"),
    ("--model.modality.num-channels", "0", "model.modality.num_channels is 0; it must be at least 1"),
    ("--model.encoder.num-heads", "5", "model.encoder.num_heads is 5; it must be a divisor of embed_dim (96)"),
    ("--model.encoder.depth", "0", "model.encoder.depth is 0; it must be at least 1"),
    ("--model.encoder.dropout", "1", "model.encoder.dropout is 1.0; it must be from 0 to below 1"),
    ("--model.masks.mask-ratio", "1", "model.masks.mask_ratio is 1.0; it must be between 0 and 1"),
    ("--model.masks.num-masks", "0", "model.masks.num_masks is 0; it must be at least 1"),
    ("--model.decoder.kernel", "4", "model.decoder.kernel is 4; it must be odd"),
    ("--model.decoder.groups", "7", "model.decoder.groups is 7; it must be a divisor of"),
    ("--model.targets.average-layers", "9", "model.targets.average_layers is 9; it must be at most"),
    ("--optim.lr", "-1", "optim.lr is -1.0; it must be above 0"),
    ("--optim.lr", "fast", "--optim.lr"),
    ("--optim.lr-rule", "cubic", "--optim.lr-rule"),
    ("--ema.start", "2", "ema.start is 2.0; it must be from 0 to 1"),
    ("--data.min-crop", "0", "data.min_crop is 0.0; it must be above 0, up to 1"),
    ("--data.val-fraction", "1", "data.val_fraction is 1.0; it must be from 0 to below 1"),
    ("--data.workers", "-1", "data.workers is -1; it must be 0 or more"),
    ("--data.mean", "0.5", "data.std is None; it must be given together with data.mean"),
    ("--train.updates", "0", "train.updates is 0; it must be at least 1"),
    ("--train.updates", "many", "--train.updates"),
    ("--train.micro-batch", "17", "train.micro_batch is 17; it must be from 1 to train.batch_size (16)"),
    ("--train.seed", "-1", "train.seed is -1; it must be 0 or more"),
    ("--train.precision", "float16", "--train.precision"),
]


@pytest.mark.parametrize(("flag", "value", "says"), WRONG_VALUES, ids=[" ".join(wrong[:2]) for wrong in WRONG_VALUES])
def test_wrong_values(
    place: Path, capsys: pytest.CaptureFixture[str], data: Path, flag: str, value: str, says: str
) -> None:
    refused(capsys, 2, says, "pretrain", "image_tiny", data, "--out", "run", flag, value)


def test_values_that_do_not_fit_data_or_machine(place: Path, capsys: pytest.CaptureFixture[str], data: Path) -> None:
    def pretrain(code: int, says: str, *flags: str) -> None:
        refused(capsys, code, says, "pretrain", "image_tiny", data, "--out", "run", *SMALL, *flags)

    pretrain(2, "model.masks.mask_ratio is 0.99: of 49 tokens it keeps 0", "--model.masks.mask-ratio", "0.99")
    two = ("--data.mean", "0.1", "0.2", "--data.std", "1", "1")
    pretrain(1, "--data.mean and --data.std have 2 values for 1 channels", *two)
    pretrain(2, "train.device is 'cuda:99', which is not available on this machine", "--train.device", "cuda:99")
    pretrain(2, "train.device is 'abacus', which is not available on this machine", "--train.device", "abacus")
    odd = ("--model.encoder.embed-dim", "18", "--model.decoder.groups", "2")
    pretrain(2, "model.encoder.embed_dim is 18; 2-D positions need a multiple of 4", *odd)
    pretrain(1, "nowhere does not exist", "--val", "nowhere")
    refused(capsys, 2, "is 'cuda:99', which is not available on this machine", "doctor", "--device", "cuda:99")


def test_data_that_are_not_there(place: Path, capsys: pytest.CaptureFixture[str], data: Path) -> None:
    def pretrain(says: str, path: str) -> None:
        refused(capsys, 1, says, "pretrain", "image_tiny", path, "--out", "run", *SMALL)

    Path("empty").mkdir()
    Path("texts").mkdir()
    Path("texts/notes.txt").write_text("no picture")
    Path("broken.npz").write_bytes(data.read_bytes()[:1000])
    np.savez("other.npz", values=np.zeros(3))
    pretrain("nowhere does not exist", "nowhere")
    pretrain("no images in empty", "empty")
    pretrain("it holds files of type .txt (1)", "texts")
    pretrain("can't read broken.npz", "broken.npz")
    pretrain("other.npz has no training pictures under a known name", "other.npz")
    pretrain("texts/notes.txt is not a known kind of data", "texts/notes.txt")


def test_out_that_can_not_be_used(place: Path, capsys: pytest.CaptureFixture[str], data: Path) -> None:
    def pretrain(says: str, *flags: str) -> None:
        refused(capsys, 1, says, "pretrain", "image_tiny", data, *SMALL, *flags)

    Path("file").write_text("x")
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("x")
    Path("run").mkdir()
    Path("run/config.yaml").write_text(yaml.safe_dump(to_dict(get_recipe("image_tiny"))))
    pretrain("--out file is a file", "--out", "file")
    pretrain(f"--out file/run is below {place / 'file'}, which is a file", "--out", "file/run")
    pretrain("can't be used: File name too long", "--out", "n" * 300)
    if sys.platform == "linux":
        pretrain("--out /proc/run can't be written: No such file or directory", "--out", "/proc/run")
    pretrain("mine is not empty; give another folder", "--out", "mine")
    pretrain("--overwrite only deletes runs", "--out", "mine", "--overwrite")
    pretrain("nothing to resume: mine holds no run", "--out", "mine", "--resume")
    pretrain("nothing to resume: new holds no run", "--out", "new", "--resume")
    pretrain("run already holds a run; --resume continues it, --overwrite deletes it", "--out", "run")
    refused(capsys, 1, "run already holds a run", "demo", *SMALL, "--out", "run")
    refused(capsys, 1, "mine is not empty", "demo", *SMALL, "--out", "mine")


def test_runs_among_data_and_data_in_runs(place: Path, capsys: pytest.CaptureFixture[str], run: Path) -> None:
    pictures, within = jpeg_folder(place / "pictures", 20), f"DATA {place / 'pictures'}"
    shutil.copytree(run, "run")
    Path("run/own").mkdir()

    def pretrain(says: str, data: object, out: str, *flags: object) -> None:
        refused(capsys, 1, says, "pretrain", "image_tiny", data, "--out", out, *SMALL, *flags)

    pretrain(f"--out pictures/run is inside {within}, where the run would be read as data", pictures, "pictures/run")
    pretrain("DATA run/own is inside --out run, which will be overwritten", "run/own", "run", "--overwrite")
    pretrain("--val run is inside --out run", pictures, "run", "--overwrite", "--val", "run")
    pretrain("--init-from run/exported is inside", pictures, "run", "--overwrite", "--init-from", "run/exported")
    tune = ("finetune", "classify", "run", pictures, "--out", "run", "--overwrite")
    refused(capsys, 1, "MODEL run is inside --out run", *tune)


def test_arguments_in_another_order(
    place: Path, capsys: pytest.CaptureFixture[str], data: Path, run: Path, untrained: Path
) -> None:
    swapped = f"RECIPE comes before DATA: data2vec2 pretrain image_tiny {data} --out out"
    refused(capsys, 2, swapped, "pretrain", data, "image_tiny", "--out", "out")
    out = ("--out", "out.parquet")
    for model in (run, untrained):
        swapped = f"MODEL comes before the data: {model} is a model, and {data} is none"
        for command in (["evaluate"], ["embed", *out], ["predict"], ["transcribe"], ["finetune", "classify", *out]):
            refused(capsys, 1, swapped, *command, data, model)
    for verb, *more in (["evaluate", data], ["embed", data, *out], ["predict", data], ["export", "out"]):
        refused(capsys, 1, "nowhere does not exist; MODEL is a run folder", verb, "nowhere", *more)


def test_models_of_something_else(place: Path, capsys: pytest.CaptureFixture[str], data: Path, run: Path) -> None:
    refused(capsys, 1, "is a model of pictures, not of speech; use predict or embed", "transcribe", run, data)


def test_names_that_are_too_long(place: Path, capsys: pytest.CaptureFixture[str], data: Path, run: Path) -> None:
    name = "n" * 300
    for arguments in (["evaluate", name, data], ["evaluate", run, name], ["embed", run, data, "--out", f"{name}.npy"]):
        refused(capsys, 1, f"can't use {name}", *arguments)


def test_devices_are_refused_before_data_are_read(place: Path, capsys: pytest.CaptureFixture[str], run: Path) -> None:
    Path("texts.txt").write_text("never read\n" * 1_000)
    flag = "is 'cuda:99', which is not available on this machine"
    text = ("pretrain", "text_tiny", "texts.txt", "--out", "run", "--train.device", "cuda:99")
    refused(capsys, 2, f"data2vec2: --train.device {flag}", *text)
    for verb, *out in (["evaluate"], ["embed", "--out", "x.npy"]):
        refused(capsys, 2, f"data2vec2: --device {flag}", verb, run, "nowhere", *out, "--device", "cuda:99")


def test_a_batch_larger_than_the_data(place: Path, capsys: pytest.CaptureFixture[str], data: Path) -> None:
    flags = (*SMALL, "--train.batch-size", "256", "--dry-run")
    assert run_here(["pretrain", "image_tiny", data, "--out", "run", *flags]) == 0
    said = capsys.readouterr().err
    assert "a batch of 256 holds some of the 190 to train on more than once; --train.batch-size 190 or less" in said


def test_text_without_text(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    Path("cache").mkdir()
    for name, content in {"empty.txt": "", "blank.txt": "\n \n\n"}.items():
        Path(name).write_text(content)
        assert run_here(["pretrain", "text_tiny", name, "--out", "run"]) == 1
        assert f"{name} has 0 tokens of text" in capsys.readouterr().err
    assert not Path("run").exists()


def test_whole_numbers(place: Path, capsys: pytest.CaptureFixture[str], data: Path) -> None:
    command = ("pretrain", "image_tiny", data, "--out", "run", *SMALL, "--dry-run")
    assert run_here([*command, "--train.updates", "1.2e1"]) == 0
    assert "passes = 12 updates" in capsys.readouterr().err
    for flag, value in (("--train.updates", "1.5"), ("--train.updates", "1e-3"), ("--train.seed", "inf")):
        refused(capsys, 2, f"{flag}: '{value}' is not a whole number", *command, flag, value)
    refused(capsys, 2, "--labels: '1.5' is not a whole number", "evaluate", "m", data, "--labels", "1e1,1.5")


def test_other_data_on_resume_change_nothing(
    place: Path, capsys: pytest.CaptureFixture[str], run: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Neither does a helper begin, whose message would be a traceback."""
    other, before = small_npz(tmp_path_factory.mktemp("other") / "other.npz", 190), contents(run)
    for flags in ((), ("--train.processes", "2", "--train.micro-batch", "8")):
        command = ["pretrain", "image_tiny", other, "--out", run, "--resume", *flags]
        refused(capsys, 1, "the data, or how they are read, have changed since the run started", *command)
        assert contents(run) == before


def test_other_outputs_on_resume_change_nothing(
    place: Path, capsys: pytest.CaptureFixture[str], data: Path, run: Path
) -> None:
    """As of an earlier version that made other outputs of the same data; only the checkpoint tells."""
    shutil.copytree(run, "run")
    found, _ = load_newest(Path("run/checkpoints"))
    assert found
    name, weights = next(iter(found.groups["model"].items()))
    groups = {**found.groups, "model": {**found.groups["model"], name: weights.repeat(2, *[1] * (weights.dim() - 1))}}
    save_checkpoint(Path("run/checkpoints"), found.step, groups, found.state, keep=1)
    before = contents(Path("run"))
    command = ["pretrain", "image_tiny", data, "--out", "run", "--resume"]
    refused(capsys, 1, "the data have other classes or letters", *command)
    assert contents(Path("run")) == before and json.loads(before["status.json"])["state"] == "finished"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but its lock."""
    return {name: (folder / name).read_bytes() for name in files(folder) - {"lock"} if (folder / name).is_file()}


def test_changes_on_resume(place: Path, capsys: pytest.CaptureFixture[str], data: Path, run: Path) -> None:
    before = contents(run)

    def resume(says: str, *flags: str, recipe: str = "image_tiny") -> None:
        refused(capsys, 1, says, "pretrain", recipe, data, "--out", run, "--resume", *flags)

    resume("--optim.lr 0.1 can't change on --resume: the run was started with 0.004", "--optim.lr", "0.1")
    resume("--train.seed 3 can't change on --resume: the run was started with 0", "--train.seed", "3")
    resume("--train.batch-size 64 can't change", "--train.batch-size", "64")
    resume("--model.encoder.depth 3 can't change", "--model.encoder.depth", "3", "--model.targets.average-layers", "3")
    resume("the folder holds a run of image_tiny, not of image_base", recipe="image_base")
    resume("--optim.clip-norm None can't change", "--optim.clip-norm", "None")
    for section, says in (
        ("optim: {lr: 0.5}", "--optim.lr 0.5 can't change on --resume: the run was started with 0.004"),
        ("train: {updates: 50}", "--train.updates 50 can't change"),
        ("optim: {clip_norm: null}", "--optim.clip-norm None can't change"),
        ("train: {seed: 9, save_every: 7}", "--train.seed 9 can't change"),
    ):
        Path("mine.yaml").write_text(f"recipe: image_tiny\n{section}\n")
        resume(says, recipe="mine.yaml")
    Path("mine.yaml").write_text("recipe: image_base\n")
    resume("the folder holds a run of image_tiny, not of image_base", recipe="mine.yaml")
    assert contents(run) == before


def test_what_may_change_on_resume(place: Path, data: Path, run: Path) -> None:
    shutil.copytree(run, "run")
    Path("mine.yaml").write_text("recipe: image_tiny\ntrain: {save_every: 7, keep: 5}\noptim: {lr: 0.004}\n")

    def resumed(recipe: str, *flags: str) -> dict[str, Any]:
        assert run_here(["pretrain", recipe, data, "--out", "run", "--resume", *flags]) == 0
        config: dict[str, Any] = yaml.safe_load(Path("run/config.yaml").read_text())
        return config

    started = yaml.safe_load(Path("run/config.yaml").read_text())
    assert resumed("run/config.yaml") == started
    changed = resumed("mine.yaml", "--train.keep", "4", "--train.keep-every", "6", "--train.micro-batch", "2")
    own = {"save_every": 7, "keep": 4, "keep_every": 6, "micro_batch": 2}  # and all else as at the start
    assert changed == {**started, "train": {**started["train"], **own}}
    train = resumed("image_tiny", "--train.keep-every", "None", "--train.micro-batch", "None")["train"]
    assert train == {**changed["train"], "keep_every": None}  # what was measured at the start stays


def test_a_change_to_the_recipes_own_value_on_resume(
    place: Path, capsys: pytest.CaptureFixture[str], data: Path, run: Path
) -> None:
    updates = str(get_recipe("image_tiny").train.updates)
    refused(
        capsys, 1, "can't change", "pretrain", "image_tiny", data, "--out", run, "--resume", "--train.updates", updates
    )


def test_resume_and_overwrite_exclude_each_other(
    place: Path, capsys: pytest.CaptureFixture[str], data: Path, run: Path
) -> None:
    refused(capsys, 2, "--overwrite", "pretrain", "image_tiny", data, "--out", run, "--resume", "--overwrite")


def test_the_best_model_needs_a_score(place: Path, capsys: pytest.CaptureFixture[str], data: Path) -> None:
    start, says = ["pretrain", "image_tiny", data, "--out", "run", *SMALL], "--train.keep-best needs a score of"
    with np.load(data) as arrays:
        np.savez("unlabelled.npz", x_train=arrays["x_train"])
    for flags in (["--data.val-fraction", 0], ["--train.eval-every", 0], ["--val", "unlabelled.npz"]):
        refused(capsys, 1, says, *start, "--train.keep-best", *flags)
    assert run_here([*start, "--val", "unlabelled.npz", "--dry-run"]) == 0
    assert "training is not scored" in " ".join(capsys.readouterr().err.split())
    assert run_here([*start, "--train.keep-best", "--dry-run"]) == 0
    assert "training is not scored" not in " ".join(capsys.readouterr().err.split())


def test_mistakes_in_a_configuration_file(place: Path, capsys: pytest.CaptureFixture[str], data: Path) -> None:
    def pretrain(code: int, says: str, text: str) -> None:
        Path("config.yaml").write_text(text)
        refused(capsys, code, says, "pretrain", "config.yaml", data, "--out", "run")

    pretrain(2, "unknown key 'trian'; did you mean 'train'?", "trian: {}")
    pretrain(2, "unknown key 'optim.learning_rate'", "optim: {learning_rate: 1}")
    pretrain(2, "train.updates is 'many'; it must be of type int", "train: {updates: many}")
    pretrain(2, "ema.start is 7.0; it must be from 0 to 1", "ema: {start: 7}")
    pretrain(2, "no recipe 'mine'", "recipe: mine")
    pretrain(2, "it must be a group of fields", "- 1")
    pretrain(2, "it must be a group of fields", "")
    pretrain(1, "config.yaml can't be read", "{")
    refused(capsys, 1, "none.yaml can't be read", "pretrain", "none.yaml", data, "--out", "run")


def test_mistakes_of_evaluate(place: Path, capsys: pytest.CaptureFixture[str], data: Path, run: Path) -> None:
    def evaluate(code: int, says: str, *more: object) -> None:
        refused(capsys, code, says, "evaluate", *more)

    Path("unfinished").mkdir()
    Path("unfinished/config.yaml").write_bytes((run / "config.yaml").read_bytes())
    Path("empty").mkdir()
    with np.load(data) as arrays:
        x, y = arrays["x_train"], arrays["y_train"]
    np.savez("unlabelled.npz", x_train=x)
    np.savez("others.npz", x_train=x[y < 3], y_train=y[y < 3])
    np.savez("few.npz", x_train=x[:10], y_train=y[:10])
    evaluate(1, "the run in unfinished has not finished, so there is no model yet", "unfinished", data)
    evaluate(1, "empty is not an exported model: config.json is missing", "empty", data)
    evaluate(1, "nowhere", "nowhere", data)
    evaluate(1, "few.npz is not an exported model", "few.npz", data)
    evaluate(1, "nowhere does not exist", run / "exported", "nowhere")
    evaluate(1, "unlabelled.npz has no labels to evaluate with", run / "exported", "unlabelled.npz")
    evaluate(1, "others.npz has the classes 0, 1, 2, but", run / "exported", "others.npz", "--test", data)
    evaluate(1, "few.npz has 10 samples, too few to split; give test data with --test", run / "exported", "few.npz")
    evaluate(1, "nowhere does not exist", run / "exported", data, "--test", "nowhere")
    evaluate(2, "is 'cuda:99', which is not available on this machine", run / "exported", data, "--device", "cuda:99")


def test_the_finished_run_is_complete(run: Path) -> None:
    expected = (
        "config.yaml environment.json train.log metrics.jsonl status.json split.json report.html exported/config.json"
    )
    assert set(expected.split()) <= files(run)
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    lines = metrics(run)
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, UPDATES + 1))
    assert all(np.isfinite(list(line.values())).all() for line in lines)
    assert not [path for path in files(run) if path.endswith(".tmp")]


def test_a_dry_run_prints_shapes_and_writes_nothing(
    place: Path, capsys: pytest.CaptureFixture[str], data: Path
) -> None:
    assert run_here(["pretrain", "image_tiny", data, "--out", "run", *PRETRAINED, "--dry-run", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["state"] == "planned"
    assert "pictures (16, 1, 28, 28) uint8" in err
    assert "kept tokens (64, 19)" in err
    assert read_run_config(found["plan"]["config"]).train.updates == found["plan"]["updates"] == UPDATES
    assert files(place) == set()


@pytest.mark.parametrize(
    ("colour", "flags", "channels"),
    [
        (True, "", 3),
        (True, "--model.modality.image-size 32 --model.modality.patch-size 8", 3),
        (True, "--model.modality.num-channels 1", 1),
        (False, "--model.modality.image-size 32", 1),
        (False, "--model.modality.num-channels 3", 3),
    ],
)
def test_colour_is_recognised_unless_channels_are_given(
    place: Path, capsys: pytest.CaptureFixture[str], colour: bool, flags: str, channels: int
) -> None:
    (place / "pictures").mkdir()
    for number in range(20):
        picture = Image.linear_gradient("L").resize((40, 30 + number))
        (ImageOps.colorize(picture, "black", "gold") if colour else picture).save(place / f"pictures/{number}.png")
    arguments = [
        "pretrain",
        "image_tiny",
        place / "pictures",
        "--out",
        "run",
        "--dry-run",
        "--show-config",
        *flags.split(),
    ]
    assert run_here([*arguments, "--train.processes", "1", "--train.device", "cpu"]) == 0
    out, error = capsys.readouterr()
    assert f"num_channels: {channels}" in out
    assert ("because the pictures have colour" in error) == (colour and "channels" not in flags)


def test_a_runs_configuration_can_be_run_again(
    place: Path, capsys: pytest.CaptureFixture[str], data: Path, run: Path
) -> None:
    assert run_here(["pretrain", run / "config.yaml", data, "--out", "again", "--json"]) == 0
    out, _ = capsys.readouterr()
    printed = json.loads(out)
    assert set(printed.pop("scores")) == {"val_knn", "val_knn_error"}
    assert printed == {"run": "again", "state": "finished", "step": UPDATES, "message": ""}
    assert_same_run(Path("again"), run, UPDATES)
    assert Path("again/config.yaml").read_text() == (run / "config.yaml").read_text()


def test_overwrite_starts_anew(place: Path, data: Path, run: Path) -> None:
    command = ["pretrain", "image_tiny", data, "--out", "run", *PRETRAINED]
    assert run_here([*command, "--train.seed", "1"]) == 0
    assert metrics(Path("run")) != metrics(run)
    Path("run/scores.json").write_text("of the old run")
    assert run_here([*command, "--overwrite"]) == 0
    assert_same_run(Path("run"), run, UPDATES)
    assert not Path("run/scores.json").exists()


def test_the_python_functions_give_the_same_as_the_commands(
    place: Path, capsys: pytest.CaptureFixture[str], data: Path, run: Path
) -> None:
    config = read_run_config(yaml.safe_load((run / "config.yaml").read_text()))
    outcome = data2vec2.pretrain(config, str(data), "python")
    assert (outcome.state, outcome.step) == ("finished", UPDATES)
    assert_same_run(Path("python"), run, UPDATES)

    scores = data2vec2.evaluate(run / "exported", data).to_dict()
    capsys.readouterr()
    assert run_here(["evaluate", run, data, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(scores))
    assert json.loads((run / "scores.json").read_text()) == printed

    found = data2vec2.doctor("cpu")
    assert run_here(["doctor", "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out).keys() == found.keys()


def test_python_mistakes_are_the_same_errors(place: Path, data: Path) -> None:
    from data2vec2.errors import UserError

    with pytest.raises(ValueError, match="did you mean 'image_tiny'"):
        data2vec2.pretrain("image_tinny", data, "run")
    with pytest.raises(UserError, match="nowhere does not exist"):
        data2vec2.pretrain("image_tiny", "nowhere", "run")
    with pytest.raises(ValueError, match=r"train\.updates"):
        replace(get_recipe("image_tiny").train, updates=0)
    assert files(place) == set()


def test_scores_in_plain_text(place: Path, capsys: pytest.CaptureFixture[str], data: Path, run: Path) -> None:
    assert run_here(["evaluate", run / "exported", data, "--max-samples", "100"]) == 0
    out, err = capsys.readouterr()
    assert [line.split("  ")[0] for line in out.splitlines()[:5]] == [
        "features",
        "data2vec2",
        "random initialisation",
        "raw pixels",
        "majority class",
    ]
    assert "evaluating on 40 pictures" in err
    assert files(place) == set()


def test_the_order_of_words_and_flags(place: Path, capsys: pytest.CaptureFixture[str], data: Path) -> None:
    capsys.readouterr()
    assert run_here(["pretrain", "image_tiny", "--out", "run", "--dry-run", *PRETRAINED, data]) == 0
    assert "recipe   image_tiny, " in capsys.readouterr().out


def test_flags_before_the_recipe(place: Path, capsys: pytest.CaptureFixture[str], data: Path) -> None:
    refused(
        capsys, 2, "the recipe comes first", "pretrain", "--out", "run", "--dry-run", *PRETRAINED, "image_tiny", data
    )


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(["--version"]) == 0
    assert capsys.readouterr().out == f"data2vec2 {data2vec2.__version__}\n"
    for asked in (["--help"], ["pretrain", "--help"], ["demo", "--help"], ["evaluate", "--help"], ["doctor", "--help"]):
        assert run_here(asked) == 0
        out, err = capsys.readouterr()
        assert "usage" in out.lower()
        assert err == ""


def test_what_children_of_tests_import_first_is_there() -> None:
    assert all(importlib.util.find_spec(name) for name in PRELOADED)


def test_a_real_process_keeps_stdout_for_data(place: Path, data: Path) -> None:
    """Torch and its friends write to file descriptors that a test in this process would not see."""
    command = [sys.executable, "-m", "data2vec2", "pretrain", "image_tiny", str(data), "--out", "run", *PRETRAINED]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    done = subprocess.run(
        [*command, "--dry-run", "--json"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "planned"
    assert "\x1b[" not in done.stderr
    refused = subprocess.run([*command, "--resume"], capture_output=True, text=True, env=environment, check=False)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr.strip() == (
        "data2vec2: nothing to resume: run holds no run (no config.yaml); leave --resume out"
    )
    assert files(place) == set()
