"""The encoder with a head: how it starts, what it computes, and its drop path."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from data2vec2.config.model import EncoderConfig
from data2vec2.method.encoder import Encoder
from data2vec2.method.heads import Classifier, linear_softmax
from data2vec2.modalities.audio.config import AudioConfig
from data2vec2.modalities.audio.model import AudioModality
from data2vec2.modalities.image.config import ImageConfig
from data2vec2.modalities.image.model import ImageModality
from data2vec2.modalities.text.config import TextConfig
from data2vec2.modalities.text.model import TextModality

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


def audio_classifier(pooling: str) -> Classifier:
    torch.manual_seed(0)
    modality = AudioModality(AudioConfig(stem="mel", position_groups=4), 16, 2)
    return Classifier(Encoder(SHAPE, modality), 3, pooling=pooling).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("pooling", ["mean", "linear_softmax"])
def test_a_recording_gives_the_same_in_any_batch(pooling: str) -> None:
    model = audio_classifier(pooling)
    torch.nn.init.normal_(model.head.weight)
    clips, lengths = [torch.randn(length) for length in (8_000, 3_000)], torch.tensor([8_000, 3_000])
    together = model(torch.nn.utils.rnn.pad_sequence(clips, batch_first=True, padding_value=9.0), lengths)
    for row, clip in enumerate(clips):
        assert torch.allclose(together[row], model(clip[None])[0], atol=1e-5)


def text_classifier(pooling: str) -> Classifier:
    torch.manual_seed(0)
    modality = TextModality(TextConfig(vocab_size=50, max_tokens=12), 16, 0.0)
    return Classifier(Encoder(SHAPE, modality), 3, pooling=pooling).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_a_text_gives_the_same_in_any_batch(pooling: str) -> None:
    model = text_classifier(pooling)
    torch.nn.init.normal_(model.head.weight)
    texts = [torch.randint(3, 50, (length,)) for length in (12, 5)]
    ids, lengths = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=1), torch.tensor([12, 5])
    together = model(ids, lengths)
    for row, text in enumerate(texts):
        assert torch.allclose(together[row], model(text[None])[0], atol=1e-5)


def test_first_is_a_layer_with_tanh_on_the_first_token() -> None:
    model, ids = text_classifier("first"), torch.randint(3, 50, (4, 9))
    first_BD = model.encoder(ids).x_NLD[:, 0]
    dense = model.dense[0]  # type: ignore[index]
    expected_BC = torch.tanh(first_BD @ dense.weight.T + dense.bias) @ model.head.weight.T + model.head.bias
    assert torch.allclose(model(ids), expected_BC, atol=1e-6)
    assert not dense.bias.any()
    assert dense.weight.std().item() == pytest.approx(0.02, rel=0.2)


def test_rescaled_outputs_are_in_the_unit_of_the_numbers() -> None:
    model, ids = text_classifier("mean"), torch.randint(3, 50, (4, 9))
    before = model(ids)
    model.rescale(100.0, 7.0)
    assert torch.allclose(model(ids), before * 7 + 100, rtol=1e-5)


def test_linear_softmax_weighs_probabilities_with_themselves() -> None:
    logits = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0)) * 3
    padding = torch.tensor([[False] * 7, [False] * 4 + [True] * 3])
    for row, count in enumerate((7, 4)):
        p = logits[row, :count].double().sigmoid()
        expected = (p.square().sum(0) / p.sum(0)).logit().float()
        assert torch.allclose(linear_softmax(logits, padding)[row], expected, atol=1e-5)
    assert torch.allclose(linear_softmax(logits[:, :1]), logits[:, 0], atol=1e-5)  # a single token is itself


def test_linear_softmax_of_extreme_scores_stays_finite() -> None:
    logits = torch.tensor([200.0, -200.0, 0.0]).view(1, 1, 3).repeat(1, 5, 1).requires_grad_()
    pooled = linear_softmax(logits)
    assert pooled[0].tolist() == pytest.approx([200, -200, 0])
    pooled.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    padded = linear_softmax(logits, torch.tensor([[False] + [True] * 4]))
    (gradient,) = torch.autograd.grad(padded.sum(), logits)
    assert torch.isfinite(gradient).all()
    assert not gradient[:, 1:].any()
