"""What is fine-tuned from an encoder: classes and numbers of pictures, recordings and texts, and letters of speech.

The parts, and what is computed with them, are those of `data2vec2.models`; only names in the file are Transformers'.

Shapes: `N` inputs, `T` tokens, `C` classes, `V` letters, `L` letters of a transcript.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutput, ImageClassifierOutput, SequenceClassifierOutput

from data2vec2 import losses
from data2vec2.config import ModelConfig
from data2vec2.interop.fields import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from data2vec2.interop.transformers.base import (
    Data2Vec2PreTrainedModel,
    Observed,
    lengths_of,
    real_tokens,
    sparing_loaded,
)
from data2vec2.interop.transformers.configuration import (
    Data2Vec2AudioConfig,
    Data2Vec2ImageConfig,
    Data2Vec2TextConfig,
)
from data2vec2.models import Classifier, SpeechRecognizer
from data2vec2.models.classifier import POOLINGS, Pooling, pool
from data2vec2.models.ctc import recognized


class _ForClassification(Data2Vec2PreTrainedModel):  # type: ignore[no-untyped-call]
    """`data2vec2.models.Classifier`, of any modality."""

    def _build(self, config: ModelConfig) -> None:
        super()._build(config)
        pooling = next((name for name in POOLINGS if name == self.config.pooling), None)
        if pooling is None:
            raise ValueError(f"pooling is {self.config.pooling!r}; it must be one of {', '.join(POOLINGS)}")
        self.pooling: Pooling = pooling
        parts = Classifier(self.encoder, int(self.config.num_labels or 0), pooling=pooling)
        self.norm, self.dense, self.classifier = parts.norm, parts.dense, parts.head

    def _classify(
        self,
        observed: Observed,
        labels: Tensor | None,
        return_dict: bool | None,
        output: type[ImageClassifierOutput] | type[SequenceClassifierOutput] = SequenceClassifierOutput,
    ) -> Any:
        """Every modality's logits, and loss where there are labels."""
        logits_NC = pool(observed.encoded, self.pooling, lambda x: self.classifier(self.dense(self.norm(x))))
        loss = None if labels is None else self._loss(logits_NC, labels)
        return self._given(output(loss=loss, logits=logits_NC, **observed.states), return_dict)

    def _loss(self, logits_NC: Tensor, labels: Tensor) -> Tensor:
        """Mean over samples. What kind of labels they are is remembered, if the configuration does not say it yet."""
        if self.config.problem_type is None and logits_NC.shape[1] == 1:
            self.config.problem_type = REGRESSION
        elif self.config.problem_type is None:
            self.config.problem_type = MULTI_LABEL if labels.is_floating_point() else SINGLE_LABEL
        if self.config.problem_type == REGRESSION:
            loss = losses.squared_error(logits_NC, labels.view_as(logits_NC).float())
        else:
            multi_label = self.config.problem_type == MULTI_LABEL
            loss = losses.classification(logits_NC, labels.float() if multi_label else labels.view(-1), multi_label)
        return loss / len(logits_NC)


class Data2Vec2ImageForImageClassification(_ForClassification):  # type: ignore[no-untyped-call]
    """Classes of pictures."""

    config_class = Data2Vec2ImageConfig
    main_input_name = "pixel_values"

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> ImageClassifierOutput | tuple[Any, ...]:
        """`logits` (`NC`) of normalised pictures, as for the encoder; `loss` where there are labels.

        `labels` are places of classes (`N`), or for samples of several classes 0 and 1 for each (`NC`, floating-point).
        """
        observed = self._observe(pixel_values, None, output_hidden_states, output_attentions)
        return self._classify(observed, labels, return_dict, ImageClassifierOutput)  # type: ignore[no-any-return]


class Data2Vec2AudioForAudioClassification(_ForClassification):  # type: ignore[no-untyped-call]
    """Classes of recordings."""

    config_class = Data2Vec2AudioConfig
    main_input_name = "input_values"

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[Any, ...]:
        """`logits` (`NC`) of waveforms, as for the encoder; `labels` and `loss` as for pictures."""
        observed = self._observe(input_values, lengths_of(attention_mask), output_hidden_states, output_attentions)
        return self._classify(observed, labels, return_dict)  # type: ignore[no-any-return]


class Data2Vec2TextForSequenceClassification(_ForClassification):  # type: ignore[no-untyped-call]
    """Classes of texts, or a number of each (`problem_type` "regression")."""

    config: Data2Vec2TextConfig
    config_class = Data2Vec2TextConfig
    main_input_name = "input_ids"

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        token_type_ids: Tensor | None = None,
    ) -> SequenceClassifierOutput | tuple[Any, ...]:
        """`logits` (`NC`) of token ids, as for the encoder; `labels` and `loss` as for pictures.

        With `problem_type` "regression", or a single output, `labels` are numbers (`N`).
        """
        inputs = real_tokens(self.config, input_ids, attention_mask)
        observed = self._observe(*inputs, output_hidden_states, output_attentions)
        return self._classify(observed, labels, return_dict)  # type: ignore[no-any-return]


class Data2Vec2AudioForCTC(Data2Vec2PreTrainedModel):  # type: ignore[no-untyped-call]
    """Letters of speech: `data2vec2.models.SpeechRecognizer`."""

    config: Data2Vec2AudioConfig
    config_class = Data2Vec2AudioConfig
    main_input_name = "input_values"

    def _build(self, config: ModelConfig) -> None:
        super()._build(config)
        if self.config.vocab_size is None:
            raise ValueError("vocab_size is none; set it to the number of letters (len(tokenizer)), blank included")
        self.lm_head = SpeechRecognizer(self.encoder, self.config.vocab_size).head

    def _init_weights(self, module: nn.Module) -> None:
        """As others; the head's weight as `SpeechRecognizer` has it."""
        super()._init_weights(module)
        if module is self.lm_head:
            sparing_loaded(module, lambda _: nn.init.xavier_uniform_(self.lm_head.weight))

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> CausalLMOutput | tuple[Any, ...]:
        """`logits` (`NTV`) of waveforms, as for the encoder; those of padded tokens say blank (0) for sure.

        `labels` (`NL`) are letters, filled up behind with -100 or blank; the `loss` is the mean over recordings, of
        which one with more letters than tokens counts 0. `ValueError` for a letter that is not in the vocabulary.
        """
        observed = self._observe(input_values, lengths_of(attention_mask), output_hidden_states, output_attentions)
        encoded = observed.encoded
        logits_NTV, num_tokens_N = recognized(self.lm_head(encoded.features_NTD), encoded.tokens.padding_BT)
        loss = None
        if labels is not None:
            if labels.numel() and int(labels.max()) >= logits_NTV.shape[2]:
                raise ValueError(f"label {int(labels.max())} of a vocabulary of {logits_NTV.shape[2]} letters")
            real_NL = labels > 0
            found = losses.ctc(logits_NTV, num_tokens_N, torch.where(real_NL, labels, 0), real_NL.sum(dim=1))
            loss = found.loss / len(labels)
        output = CausalLMOutput(loss=loss, logits=logits_NTV, **observed.states)
        return self._given(output, return_dict)  # type: ignore[no-any-return]
