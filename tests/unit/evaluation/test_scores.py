"""Features of real pictures, and the table of scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data2vec2.data.account import Bad
from data2vec2.errors import UserError
from data2vec2.evaluation import probes as attentive
from data2vec2.evaluation.features import encode_by_each, labelled
from data2vec2.evaluation.scores import score
from data2vec2.method.encoder import Encoder
from data2vec2.modalities import get_recipe
from data2vec2.modalities.fields import build_encoder
from data2vec2.modalities.image import fashion_mnist
from data2vec2.modalities.image.config import ImageDataConfig
from data2vec2.modalities.image.reader import ImageReader, Normalise
from data2vec2.modalities.image.show import raw_pixels
from tests.unit.data.pictures import open_pictures

CPU = torch.device("cpu")
RAW = ("raw pixels", lambda train, test, note: (raw_pixels(*train, note=note), raw_pixels(*test, note=note)))
CONFIG = get_recipe("image_tiny").model


@pytest.fixture(scope="module")
def reader() -> ImageReader:
    records = open_pictures(fashion_mnist()).train.select(range(600))
    return ImageReader(records, CONFIG.modality, ImageDataConfig(eval_crop=1.0), 0)


def encoder(seed: int) -> Encoder:
    torch.manual_seed(seed)
    return build_encoder(CONFIG).eval()


def test_normalise_gives_zero_mean_and_unit_variance(reader: ImageReader) -> None:
    pixels = reader.eval_batch(np.arange(200)).inputs
    mean, std = float(pixels.mean()) / 255, float(pixels.std()) / 255
    x = Normalise((mean,), (std,), CPU)(torch.from_numpy(pixels))
    assert x.dtype == torch.float32
    assert abs(x.mean().item()) < 1e-4
    assert x.std().item() == pytest.approx(1, rel=1e-3)


def test_labelled_are_spread_and_have_labels() -> None:
    labels = np.array([-1, 0, 1, -1, 2, 3, 4, 5, -1, 6])
    assert labelled(labels, 100).tolist() == [1, 2, 4, 5, 6, 7, 9]
    assert labelled(labels, 3).tolist() == [1, 4, 6]
    assert labelled(np.array([-1, -1]), 5).tolist() == []
    assert len(labelled(np.zeros(10_000, dtype=np.int64), 2_000)) == 2_000


def test_features_do_not_depend_on_their_batch(reader: ImageReader) -> None:
    model, normalise = encoder(0), Normalise((0.3,), (0.3,), CPU)
    (together,) = encode_by_each([model], reader, np.arange(300), normalise, CPU)  # two batches
    (alone,) = encode_by_each([model], reader, np.array([270]), normalise, CPU)
    assert together.x.shape == (300, get_recipe("image_tiny").model.encoder.embed_dim)
    assert np.allclose(together.x[270], alone.x[0], atol=1e-5)
    assert together.y.tolist() == reader.records.labels[:300].tolist()


def test_raw_pixels(reader: ImageReader) -> None:
    part = raw_pixels(reader, np.arange(5))
    assert part.x.shape == (5, 28 * 28)
    assert np.allclose(part.x * 255, reader.eval_batch(np.arange(5)).inputs.reshape(5, -1), atol=1e-3)


def test_the_table(reader: ImageReader) -> None:
    train, test = np.arange(400), np.arange(400, 600)
    normalise = Normalise((0.3,), (0.3,), CPU)
    scores = score(encoder(0), encoder(1), (reader, train), (reader, test), normalise, CPU, "test part", raw=RAW)
    assert [row.features for row in scores.rows] == [
        "data2vec2",
        "random initialisation",
        "raw pixels",
        "majority class",
    ]
    assert (scores.train_samples, scores.test_samples, len(scores.classes)) == (400, 200, 10)
    rows = {row.features: row for row in scores.rows}
    labels = reader.records.labels
    assert rows["majority class"].knn == (labels[test] == np.bincount(labels[train]).argmax()).mean()
    assert rows["raw pixels"].knn > 0.6  # as is known of Fashion-MNIST
    assert rows["raw pixels"].linear > 0.6
    as_json = json.loads(json.dumps(scores.to_dict()))
    assert as_json["kind"] == "probes"
    assert as_json["curves"] == []
    assert as_json["rows"][2] == {
        "features": "raw pixels",
        "knn": rows["raw pixels"].knn,
        "linear": rows["raw pixels"].linear,
    }


def test_probes_and_curves_that_are_asked_for(reader: ImageReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attentive, "EPOCHS", 2)
    train, test = (reader, np.arange(300)), (reader, np.arange(400, 500))
    normalise = Normalise((0.3,), (0.3,), CPU)
    heard: list[str] = []
    scores = score(
        *(encoder(0), encoder(1), train, test, normalise, CPU, "test"),
        raw=RAW,
        probes=("knn", "attentive"),
        labels=(1, 15),
        seeds=2,
        log=heard.append,
    )
    rows = scores.to_dict()["rows"]
    assert [list(row) for row in rows] == [["features", "knn", "attentive"]] * 4
    assert rows[2]["attentive"] is None  # pixels have no patch features
    assert all(0 < row["attentive"] <= 1 for row in (rows[0], rows[1], rows[3]))
    names = [(curve.features, curve.probe) for curve in scores.curves]
    kinds = ("data2vec2", "random initialisation", "raw pixels")
    assert names == [(features, probe) for features in kinds for probe in ("knn", "linear")]
    for curve in scores.curves:
        assert curve.labels == (1, 15)
        assert all(
            0 <= low <= mean <= high <= 1 for low, mean, high in zip(curve.low, curve.mean, curve.high, strict=True)
        )
    assert scores.curves[4].mean[1] > scores.curves[4].mean[0]  # more labels, more known
    assert heard[:2] == ["scoring data2vec2", "low-label curves of data2vec2"]


def test_what_can_not_be_read_is_left_out(tmp_path: Path) -> None:
    for place in range(6):
        pixels = np.full((28, 28), 40 * place, np.uint8)
        (tmp_path / f"class{place % 2}").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / f"class{place % 2}" / f"{place}.png")
    (tmp_path / "class0" / "2.png").write_bytes(b"")
    records = open_pictures(tmp_path).train
    pictures = ImageReader(records, CONFIG.modality, ImageDataConfig(eval_crop=1.0), 0)
    bad: list[Bad] = []
    part = raw_pixels(pictures, np.arange(6), note=bad.extend)
    assert [(item.name, item.reason) for item in bad] == [("class0/2.png", "empty file")]
    expected = [(place, label) for place, label in enumerate(records.labels) if records.names[place] != "class0/2.png"]
    assert part.y.tolist() == [label for _, label in expected]
    assert sorted(part.x[:, 0]) == pytest.approx([0, 40 / 255, 120 / 255, 160 / 255, 200 / 255])
    only = np.flatnonzero(np.array(records.names) == "class0/2.png")
    with pytest.raises(UserError, match="none of 1 samples of the folder of images can be read"):
        raw_pixels(pictures, only)
