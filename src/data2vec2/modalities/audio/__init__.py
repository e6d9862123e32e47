"""Recordings."""

from __future__ import annotations

from data2vec2.data.samples import english_prompts
from data2vec2.modalities.audio.config import AudioConfig, AudioDataConfig, AudioFinetuneDataConfig, AudioTaskConfig
from data2vec2.modalities.audio.recipes import CLASSIFY, CTC, RECIPES
from data2vec2.modalities.spec import Demo, Spec, Words

SPEC = Spec(
    name="audio",
    words=Words(
        one="recording",
        many="recordings",
        unit="seconds of audio",
        largest="the longest piece",
        raw="log-mel statistics",
    ),
    config=AudioConfig,
    data=AudioDataConfig,
    finetune_data=AudioFinetuneDataConfig,
    task=AudioTaskConfig,
    recipes=RECIPES,
    finetune={"classify": CLASSIFY, "ctc": CTC},
    probes=("knn", "linear", "phones"),
    demo=Demo(
        recipe="audio_mel_tiny",
        data=english_prompts,
        about="15 minutes of one voice, without a transcript",
        evaluation={"probes": ("phones", "linear")},
    ),
    tools="data2vec2.modalities.audio.tools:AudioTools",
    transformers="data2vec2.modalities.audio.transformers",
)
