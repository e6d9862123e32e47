"""Pre-training that starts from weights: a run, an export, a checkpoint of the original."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.integration.helpers import SMALL, Child, last_step, run_here, small_npz, words
from tests.parity.cases import GoldenCase
from tests.parity.originals import pretrained

FLAGS = (*SMALL, *words("--train.updates 6 --train.log-every 1 --train.eval-every 0 --train.batch-size 8"))
STILL = ("--optim.lr", "1e-30", "--ema.start", "1", "--ema.end", "1")
"""Nothing moves, so that the weights at the end are those at the start."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_npz(tmp_path_factory.mktemp("data") / "small.npz")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    run = tmp_path_factory.mktemp("source") / "run"
    assert run_here(["pretrain", "image_tiny", data, "--out", run, *FLAGS]) == 0
    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / "step-6" / "model.safetensors")


def start(data: Path, run: Path, source: Path, *flags: object) -> int:
    return run_here(["pretrain", "image_tiny", data, "--out", run, *FLAGS, *STILL, "--init-from", source, *flags])


def test_from_a_run_comes_everything(tmp_path: Path, data: Path, source: Path) -> None:
    assert start(data, tmp_path / "run", source) == 0
    theirs, ours = weights(source), weights(tmp_path / "run")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert any(
        not torch.equal(theirs[name], theirs[name.replace("student", "teacher")])
        for name in theirs
        if "student" in name
    )
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["init_from"] == str(source)


def test_from_an_export_comes_the_student_twice(
    tmp_path: Path, data: Path, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(data, tmp_path / "run", source / "exported", "--train.seed", "1") == 0
    theirs, ours = weights(source), weights(tmp_path / "run")
    for name in theirs:
        if name.startswith("decoder.") and theirs[name].ndim > 1:
            assert not torch.equal(ours[name], theirs[name])
        elif not name.startswith("decoder."):
            assert torch.equal(ours[name], theirs[name.replace("teacher.", "student.")])
    assert "at random initialisation: decoder" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["old.pt", "converted"])
def test_from_an_original_checkpoint(tmp_path: Path, source: str) -> None:
    """A file with the nesting and types of an original one, made of the golden case's weights; as it is, or converted.

    The converted folder brings its configuration too.
    """
    case = GoldenCase("image_tiny")
    torch.save(pretrained(case), tmp_path / "old.pt")
    recipe = tmp_path / "converted" / "pretraining.yaml"
    convert = ["convert", tmp_path / "old.pt", tmp_path / "converted"]
    assert run_here([*convert, "--weights", "teacher"]) == 0, "the student must be taken from beside the model"
    pictures = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), dtype=np.uint8)
    np.savez(tmp_path / "pictures.npz", images=pictures)
    flags = words("--train.updates 6 --train.batch-size 8 --train.eval-every 0 --train.device cpu --train.processes 1")
    command = ["pretrain", recipe, tmp_path / "pictures.npz", "--out", tmp_path / "run"]
    assert run_here([*command, *flags, *STILL, "--init-from", tmp_path / source]) == 0
    expected, ours = case.model.state_dict(), weights(tmp_path / "run")
    assert expected.keys() == ours.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in expected)


class Stranger:
    """An object that a restricted reader must not build."""


@pytest.mark.parametrize("what", ["nothing", "folder", "text", "object", "shape"])
def test_what_can_not_be_used_is_named(
    tmp_path: Path, data: Path, source: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, flags = tmp_path / "w.pt", ()
    if what == "folder":
        path = tmp_path
    elif what == "text":
        path.write_text("not a checkpoint")
    elif what == "object":
        torch.save({"model": {"x": Stranger()}}, path)
    elif what == "shape":
        path, flags = source, ("--model.encoder.embed-dim", "32")
    assert start(data, tmp_path / "run", path, *flags) == 1
    message = capsys.readouterr().err
    assert str(path) in message
    assert not (tmp_path / "run").exists()


def test_resume_does_not_start_over_from_the_weights(tmp_path: Path, data: Path, source: Path) -> None:
    """A killed run goes on from its own checkpoint; one without any begins again from the same weights."""
    run = tmp_path / "run"
    flags = [*FLAGS, *words("--train.updates 40 --train.save-every 5"), "--init-from", source]
    child = Child(["pretrain", "image_tiny", data, "--out", run, *flags], tmp_path / "out")
    child.until(lambda: last_step(run) >= 12)
    child.process.kill()
    child.wait()
    assert run_here(["pretrain", "image_tiny", data, "--out", run, *flags, "--resume"]) == 0
    whole = tmp_path / "whole"
    assert run_here(["pretrain", "image_tiny", data, "--out", whole, *flags]) == 0
    a, b = (load_file(r / "checkpoints" / "step-40" / "model.safetensors") for r in (run, whole))
    assert all(torch.equal(a[name], b[name]) for name in a)
