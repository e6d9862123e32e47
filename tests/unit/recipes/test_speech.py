"""The recipes for speech: the released values, and configurations that survive a file."""

from __future__ import annotations

import pytest
import yaml

from data2vec2.config import AudioFinetuneConfig, from_dict, to_dict
from data2vec2.recipes.speech import SPEECH_RECIPES, get_speech_recipe

# hours, updates, LR, share of time and of channels in masks (shared/REFERENCE.md, section 5)
RELEASED = [
    ("10m", 13_000, 1e-4, 0.65, 0.25),
    ("1h", 13_000, 3e-4, 0.75, 0.25),
    ("10h", 20_000, 1e-4, 0.75, 0.25),
    ("100h", 80_000, 3e-5, 0.5, 0.5),
    ("960h", 320_000, 3e-5, 0.5, 0.25),
]


@pytest.mark.parametrize(("hours", "updates", "lr", "time", "channels"), RELEASED)
def test_ctc_as_released(hours: str, updates: int, lr: float, time: float, channels: float) -> None:
    config = get_speech_recipe(f"ctc_base_{hours}")
    assert (config.train.updates, config.optim.lr) == (updates, lr)
    assert (config.masks.time_share, config.masks.time_length) == (time, 10)
    assert (config.masks.channel_share, config.masks.channel_length) == (channels, 64)
    assert config.masks.noise_std == 0.01
    assert config.optim.schedule == "tri_stage"
    assert config.optim.warmup_updates == 0.1 * updates
    assert (config.optim.eps, config.optim.weight_decay, config.optim.layer_decay) == (1e-8, 0, 1)
    assert (config.model.layer_drop, config.model.activation_dropout) == (0.1, 0.1)
    assert (config.model.freeze_stem, config.model.freeze_updates) == (True, 10_000)


@pytest.mark.parametrize("name", SPEECH_RECIPES)
def test_every_recipe_round_trips(name: str) -> None:
    config = get_speech_recipe(name)
    assert config.recipe == name
    assert from_dict(AudioFinetuneConfig, yaml.safe_load(yaml.safe_dump(to_dict(config)))) == config


def test_a_wrong_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'ctc_base_10h'"):
        get_speech_recipe("ctc_base_10hours")
