"""Sounds of any kind: music, machines, animals, voices."""

from __future__ import annotations

from data2vec2.modalities.sound.config import SoundConfig, SoundDataConfig, SoundFinetuneDataConfig, SoundTaskConfig
from data2vec2.modalities.sound.recipes import CLASSIFY, RECIPES
from data2vec2.modalities.spec import Spec, Words

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
    tools="data2vec2.modalities.sound.tools:SoundTools",
    transformers="data2vec2.modalities.sound.transformers",
)
