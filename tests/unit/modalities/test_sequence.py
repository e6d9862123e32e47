"""What every modality of sequences inherits, with the plainest stem: a token for four steps of three channels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from data2vec2.config.model import DecoderConfig, EncoderConfig, LossConfig, ModalityConfig, ModelConfig, TargetConfig
from data2vec2.method.pretraining import Data2Vec2
from data2vec2.modalities.sequence import SequenceModality

WIDTH, HEADS, T, STRIDE = 16, 2, 24, 4
CONFIG = ModelConfig(
    modality=ModalityConfig(kind="plain"),
    encoder=EncoderConfig(embed_dim=WIDTH, num_heads=HEADS, prenet_depth=1, depth=2, norm_eps=1e-5),
    decoder=DecoderConfig(depth=1, dim=16, groups=1),
    targets=TargetConfig(average_layers=2, final_norm="none"),
    loss=LossConfig(cls_loss_weight=0.0),
)


class Stem(nn.Linear):
    """Series `B x S x 3` to tokens."""

    def forward(self, series: Tensor) -> Tensor:
        return super().forward(series.unfold(1, STRIDE, STRIDE).flatten(2))


class Plain(SequenceModality):
    def __init__(self, num_extra_tokens: int = 0) -> None:
        shape = {"depth": 2, "kernel": 5, "groups": 2}
        super().__init__(Stem(3 * STRIDE, WIDTH), WIDTH, HEADS, **shape, num_extra_tokens=num_extra_tokens)

    def real_tokens(self, lengths_B: Tensor) -> Tensor:
        return lengths_B // STRIDE


@pytest.fixture(params=[0, 3], ids=lambda count: f"{count} extra tokens")
def model(request: pytest.FixtureRequest) -> Data2Vec2:
    return Data2Vec2(CONFIG, Plain(request.param)).eval()


@torch.no_grad()
def test_padded_tokens_change_neither_features_nor_targets(model: Data2Vec2) -> None:
    """However far a batch was filled up, and with what."""
    x, lengths = torch.randn(6, T * STRIDE, 3), [T, 20, 13, 7, 4, 2]
    tokens = model.student.modality.tokens(x, torch.tensor(lengths) * STRIDE + STRIDE // 2)
    assert tokens.padding_BT is not None and (~tokens.padding_BT).sum(1).tolist() == lengths
    tokens = replace(tokens, tokens_BTD=tokens.tokens_BTD.masked_fill(tokens.padding_BT[..., None], 1e3))
    together, targets = model.student(tokens=tokens), model.targets(x, tokens)
    for row, length in enumerate(lengths):
        short = x[row : row + 1, : length * STRIDE]
        alone = model.student(short)
        assert torch.allclose(together.features_NTD[row, :length], alone.features_NTD[0], atol=1e-5)
        assert torch.allclose(together.pooled()[row], alone.pooled()[0], atol=1e-5)
        assert torch.allclose(targets[row, :length], model.targets(short, alone.tokens)[0], atol=1e-3)


@torch.no_grad()
def test_padding_in_student_rows_changes_nothing(model: Data2Vec2) -> None:
    ids = torch.tensor([[0, 2, 3, 20], [1, 4, 5, 23]])
    tokens = model.student.modality.tokens(torch.randn(1, T * STRIDE, 3))
    padded = model.student(tokens=replace(tokens, padding_BT=torch.arange(T)[None] >= 15), keep_ids_NK=ids).x_NLD
    cut = replace(tokens, tokens_BTD=tokens.tokens_BTD[:, :15], grid=(15,))
    assert torch.allclose(padded[:, :-1], model.student(tokens=cut, keep_ids_NK=ids[:, :3]).x_NLD, atol=1e-5)


def test_the_teacher_starts_from_the_students_tokens_without_gradient(model: Data2Vec2) -> None:
    x, ids = torch.randn(2, T * STRIDE, 3), torch.arange(12).expand(4, -1)
    assert model.teacher.modality.stem is None
    before = model(x, ids).targets_BTD
    assert not before.requires_grad
    with torch.no_grad():
        for parameter in model.student.modality.stem.parameters():  # type: ignore[union-attr]
            parameter.add_(torch.randn_like(parameter))
    assert not torch.allclose(model(x, ids).targets_BTD, before, atol=1e-2)


def test_a_modality_that_contradicts_itself_is_refused() -> None:
    class Contradiction(Plain):
        teacher_owns = frozenset({"trunk"})

    with pytest.raises(AssertionError, match=r"positions\.convs\.0\.weight"):
        Data2Vec2(CONFIG, Contradiction())


def test_extra_tokens_learn_the_mean_target_and_count_in_no_feature() -> None:
    """Their mean; without a weight of that loss, or without them, it is 0."""
    config = replace(CONFIG, loss=LossConfig(cls_loss_weight=1.0))
    model, x, ids = Data2Vec2(config, Plain(3)), torch.randn(2, T * STRIDE, 3), torch.arange(12).expand(4, -1)
    out = model(x, ids)
    assert out.student.x_NLD.shape == (4, 15, WIDTH) and out.student.features_NTD.shape == (4, 12, WIDTH)
    assert torch.equal(out.student.pooled(), out.student.x_NLD[:, 3:].mean(1))
    summary, mean = out.student.x_NLD[:, :3].mean(1), out.targets_BTD.mean(1).repeat_interleave(2, 0)
    expected = (summary - mean).square().sum() * model.loss_scale / 4
    torch.testing.assert_close(out.cls, expected.detach())
    out.loss.backward()
    gradient = model.student.modality.extra_tokens_1ED.grad  # type: ignore[union-attr]
    assert gradient is not None and gradient.abs().sum(2).all()  # type: ignore[operator]
    assert Data2Vec2(config, Plain())(x, ids).cls == 0
    assert Data2Vec2(CONFIG, Plain(3))(x, ids).cls == 0
