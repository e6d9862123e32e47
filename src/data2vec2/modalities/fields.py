"""A model as the fields of `config.json`, whose names are Hugging Face's, and what builds it from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from data2vec2.config.model import ArchitectureConfig, EncoderConfig, ModalityConfig
from data2vec2.config.tree import from_dict, to_dict
from data2vec2.method.encoder import Encoder
from data2vec2.method.heads import AnswerFinder, Classifier, SpeechRecognizer, TokenClassifier
from data2vec2.modalities import spec_of, specs
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.interop import AnyModel, Interop
from data2vec2.modalities.tools import tools_of

PREFIX = "data2vec2-"
"""Before a modality's name in `model_type`."""

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
    "pre_norm":                     "pre_norm",
    "layer_scale":                  "layer_scale",
}  # fmt: skip

SYNONYMS = {"hidden_dropout": "hidden_dropout_prob", "attention_dropout": "attention_probs_dropout_prob"}
"""Names that some models of Transformers have for these, which scripts set."""

SINGLE_LABEL: Final = "single_label_classification"
MULTI_LABEL: Final = "multi_label_classification"
REGRESSION: Final = "regression"
"""`problem_type`, of what a head gives: one class of a sample, several, or a number."""


def build_encoder(model: ArchitectureConfig) -> Encoder:
    """An encoder with random weights."""
    return Encoder(model.encoder, tools_of(model.modality.kind).build(model))


def build_model(info: ModelInfo) -> AnyModel:
    """An encoder, with its head if it has one, with random weights."""
    encoder = build_encoder(info.model)
    if info.letters is not None:
        return SpeechRecognizer(encoder, len(info.letters))
    if info.answers:
        return AnswerFinder(encoder)
    if info.dense:
        return TokenClassifier(encoder, len(info.classes))
    return Classifier(encoder, len(info.classes), pooling=info.pooling) if info.classes else encoder


def interop_of(kind: str) -> Interop:
    """How a modality meets other programs."""
    return tools_of(kind).interop


def example_of(model: ArchitectureConfig) -> Tensor:
    """Inputs to follow a computation with."""
    tools = tools_of(model.modality.kind)
    if (found := tools.interop.example(model)) is not None:
        return found
    return torch.cat([tools.largest(model, tools.spec.data()).inputs] * 2)  # type: ignore[call-arg]


def class_name(kind: str, ending: str = "Model") -> str:
    """Name of a class of Transformers: "Data2Vec2ImageModel"."""
    return f"Data2Vec2{kind.title().replace('_', '').replace('-', '')}{ending}"


def names_of(modality: type[ModalityConfig]) -> list[str]:
    """Name the fields of `config.json` that decide the shape of an encoder of a modality."""
    theirs = theirs_of(modality)
    own = [theirs.get(field.name, field.name) for field in dataclasses.fields(modality) if field.name != "kind"]
    return [*own, *ENCODER_FIELDS, "hidden_act"]


def theirs_of(modality: type[ModalityConfig]) -> dict[str, str]:
    """Hugging Face's names of the fields of a modality's configuration that have others there, by ours."""
    return {ours: theirs for theirs, ours in modality.usual_names.items()}


def to_fields(model: ArchitectureConfig) -> dict[str, Any]:
    """Modality and encoder as the fields of `config.json`, with `model_type`."""
    theirs = theirs_of(type(model.modality))
    modality = {theirs.get(name, name): value for name, value in to_dict(model.modality).items()}
    model_type = PREFIX + modality.pop("kind")
    encoder = {theirs: getattr(model.encoder, ours) for theirs, ours in ENCODER_FIELDS.items()}
    return {"model_type": model_type, **modality, **encoder, "hidden_act": "gelu"}


def from_fields(fields: Mapping[str, Any]) -> ArchitectureConfig:
    """Undo `to_fields`; `ValueError` also for an unknown model type."""
    model_type = str(fields.get("model_type"))
    kind = model_type.removeprefix(PREFIX)
    if not model_type.startswith(PREFIX) or kind not in specs():
        known = ", ".join(PREFIX + name for name in specs())
        raise ValueError(f"model_type is {model_type!r}; it must be one of {known}")
    return architecture(spec_of(kind).config, fields)


def architecture(modality: type[ModalityConfig], fields: Mapping[str, Any]) -> ArchitectureConfig:
    """Undo `to_fields` for a modality, also of older exports, whose names are ours.

    `ValueError` for a missing field or a value that can't be.
    """
    theirs = theirs_of(modality)
    fields = {theirs[ours]: value for ours, value in fields.items() if ours in theirs} | dict(fields)
    older = {"layerdrop", "pre_norm", "layer_scale", *modality.added}  # what older exports do not have
    names = [name for name in names_of(modality) if name in fields or name not in older]
    if missing := [name for name in names if name not in fields]:
        raise ValueError(f"{', '.join(missing)} missing")
    if fields["hidden_act"] != "gelu":
        raise ValueError(f"hidden_act is {fields['hidden_act']!r}; it must be 'gelu'")
    encoder = {ours: fields[theirs] for theirs, ours in ENCODER_FIELDS.items() if theirs in names}
    others = [name for name in names if name not in ENCODER_FIELDS and name != "hidden_act"]
    own = {modality.usual_names.get(name, name): fields[name] for name in others}
    return ArchitectureConfig(modality=from_dict(modality, own), encoder=from_dict(EncoderConfig, encoder))
