"""Several DATA in one run: of each modality, with shares, resumed, by several processes, from Python."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

import data2vec2
from data2vec2.modalities import read_run_config
from data2vec2.modalities.audio import english_prompts
from data2vec2.modalities.text import wordnet_glosses
from tests.integration.helpers import SMALL, assert_same_run, jpeg_folder, metrics, run_here, small_npz, words
from tests.unit.data.pictures import encoded, photo
from tests.unit.data.tars import as_tar

LENGTH = words("--train.updates 6 --train.log-every 1 --train.eval-every 6 --train.save-every 3")
FLAGS = (*SMALL, *LENGTH, *words("--train.batch-size 16 --data.val-fraction 0.2 --data.workers 0"))


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """A folder in ten classes with a damaged file, an archive in colour without labels, and arrays with labels."""
    folder = jpeg_folder(tmp_path / "folder", 60)
    damaged = sorted(folder.rglob("*.jpg"))[3]
    damaged.write_bytes(damaged.read_bytes()[:100])
    members = [(f"{place:02}.png", encoded(photo(40 + place, 40), "PNG")) for place in range(30)]
    return [folder, as_tar(tmp_path / "photos.tar", members), small_npz(tmp_path / "arrays.npz", 50)]


def pretrain(data: list[Path], run: Path, *more: object, recipe: str = "image_tiny") -> list[object]:
    return ["pretrain", recipe, *data, "--out", run, *(more or FLAGS)]


def test_pictures_of_three_kinds(pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shares and accounts are said and stored, and an interrupted run goes on exactly."""
    flags = (*FLAGS, *words("--data.weights 0.2 0.5 0.3"))
    whole, half = tmp_path / "whole", tmp_path / "half"
    assert run_here(pretrain(pictures, whole, *flags)) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert f"3 data sets: 112 train, no labels; {pictures[0]}: folder of images: 60 train, 10 classes" in said
    assert f"{pictures[1]}: 50.0% of a pass, each of its 24 samples 5 times" in said
    assert f"next: data2vec2 evaluate {whole} DATA" in said
    stored = json.loads((whole / "data.json").read_text())
    assert list(stored["parts"]["train"]["bad"]) + list(stored["parts"]["val"]["bad"]) == [
        f"{pictures[0]}/{sorted((pictures[0]).rglob('*.jpg'))[3].relative_to(pictures[0])}"
    ]
    assert any("50.0% of a pass" in choice for choice in stored["choices"])
    assert any(f"labels of {pictures[0]}, {pictures[2]} are not used" in remark for remark in stored["remarks"])
    about = json.loads((whole / "environment.json").read_text())
    assert about["data_paths"] == [str(path.resolve()) for path in pictures]

    shutil.copytree(whole, half)
    shutil.rmtree(half / "checkpoints" / "step-6")
    assert run_here(pretrain(pictures, half, *flags, "--resume")) == 0
    assert_same_run(half, whole, 6)
    capsys.readouterr()
    assert run_here(pretrain(pictures[::-1], half, *flags, "--resume")) == 1
    assert "the data, or how they are read, have changed" in capsys.readouterr().err
    assert run_here(pretrain(pictures, half, *FLAGS, *words("--data.weights 1 1 1 --resume"))) == 1
    assert "--data.weights (1.0, 1.0, 1.0) can't change on --resume" in capsys.readouterr().err


def test_shares_decide_what_is_trained_on(pictures: list[Path], tmp_path: Path) -> None:
    """Other shares, other losses; those of the sizes are those of no shares."""
    found = {}
    for name, weights in (("none", ""), ("sizes", "--data.weights 60 30 50"), ("other", "--data.weights 1 1 8")):
        more = (*FLAGS, *words(f"{weights} --data.val-fraction 0 --train.eval-every 0"))
        assert run_here(pretrain(pictures, tmp_path / name, *more)) == 0
        found[name] = metrics(tmp_path / name)
    assert found["none"] == found["sizes"]
    assert found["none"] != found["other"]


def test_wrong_weights(pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert run_here(pretrain(pictures, run, *FLAGS, *words("--data.weights 0.5 0.5"))) == 2
    assert "data.weights has 2 values for 3 data sets" in " ".join(capsys.readouterr().err.split())
    assert run_here(pretrain(pictures[:1], run, *FLAGS, *words("--data.weights 0.5 0.5"))) == 2
    assert not run.exists()


def test_two_processes(pictures: list[Path], tmp_path: Path) -> None:
    flags = (*FLAGS, *words("--data.weights 1 1 1"))
    assert run_here(pretrain(pictures, tmp_path / "one", *flags)) == 0
    assert run_here(pretrain(pictures, tmp_path / "two", *flags, "--train.processes", 2)) == 0
    losses = [[line["loss"] for line in metrics(tmp_path / run) if "loss" in line] for run in ("one", "two")]
    assert np.allclose(*losses, rtol=1e-2)


def test_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder and an archive of bundled speech; an interrupted run goes on exactly."""
    files = sorted((english_prompts() / "train").rglob("*.ogg"))[:24]
    (tmp_path / "folder").mkdir()
    for path in files[:12]:
        shutil.copy(path, tmp_path / "folder")
    tar = as_tar(tmp_path / "a.tar", [(path.name, path.read_bytes()) for path in files[12:]])
    flags = (*SMALL, *LENGTH, *words("--train.batch-size 10 --data.min-seconds 0.5 --data.max-seconds 3"))
    flags = (*flags, *words("--data.weights 0.8 0.2 --data.val-fraction 0.2 --data.workers 0"))
    both, whole, half = [tmp_path / "folder", tar], tmp_path / "whole", tmp_path / "half"
    assert run_here(pretrain(both, whole, *flags, recipe="audio_mel_tiny")) == 0
    assert "80.0% of a pass" in " ".join(capsys.readouterr().err.split())
    shutil.copytree(whole, half)
    shutil.rmtree(half / "checkpoints" / "step-6")
    assert run_here(pretrain(both, half, *flags, "--resume", recipe="audio_mel_tiny")) == 0
    assert_same_run(half, whole, 6)


def test_texts_and_python(tmp_path: Path) -> None:
    """A table and a plain file, with one tokenizer of both; a list of paths in Python is the same run."""
    glosses = pq.read_table(wordnet_glosses() / "test.parquet", columns=["text"]).column("text").to_pylist()
    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text",), *((text,) for text in glosses[:700])])
    (tmp_path / "b.txt").write_text("".join(f"{text}\n" for text in glosses[700:1200]), encoding="utf-8")
    both = [tmp_path / "a.csv", tmp_path / "b.txt"]
    flags = (*SMALL, *LENGTH, *words("--train.batch-size 8 --model.modality.vocab-size 400 --data.weights 1 3"))
    assert run_here(pretrain(both, tmp_path / "words", *flags, recipe="text_tiny")) == 0
    config = read_run_config(yaml.safe_load((tmp_path / "words" / "config.yaml").read_text()))
    assert config.data.weights == (1.0, 3.0)
    found = data2vec2.pretrain("text_tiny", both, tmp_path / "python", flags=flags)
    assert found.state == "finished"
    assert_same_run(tmp_path / "python", tmp_path / "words", 6)


def test_estimate(pictures: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(["estimate", "image_tiny", *pictures, *FLAGS, *words("--data.weights 1 1 1")]) == 0
    found = capsys.readouterr()
    assert "3 data sets: 112 train" in found.out
    assert f"next: data2vec2 pretrain image_tiny {pictures[0]} {pictures[1]} {pictures[2]} --out" in found.err


def test_evaluation_scores_on_what_was_held_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of one of the data sets, as of a run that had only this one."""
    both, run = [small_npz(tmp_path / "a.npz", 600), jpeg_folder(tmp_path / "b", 100)], tmp_path / "run"
    assert run_here(pretrain(both, run)) == 0
    names = json.loads((run / "split.json").read_text())["validation"]
    assert sum(name.startswith(f"{both[0]}/") for name in names) == 120
    assert run_here(["evaluate", run, both[0], "--device", "cpu", "--probes", "knn"]) == 0
    assert "evaluating on 120 pictures (held-out part), with the labels of 480" in capsys.readouterr().err
