"""The shape of an encoder as the fields of `config.json`, in Hugging Face's names."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final

from data2vec2.config import (
    AudioConfig,
    DecoderConfig,
    EncoderConfig,
    ImageConfig,
    ModelConfig,
    TargetConfig,
    TextConfig,
    from_dict,
    to_dict,
)

MODALITIES: dict[str, type[ImageConfig | AudioConfig | TextConfig]] = {
    "data2vec2-image": ImageConfig,
    "data2vec2-audio": AudioConfig,
    "data2vec2-text": TextConfig,
}
"""Model type in `config.json` to the modality's configuration, whose fields keep their names there."""

# Hugging Face's name              ours, in EncoderConfig
ENCODER_FIELDS = {
    "hidden_size":                  "embed_dim",
    "num_attention_heads":          "num_heads",
    "num_prenet_layers":            "prenet_depth",
    "num_hidden_layers":            "depth",
    "mlp_ratio":                    "mlp_ratio",
    "layer_norm_eps":               "norm_eps",
    "hidden_dropout_prob":          "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "layerdrop":                    "layer_drop",
}  # fmt: skip

SINGLE_LABEL: Final = "single_label_classification"
MULTI_LABEL: Final = "multi_label_classification"
REGRESSION: Final = "regression"
"""`problem_type`, of what a head gives: one class of a sample, several, or a number."""


def field_names(model_type: str) -> list[str]:
    """Name the fields of `config.json` that decide the encoder's shape; `ValueError` for an unknown model type."""
    if model_type not in MODALITIES:
        raise ValueError(f"model_type is {model_type!r}; it must be one of {', '.join(MODALITIES)}")
    modality = [field.name for field in dataclasses.fields(MODALITIES[model_type]) if field.name != "kind"]
    return [*modality, *ENCODER_FIELDS, "hidden_act"]


def to_fields(config: ModelConfig) -> dict[str, Any]:
    """Modality and encoder as the fields of `config.json`, with `model_type`."""
    modality = to_dict(config.modality)
    model_type = f"data2vec2-{modality.pop('kind')}"
    encoder = {theirs: getattr(config.encoder, ours) for theirs, ours in ENCODER_FIELDS.items()}
    return {"model_type": model_type, **modality, **encoder, "hidden_act": "gelu"}


def from_fields(fields: Mapping[str, Any]) -> ModelConfig:
    """Undo `to_fields`; masks, decoder, targets and loss are placeholders that fit the encoder.

    Other fields are ignored. `ValueError` for an unknown model type, a missing field or a value that can't be.
    """
    model_type = str(fields.get("model_type"))
    names = field_names(model_type)
    older = ("position_size", "layerdrop", "token_scale")  # what older exports do not have
    names = [name for name in names if name in fields or name not in older]
    if missing := [name for name in names if name not in fields]:
        raise ValueError(f"{', '.join(missing)} missing")
    if fields["hidden_act"] != "gelu":
        raise ValueError(f"hidden_act is {fields['hidden_act']!r}; it must be 'gelu'")
    known = {ours: fields[theirs] for theirs, ours in ENCODER_FIELDS.items() if theirs in names}
    encoder = from_dict(EncoderConfig, known)
    own_names = [name for name in names if name not in ENCODER_FIELDS and name != "hidden_act"]
    own = {name: fields[name] for name in own_names}
    modality: ImageConfig | AudioConfig | TextConfig = from_dict(MODALITIES[model_type], own)
    return ModelConfig(
        modality=modality,
        encoder=encoder,
        decoder=DecoderConfig(groups=math.gcd(DecoderConfig().groups, encoder.embed_dim)),
        targets=TargetConfig(average_layers=min(TargetConfig().average_layers, encoder.depth)),
    )
