"""Modalities of one's own: a multichannel sensor series as audio will be built, and symbols as text will be.

What a modality has to bring is all in `Sensors` and `Symbols`; nothing in the package knows of them.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data2vec2.config import (
    DecoderConfig,
    EncoderConfig,
    LossConfig,
    MaskConfig,
    ModelConfig,
    OptimConfig,
    TargetConfig,
)
from data2vec2.masking import draw_keep_ids
from data2vec2.modalities import Modality, Rows, Tokens
from data2vec2.models import Data2Vec2, Encoder
from data2vec2.nn.attention import AttentionBias
from data2vec2.nn.gather import put, take
from data2vec2.training.ema import Ema
from data2vec2.training.optim import build_optimizer

B, CHANNELS, LENGTH, STRIDE, WIDTH, HEADS, SYMBOLS = 6, 3, 192, 8, 32, 4, 20
T = LENGTH // STRIDE

CONFIG = ModelConfig(
    encoder=EncoderConfig(embed_dim=WIDTH, num_heads=HEADS, prenet_depth=1, depth=2, norm_eps=1e-5),
    masks=MaskConfig(num_masks=4, mask_ratio=0.5, adjust=0.05, block_length=3, inverse=False),
    decoder=DecoderConfig(depth=2, kernel=7, dim=16, groups=4),
    targets=TargetConfig(average_layers=2, final_norm="none"),
    loss=LossConfig(cls_loss_weight=0.0),
)


class Sensors(Modality):
    """Series `B x channels x length`, NaN after a series' end; a strided convolution makes the tokens."""

    teacher_owns = frozenset({"context", "trunk"})
    num_axes = 1
    slopes_H: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(CHANNELS, WIDTH, kernel_size=STRIDE, stride=STRIDE)
        self.positions = nn.Conv1d(WIDTH, WIDTH, kernel_size=5, padding=2, groups=4)
        self.alibi_scale_H = nn.Parameter(torch.empty(HEADS))
        self.register_buffer("slopes_H", torch.empty(HEADS), persistent=False)

    def tokens(self, inputs: Tensor, lengths_B: Tensor | None = None) -> Tokens:
        assert self.stem is not None
        missing_BT = inputs[:, 0, :].isnan().unfold(1, STRIDE, STRIDE).any(-1)
        tokens_BTD = self.stem(inputs.nan_to_num()).transpose(1, 2)
        return Tokens(tokens_BTD, (tokens_BTD.shape[1],), missing_BT)

    def arrange(self, tokens: Tokens, keep_ids_NK: Tensor | None = None) -> Rows:
        x, padding = tokens.tokens_BTD, tokens.padding_BT
        num_samples, num_tokens, _ = x.shape
        if padding is not None:
            x = x.masked_fill(padding[:, :, None], 0.0)
        if keep_ids_NK is None:
            places_NL = torch.arange(num_tokens, device=x.device).expand(num_samples, -1)
            return Rows(self._placed(x), self._bias(places_NL, padding))
        x_NTD = put(x.new_zeros(len(keep_ids_NK), num_tokens, WIDTH), keep_ids_NK, take(x, keep_ids_NK))
        rows_NKD = take(self._placed(x_NTD), keep_ids_NK)
        if padding is not None:
            padding = take(padding[:, :, None], keep_ids_NK)[..., 0]
        return Rows(rows_NKD, self._bias(keep_ids_NK, padding))

    def reset_parameters(self) -> None:
        for part in (self.stem, self.positions):
            if isinstance(part, nn.Conv1d):
                part.reset_parameters()
        nn.init.ones_(self.alibi_scale_H)
        with torch.no_grad():
            self.slopes_H.copy_(2.0 ** -torch.arange(1.0, HEADS + 1))

    def _placed(self, x_NTD: Tensor) -> Tensor:
        placed: Tensor = x_NTD + self.positions(x_NTD.transpose(1, 2)).transpose(1, 2)
        return placed

    def _bias(self, places_NL: Tensor, padding_NL: Tensor | None) -> AttentionBias:
        return AttentionBias(
            positions_NL=places_NL, slopes_H=self.slopes_H, scale_H=self.alibi_scale_H, padding_NL=padding_NL
        )


class SymbolStem(nn.Module):
    """Embeddings of symbols and of their places, and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.symbols = nn.Embedding(SYMBOLS, WIDTH)
        self.places = nn.Embedding(T, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, symbols_BT: Tensor) -> Tensor:
        return self.norm(self.symbols(symbols_BT) + self.places.weight)  # type: ignore[no-any-return]


class Symbols(Modality):
    """Symbols `BT`; everything but the trunk is in the stem."""

    teacher_owns = frozenset({"trunk"})
    num_axes = 1
    first_norm = False

    def __init__(self) -> None:
        super().__init__()
        self.stem = SymbolStem()

    def tokens(self, inputs: Tensor, lengths_B: Tensor | None = None) -> Tokens:
        assert self.stem is not None
        return Tokens(self.stem(inputs), (inputs.shape[1],))

    def arrange(self, tokens: Tokens, keep_ids_NK: Tensor | None = None) -> Rows:
        return Rows(tokens.tokens_BTD if keep_ids_NK is None else take(tokens.tokens_BTD, keep_ids_NK))

    def reset_parameters(self) -> None:
        """Linear, Embedding and LayerNorm are initialised for everybody."""


def series(seed: int, count: int = B) -> Tensor:
    """Three axes of something that swings: a base frequency with an overtone, seen from an angle, with noise."""
    generator = np.random.default_rng(seed)
    t = np.arange(LENGTH) / 50  # seconds at 50 Hz
    frequency, phase = generator.uniform(0.5, 3, (count, 1, 1)), generator.uniform(0, 2 * math.pi, (count, 1, 1))
    swing = np.concatenate([np.sin(2 * math.pi * k * frequency * t + k * phase) / k for k in (1, 2)], axis=1)
    seen = np.einsum("bct,bkc->bkt", swing, generator.standard_normal((count, CHANNELS, 2)))
    return torch.from_numpy((seen + 0.05 * generator.standard_normal(seen.shape)).astype(np.float32))


def symbols(seed: int) -> Tensor:
    """Symbols of which the next follows from the last."""
    generator = np.random.default_rng(seed)
    start, stride = generator.integers(0, SYMBOLS, (B, 1)), generator.integers(1, 4, (B, 1))
    return torch.from_numpy((start + stride * np.arange(T)) % SYMBOLS)


def keep_ids(step: int) -> Tensor:
    samples = np.arange(B)
    return torch.from_numpy(draw_keep_ids(CONFIG.masks, (T,), 0, samples * 0 + step, samples))


def inputs(kind: type[Modality], seed: int) -> Tensor:
    return series(seed) if kind is Sensors else symbols(seed)


@pytest.fixture(params=[Sensors, Symbols])
def kind(request: pytest.FixtureRequest) -> type[Modality]:
    return request.param  # type: ignore[no-any-return]


def model_of(kind: type[Modality]) -> Data2Vec2:
    torch.manual_seed(0)
    return Data2Vec2(CONFIG, modality=kind())


def test_it_learns(kind: type[Modality]) -> None:
    """All that training needs is there, and the loss falls. (The teacher is slow: a fast one's targets soon get richer,
    and the loss rises.)"""
    model = model_of(kind).train()
    optimizer = build_optimizer(model, OptimConfig(lr=3e-3))
    ema = Ema(model.teacher, model.student, start=0.999, end=0.999, anneal_updates=0)
    losses = []
    for step in range(60):
        out = model(inputs(kind, step), keep_ids(step))
        (out.loss / out.num_rows).backward()
        optimizer.step()
        optimizer.zero_grad()
        ema.update(step + 1)
        losses.append(out.regression.item())
        assert out.cls == 0
    last = sum(losses[-10:]) / 10
    assert last < 0.8 * losses[0]
    assert last < 0.6 * math.sqrt(WIDTH)  # which is what a prediction scores that does not look at the input
    assert out.targets_BTD.std() > 0.5


def test_gradients_reach_every_part(kind: type[Modality]) -> None:
    model = model_of(kind).train()
    out = model(inputs(kind, 0), keep_ids(0))
    (out.loss / out.num_rows).backward()
    for name, parameter in model.named_parameters():
        if name.startswith("teacher."):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


def test_the_teacher_owns_what_it_says_and_the_average_covers_just_that(kind: type[Modality]) -> None:
    model = model_of(kind)
    names = {name for name, _ in model.student.named_parameters()}
    left_out = {Sensors: ("modality.stem.",), Symbols: ("modality.",)}[kind]
    expected = {name for name in names if not name.startswith(left_out)}
    teacher = dict(model.teacher.named_parameters())
    assert teacher.keys() == expected
    assert model.teacher.modality.stem is None
    if kind is Sensors:
        assert {"modality.positions.weight", "modality.alibi_scale_H", "norm.weight"} <= expected
    with torch.no_grad():
        for parameter in model.student.parameters():
            parameter.add_(1)
    before = {name: parameter.clone() for name, parameter in teacher.items()}
    Ema(model.teacher, model.student, start=0.5, end=0.5, anneal_updates=0).update(1)
    for name, parameter in teacher.items():
        assert torch.allclose(parameter, before[name] + 0.5, atol=1e-5), name


def test_the_teacher_starts_from_the_students_tokens_without_gradient(kind: type[Modality]) -> None:
    model = model_of(kind).train()
    x = inputs(kind, 0)
    before = model(x, keep_ids(0)).targets_BTD
    assert not before.requires_grad
    stem = model.student.modality.stem
    assert stem is not None
    with torch.no_grad():
        for parameter in stem.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert not torch.allclose(model(x, keep_ids(0)).targets_BTD, before, atol=1e-2)


def test_masked_tokens_do_not_reach_the_student(kind: type[Modality]) -> None:
    """Not even through positions that look at neighbours."""
    encoder = model_of(kind).student.eval()
    ids = keep_ids(0)[: CONFIG.masks.num_masks]
    whole = encoder.modality.tokens(inputs(kind, 0)[:1])
    before = encoder(tokens=whole, keep_ids_NK=ids).x_NLD
    for row in range(len(ids)):
        masked = torch.ones(T, dtype=torch.bool)
        masked[ids[row]] = False
        changed = Tokens(whole.tokens_BTD.masked_fill(masked[None, :, None], 50.0), whole.grid, whole.padding_BT)
        after = encoder(tokens=changed, keep_ids_NK=ids).x_NLD
        assert torch.equal(after[row], before[row])
        assert not torch.allclose(after, before)  # other masks of the sample keep some of these


def test_alibi_counts_original_places() -> None:
    modality = Sensors()
    modality.reset_parameters()
    ids = keep_ids(0)
    tokens = modality.tokens(series(0))
    bias = modality.arrange(tokens, ids).bias
    assert bias is not None
    dense = bias.dense(torch.float32)
    for head in range(HEADS):
        for i, j in ((0, 1), (3, 9), (11, 2)):
            distance = abs(int(ids[5, i]) - int(ids[5, j]))
            assert dense[5, head, i, j].item() == pytest.approx(-distance * 2.0 ** -(head + 1))
    whole = modality.arrange(tokens).bias
    assert whole is not None
    rows = whole.dense(torch.float32).repeat_interleave(CONFIG.masks.num_masks, 0)
    assert torch.equal(rows[5][:, ids[5]][:, :, ids[5]], dense[5])


def test_padded_tokens_change_nothing() -> None:
    """Neither a series' features nor its targets depend on how far a batch was filled up, or with what."""
    model = model_of(Sensors)
    x, lengths = series(3), [T, 20, 13, 7, 4, 2]
    for row, length in enumerate(lengths):
        x[row, :, length * STRIDE :] = float("nan")
    encoder: Encoder = model.student.eval()
    tokens = encoder.modality.tokens(x)
    assert tokens.padding_BT is not None
    assert (~tokens.padding_BT).sum(1).tolist() == lengths
    filled = tokens.tokens_BTD.masked_fill(tokens.padding_BT[..., None], 1e3)
    together = encoder(tokens=Tokens(filled, tokens.grid, tokens.padding_BT))
    targets = model.targets(x, Tokens(filled, tokens.grid, tokens.padding_BT))
    pooled = together.pooled()
    for row, length in enumerate(lengths):
        short = x[row : row + 1, :, : length * STRIDE]
        alone = encoder(short)
        assert torch.allclose(together.features_NTD[row, :length], alone.features_NTD[0], atol=1e-5)
        assert torch.allclose(pooled[row], alone.pooled()[0], atol=1e-5)
        assert torch.allclose(targets[row, :length], model.targets(short, alone.tokens)[0], atol=1e-3)


def test_padding_in_student_rows_changes_nothing() -> None:
    encoder = model_of(Sensors).student.eval()
    ids = torch.tensor([[0, 2, 3, 20], [1, 4, 5, 23]])
    tokens = encoder.modality.tokens(series(1)[:1])
    padding = torch.arange(T)[None] >= 15
    padded = encoder(tokens=Tokens(tokens.tokens_BTD, tokens.grid, padding), keep_ids_NK=ids).x_NLD
    short = encoder(tokens=Tokens(tokens.tokens_BTD[:, :15], (15,)), keep_ids_NK=ids[:, :3]).x_NLD
    assert torch.allclose(padded[:, :3], short, atol=1e-5)


def test_a_modality_that_contradicts_itself_is_refused() -> None:
    class Contradiction(Sensors):
        teacher_owns = frozenset({"trunk"})

    with pytest.raises(AssertionError, match=r"positions\.weight"):
        Data2Vec2(CONFIG, modality=Contradiction())
