"""Configurations of fine-tuning, told apart by what their data are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data2vec2.config.audio_finetune import AudioFinetuneConfig
from data2vec2.config.finetune import FinetuneConfig
from data2vec2.config.text_finetune import TextFinetuneConfig
from data2vec2.config.tree import from_dict

AnyFinetuneConfig = FinetuneConfig | AudioFinetuneConfig | TextFinetuneConfig
FINETUNE_KINDS: dict[str, type[AnyFinetuneConfig]] = {
    "image": FinetuneConfig,
    "audio": AudioFinetuneConfig,
    "text": TextFinetuneConfig,
}
"""By `data.kind`."""


def read_finetune_config(values: Any) -> AnyFinetuneConfig:
    """The configuration in a nested dictionary; `ValueError` for one that can't be. Without `data.kind` of pictures."""
    data = values.get("data") if isinstance(values, Mapping) else None
    kind = data.get("kind", "image") if isinstance(data, Mapping) else "image"
    if kind not in FINETUNE_KINDS:
        raise ValueError(f"data.kind is {kind!r}; it must be one of {', '.join(FINETUNE_KINDS)}")
    return from_dict(FINETUNE_KINDS[kind], values)
