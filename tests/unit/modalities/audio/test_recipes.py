"""The recipes for speech have the released values."""

from __future__ import annotations

import pytest

from data2vec2.modalities.audio.config import AudioTaskConfig
from data2vec2.modalities.audio.recipes import CTC

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
    config = CTC[f"ctc_base_{hours}"]()
    assert isinstance(task := config.task, AudioTaskConfig)
    assert (config.train.updates, config.optim.lr) == (updates, lr)
    assert (task.masks.time_share, task.masks.time_length) == (time, 10)
    assert (task.masks.channel_share, task.masks.channel_length) == (channels, 64)
    assert task.masks.noise_std == 0.01
    assert config.optim.schedule == "tri_stage"
    assert config.optim.warmup_updates == 0.1 * updates
    assert (config.optim.eps, config.optim.weight_decay, config.optim.layer_decay) == (1e-8, 0, 1)
    assert (task.model.layer_drop, task.model.activation_dropout) == (0.1, 0.1)
    assert (task.model.freeze_stem, task.model.freeze_updates) == (True, 10_000)
