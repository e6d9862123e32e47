"""The encoder of each modality without a head.

Shapes: `N` inputs, `L` tokens with the extra ones in front, `D` width, `H` heads.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from data2vec2.interop.transformers.base import Data2Vec2PreTrainedModel, Observed, lengths_of, real_tokens
from data2vec2.interop.transformers.configuration import (
    Data2Vec2AudioConfig,
    Data2Vec2ImageConfig,
    Data2Vec2TextConfig,
)

Outputs = BaseModelOutputWithPooling | tuple[Any, ...]


class Data2Vec2ImageModel(Data2Vec2PreTrainedModel):  # type: ignore[no-untyped-call]
    """The image encoder without a head."""

    config_class = Data2Vec2ImageConfig
    main_input_name = "pixel_values"

    def forward(
        self,
        pixel_values: Tensor,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        output_attentions: bool | None = None,
    ) -> Outputs:
        """Encode normalised pictures `(N, channels, height, width)`.

        The model was trained at `image_size`; any multiples of the patch size are accepted, with interpolated positions
        (`ValueError` for other shapes).

        `last_hidden_state` (`NLD`) is the last block's output: the CLS token, then the patches row by row.
        `pooler_output` (`ND`) is the mean over the patches **without** the CLS token, which is what this project's
        probes and fine-tuning use. `hidden_states`, if asked for, are the first block's input and every block's output;
        `attentions` every block's weights `NHLL`, computed by a path that is slower and needs more memory.
        """
        observed = self._observe(pixel_values, None, output_hidden_states, output_attentions)
        return self._given(_pooled(observed), return_dict)  # type: ignore[no-any-return]


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
        output_attentions: bool | None = None,
    ) -> Outputs:
        """Encode waveforms `(N, samples)` of zero mean and unit variance.

        `attention_mask` (`(N, samples)`, 1 at real ones, which come first) says what only fills a batch up; it changes
        no recording's features. `last_hidden_state` (`NLD`) has a vector for each 20 ms; what stands at padded places
        means nothing. `pooler_output` (`ND`) is the mean over the real ones. `hidden_states` and `attentions` as for
        pictures.
        """
        lengths_B = lengths_of(attention_mask)
        observed = self._observe(input_values, lengths_B, output_hidden_states, output_attentions)
        return self._given(_pooled(observed), return_dict)  # type: ignore[no-any-return]


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
        output_attentions: bool | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Outputs:
        """Encode token ids `(N, tokens)`.

        Tokens where `attention_mask` is 0 are padding, and so are those with the id of padding; they change no text's
        features. `last_hidden_state` (`NLD`) has a vector for each token; what stands at padded places means nothing.
        `pooler_output` (`ND`) is the mean over the real ones. `hidden_states` and `attentions` as for pictures.
        `token_type_ids`, which some tokenizers give, change nothing.
        """
        inputs = real_tokens(self.config, input_ids, attention_mask)
        observed = self._observe(*inputs, output_hidden_states, output_attentions)
        return self._given(_pooled(observed), return_dict)  # type: ignore[no-any-return]


def _pooled(observed: Observed) -> BaseModelOutputWithPooling:
    return BaseModelOutputWithPooling(
        last_hidden_state=observed.encoded.x_NLD,
        pooler_output=observed.encoded.pooled(),
        **observed.states,
    )
