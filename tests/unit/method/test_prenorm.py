"""Shapes of other families as student and teacher: pre-norm blocks, factors, registers, learned positions, no ALiBi."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from data2vec2.config.model import (
    DecoderConfig,
    EncoderConfig,
    LossConfig,
    ModalityConfig,
    ModelConfig,
    TargetConfig,
)
from data2vec2.method.pretraining import Data2Vec2
from data2vec2.modalities.audio.config import AudioConfig
from data2vec2.modalities.image.config import ImageConfig
from data2vec2.modalities.text.config import TextConfig
from data2vec2.modalities.tools import tools_of

WIDTH = 32
AUDIO = AudioConfig(conv_dim=16, position_depth=1, position_groups=4, position_norm=False, alibi=False)
MODALITIES: dict[str, ModalityConfig] = {
    "image": ImageConfig(image_size=24, patch_size=6, positions="learned", num_registers=3),
    "speech": replace(AUDIO, position_kernel=8, conv_bias=True),
    "text": TextConfig(vocab_size=50, max_tokens=16, stem_norm_eps=1e-12),
}


def made(modality: ModalityConfig, **encoder: object) -> Data2Vec2:
    torch.manual_seed(0)
    shape = {"pre_norm": True, "layer_scale": True, **encoder}
    config = ModelConfig(
        modality=modality,
        encoder=EncoderConfig(embed_dim=WIDTH, num_heads=4, prenet_depth=1, depth=2, **shape),  # type: ignore[arg-type]
        decoder=DecoderConfig(depth=1, dim=16, groups=4),
        targets=TargetConfig(average_layers=2),
        loss=LossConfig(cls_loss_weight=1.0 if modality.kind == "image" else 0.0),
    )
    model = Data2Vec2(config, tools_of(modality.kind).build(config))
    with torch.no_grad():
        for parameter in model.student.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture(params=MODALITIES)
def model(request: pytest.FixtureRequest) -> Data2Vec2:
    return made(MODALITIES[request.param])


@torch.no_grad()
def test_what_is_masked_does_not_reach_the_student(model: Data2Vec2) -> None:
    """Changing masked tokens leaves the student's outputs as they are; changing a kept one does not."""
    tokens_BTD = torch.randn(2, 16, WIDTH)
    grid = (4, 4) if model.config.modality.kind == "image" else (16,)
    tokens = model.student.modality.tokens(_inputs(model))
    tokens = replace(tokens, tokens_BTD=tokens_BTD, grid=grid, padding_BT=None)
    keep_ids_NK = torch.stack([torch.randperm(16)[:5].sort().values for _ in range(4)])
    student = model.student.eval()
    before = student(tokens=tokens, keep_ids_NK=keep_ids_NK).x_NLD
    for sample in range(2):
        masked = torch.ones(16, dtype=torch.bool)
        masked[keep_ids_NK[2 * sample : 2 * sample + 2].flatten()] = False
        tokens_BTD[sample, masked] += 10.0
    after = student(tokens=replace(tokens, tokens_BTD=tokens_BTD), keep_ids_NK=keep_ids_NK).x_NLD
    assert torch.equal(before, after)
    tokens_BTD[0, keep_ids_NK[0, 0]] += 10.0
    assert not torch.allclose(before[0], student(tokens=tokens, keep_ids_NK=keep_ids_NK).x_NLD[0])


def test_student_and_decoder_learn_and_the_teacher_does_not(model: Data2Vec2) -> None:
    keep_ids_NK = torch.arange(6).expand(4, -1)
    out = model(_inputs(model), keep_ids_NK)
    out.loss.backward()
    assert torch.isfinite(out.loss)
    trained = [*model.student.named_parameters(), *model.decoder.named_parameters()]
    without = {name for name, parameter in trained if parameter.grad is None or not parameter.grad.any()}
    assert not without
    assert not any(parameter.requires_grad for parameter in model.teacher.parameters())
    assert "norm.weight" in model.student.state_dict()
    assert "norm.weight" not in model.teacher.state_dict(), "targets are made before the last norm"


@torch.no_grad()
def test_targets_are_what_the_mlp_gives(model: Data2Vec2) -> None:
    """Before the factor, which is a block's own."""
    teacher = model.teacher
    outputs: list[torch.Tensor] = []
    hooks = [block.mlp.register_forward_hook(lambda *of: outputs.append(of[2])) for block in teacher.blocks]
    tokens = model.student.modality.tokens(_inputs(model))
    encoded = teacher(tokens=tokens)
    for hook in hooks:
        hook.remove()
    extra = encoded.num_extra_tokens
    for found, expected in zip(teacher.trunk_outputs(encoded), outputs[1:], strict=True):
        assert torch.equal(found, expected[:, extra:])


@torch.no_grad()
def test_fewer_blocks_end_without_the_norm(model: Data2Vec2) -> None:
    inputs, states, student = _inputs(model), list[torch.Tensor](), model.student.eval()
    hooks = [block.register_forward_hook(lambda *of: states.append(of[2].x_NLD)) for block in student.blocks]
    whole = student(inputs).x_NLD
    for hook in hooks:
        hook.remove()
    assert torch.equal(student.up_to(2)(inputs).x_NLD, states[1])
    assert torch.equal(student.up_to(3)(inputs).x_NLD, whole)
    assert torch.equal(whole, student.norm(states[2]))


@torch.no_grad()
def test_sums_keep_their_bits_under_autocast(model: Data2Vec2) -> None:
    seen = []
    model.student.blocks[1].register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        model.student(_inputs(model))
    assert seen == [torch.float32]


@torch.no_grad()
def test_a_norm_over_time_counts_real_samples_alone() -> None:
    model = made(replace(MODALITIES["speech"], stem_norm="group"), pre_norm=False, layer_scale=False)
    encoder, lengths_B = model.student.eval(), torch.tensor([8_000, 5_000])
    waves = torch.randn(2, 8_000)
    waves[1, 5_000:] = 1e3
    together = encoder(waves, lengths_B=lengths_B)
    alone = encoder(waves[1:, :5_000]).features_NTD
    assert torch.allclose(together.features_NTD[1, : alone.shape[1]], alone[0], atol=1e-4)
    assert torch.allclose(together.features_NTD[0], encoder(waves[:1]).features_NTD[0], atol=1e-4)


def _inputs(model: Data2Vec2) -> torch.Tensor:
    torch.manual_seed(1)
    kind = model.config.modality.kind
    if kind == "image":
        return torch.randn(2, 3, 24, 24)
    return torch.randint(3, 50, (2, 16)) if kind == "text" else torch.randn(2, 400 + 15 * 320)
