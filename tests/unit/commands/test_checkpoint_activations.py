"""Memory for time: what a training forward pass keeps for the backward pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from data2vec2.commands.pretrain import Pretraining
from data2vec2.commands.training import Opened
from data2vec2.data.account import Account
from data2vec2.modalities import get_recipe
from data2vec2.training.device import activation_bytes


@pytest.mark.parametrize("recipe", ["image_base", "audio_base", "text_base"])
def test_checkpointed_activations_take_half_of_the_memory_or_less(recipe: str) -> None:
    """Also as the micro-batch is chosen by it."""
    config, found = get_recipe(recipe), []
    for checkpointed in (False, True):
        asked = replace(config, train=replace(config.train, checkpoint_activations=checkpointed))
        nothing: Any = None
        data = Opened(asked, nothing, None, Account(), "", "", "", False)
        with torch.device("meta"):
            model = Pretraining().built(data, torch.device("meta"))
        found.append(activation_bytes(Pretraining().largest(model, data).loss))
    assert found[1] < found[0] / 2
