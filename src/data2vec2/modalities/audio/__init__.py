"""Recordings."""

from __future__ import annotations

from pathlib import Path

from data2vec2.modalities.audio.config import AudioConfig, AudioDataConfig, AudioFinetuneDataConfig, AudioTaskConfig
from data2vec2.modalities.audio.recipes import CLASSIFY, CTC, RECIPES
from data2vec2.modalities.spec import Demo, Spec, Words


def english_prompts() -> Path:
    """24 minutes of one voice's telephone prompts (16 kHz), with `metadata.csv` (texts) and `phones.csv`."""
    return Path(__file__).parents[2] / "data" / "bundled" / "english_prompts"


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
    finetune={"classify": CLASSIFY, "ctc": CTC, "frames": CLASSIFY},
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
