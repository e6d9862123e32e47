"""Blocks and decoder are compiled without breaks, and for all lengths at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from data2vec2.method.compiling import compile_blocks
from data2vec2.method.masking import draw_keep_ids
from data2vec2.method.pretraining import Data2Vec2
from data2vec2.modalities import get_recipe
from data2vec2.modalities.tools import tools_of

B = 2


def losses(name: str, shares: tuple[float, ...], backend: Callable[..., Any] | None) -> list[float]:
    """Of a recipe's model of two narrow blocks, for inputs of these shares of the largest size."""
    torch._dynamo.reset()
    recipe = get_recipe(name)
    heads = recipe.model.encoder.num_heads
    narrow = replace(recipe.model.encoder, embed_dim=16 * heads, prenet_depth=0, depth=2, layer_drop=0.3)
    decoder = replace(recipe.model.decoder, dim=16 * recipe.model.decoder.groups)
    config = replace(
        recipe.model, encoder=narrow, decoder=decoder, targets=replace(recipe.model.targets, average_layers=2)
    )
    config = replace(config, masks=replace(config.masks, num_masks=2))
    if hasattr(config.modality, "image_size"):
        side = 6 * config.modality.patch_size
        config = replace(config, modality=replace(config.modality, image_size=side))
    tools = tools_of(config.modality.kind)
    torch.manual_seed(0)
    model = Data2Vec2(config, tools.build(config)).train()
    if backend:
        compile_blocks(model, backend=backend, fullgraph=True)
    data = replace(recipe.data, max_seconds=2.0) if hasattr(recipe.data, "max_seconds") else recipe.data
    inputs, grid, _ = tools.largest(config, data)
    found = []
    for share in shares:
        x = inputs if share == 1 else inputs[:, : int(share * inputs.shape[1])]
        places = grid if share == 1 else (config.modality.num_tokens(x.shape[1]),)
        x = x.repeat_interleave(B, 0)
        x = torch.randn(x.shape) if x.is_floating_point() else x
        zero = np.zeros(B, dtype=np.int64)
        keep_ids = torch.from_numpy(draw_keep_ids(config.masks, places, 0, zero, np.arange(B)))
        loss = model(x, keep_ids).loss
        loss.backward()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("name", ["image_base", "audio_base", "audio_mel_tiny", "text_base"])
def test_blocks_are_compiled_without_breaks_and_compute_the_same(name: str) -> None:
    """With layer-drop; `fullgraph` makes a break an error."""
    graphs: list[torch.fx.GraphModule] = []
    kind = get_recipe(name).model.modality.kind
    shares = (1.0, 0.93, 0.81, 0.77, 0.6, 0.5, 0.4) if kind == "audio" else (1.0, 1.0)

    def count(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    compiled = losses(name, shares, count)
    assert compiled == pytest.approx(losses(name, shares, None), rel=1e-5)
    assert 3 <= len(graphs) <= (3 if kind == "audio" else 5)  # student, teacher, decoder; of text the first blocks too
