"""Student, teacher and decoder as one model."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from data2vec2.config.model import ModelConfig
from data2vec2.method.encoder import Encoder
from data2vec2.method.masking import complement, draw_keep_ids
from data2vec2.method.pretraining import Data2Vec2
from data2vec2.modalities import get_recipe
from data2vec2.modalities.image.tools import ImageTools

CONFIG = get_recipe("image_tiny").model
D = CONFIG.encoder.embed_dim
B, M, T = 3, CONFIG.masks.num_masks, 49

# What makes the host wait for the device: reading a value, or a result whose shape depends on values.
WAITING = ("_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "unique", "equal", "bincount")


class _NoWaiting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Fails at an operation that waits for the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.split(".")[0].strip("_")
        assert name not in {word.strip("_") for word in WAITING}, f"{func} waits for the device"
        if name.startswith("index") and any(
            isinstance(i, Tensor) and i.dtype == torch.bool for a in args if isinstance(a, list | tuple) for i in a
        ):
            raise AssertionError(f"{func} with booleans waits for the device")
        assert not (name == "repeat_interleave" and "output_size" not in (kwargs or {})), f"{func} waits"
        return func(*args, **(kwargs or {}))


def no_waiting() -> AbstractContextManager[object]:
    """A context in which an operation that waits for the device fails."""
    return _NoWaiting()  # type: ignore[no-untyped-call]


def batch(config: ModelConfig = CONFIG, seed: int = 0) -> tuple[Tensor, Tensor]:
    samples = np.arange(B)
    keep_ids = draw_keep_ids(config.masks, config.modality.grid, seed, samples * 0, samples)
    size, channels = config.modality.image_size, config.modality.channels
    pixels = torch.randn(B, channels, size, size, generator=torch.Generator().manual_seed(seed))
    return pixels, torch.from_numpy(keep_ids)


def make(config: ModelConfig = CONFIG, seed: int = 0) -> Data2Vec2:
    torch.manual_seed(seed)
    return Data2Vec2(config, ImageTools().build(config))


@pytest.fixture
def model() -> Data2Vec2:
    return make()


def test_shapes(model: Data2Vec2) -> None:
    out = model(*batch())
    kept = batch()[1].shape[1]
    assert out.num_rows == B * M
    assert out.targets_BTD.shape == (B, T, D)
    assert out.predictions_NUD.shape == (B * M, T - kept, D)
    assert out.student.x_NLD.shape == (B * M, 1 + kept, D)
    assert out.loss.shape == out.regression.shape == out.cls.shape == ()
    expected = B * M * (out.regression + CONFIG.loss.cls_loss_weight * out.cls)
    assert out.loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_masked_patch_does_not_reach_the_student(model: Data2Vec2) -> None:
    pixels, keep_ids = batch()
    before = model.student(pixels, keep_ids_NK=keep_ids)
    masked = complement(keep_ids, T)
    changed = pixels.clone()
    common = set.intersection(*(set(row.tolist()) for row in masked[:M]))  # what all masks of sample 0 remove
    assert common
    for token in common:
        y, x = divmod(token, 7)
        changed[0, :, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4] = 99.0
    after = model.student(changed, keep_ids_NK=keep_ids)
    assert torch.equal(before.x_NLD, after.x_NLD)
    kept = int(keep_ids[0, 0])
    y, x = divmod(kept, 7)
    changed[0, :, 4 * y, 4 * x] = 99.0
    rows = (model.student(changed, keep_ids_NK=keep_ids).x_NLD != before.x_NLD).flatten(1).any(1)
    assert rows[0]
    assert not rows[M:].any()  # other samples are not concerned


def test_the_teacher_sees_everything(model: Data2Vec2) -> None:
    pixels, keep_ids = batch()
    before = model(pixels, keep_ids).targets_BTD
    changed = pixels.clone()
    changed[0, :, :4, :4] += 1
    after = model(changed, keep_ids).targets_BTD
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[1:], after[1:])
    assert torch.equal(before, model(pixels, complement(keep_ids, T)).targets_BTD)  # whatever the student sees


def test_the_teacher_is_never_trained(model: Data2Vec2) -> None:
    assert all(torch.equal(t, s) for t, s in zip(model.teacher.parameters(), model.student.parameters(), strict=True))
    assert not {id(p) for p in model.teacher.parameters()} & {id(p) for p in model.student.parameters()}
    model.train()
    assert model.student.training
    assert model.decoder.training
    assert not any(module.training for module in model.teacher.modules())
    model.eval().train(True)
    assert not any(module.training for module in model.teacher.modules())
    out = model(*batch())
    assert not out.targets_BTD.requires_grad
    out.loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in model.teacher.parameters())
    for name, parameter in [*model.student.named_parameters(), *model.decoder.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_the_teacher_makes_float32_targets_from_float32_weights_in_half_precision(model: Data2Vec2) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(*batch())
    assert out.targets_BTD.dtype == torch.float32
    assert out.loss.dtype == torch.float32
    assert {p.dtype for p in model.teacher.parameters()} == {torch.float32}
    assert out.loss.item() == pytest.approx(model(*batch()).loss.item(), rel=0.05)


def test_dropout_does_not_reach_the_teacher() -> None:
    config = replace(CONFIG, encoder=replace(CONFIG.encoder, dropout=0.5, attention_dropout=0.5))
    model = make(config).train()
    first, second = model(*batch()), model(*batch())
    assert torch.equal(first.targets_BTD, second.targets_BTD)
    assert not torch.equal(first.student.x_NLD, second.student.x_NLD)


def test_a_step_never_waits_for_the_device(model: Data2Vec2) -> None:
    inputs = batch()
    with pytest.raises(AssertionError, match="waits"), no_waiting():
        inputs[0].sum().item()
    with pytest.raises(AssertionError, match="waits"), no_waiting():
        inputs[0][inputs[0] > 0]
    with no_waiting():
        model.train()(*inputs).loss.backward()


def test_samples_of_a_batch_do_not_meet() -> None:
    """The loss of a batch is the sum of its samples' losses."""
    config = replace(CONFIG, decoder=replace(CONFIG.decoder, noise_std=0.0))
    model, (pixels, keep_ids) = make(config), batch(config)
    whole = model(pixels, keep_ids).loss.item()
    parts = sum(model(pixels[i : i + 1], keep_ids[i * M : i * M + M]).loss.item() for i in range(B))
    assert whole == pytest.approx(parts, rel=1e-5)


def test_the_order_of_a_samples_masks_does_not_matter() -> None:
    config = replace(CONFIG, decoder=replace(CONFIG.decoder, noise_std=0.0))
    model, (pixels, keep_ids) = make(config), batch(config)
    turned = keep_ids.view(B, M, -1).flip(1).reshape(B * M, -1)
    assert model(pixels, turned).loss.item() == pytest.approx(model(pixels, keep_ids).loss.item(), rel=1e-5)
    foreign = keep_ids.view(B, M, -1).roll(1, 0).reshape(B * M, -1)
    assert model(pixels, foreign).loss.item() != pytest.approx(model(pixels, keep_ids).loss.item(), rel=1e-4)


def test_noise_is_fresh_and_follows_the_seed(model: Data2Vec2) -> None:
    def loss(seed: int) -> float:
        torch.manual_seed(seed)
        return float(model(*batch()).loss.detach())

    assert loss(1) == loss(1)
    assert loss(1) != loss(2)


def test_initialisation() -> None:
    config = replace(CONFIG, encoder=replace(CONFIG.encoder, embed_dim=256, num_heads=4, prenet_depth=1))
    model = make(config)
    for name, parameter in model.student.named_parameters():
        leaf = name.split(".")[-2:]
        if "norm" in name:
            assert (parameter == (1 if leaf[1] == "weight" else 0)).all(), name
        elif name.endswith("cls_token"):
            assert parameter.std().item() == pytest.approx(1, rel=0.2)
        elif "stem" in name and parameter.ndim > 1:  # Xavier uniform on (256, 16)
            assert parameter.abs().max().item() == pytest.approx((6 / (256 + 16)) ** 0.5, rel=0.02)
        elif "blocks" in name:
            expected = 0.02 if parameter.ndim > 1 else 0
            assert parameter.std().item() == pytest.approx(expected, rel=0.05), name
    bound = config.decoder.dim**-0.5  # PyTorch's default
    assert model.get_parameter("decoder.proj.weight").abs().max().item() == pytest.approx(bound, rel=0.02)


def test_the_same_seed_gives_the_same_model() -> None:
    first, second = make(seed=5).state_dict(), make(seed=5).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_pooled_features_are_the_mean_without_extra_tokens(model: Data2Vec2) -> None:
    encoded = model.student.eval()(batch()[0])
    assert encoded.features_NTD.shape == (B, T, D)
    assert torch.allclose(encoded.pooled(), encoded.x_NLD[:, 1:].mean(1))
    assert len(encoded.ffn_outputs) == 4
    assert len(model.student.trunk_outputs(encoded)) == 4


def test_prenet_blocks_are_not_targets() -> None:
    config = replace(CONFIG, encoder=replace(CONFIG.encoder, prenet_depth=2))
    encoder = Encoder(config.encoder, ImageTools().build(config)).eval()
    encoded = encoder(batch()[0])
    assert len(encoded.ffn_outputs) == 6
    trunk = encoder.trunk_outputs(encoded)
    assert len(trunk) == 4
    assert torch.equal(trunk[0], encoded.ffn_outputs[2][:, 1:])


@pytest.mark.parametrize("shape", [(2, 3, 28, 28), (2, 1, 30, 28), (2, 1, 28, 27), (2, 1, 0, 28), (1, 28, 28)])
def test_pictures_that_can_not_be_cut_into_patches_are_refused(model: Data2Vec2, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"for a model of \(batch, 1, height, width\), .* multiples of 4"):
        model.student(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(B, 1, 32, 32), (B, 1, 28, 24)])
def test_pre_training_keeps_to_its_grid(model: Data2Vec2, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"masks for \(7, 7\) patches"):
        model(torch.zeros(shape), batch()[1])
