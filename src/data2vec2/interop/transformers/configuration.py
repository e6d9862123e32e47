"""What a model is, as Transformers keeps it in `config.json`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

from transformers import PretrainedConfig

from data2vec2.config import (
    AudioConfig,
    DecoderConfig,
    EmaConfig,
    LossConfig,
    MaskConfig,
    ModelConfig,
    RunConfig,
    TargetConfig,
    from_dict,
    to_dict,
)
from data2vec2.interop.fields import field_names, from_fields, to_fields

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
    """How a classifier's tokens become classes: "mean", "linear_softmax" or "first", as `data2vec2.models.Classifier`
    says."""
    pretraining: dict[str, Any] | None = None
    """Of `...ForPreTraining`: `masks`, `decoder`, `targets`, `loss` and `ema` of a run's configuration, and `seed`."""

    @classmethod
    def from_model_config(cls, config: ModelConfig) -> Self:
        """From a run's configuration, of which modality and encoder count; `ValueError` for another modality."""
        fields = to_fields(config)
        if (model_type := fields.pop("model_type")) != cls.model_type:
            raise ValueError(f"a configuration of type {model_type} for {cls.__name__}")
        return cls(**fields)

    @classmethod
    def from_run_config(cls, config: RunConfig) -> Self:
        """From a recipe or a run's configuration, with all that pre-training needs.

        `ValueError` for another modality, and where the number of a picture's channels is left to the data.
        """
        made = cls.from_model_config(config.model)
        if getattr(made, "num_channels", 0) is None:
            raise ValueError("model.modality.num_channels is none; set it to 1 (grey pictures) or 3 (colour)")
        parts = {name: to_dict(getattr(config.model, name)) for name in PARTS}
        made.pretraining = {**parts, "ema": to_dict(config.ema), "seed": config.train.seed}
        return made

    def to_model_config(self) -> ModelConfig:
        """Undo both; without `pretraining` the parts other than modality and encoder are placeholders that fit.

        `ValueError` for a value that can't be.
        """
        fields = {name: getattr(self, name) for name in field_names(self.model_type)}
        model = from_fields({"model_type": self.model_type, **fields})
        said = self.pretraining or {}
        return replace(model, **{name: from_dict(PARTS[name], said[name]) for name in PARTS if name in said})

    @property
    def ema(self) -> EmaConfig:
        """The teacher's average."""
        return from_dict(EmaConfig, (self.pretraining or {}).get("ema", {}))


class Data2Vec2ImageConfig(Data2Vec2Config):  # type: ignore[no-untyped-call]
    """Shape of an image encoder."""

    model_type = "data2vec2-image"

    image_size: int = 224
    """Height and width of the input in pixels."""
    patch_size: int = 16
    """Height and width of a patch in pixels."""
    num_channels: int = 3
    """3 for colour, 1 for grey pictures."""
    position_size: int | None = None
    """Height and width in pixels of the pictures that the positions are made for; none: `image_size`."""


class Data2Vec2AudioConfig(Data2Vec2Config):  # type: ignore[no-untyped-call]
    """Shape of an audio encoder."""

    model_type = "data2vec2-audio"

    sample_rate: int = 16_000
    """Samples a second."""
    stem: str = "waveform"
    """"waveform" (learned convolutions) or "mel" (fixed log-mel spectra)."""
    conv_dim: int = 512
    """Channels of the waveform stem."""
    conv_kernels: list[int] | tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    """Kernel of each of its layers."""
    conv_strides: list[int] | tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    """Stride of each of its layers."""
    num_mels: int = 40
    """Bins of a frame of the mel stem."""
    position_depth: int = 5
    """Convolutional layers that make positions."""
    position_kernel: int = 19
    """Their kernel in tokens."""
    position_groups: int = 16
    """Their groups."""
    vocab_size: int | None = None
    """Letters that a recogniser writes, blank included."""
    pad_token_id: int | None = 0
    """The letter that is CTC's blank; only 0 exists."""

    @property
    def inputs_to_logits_ratio(self) -> int:
        """Samples between two tokens; pipelines cut long recordings and tell times by it."""
        modality = self.to_model_config().modality
        assert isinstance(modality, AudioConfig)
        return modality.hop


class Data2Vec2TextConfig(Data2Vec2Config):  # type: ignore[no-untyped-call]
    """Shape of a text encoder."""

    model_type = "data2vec2-text"

    vocab_size: int = 50_265
    """Entries of the tokenizer's vocabulary."""
    max_tokens: int = 512
    """Tokens of the longest input."""
    bos_id: int = 0
    """Token at the start of a text."""
    pad_id: int = 1
    """Token that fills a batch up."""
    eos_id: int = 2
    """Token at the end of a text."""
    token_scale: float = 1.0
    """Factor of the tokens' embeddings, beside those of places."""
