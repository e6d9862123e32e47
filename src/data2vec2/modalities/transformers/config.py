"""What a model is, as Transformers keeps it in `config.json`."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

from transformers import PretrainedConfig

from data2vec2.config import (
    ArchitectureConfig,
    DecoderConfig,
    EmaConfig,
    LossConfig,
    MaskConfig,
    ModalityConfig,
    ModelConfig,
    RunConfig,
    TargetConfig,
    from_dict,
    to_dict,
)
from data2vec2.modalities.fields import PREFIX, field_names, from_fields, to_fields

PARTS = {"masks": MaskConfig, "decoder": DecoderConfig, "targets": TargetConfig, "loss": LossConfig}
"""Sections of a model's configuration that only pre-training needs."""


class Data2Vec2Config(PretrainedConfig):  # type: ignore[no-untyped-call]
    """Fields of the encoder, the same for every modality, and of what stands on it."""

    hidden_size: int = 768
    """Width of a token."""
    num_attention_heads: int = 12
    """Attention heads of a block."""
    num_prenet_layers: int = 2
    """Blocks before the trunk."""
    num_hidden_layers: int = 10
    """Blocks of the trunk; a model has `num_prenet_layers` more."""
    mlp_ratio: float = 4.0
    """Hidden width of a block's MLP, in multiples of `hidden_size`."""
    layer_norm_eps: float = 1e-6
    """Epsilon of every LayerNorm."""
    hidden_dropout_prob: float = 0.0
    """Dropout before the first block, after the attention projection and after the MLP."""
    attention_probs_dropout_prob: float = 0.0
    """Dropout of the attention weights."""
    layerdrop: float = 0.0
    """Share of training passes in which a block is left out."""
    hidden_act: str = "gelu"
    """The MLP's activation; only "gelu" (the exact one) exists."""
    pooling: str = "mean"
    """How a classifier's tokens become classes: "mean", "linear_softmax" or "first", as `Classifier` says."""
    pretraining: dict[str, Any] | None = None
    """Of `...ForPreTraining`: `masks`, `decoder`, `targets`, `loss` and `ema` of a run's configuration, and `seed`."""

    def __init_subclass__(cls, *, modality: type[ModalityConfig] | None = None, **kwargs: Any) -> None:
        """Give a modality's configuration its `model_type`, and the fields and defaults of `modality`."""
        if modality is not None:
            own = {field.name: field.default for field in dataclasses.fields(modality)}
            cls.model_type = f"{PREFIX}{own.pop('kind')}"
            cls.__annotations__ = dict.fromkeys(own, Any) | cls.__annotations__
            for name, default in own.items():
                setattr(cls, name, None if default is dataclasses.MISSING else default)
        super().__init_subclass__(**kwargs)  # type: ignore[no-untyped-call]

    @classmethod
    def from_model_config(cls, config: ArchitectureConfig) -> Self:
        """From a run's configuration, of which modality and encoder count; `ValueError` for another modality."""
        fields = to_fields(config)
        if (model_type := fields.pop("model_type")) != cls.model_type:
            raise ValueError(f"a configuration of type {model_type} for {cls.__name__}")
        return cls(**fields)

    @classmethod
    def from_run_config(cls, config: RunConfig) -> Self:
        """From a recipe or a run's configuration, with all that pre-training needs; `ValueError` for another modality.

        What a recipe leaves to the data has to be set.
        """
        made = cls.from_model_config(config.model)
        parts = {name: to_dict(getattr(config.model, name)) for name in PARTS}
        made.pretraining = {**parts, "ema": to_dict(config.ema), "seed": config.train.seed}
        return made

    def to_model_config(self) -> ArchitectureConfig:
        """Undo both: a `ModelConfig` where there is `pretraining`; `ValueError` for a value that can't be."""
        fields = {name: getattr(self, name) for name in field_names(self.model_type)}
        model = from_fields({"model_type": self.model_type, **fields})
        if self.pretraining is None:
            return model
        parts: dict[str, Any] = {name: from_dict(cls, self.pretraining.get(name, {})) for name, cls in PARTS.items()}
        return ModelConfig(modality=model.modality, encoder=model.encoder, **parts)

    @property
    def ema(self) -> EmaConfig:
        """The teacher's average."""
        return from_dict(EmaConfig, (self.pretraining or {}).get("ema", {}))
