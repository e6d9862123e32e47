"""What differs between images, speech and text."""

from __future__ import annotations

from data2vec2.config import AudioConfig, ModelConfig, TextConfig
from data2vec2.modalities.audio import AudioModality
from data2vec2.modalities.base import Modality, Rows, Tokens
from data2vec2.modalities.image import ImageModality
from data2vec2.modalities.text import TextModality


def build_modality(config: ModelConfig) -> Modality:
    """The modality that a configuration names."""
    if isinstance(config.modality, AudioConfig):
        return AudioModality(config.modality, config.encoder.embed_dim, config.encoder.num_heads)
    if isinstance(config.modality, TextConfig):
        return TextModality(config.modality, config.encoder.embed_dim, config.encoder.dropout)
    return ImageModality(config.modality, config.encoder.embed_dim)


__all__ = ["AudioModality", "ImageModality", "Modality", "Rows", "TextModality", "Tokens", "build_modality"]
