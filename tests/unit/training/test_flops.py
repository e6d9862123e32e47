"""Operations of an update: our count, PyTorch's where it is right, and what was computed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from data2vec2.commands.estimate import outlined
from data2vec2.config.run import RunConfig
from data2vec2.method.block import Attention, eager_attention
from data2vec2.method.pretraining import Data2Vec2
from data2vec2.modalities import get_recipe
from data2vec2.modalities.tools import tools_of
from data2vec2.training.measure import update_flops

RECIPES = ("image_tiny", "audio_mel_tiny", "text_tiny", "image_base", "audio_base", "text_base")


def gradients_of_a_convolution(
    outputs: Sequence[int], inputs: Sequence[int], weight: Sequence[int], *others: Any, **_: Any
) -> int:
    """Of inputs and weights as much as the forward pass each, where they are asked for."""
    asked = others[-1]
    return conv_flop_count(list(inputs), list(weight), list(outputs)) * (asked[0] + asked[1])


def counted(config: RunConfig, **how: Any) -> int:
    """An update by PyTorch's counter, backward pass included; attention of products, of which it counts all."""
    model, loss, _ = outlined(config)
    for part in model.modules():
        if isinstance(part, Attention):
            part.attend = eager_attention
    with FlopCounterMode(display=False, **how) as counter:
        loss().backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("name", RECIPES)
def test_a_backward_pass_is_two_forward_ones(name: str) -> None:
    config = get_recipe(name)
    encoder = replace(config.model.encoder, layer_drop=0.0)
    config = replace(config, model=replace(config.model, encoder=encoder))
    ours = outlined(config)[2] * tools_of(config.model.modality.kind).largest(config.model, config.data).size
    mapping = {torch.ops.aten.convolution_backward: gradients_of_a_convolution}
    assert 0.99 * ours < counted(config, custom_mapping=mapping) <= ours  # inputs have no gradient, nor spectra
    if config.model.decoder.groups > 1:
        assert counted(config) > 1.05 * ours, "PyTorch counts grouped convolutions rightly now"


@pytest.mark.parametrize(("recipe", "gflop"), [("image_base", 413), ("image_large", 1697)])
def test_against_the_known_cost_of_a_step(recipe: str, gflop: float) -> None:
    """Counted by hand from the paper's shapes, the decoder's projection at every place."""
    assert outlined(get_recipe(recipe))[2] / 1e9 == pytest.approx(gflop, rel=0.01)


@pytest.mark.parametrize("name", ["image_tiny", "audio_mel_tiny", "text_tiny"])
def test_a_processor_does_the_same_operations(name: str) -> None:
    config = get_recipe(name)
    tools = tools_of(config.model.modality.kind)
    model = Data2Vec2(config.model, tools.build(config.model))
    loss, size = tools.sized(model, config)
    assert update_flops(model, loss) / size == outlined(config)[2]
    assert model.training and model.student.training and not model.teacher.training


def test_blocks_that_are_left_out_count_by_their_chance() -> None:
    def flops(layer_drop: float) -> float:
        config = get_recipe("audio_mel_tiny")
        encoder = replace(config.model.encoder, layer_drop=layer_drop)
        return outlined(replace(config, model=replace(config.model, encoder=encoder)))[2]

    none, half, most = flops(0.0), flops(0.5), flops(0.75)
    assert none > half > most
    assert none - half == pytest.approx(2 * (half - most), rel=1e-6)
    assert none - half == pytest.approx(0.3 * none, rel=0.2), "the student's blocks are more than half of all"
