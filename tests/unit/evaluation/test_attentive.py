"""The attentive probe, beside PyTorch's own attention and on patches of real pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from data2vec2.config.model import EncoderConfig
from data2vec2.evaluation import probes as attentive
from data2vec2.evaluation.probes import AttentiveProbe, Patches, attentive_accuracy
from data2vec2.modalities import get_recipe
from data2vec2.modalities.fields import build_encoder
from data2vec2.modalities.image import fashion_mnist
from data2vec2.modalities.image.config import ImageDataConfig
from data2vec2.modalities.image.reader import ImageReader, Normalise
from tests.unit.data.pictures import open_pictures

CPU = torch.device("cpu")
CONFIG = replace(
    get_recipe("image_tiny").model, encoder=EncoderConfig(embed_dim=24, num_heads=3, prenet_depth=0, depth=4)
)


@pytest.fixture(scope="module")
def reader() -> ImageReader:
    records = open_pictures(fashion_mnist()).train.select(range(600))
    return ImageReader(records, CONFIG.modality, ImageDataConfig(eval_crop=1.0), 0)


def patches(reader: ImageReader, samples: np.ndarray, free: int | None = None) -> Patches:
    torch.manual_seed(0)
    encoder = build_encoder(CONFIG).eval()
    return Patches(encoder, reader, samples, Normalise((0.3,), (0.35,), CPU), CPU, free)


def test_against_multi_head_attention_of_pytorch() -> None:
    torch.manual_seed(0)
    probe = AttentiveProbe(12, 3, 5).eval()
    nn.init.normal_(probe.value.bias)
    tokens = torch.randn(4, 7, 12)
    whole = nn.MultiheadAttention(12, 3, batch_first=True).eval()
    with torch.no_grad():
        query, key, value = whole.in_proj_weight.chunk(3)
        query.zero_()
        key.copy_(probe.key.weight)
        value.copy_(probe.value.weight)
        whole.in_proj_bias.copy_(torch.cat([probe.query, torch.zeros(12), probe.value.bias]))
        whole.out_proj.weight.copy_(torch.eye(12))
        whole.out_proj.bias.zero_()
        normed = tokens / (1 + probe.norm.eps) ** 0.5  # running statistics are still 0 and 1
        pooled = whole(torch.zeros(4, 1, 12), normed, normed, need_weights=False)[0][:, 0]
        assert torch.allclose(probe(tokens), probe.head(pooled), atol=1e-5)


def test_stored_and_streamed_patches_are_the_same(reader: ImageReader) -> None:
    samples = np.arange(0, 500, 2)
    stored, streamed = patches(reader, samples), patches(reader, samples, free=0)
    assert stored.stored is not None
    assert streamed.stored is None
    order = np.random.default_rng(0).permutation(250)
    for (x, y), (other_x, other_y) in zip(stored.batches(order), streamed.batches(order), strict=True):
        assert torch.allclose(x, other_x, atol=1e-5)
        assert torch.equal(y, other_y)
    assert sum(len(y) for _, y in stored.batches(order)) == 250
    labels = torch.cat([y for _, y in streamed.batches(order)])
    assert labels.tolist() == reader.records.labels[samples][order].tolist()


def test_it_learns_and_repeats_itself(reader: ImageReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attentive, "EPOCHS", 8)
    train, test = patches(reader, np.arange(400)), patches(reader, np.arange(400, 600))
    before = torch.random.get_rng_state()
    accuracy = attentive_accuracy(train, test)
    assert accuracy > 0.2  # of ten classes, patches of a random network
    assert attentive_accuracy(train, test) == accuracy
    assert attentive_accuracy(train, test, seed=1) != accuracy
    assert torch.equal(torch.random.get_rng_state(), before)
