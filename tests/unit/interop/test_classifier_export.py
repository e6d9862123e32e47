"""The exported classifier, written and read without Transformers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, load_file, save_file

from data2vec2.config.model import ModelConfig
from data2vec2.errors import UserError
from data2vec2.interop.folder import export_model, load_classifier, load_encoder
from data2vec2.method.encoder import Encoder
from data2vec2.method.heads import Classifier
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.image.config import ImageDataConfig

CLASSES = ("cat", "dog", "naïve bird")
DATA = ImageDataConfig(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), eval_crop=0.9)


@pytest.fixture
def info(config: ModelConfig) -> ModelInfo:
    return ModelInfo(model=config, data=DATA, classes=CLASSES)


@pytest.fixture
def classifier(encoder: Encoder) -> Classifier:
    model = Classifier(encoder, 3, drop_path=0.2).eval()
    torch.nn.init.normal_(model.head.bias)
    return model


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_loaded_classifier_says_the_same(
    classifier: Classifier, info: ModelInfo, tmp_path: Path, pictures: torch.Tensor, multi_label: bool
) -> None:
    info = replace(info, multi_label=multi_label)
    export_model(classifier, info, tmp_path / "out", "# A classifier\n")
    loaded, found = load_classifier(tmp_path / "out")
    assert not loaded.training
    assert torch.equal(loaded(pictures), classifier(pictures))
    assert (found.classes, found.multi_label, found.data) == (CLASSES, multi_label, DATA)
    encoder, same = load_encoder(tmp_path / "out")
    assert same == found
    assert torch.equal(encoder(pictures).x_NLD, classifier.encoder(pictures).x_NLD)


def test_what_stands_in_the_files(classifier: Classifier, info: ModelInfo, tmp_path: Path) -> None:
    export_model(classifier, info, tmp_path / "out", "# A classifier\n")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["Data2Vec2ImageForImageClassification"]
    assert config["problem_type"] == "single_label_classification"
    assert config["id2label"] == {"0": "cat", "1": "dog", "2": "naïve bird"}
    assert config["label2id"] == {"cat": 0, "dog": 1, "naïve bird": 2}
    names = set(load_file(tmp_path / "out" / "model.safetensors"))
    heads = {name for name in names if not name.startswith("encoder.")}
    assert heads == {"norm.weight", "norm.bias", "classifier.weight", "classifier.bias"}
    assert {name for name in names if name.startswith("encoder.")} == {
        f"encoder.{name}" for name in classifier.encoder.state_dict()
    }


def test_names_of_classes_must_be_as_many_as_outputs(classifier: Classifier, info: ModelInfo, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 names of classes or letters for 3 outputs"):
        export_model(classifier, replace(info, classes=("a", "b")), tmp_path / "out", "")
    assert not list(tmp_path.iterdir())


def test_an_encoder_is_not_a_classifier(exported: Path) -> None:
    assert load_encoder(exported)[1].classes == ()
    with pytest.raises(UserError, match=r"without a head.*finetune"):
        load_classifier(exported)


def test_damaged_heads_are_named(classifier: Classifier, info: ModelInfo, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    export_model(classifier, info, folder, "")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(
        config.replace('"2": "naïve', '"7": "naïve').replace('"2": "na\\u00efve', '"7": "na')
    )
    with pytest.raises(UserError, match="id2label must name the classes"):
        load_classifier(folder)
    (folder / "config.json").write_text(config)
    weights = load((folder / "model.safetensors").read_bytes())
    del weights["classifier.bias"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"does not hold what config.json describes"):
        load_classifier(folder)
