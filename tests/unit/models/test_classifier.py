"""The encoder with a head: how it starts, what it computes, and its drop path."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from data2vec2.config import EncoderConfig, ImageConfig
from data2vec2.modalities import ImageModality
from data2vec2.models import Classifier, Encoder

SHAPE = EncoderConfig(embed_dim=16, num_heads=2, prenet_depth=1, depth=3)


def make(num_classes: int = 5, drop_path: float = 0.0, config: EncoderConfig = SHAPE) -> Classifier:
    modality = ImageModality(ImageConfig(image_size=16, patch_size=4, num_channels=1), config.embed_dim)
    return Classifier(Encoder(config, modality), num_classes, drop_path)


def test_logits_are_norm_and_linear_of_the_mean_over_patches_without_cls() -> None:
    model, inputs = make().eval(), torch.randn(3, 1, 16, 16)
    mean_BD = model.encoder(inputs).x_NLD[:, 1:].mean(dim=1)
    normed_BD = (mean_BD - mean_BD.mean(1, keepdim=True)) / (mean_BD.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
    expected_BC = normed_BD @ model.head.weight.T + model.head.bias
    assert torch.allclose(model(inputs), expected_BC, atol=1e-5)


def test_the_head_starts_small_and_without_bias() -> None:
    head = make(2000).head
    assert not head.bias.any()
    assert head.weight.abs().max() <= 2  # trunc_normal_ cuts there
    assert head.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_drop_path_rises_over_the_trunk_and_spares_the_prenet() -> None:
    rates = [block.drop_path.rate for block in make(drop_path=0.2).encoder.blocks]
    assert rates == pytest.approx([0.0, 0.0, 0.1, 0.2])
    assert [block.drop_path.rate for block in make(config=replace(SHAPE, depth=1), drop_path=0.2).encoder.blocks] == [
        0,
        0,
    ]


def test_drop_path_acts_in_training_only() -> None:
    model, inputs = make(drop_path=0.9), torch.randn(8, 1, 16, 16)
    assert not torch.equal(model.train()(inputs), model(inputs))
    assert torch.equal(model.eval()(inputs), model(inputs))
