"""The slow version of the step against the authors' tensors, and the fast one against the slow one."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor

from data2vec2.config.model import DecoderConfig, EncoderConfig, LossConfig, MaskConfig, ModelConfig, TargetConfig
from data2vec2.method.masking import draw_keep_ids, num_kept
from data2vec2.method.pretraining import Data2Vec2
from data2vec2.modalities.image.config import ImageConfig
from tests.parity import reference
from tests.parity.cases import GoldenCase, build, relative_error

TOLERANCE = 1e-4


def slow_step(model: Data2Vec2, pixels: Tensor, keep_ids: Tensor) -> tuple[reference.Step, dict[str, Tensor]]:
    """Results and gradients of the slow version."""
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    for name, tensor in state.items():
        tensor.requires_grad_(not name.startswith("teacher."))
    masked = torch.ones(len(keep_ids), int(np.prod(model.config.modality.grid)), dtype=torch.bool)
    masked.scatter_(1, keep_ids, False)
    result = reference.step(model.config, state, pixels, masked.view(len(pixels), -1, masked.shape[1]))
    result.loss.backward()  # type: ignore[no-untyped-call]
    return result, {name: tensor.grad for name, tensor in state.items() if tensor.grad is not None}


def test_the_slow_version_against_golden_tensors() -> None:
    case = GoldenCase("image_tiny")
    result, grads = slow_step(case.model, case.tensors["source"], case.keep_ids())
    assert relative_error(result.targets, case.tensors["targets"]) < TOLERANCE
    assert result.loss.item() == pytest.approx(case.info["loss"], rel=TOLERANCE)
    assert result.regression.item() == pytest.approx(case.info["losses"]["IMAGE_regression"], rel=TOLERANCE)
    golden = {name.removeprefix("grad."): t for name, t in case.tensors.items() if name.startswith("grad.")}
    assert len(golden) == len(grads) > 30
    for name, expected in golden.items():
        grad = grads[case.our_name(name)]
        assert relative_error(grad, expected.view_as(grad)) < TOLERANCE, name


def random_config(seed: int) -> ModelConfig:
    choose = random.Random(seed)
    patch = choose.choice([2, 4, 5])
    depth = choose.choice([1, 2, 4])
    width, groups = choose.choice([(16, 2), (24, 4), (32, 8)])
    modality = ImageConfig(
        image_size=patch * choose.choice([4, 5, 6]), patch_size=patch, num_channels=choose.choice([1, 3])
    )
    config = ModelConfig(
        modality=modality,
        encoder=EncoderConfig(
            embed_dim=width,
            num_heads=choose.choice([1, 2, 4]),
            prenet_depth=choose.choice([0, 1, 2]),
            depth=depth,
            mlp_ratio=choose.choice([1.5, 4.0]),
        ),
        masks=MaskConfig(
            num_masks=choose.choice([1, 2, 5]),
            mask_ratio=choose.choice([0.3, 0.5, 0.8]),
            block_length=choose.choice([1, 2, 3]),
            inverse=choose.choice([True, False]),
        ),
        decoder=DecoderConfig(
            depth=choose.choice([1, 2, 3]),
            kernel=choose.choice([1, 3, 5]),
            dim=choose.choice([width, 2 * width]),
            groups=groups,
            noise_std=0.0,
            residual=choose.choice([True, False]),
            projection_depth=choose.choice([1, 2]),
        ),
        targets=TargetConfig(
            average_layers=choose.randint(1, depth),
            layer_norm=choose.choice(["instance", "layer"]),
            final_norm=choose.choice(["none", "instance", "layer"]),
        ),
        loss=LossConfig(
            scale=choose.choice([None, 0.3]), beta=choose.choice([0.0, 0.7]), cls_loss_weight=choose.choice([0.0, 1.5])
        ),
    )
    assert num_kept(config.masks, int(np.prod(modality.grid))) > 0
    return config


@pytest.mark.parametrize("seed", range(16))
def test_the_fast_version_against_the_slow_one(seed: int) -> None:
    config = random_config(seed)
    torch.manual_seed(seed)
    model = build(config).train()
    with torch.no_grad():
        for parameter in model.parameters():  # away from the initialisation, where biases are 0 and teacher = student
            parameter.add_(0.1 * torch.randn_like(parameter))
    samples = np.arange(3)
    keep_ids = torch.from_numpy(draw_keep_ids(config.masks, config.modality.grid, seed, samples * 0, samples))
    size = config.modality.image_size
    pixels = torch.randn(3, config.modality.channels, size, size)

    expected, grads = slow_step(model, pixels, keep_ids)
    out = model(pixels, keep_ids)
    (out.loss / out.num_rows).backward()
    assert relative_error(out.targets_BTD, expected.targets) < TOLERANCE
    assert (out.loss / out.num_rows).item() == pytest.approx(expected.loss.item(), rel=TOLERANCE)
    assert out.regression.item() == pytest.approx(expected.regression.item(), rel=TOLERANCE)
    if config.loss.cls_loss_weight:
        assert out.cls.item() == pytest.approx(expected.cls.item(), rel=TOLERANCE)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert trained.keys() == grads.keys()
    largest = max(grad.abs().max() for grad in grads.values())
    for name, parameter in trained.items():
        assert parameter.grad is not None, name
        # Gradients that are zero but for rounding (the key's bias) are compared on the scale of all.
        scale = max(grads[name].abs().max(), 1e-3 * largest)
        assert (parameter.grad - grads[name]).abs().max() / scale < TOLERANCE, name
