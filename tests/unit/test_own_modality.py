"""Modalities of one's own: the sensor series of docs/own-modality.md, built as audio is, and symbols as text is.

What a modality has to bring is all in `Sensors` and `Symbols`; nothing in the package knows of them.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data2vec2.commands.running import run_task
from torch import Tensor, nn

from data2vec2.config.run import OptimConfig, RunConfig
from data2vec2.data.account import Skipped
from data2vec2.method.encoder import Encoder
from data2vec2.method.gather import take
from data2vec2.method.masking import draw_keep_ids
from data2vec2.method.modality import Modality, Rows, Tokens
from data2vec2.method.pretraining import Data2Vec2
from data2vec2.tasks.pretrain import PretrainTask
from data2vec2.training.checkpoint import load_newest
from data2vec2.training.loop import Outcome
from data2vec2.training.optim import Ema, build_optimizer
from data2vec2.training.run import RunFolder
from tests.pages import module_of

sensors = module_of("docs/own-modality.md", "sensors.py")
CHANNELS, LENGTH, STRIDE = sensors.CHANNELS, sensors.CROP, sensors.STRIDE
B, T, SYMBOLS = 6, LENGTH // STRIDE, 20
RECIPE: RunConfig = sensors.sensors_tiny()
CONFIG = replace(
    RECIPE.model,
    encoder=replace(RECIPE.model.encoder, prenet_depth=1, depth=2),
    targets=replace(RECIPE.model.targets, average_layers=2),
)
WIDTH, HEADS = CONFIG.encoder.embed_dim, CONFIG.encoder.num_heads


class Sensors(sensors.Sensors):  # type: ignore[misc, name-defined]
    """The page's modality, of the size of CONFIG."""

    def __init__(self) -> None:
        super().__init__(CHANNELS, STRIDE, WIDTH, HEADS)


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
        assert {"modality.positions.convs.0.weight", "modality.alibi_scale_H", "norm.weight"} <= expected
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
    assert modality.slopes_H.tolist() == [2.0 ** -(2 * (head + 1)) for head in range(HEADS)]
    ids = keep_ids(0)
    tokens = modality.tokens(series(0))
    bias = modality.arrange(tokens, ids).bias
    assert bias is not None
    dense = bias.dense(torch.float32)
    for head in range(HEADS):
        for i, j in ((0, 1), (3, 9), (11, 2)):
            distance = abs(int(ids[5, i]) - int(ids[5, j]))
            assert dense[5, head, i, j].item() == pytest.approx(-distance * modality.slopes_H[head].item())
    whole = modality.arrange(tokens).bias
    assert whole is not None
    row = whole.dense(torch.float32)[0]  # the same for all samples
    assert torch.equal(row[:, ids[5]][:, :, ids[5]], dense[5])


def test_padded_tokens_change_nothing() -> None:
    """Neither a series' features nor its targets depend on how far a batch was filled up, or with what."""
    model = model_of(Sensors)
    x, lengths = series(3), [T, 20, 13, 7, 4, 2]
    encoder: Encoder = model.student.eval()
    tokens = encoder.modality.tokens(x, torch.tensor(lengths) * STRIDE + STRIDE // 2)
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

    with pytest.raises(AssertionError, match=r"positions\.convs\.0\.weight"):
        Data2Vec2(CONFIG, modality=Contradiction())


def test_the_reader_cuts_by_seed_epoch_and_sample() -> None:
    values, kinds = sensors.make_series(8, seed=0)
    reader = sensors.SeriesReader("all", values, kinds, seed=3)
    order = reader.order(8)
    first, again, later = (reader.train_batch(order(step)) for step in (0, 0, 1))
    assert first.inputs.shape == (8, CHANNELS, LENGTH)
    assert first.inputs.dtype == np.float32
    assert np.array_equal(first.inputs, again.inputs)
    for batch in (first, later):
        for crop, sample in zip(batch.inputs, batch.indices_B, strict=True):
            assert any(np.array_equal(crop, values[sample, :, start : start + LENGTH]) for start in range(33))
    by_sample = [dict(zip(batch.indices_B.tolist(), batch.inputs, strict=True)) for batch in (first, later)]
    assert any(not np.array_equal(by_sample[0][sample], by_sample[1][sample]) for sample in range(8))
    assert np.array_equal(reader.eval_batch(np.array([5])).inputs[0], values[5])


def test_the_pages_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    config = replace(RECIPE, train=replace(RECIPE.train, updates=6, save_every=3, log_every=2, eval_every=0))
    reader = sensors.SeriesReader("train", *sensors.make_series(40, seed=0), seed=0)

    def run(folder: Path) -> Outcome:
        torch.manual_seed(0)
        model = Data2Vec2(config.model, modality=sensors.new_sensors(config))
        skipped = Skipped(len(reader.records), 0.0)
        task = PretrainTask(model, config, reader, None, lambda x: x, torch.device("cpu"), skipped, folder / "skipped")
        fingerprint, place = reader.records.fingerprint, RunFolder(folder)
        with place.locked():
            return run_task(
                place, config, lambda _: task, job={}, helper="", fingerprint=fingerprint,
                resume=True, skipped=skipped, finish=lambda _: None,
            )  # fmt: skip

    assert run(tmp_path / "whole") == Outcome("finished", 6)
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "step-6")
    assert run(tmp_path / "resumed") == Outcome("finished", 6)
    assert "going on from update 3" in (tmp_path / "resumed" / "train.log").read_text()
    assert (tmp_path / "resumed" / "report.html").exists()
    whole, resumed = (load_newest(tmp_path / name / "checkpoints")[0] for name in ("whole", "resumed"))
    assert whole is not None and resumed is not None
    for group, tensors in whole.groups.items():
        assert all(torch.equal(tensor, resumed.groups[group][name]) for name, tensor in tensors.items())
