"""`preprocessor_config.json`: what turns pictures or recordings into the model's input, as Transformers reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data2vec2.config import AudioConfig, AudioDataConfig, ImageConfig, ImageDataConfig, TextConfig


def to_processor(
    modality: ImageConfig | AudioConfig | TextConfig, data: ImageDataConfig | AudioDataConfig
) -> dict[str, Any]:
    """The file's content; `ValueError` where mean and deviation are missing or not of the model's channels."""
    if isinstance(modality, AudioConfig):
        return {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "feature_size": 1,
            "sampling_rate": modality.sample_rate,
            "padding_value": 0.0,
            "padding_side": "right",
            "do_normalize": True,
            "return_attention_mask": True,
        }
    assert isinstance(modality, ImageConfig) and isinstance(data, ImageDataConfig)
    if not len(data.mean or ()) == len(data.std or ()) == modality.channels:
        raise ValueError(f"mean {data.mean} and std {data.std} for pictures of {modality.channels} channels")
    return {
        "image_processor_type": "Data2Vec2ImageProcessor",
        "size": modality.image_size,
        "image_mean": list(data.mean or ()),
        "image_std": list(data.std or ()),
        "eval_crop": data.eval_crop,
    }


def from_processor(
    modality: ImageConfig | AudioConfig | TextConfig, processor: Mapping[str, Any]
) -> ImageDataConfig | AudioDataConfig:
    """Undo `to_processor`, as far as it says something; `ValueError` for what is missing or can't be."""
    if isinstance(modality, AudioConfig):
        if (rate := processor.get("sampling_rate")) != modality.sample_rate:
            raise ValueError(f"sampling_rate is {rate}, and the model's is {modality.sample_rate}")
        # What evaluation accepts: any length that makes a token.
        return AudioDataConfig(min_seconds=modality.receptive_field / modality.sample_rate)
    try:
        return ImageDataConfig(
            mean=tuple(map(float, processor["image_mean"])),
            std=tuple(map(float, processor["image_std"])),
            eval_crop=float(processor["eval_crop"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("it needs image_mean, image_std and eval_crop; export the model again") from error
