"""What the models of all modalities share: the encoder, its initialisation, and what can be seen of it.

Shapes: `N` inputs, `L` tokens with the extra ones in front, `D` width, `H` heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from data2vec2.config import ModelConfig
from data2vec2.interop.transformers.configuration import Data2Vec2Config, Data2Vec2TextConfig
from data2vec2.modalities import Modality, build_modality
from data2vec2.models import Encoded, Encoder
from data2vec2.models.encoder import initialise
from data2vec2.nn.attention import eager_attention

States = tuple[Tensor, ...] | None


class Observed(NamedTuple):
    """What the encoder computed, and what was asked to be seen of it."""

    encoded: Encoded
    hidden_states: States
    """The first block's input and every block's output, `NLD` each."""
    attentions: States
    """Every block's attention weights, `NHLL` each."""

    @property
    def states(self) -> dict[str, States]:
        """What was asked to be seen, as outputs call it."""
        return {"hidden_states": self.hidden_states, "attentions": self.attentions}


class Data2Vec2PreTrainedModel(PreTrainedModel):  # type: ignore[no-untyped-call]
    """What the models of all modalities share: one encoder, its initialisation and its outputs."""

    config: Data2Vec2Config
    base_model_prefix = "data2vec2"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Block"]  # noqa: RUF012  (Transformers' own attribute)
    _supports_sdpa = True

    def __init__(self, config: Data2Vec2Config) -> None:
        super().__init__(config)
        self._build(config.to_model_config())
        self.post_init()  # type: ignore[no-untyped-call]

    def _build(self, config: ModelConfig) -> None:
        """Make the parts."""
        self.encoder = Encoder(config.encoder, build_modality(config))

    def get_input_embeddings(self) -> nn.Module:
        """Return what turns inputs into tokens."""
        assert self.encoder.modality.stem is not None
        return self.encoder.modality.stem

    def _init_weights(self, module: nn.Module) -> None:
        """Initialise what no checkpoint gave `module`, its fixed buffers included.

        Transformers builds a model without memory and calls this for every module once the weights are in, children
        first: buffers that are not in the file hold garbage by then.
        """
        if next(module.children(), None) is None or isinstance(module, Modality):
            sparing_loaded(module, initialise)

    def _observe(
        self,
        inputs: Tensor,
        lengths_B: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> Observed:
        """Encode; what is not said is as the configuration has it.

        `ValueError` for attention weights in training with gradient checkpointing, which would compute them twice.
        """
        hidden = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        attention = self.config.output_attentions if output_attentions is None else output_attentions
        if attention and self.training and self.encoder.gradient_checkpointing:
            raise ValueError("output_attentions can't be had in training with gradient checkpointing; turn one off")
        eager = self.config._attn_implementation == "eager"
        for block in self.encoder.blocks:
            block.attn.attend = eager_attention if eager else F.scaled_dot_product_attention  # type: ignore[union-attr]
        with _watched(self.encoder, bool(hidden), bool(attention)) as (states, weights):
            encoded = self.encoder(inputs.to(self.dtype) if inputs.is_floating_point() else inputs, lengths_B=lengths_B)
        return Observed(encoded, tuple(states) if hidden else None, tuple(weights) if attention else None)

    def _given(self, output: ModelOutput, return_dict: bool | None) -> Any:
        """The output as an object or a tuple."""
        as_object = self.config.return_dict if return_dict is None else return_dict
        return output if as_object else output.to_tuple()


def lengths_of(attention_mask: Tensor | None) -> Tensor | None:
    """Real samples of each waveform."""
    return None if attention_mask is None else attention_mask.sum(1)


def real_tokens(config: Data2Vec2TextConfig, input_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Token ids with the id of padding where the mask is 0, and how many of each text are real."""
    if attention_mask is not None:
        input_ids = input_ids.masked_fill(attention_mask == 0, config.pad_id)
    return input_ids, (input_ids != config.pad_id).sum(1)


@torch.no_grad()
def sparing_loaded(module: nn.Module, initialiser: Callable[[nn.Module], object]) -> None:
    """Initialise `module` but for what a checkpoint gave it.

    Transformers marks the tensors that were loaded, and they are put back here, because an initialiser may well reach
    them through a view, which lacks the mark.
    """
    marked = [p for p in module.parameters() if getattr(p, "_is_hf_initialized", False)]
    loaded = [parameter.clone() for parameter in marked]
    initialiser(module)
    for parameter, value in zip(marked, loaded, strict=True):
        parameter.copy_(value)


@contextmanager
def _watched(encoder: Encoder, hidden: bool, attention: bool) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Yield two lists that the next `forward` fills with hidden states and attention weights, as far as wanted."""
    states: list[Tensor] = []
    weights: list[Tensor] = []
    with ExitStack() as undo:  # whatever happens
        if hidden:
            first = encoder.blocks[0].register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
            undo.callback(first.remove)
        for block in encoder.blocks:
            if hidden:
                hook = block.register_forward_hook(lambda _, inputs, output: states.append(output.x_NLD))
                undo.callback(hook.remove)
            if attention:
                undo.callback(setattr, block.attn, "attend", block.attn.attend)  # type: ignore[union-attr]
                block.attn.attend = partial(eager_attention, seen=weights)  # type: ignore[union-attr]
        yield states, weights
