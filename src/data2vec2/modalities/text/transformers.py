"""Models of text as Hugging Face Transformers has them; its own tokenizers make their inputs.

Shapes: `N` texts, `T` tokens, `D` width, `H` heads, `C` classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)
from transformers.modeling_outputs import QuestionAnsweringModelOutput

from data2vec2.config.model import ArchitectureConfig
from data2vec2.data.labels import IGNORED
from data2vec2.errors import UsageError
from data2vec2.method import losses
from data2vec2.method.heads import AnswerFinder
from data2vec2.modalities.fields import SINGLE_LABEL
from data2vec2.modalities.text.config import TextConfig
from data2vec2.modalities.text.model import TextModality
from data2vec2.modalities.transformers import register
from data2vec2.modalities.transformers.models import (
    Data2Vec2Config,
    Data2Vec2ForClassification,
    Data2Vec2ForTokenClassification,
    Data2Vec2Model,
    Data2Vec2PreTrainedModel,
)
from data2vec2.modalities.transformers.pretraining import Data2Vec2ForPreTraining


class Data2Vec2TextConfig(Data2Vec2Config, modality=TextConfig):
    """Shape of a text encoder: fields of `TextConfig`, and those that all modalities have."""


class TextInputs(Data2Vec2PreTrainedModel):  # type: ignore[no-untyped-call]
    """What models of text have in common: token ids, whose embeddings can be resized, padded on any side."""

    main_input_name = "input_ids"
    config_class = Data2Vec2TextConfig

    def _modality(self, config: ArchitectureConfig) -> TextModality:
        return TextModality.of(config)

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the embeddings of tokens, without positions and norm."""
        return self.encoder.modality.stem.tokens  # type: ignore[union-attr, return-value]

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace them."""
        self.encoder.modality.stem.tokens = value  # type: ignore[union-attr]

    def _lengths(self, attention_mask: Tensor) -> Tensor:
        """Number of tokens; where they stand the ids say, wherever it is."""
        return attention_mask.sum(1)


class Data2Vec2TextModel(TextInputs, Data2Vec2Model):  # type: ignore[no-untyped-call]
    """The text encoder without a head."""

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        output_attentions: bool | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **others: Any,
    ) -> Any:
        """Encode token ids `NT`. What `attention_mask` or the id tells to be padding changes no text's features.

        `last_hidden_state` (`NTD`) has a vector for each token; what stands at padded places means nothing.
        `pooler_output` (`ND`) is the mean over the real ones. `hidden_states`, if asked for, are the first block's
        input and every block's output; `attentions` every block's weights `NHTT`, computed by a slower path that needs
        more memory. `token_type_ids`, which some tokenizers give, change nothing. In place of ids there may be their
        embeddings `inputs_embeds` (`NTD`, padded behind), as `get_input_embeddings` gives them. `others` may be none
        (`UsageError`).
        """
        inputs = real_tokens(input_ids, inputs_embeds, attention_mask, self.config.pad_token_id)
        return super().forward(*inputs, output_hidden_states, return_dict, output_attentions, **others)


class TextClassification(TextInputs, Data2Vec2ForClassification):  # type: ignore[no-untyped-call]
    """What models with classes have in common."""

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **others: Any,
    ) -> Any:
        """`logits` (`NC`) of token ids, as for the encoder; `loss` where there are labels.

        `labels` are places of classes (`N`), or for texts of several classes 0 and 1 for each (`NC`, floating-point).
        With `problem_type` "regression", or a single output, they are numbers (`N`).
        """
        inputs = real_tokens(input_ids, inputs_embeds, attention_mask, self.config.pad_token_id)
        return super().forward(*inputs, labels, output_hidden_states, output_attentions, return_dict, **others)


class Data2Vec2TextForSequenceClassification(TextClassification):  # type: ignore[no-untyped-call]
    """Classes of texts, or a number of each (`problem_type` "regression")."""


class Data2Vec2TextForTokenClassification(  # type: ignore[no-untyped-call]
    TextClassification, Data2Vec2ForTokenClassification
):
    """A class of each token: `logits` (`NTC`), `labels` (`NT`, -100 for none)."""


class Data2Vec2TextForQuestionAnswering(TextInputs):  # type: ignore[no-untyped-call]
    """Where answers start and end: `data2vec2.method.heads.AnswerFinder`."""

    def _build(self, config: ArchitectureConfig) -> None:
        super()._build(config)
        self.config.num_labels = 2
        self.config.problem_type = SINGLE_LABEL  # by which an export has a head
        parts = AnswerFinder(self.encoder)
        self.norm, self.classifier = parts.norm, parts.head

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **others: Any,
    ) -> Any:
        """`start_logits` and `end_logits` (`NT`) of token ids, as for the encoder; `loss` where there are positions.

        These are the first and the last token of an answer (`N`); of what has none they are 0, and a place that is no
        token counts nothing.
        """
        inputs, real_NT = real_tokens(input_ids, inputs_embeds, attention_mask, self.config.pad_token_id)
        encoded, seen = self._observe(inputs, real_NT, output_hidden_states, output_attentions, others)
        logits_NT2 = self.classifier(self.norm(encoded.features_NTD))
        loss = None
        if start_positions is not None and end_positions is not None:
            places_N2 = torch.stack([start_positions.view(-1), end_positions.view(-1)], dim=1)
            tokens_T = torch.arange(logits_NT2.shape[1], device=logits_NT2.device)
            marks_NT2 = (tokens_T[:, None] == places_N2[:, None]).long()
            marks_NT2 = marks_NT2.masked_fill(real_NT[..., None] == 0, IGNORED)
            loss = losses.spans(logits_NT2, marks_NT2) / len(logits_NT2)
        start_NT, end_NT = logits_NT2[..., 0], logits_NT2[..., 1]
        output = QuestionAnsweringModelOutput(loss=loss, start_logits=start_NT, end_logits=end_NT, **seen)
        return self._given(output, return_dict)


class Data2Vec2TextForPreTraining(TextInputs, Data2Vec2ForPreTraining):  # type: ignore[no-untyped-call]
    """data2vec 2.0 on text."""

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        return_dict: bool | None = None,
        return_loss: bool = True,
        **others: Any,
    ) -> Any:
        """The loss on token ids `NT`, blocks that are full: `attention_mask` may have no 0.

        `return_loss` changes nothing; it lets the `Trainer` know that there is a loss without labels.
        """
        return super().forward(input_ids, attention_mask, return_dict, **others)


def real_tokens(
    input_ids: Tensor | None, inputs_embeds: Tensor | None, attention_mask: Tensor | None, pad_id: int
) -> tuple[Tensor, Tensor]:
    """Token ids with the id of padding where the mask is 0, or embeddings, and a mask of what is no padding.

    `UsageError` for none of them or both, for ids of another shape, and for embeddings that are padded in front.
    """
    if input_ids is None and inputs_embeds is not None:
        if attention_mask is None:
            attention_mask = torch.ones(inputs_embeds.shape[:2], dtype=torch.long, device=inputs_embeds.device)
        if not torch.compiler.is_compiling() and (attention_mask[:, 1:] > attention_mask[:, :-1]).any():
            raise UsageError("inputs_embeds with padding in front; fill up behind (padding_side 'right')")
        return inputs_embeds, attention_mask
    if input_ids is None or inputs_embeds is not None:
        raise UsageError(f"{'neither' if input_ids is None else 'both'} input_ids and inputs_embeds; give one of them")
    if input_ids.ndim != 2:
        raise UsageError(f"token ids of shape {tuple(input_ids.shape)}; (batch, tokens) is needed")
    if attention_mask is not None:
        input_ids = input_ids.masked_fill(attention_mask == 0, pad_id)
    return input_ids, input_ids != pad_id


register(
    Data2Vec2TextConfig,
    {
        AutoModel: Data2Vec2TextModel,
        AutoModelForPreTraining: Data2Vec2TextForPreTraining,
        AutoModelForSequenceClassification: Data2Vec2TextForSequenceClassification,
        AutoModelForQuestionAnswering: Data2Vec2TextForQuestionAnswering,
        AutoModelForTokenClassification: Data2Vec2TextForTokenClassification,
    },
)
