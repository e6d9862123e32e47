"""The encoder as a Hugging Face Transformers model (5.0 or later).

Importing this module registers its classes with Transformers' Auto classes; `import data2vec2` sees to that.

There is one model type a modality ("data2vec2-image", "data2vec2-audio", "data2vec2-text"), because their
processors are of different families. A modality adds a configuration with its own fields and a model with its
own `forward`; everything else is shared.

Shapes: `N` inputs, `L` tokens with the extra ones in front, `D` width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from data2vec2.config import ModelConfig
from data2vec2.interop.fields import field_names, from_fields, to_fields
from data2vec2.modalities import Modality, build_modality
from data2vec2.models import Encoder
from data2vec2.models.encoder import initialise


class Data2Vec2Config(PretrainedConfig):  # type: ignore[no-untyped-call]
    """Fields of the encoder, the same for every modality."""

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

    @classmethod
    def from_model_config(cls, config: ModelConfig) -> Self:
        """From a run's configuration, of which modality and encoder count; `ValueError` for another modality."""
        fields = to_fields(config)
        if (model_type := fields.pop("model_type")) != cls.model_type:
            raise ValueError(f"a configuration of type {model_type} for {cls.__name__}")
        return cls(**fields)

    def to_model_config(self) -> ModelConfig:
        """Undo `from_model_config`; parts other than modality and encoder are placeholders that fit.

        `ValueError` for a value that can't be.
        """
        fields = {name: getattr(self, name) for name in field_names(self.model_type)}
        return from_fields({"model_type": self.model_type, **fields})


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


class Data2Vec2PreTrainedModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """What the models of all modalities share: one encoder, its initialisation and its outputs."""

    config: Data2Vec2Config
    base_model_prefix = "data2vec2"
    _no_split_modules = ["Block"]  # noqa: RUF012  (Transformers' own attribute)
    _supports_sdpa = True

    def __init__(self, config: Data2Vec2Config) -> None:
        super().__init__(config)
        model_config = config.to_model_config()
        self.encoder = Encoder(model_config.encoder, build_modality(model_config))
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        """Return what turns inputs into tokens."""
        assert self.encoder.modality.stem is not None
        return self.encoder.modality.stem

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise what no checkpoint gave `module`, its fixed buffers included.

        Transformers builds a model without memory and calls this for every module once the weights are in, children
        first: buffers that are not in the file hold garbage by then. It marks the tensors that were loaded, and they
        are put back here, because an initialiser may well reach them through a view, which lacks the mark.
        """
        if next(module.children(), None) is not None and not isinstance(module, Modality):
            return
        marked = [p for p in module.parameters() if getattr(p, "_is_hf_initialized", False)]
        loaded = [parameter.clone() for parameter in marked]
        initialise(module)
        for parameter, value in zip(marked, loaded, strict=True):
            parameter.copy_(value)

    def _encode(
        self,
        inputs: Tensor,
        output_hidden_states: bool | None,
        return_dict: bool | None,
        lengths_B: Tensor | None = None,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Every modality's `forward`."""
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        with _block_outputs(self.encoder, bool(output_hidden_states)) as hidden_states:
            encoded = self.encoder(inputs.to(self.dtype) if inputs.is_floating_point() else inputs, lengths_B=lengths_B)
        output = BaseModelOutputWithPooling(
            last_hidden_state=encoded.x_NLD,
            pooler_output=encoded.pooled(),
            hidden_states=tuple(hidden_states) if output_hidden_states else None,
        )
        as_object = self.config.return_dict if return_dict is None else return_dict
        return output if as_object else output.to_tuple()


class Data2Vec2ImageModel(Data2Vec2PreTrainedModel):  # type: ignore[no-untyped-call]
    """The image encoder without a head."""

    config_class = Data2Vec2ImageConfig
    main_input_name = "pixel_values"

    def forward(
        self, pixel_values: Tensor, output_hidden_states: bool | None = None, return_dict: bool | None = None
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Encode normalised pictures `(N, channels, height, width)`.

        The model was trained at `image_size`; any multiples of the patch size are accepted, with interpolated positions
        (`ValueError` for other shapes).

        `last_hidden_state` (`NLD`) is the last block's output: the CLS token, then the patches row by row.
        `pooler_output` (`ND`) is the mean over the patches **without** the CLS token, which is what this project's
        probes and fine-tuning use. `hidden_states`, if asked for, are the first block's input and every block's output.
        """
        return self._encode(pixel_values, output_hidden_states, return_dict)


class Data2Vec2AudioModel(Data2Vec2PreTrainedModel):  # type: ignore[no-untyped-call]
    """The audio encoder without a head."""

    config_class = Data2Vec2AudioConfig
    main_input_name = "input_values"

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Encode waveforms `(N, samples)` of zero mean and unit variance.

        `attention_mask` (`(N, samples)`, 1 at real ones, which come first) says what only fills a batch up; it changes
        no recording's features. `last_hidden_state` (`NLD`) has a vector for each 20 ms; what stands at padded places
        means nothing. `pooler_output` (`ND`) is the mean over the real ones. `hidden_states` as for pictures.
        """
        lengths_B = None if attention_mask is None else attention_mask.sum(1)
        return self._encode(input_values, output_hidden_states, return_dict, lengths_B)


class Data2Vec2TextModel(Data2Vec2PreTrainedModel):  # type: ignore[no-untyped-call]
    """The text encoder without a head."""

    config: Data2Vec2TextConfig
    config_class = Data2Vec2TextConfig
    main_input_name = "input_ids"

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Encode token ids `(N, tokens)`.

        Tokens where `attention_mask` is 0 are padding, and so are those with the id of padding; they change no text's
        features. `last_hidden_state` (`NLD`) has a vector for each token; what stands at padded places means nothing.
        `pooler_output` (`ND`) is the mean over the real ones. `hidden_states` as for pictures.
        """
        if attention_mask is not None:
            input_ids = input_ids.masked_fill(attention_mask == 0, self.config.pad_id)
        lengths_B = (input_ids != self.config.pad_id).sum(1)
        return self._encode(input_ids, output_hidden_states, return_dict, lengths_B)


@contextmanager
def _block_outputs(encoder: Encoder, wanted: bool) -> Iterator[list[Tensor]]:
    """Yield a list that the next `forward` fills with the first block's input and every block's output, if `wanted`."""
    states: list[Tensor] = []
    with ExitStack() as handles:  # removes the hooks, whatever happens
        if wanted:
            first = encoder.blocks[0].register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
            handles.callback(first.remove)
            for block in encoder.blocks:
                hook = block.register_forward_hook(lambda _, inputs, output: states.append(output.x_NLD))
                handles.callback(hook.remove)
        yield states


AutoConfig.register(Data2Vec2ImageConfig.model_type, Data2Vec2ImageConfig, exist_ok=True)
AutoModel.register(Data2Vec2ImageConfig, Data2Vec2ImageModel, exist_ok=True)
AutoConfig.register(Data2Vec2AudioConfig.model_type, Data2Vec2AudioConfig, exist_ok=True)
AutoModel.register(Data2Vec2AudioConfig, Data2Vec2AudioModel, exist_ok=True)
AutoConfig.register(Data2Vec2TextConfig.model_type, Data2Vec2TextConfig, exist_ok=True)
AutoModel.register(Data2Vec2TextConfig, Data2Vec2TextModel, exist_ok=True)
