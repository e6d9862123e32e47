"""Sounds of any kind: music, machines, animals, voices."""

from __future__ import annotations

from pathlib import Path

from data2vec2.modalities.sound.config import SoundConfig, SoundDataConfig, SoundFinetuneDataConfig, SoundTaskConfig
from data2vec2.modalities.sound.recipes import CLASSIFY, RECIPES
from data2vec2.modalities.spec import Demo, Spec, Words


def instrument_notes() -> Path:
    """405 training and 208 test notes of instruments (.8 seconds at most, 12 families), for `open_data`."""
    return Path(__file__).parents[2] / "data" / "bundled" / "instrument_notes"


SPEC = Spec(
    name="sound",
    words=Words(
        one="sound",
        many="sounds",
        unit="seconds of sound",
        token="patch",
        largest="the longest piece",
        raw="log-mel statistics",
    ),
    config=SoundConfig,
    data=SoundDataConfig,
    finetune_data=SoundFinetuneDataConfig,
    task=SoundTaskConfig,
    recipes=RECIPES,
    finetune={"classify": CLASSIFY},
    demo=Demo(recipe="sound_tiny", data=instrument_notes, about="405 notes of instruments, without their labels"),
    tools="data2vec2.modalities.sound.tools:SoundTools",
    transformers="data2vec2.modalities.sound.transformers",
)
