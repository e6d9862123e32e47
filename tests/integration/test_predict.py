"""predict: classes of picture files."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import data2vec2
from data2vec2.config.model import ArchitectureConfig, EncoderConfig
from data2vec2.interop.folder import export_model
from data2vec2.method.heads import Classifier
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.fields import build_encoder
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig
from data2vec2.modalities.image.reader import Normalise, central_box, crop
from tests.integration.helpers import jpeg_folder, run_here

CLASSES = ("cat", "dog", "a horse", "zebra")
DATA = ImageDataConfig(mean=(0.4,) * 3, std=(0.3,) * 3, eval_crop=0.875)
CONFIG = ArchitectureConfig(
    modality=ImageConfig(image_size=32, patch_size=8, num_channels=3, position_size=24),
    encoder=EncoderConfig(embed_dim=16, num_heads=2, prenet_depth=1, depth=2),
)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    classifier = Classifier(build_encoder(CONFIG), len(CLASSES)).eval()
    with torch.no_grad():
        classifier.head.weight.normal_(std=2)
    return classifier


def export(classifier: Classifier, folder: Path, multi_label: bool) -> Path:
    info = ModelInfo(model=CONFIG, data=DATA, classes=CLASSES, multi_label=multi_label)
    export_model(classifier, info, folder, "# A classifier\n")
    return folder


@pytest.fixture(scope="module")
def model(classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(classifier, tmp_path_factory.mktemp("single") / "exported", False)


@pytest.fixture(scope="module")
def multi(classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(classifier, tmp_path_factory.mktemp("multi") / "exported", True)


@pytest.fixture(scope="module")
def clothes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return jpeg_folder(tmp_path_factory.mktemp("clothes"), 20)


def logits(classifier: Classifier, path: Path | str) -> torch.Tensor:
    picture = crop(Path(path).read_bytes(), partial(central_box, 0.875), 32, 3)
    pixels = torch.from_numpy(np.asarray(picture).transpose(2, 0, 1)[None].copy())
    with torch.no_grad():
        return classifier(Normalise((0.4,) * 3, (0.3,) * 3, torch.device("cpu"))(pixels))[0]  # type: ignore[no-any-return]


def test_a_line_for_each_file_in_order(
    model: Path, classifier: Classifier, clothes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = sorted(clothes.rglob("*.jpg"))
    last = pictures[3]
    assert run_here(["predict", model, clothes, last, "--batch", 6]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _, _ in lines] == [*map(str, pictures), str(last)]
    assert lines[-1] == lines[3]
    for name, found, probability in lines:
        expected = logits(classifier, name).softmax(dim=0)
        assert found == CLASSES[int(expected.argmax())]
        assert float(probability) == pytest.approx(float(expected.max()), abs=1e-4)
    assert len({found for _, found, _ in lines}) > 1


def test_top_classes_and_json(
    model: Path, classifier: Classifier, clothes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = sorted(clothes.rglob("*.jpg"))[0]
    expected = logits(classifier, picture).softmax(dim=0)
    order = expected.argsort(descending=True).tolist()
    assert run_here(["predict", model, picture, "--top", 3]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{picture}\t{CLASSES[place]}\t{expected[place]:.4f}" for place in order[:3]]
    assert run_here(["predict", model, picture, picture, "--top", 9, "--json"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == second
    assert (first["name"], first["error"]) == (str(picture), None)
    assert first["classes"] == pytest.approx({CLASSES[place]: float(expected[place]) for place in order}, abs=1e-5)
    assert list(first["classes"]) == [CLASSES[place] for place in order]


def test_several_classes_are_those_above_the_threshold(
    multi: Path, classifier: Classifier, clothes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = sorted(clothes.rglob("*.jpg"))[:8]
    for threshold in (0.2, 0.5, 0.95, 1.0):
        assert run_here(["predict", multi, *pictures, "--threshold", threshold, "--json"]) == 0
        found = [json.loads(line)["classes"] for line in capsys.readouterr().out.splitlines()]
        for picture, classes in zip(pictures, found, strict=True):
            expected = logits(classifier, picture).sigmoid().tolist()
            above = {name: value for name, value in zip(CLASSES, expected, strict=True) if value >= threshold}
            assert classes == pytest.approx(above, abs=1e-5)
            assert list(classes.values()) == sorted(classes.values(), reverse=True)
    assert run_here(["predict", multi, *pictures, "--threshold", 0, "--top", 2]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 16
    assert run_here(["predict", multi, pictures[0], "--threshold", 1]) == 0
    assert capsys.readouterr().out == f"{pictures[0]}\t\t\n"  # none is said, too


def test_files_that_can_not_be_read_are_said_and_the_others_printed(
    model: Path, clothes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = sorted(clothes.rglob("*.jpg"))[:3]
    junk, missing = tmp_path / "junk.png", tmp_path / "missing.png"
    junk.write_text("no picture")
    paths = [good[0], junk, good[1], missing, good[2]]
    assert run_here(["predict", model, *paths]) == 1
    captured = capsys.readouterr()
    assert [line.split("\t")[0] for line in captured.out.splitlines()] == list(map(str, good))
    assert captured.err.splitlines() == [f"data2vec2: {junk}: not an image", f"data2vec2: {missing}: unreadable"]
    predictions = list(data2vec2.predict(model, paths, batch=2))
    assert [prediction.name for prediction in predictions] == list(map(str, paths))
    assert [prediction.error for prediction in predictions] == [None, "not an image", None, "unreadable", None]
    assert [len(prediction.classes) for prediction in predictions] == [1, 0, 1, 0, 1]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text there")
def test_a_file_name_that_is_no_text_is_printed_as_it_is(
    model: Path, clothes: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with Image.open(sorted(clothes.rglob("*.jpg"))[0]) as picture:
        picture.save(Path(os.fsdecode(name)))
    assert run_here(["predict", model, os.fsdecode(name)]) == 0
    assert capfdbinary.readouterr().out.startswith(name + b"\t")


@pytest.mark.skipif(sys.platform != "linux", reason="no such names elsewhere")
def test_a_file_name_with_a_tab_stays_in_its_cell(
    model: Path, clothes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Image.open(sorted(clothes.rglob("*.jpg"))[0]) as picture:
        picture.save(tmp_path / "a\tb\nc.png")
    assert run_here(["predict", model, tmp_path / "a\tb\nc.png"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split("\t")[0] == str(tmp_path / r"a\tb\nc.png")


def test_lines_go_to_a_file_that_is_not_overwritten_unasked(
    model: Path, clothes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, out = sorted(clothes.rglob("*.jpg"))[:3], tmp_path / "found" / "lines.tsv"
    assert run_here(["predict", model, *pictures]) == 0
    printed = capsys.readouterr().out
    assert run_here(["predict", model, *pictures, "--out", out]) == 0
    assert (capsys.readouterr().out, out.read_text()) == ("", printed)
    assert run_here(["predict", model, pictures[0], "--out", out]) == 1
    assert "exists; --overwrite replaces it" in capsys.readouterr().err
    assert out.read_text() == printed
    assert run_here(["predict", model, pictures[0], "--out", out, "--overwrite", "--json"]) == 0
    assert json.loads(out.read_text())["name"] == str(pictures[0])
    assert run_here(["predict", model, *pictures, "--out", tmp_path]) == 1
    assert f"such as {tmp_path / 'predictions.tsv'}" in capsys.readouterr().err
    assert [path.name for path in out.parent.iterdir()] == ["lines.tsv"]


def test_an_encoder_without_a_head_is_refused(
    classifier: Classifier, clothes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "exported"
    export_model(classifier.encoder, ModelInfo(model=CONFIG, data=DATA), folder, "# An encoder\n")
    assert run_here(["predict", folder, clothes]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "head" in captured.err
    assert "finetune" in captured.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top", "0"], "--top is 0"),
        (["--threshold", "1.5"], "--threshold is 1.5"),
        (["--threshold", "0.9"], "--threshold is for models of tags"),
        (["--batch", "0"], "--batch is 0"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_options_that_can_not_be_are_named(
    model: Path, clothes: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert run_here(["predict", model, clothes, *options]) == 2
    assert message in capsys.readouterr().err


def test_nothing_to_predict(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(["predict", model, tmp_path]) == 1
    assert f"no images in {tmp_path}" in capsys.readouterr().err
    assert run_here(["predict", model]) == 2
    assert "no FILES" in capsys.readouterr().err


def test_the_encoder_of_a_classifier_can_be_embedded(model: Path, clothes: Path, tmp_path: Path) -> None:
    result = data2vec2.embed(model, clothes, tmp_path / "f.parquet")
    assert (result.rows, result.dim) == (20, 16)
