"""The optimiser's groups and the learning rate."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from data2vec2.config.model import EncoderConfig
from data2vec2.config.run import FinetuneOptimConfig, OptimConfig
from data2vec2.method.encoder import Encoder
from data2vec2.method.heads import Classifier
from data2vec2.method.pretraining import Data2Vec2
from data2vec2.modalities import get_recipe
from data2vec2.modalities.image.config import ImageConfig
from data2vec2.modalities.image.model import ImageModality
from data2vec2.modalities.image.tools import ImageTools
from data2vec2.training.optim import (
    build_optimizer,
    learning_rate,
    load_optimizer_tensors,
    optimizer_tensors,
    peak_lr,
    schedule_of,
    set_learning_rate,
)


def make() -> Data2Vec2:
    torch.manual_seed(0)
    recipe = get_recipe("image_tiny").model
    return Data2Vec2(recipe, ImageTools().build(recipe))


@pytest.fixture(scope="module")
def model() -> Data2Vec2:
    return make()


@pytest.mark.parametrize("decay_all", [False, True])
def test_every_trained_parameter_is_in_one_group_and_the_right_one(model: Data2Vec2, decay_all: bool) -> None:
    optimizer = build_optimizer(model, OptimConfig(weight_decay=0.05, decay_all=decay_all))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    listed = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(listed) == len(set(listed))
    names = dict(model.named_parameters())
    assert set(listed) == {id(p) for name, p in names.items() if not name.startswith("teacher.")}
    for name, parameter in names.items():
        if name.startswith("teacher."):
            continue
        exempt = name.endswith(".bias") or ".norm" in name
        assert decay[id(parameter)] == (0.05 if decay_all or not exempt else 0), name


def test_decay_shrinks_weights_but_not_biases_and_norms() -> None:
    model = make()
    optimizer = build_optimizer(model, OptimConfig(lr=0.1, weight_decay=0.5))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    for name, parameter in model.named_parameters():
        shrunk = not name.startswith("teacher.") and before[name].ndim > 1
        expected = before[name] * (0.95 if shrunk else 1)
        assert torch.allclose(parameter, expected, rtol=1e-6, atol=0), name


def test_the_rate_starts_at_zero_peaks_after_warmup_and_ends_at_zero() -> None:
    rates = [learning_rate(step, peak=2.0, warmup=10, updates=110) for step in range(111)]
    assert rates[0] == 0
    assert rates[5] == 1.0
    assert max(rates) == rates[10] == 2.0
    assert rates[60] == pytest.approx(1.0)
    assert rates[110] == pytest.approx(0, abs=1e-12)
    assert all(a < b for a, b in itertools.pairwise(rates[:11]))
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))


def test_odd_lengths_of_warmup() -> None:
    assert learning_rate(0, peak=1.0, warmup=0, updates=10) == 1.0
    assert learning_rate(9, peak=1.0, warmup=100, updates=10) == pytest.approx(0.09)
    assert learning_rate(10, peak=1.0, warmup=10, updates=10) == 1.0


def test_three_stages() -> None:
    """Points that follow from fairseq's rule: phases of .1, .4 and .5, from .01 of the peak, to .05 of it."""

    def rate(step: int) -> float:
        return learning_rate(step, peak=2.0, warmup=100, updates=1_000, schedule="tri_stage")

    assert rate(0) == pytest.approx(0.02)
    assert rate(50) == pytest.approx(0.02 + 0.99)
    assert rate(100) == rate(300) == rate(500) == 2.0
    assert rate(750) == pytest.approx(2 * math.sqrt(0.05))
    assert rate(1_000) == rate(1_100) == pytest.approx(0.1)
    falling = [rate(step) for step in range(500, 1_001)]
    ratios = [b / a for a, b in itertools.pairwise(falling)]
    assert max(ratios) == pytest.approx(min(ratios))  # the same factor at each step


def test_a_line_to_zero() -> None:
    rates = [learning_rate(step, peak=2.0, warmup=10, updates=110, schedule="linear") for step in range(112)]
    assert rates[:11] == [learning_rate(step, peak=2.0, warmup=10, updates=110) for step in range(11)]
    assert rates[60] == pytest.approx(1.0)
    assert rates[85] == pytest.approx(0.5)
    assert rates[110] == rates[111] == 0


def test_fine_tuning_chooses_its_schedule() -> None:
    assert schedule_of(OptimConfig()) == schedule_of(FinetuneOptimConfig()) == "cosine"
    assert schedule_of(FinetuneOptimConfig(schedule="tri_stage")) == "tri_stage"


def test_rules_for_the_global_batch() -> None:
    def rate(rule: str, batch: int) -> float:
        return peak_lr(OptimConfig(lr=1e-3, lr_rule=rule, lr_batch=256), batch)  # type: ignore[arg-type]

    assert rate("none", 64) == rate("none", 4096) == 1e-3
    assert rate("linear", 64) == pytest.approx(2.5e-4)
    assert rate("sqrt", 64) == pytest.approx(5e-4)
    assert all(rate(rule, 256) == 1e-3 for rule in ("none", "linear", "sqrt"))
    assert math.isclose(rate("linear", 512), 2e-3)


def test_state_survives_a_round_trip(model: Data2Vec2) -> None:
    def step(optimizer: torch.optim.Optimizer, of: Data2Vec2, seed: int) -> None:
        torch.manual_seed(seed)
        for parameter in of.parameters():
            parameter.grad = torch.randn_like(parameter) if parameter.requires_grad else None
        optimizer.step()

    config, first, second = OptimConfig(), make(), make()
    optimizer = build_optimizer(first, config)
    step(optimizer, first, 1)
    second.load_state_dict(first.state_dict())
    other = build_optimizer(second, config)
    load_optimizer_tensors(second, other, optimizer_tensors(first, optimizer))
    step(optimizer, first, 2)
    step(other, second, 2)
    for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b), name
    with pytest.raises(ValueError, match="'nobody'"):
        load_optimizer_tensors(second, other, {"exp_avg.nobody": torch.zeros(1)})


@pytest.mark.parametrize("decay_all", [False, True])
def test_layer_decay_of_every_parameter(decay_all: bool) -> None:
    """Block i of n (prenet first, from 1) has decay ** (n + 1 - i); stem, norms outside blocks and head 1."""
    config = EncoderConfig(embed_dim=8, num_heads=2, prenet_depth=1, depth=3)
    encoder = Encoder(config, ImageModality(ImageConfig(image_size=8, patch_size=4, num_channels=1), 8))
    classifier = Classifier(encoder, 3)
    optimizer = build_optimizer(
        classifier, FinetuneOptimConfig(layer_decay=0.5, weight_decay=0.05, decay_all=decay_all)
    )
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    named = dict(classifier.named_parameters())
    assert set(groups) == {id(p) for p in named.values()}
    expected = {"encoder.blocks.0.": 0.5**4, "encoder.blocks.1.": 0.5**3, "encoder.blocks.2.": 0.5**2}
    expected = {
        **expected,
        "encoder.blocks.3.": 0.5,
        "encoder.modality.": 1,
        "encoder.norm.": 1,
        "norm.": 1,
        "head.": 1,
    }
    set_learning_rate(optimizer, 0.01)
    seen = set()
    for name, parameter in named.items():
        prefix = next(prefix for prefix in expected if name.startswith(prefix))
        seen.add(prefix)
        group = groups[id(parameter)]
        assert group["lr"] == pytest.approx(0.01 * expected[prefix]), name
        assert group["weight_decay"] == (0.05 if decay_all or parameter.ndim > 1 else 0), name
    assert seen == set(expected)


def test_without_layer_decay_every_rate_is_the_same(model: Data2Vec2) -> None:
    for config in (OptimConfig(), FinetuneOptimConfig()):
        optimizer = build_optimizer(model, config)
        assert len(optimizer.param_groups) == 2
        set_learning_rate(optimizer, 0.01)
        assert {group["lr"] for group in optimizer.param_groups} == {0.01}
