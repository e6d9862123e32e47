"""Features of real pictures, and the table of scores."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from data2vec2.config import DataConfig
from data2vec2.data.image import ImageReader
from data2vec2.data.records import open_data
from data2vec2.data.samples import fashion_mnist
from data2vec2.evaluation.features import Normalise, encode, labelled, raw_pixels
from data2vec2.evaluation.scores import score
from data2vec2.modalities import build_modality
from data2vec2.models import Encoder
from data2vec2.recipes import get_recipe

CPU = torch.device("cpu")
CONFIG = get_recipe("image_tiny").model


@pytest.fixture(scope="module")
def reader() -> ImageReader:
    records = open_data(fashion_mnist()).train.select(range(600))
    return ImageReader(records, CONFIG.modality, DataConfig(eval_crop=1.0), 0)


def encoder(seed: int) -> Encoder:
    torch.manual_seed(seed)
    return Encoder(CONFIG.encoder, build_modality(CONFIG)).eval()


def test_normalise_gives_zero_mean_and_unit_variance(reader: ImageReader) -> None:
    pixels = reader.eval_batch(np.arange(200)).pixels_BCHW
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
    together = encode(model, reader, np.arange(300), normalise, CPU)  # two batches
    alone = encode(model, reader, np.array([270]), normalise, CPU)
    assert together.x.shape == (300, get_recipe("image_tiny").model.encoder.embed_dim)
    assert np.allclose(together.x[270], alone.x[0], atol=1e-5)
    assert together.y.tolist() == reader.records.labels[:300].tolist()


def test_raw_pixels(reader: ImageReader) -> None:
    part = raw_pixels(reader, np.arange(5))
    assert part.x.shape == (5, 28 * 28)
    assert np.allclose(part.x * 255, reader.eval_batch(np.arange(5)).pixels_BCHW.reshape(5, -1), atol=1e-3)


def test_the_table(reader: ImageReader) -> None:
    train, test = np.arange(400), np.arange(400, 600)
    normalise = Normalise((0.3,), (0.3,), CPU)
    scores = score(encoder(0), encoder(1), (reader, train), (reader, test), normalise, CPU, "test part")
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
    assert json.loads(json.dumps(scores.to_dict()))["rows"][2]["knn"] == rows["raw pixels"].knn
