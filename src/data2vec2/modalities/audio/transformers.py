"""Models of recordings as Hugging Face Transformers has them, and its tokenizer of letters.

Recordings are read by Transformers' own `Wav2Vec2FeatureExtractor`: waveforms `(N, samples)` of zero mean and unit
variance, with an `attention_mask`. A token is 20 ms.

Shapes: `N` recordings, `T` tokens, `V` letters, `L` letters of a transcript.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutput

from data2vec2.config.model import ArchitectureConfig
from data2vec2.method import losses
from data2vec2.method.heads import SpeechRecognizer, recognized
from data2vec2.modalities.audio.config import AudioConfig
from data2vec2.modalities.transformers import models, register
from data2vec2.modalities.transformers.pretraining import Data2Vec2ForPreTraining


class Data2Vec2AudioConfig(models.Data2Vec2Config, modality=AudioConfig):
    """Shape of an audio encoder: fields of `AudioConfig`, and those that all modalities have."""

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


class Data2Vec2AudioModel(models.Data2Vec2Model):  # type: ignore[no-untyped-call]
    """The audio encoder without a head."""


class Data2Vec2AudioForPreTraining(Data2Vec2ForPreTraining):  # type: ignore[no-untyped-call]
    """data2vec 2.0 on recordings."""


class Data2Vec2AudioForAudioClassification(models.Data2Vec2ForClassification):  # type: ignore[no-untyped-call]
    """Classes of recordings."""


class Data2Vec2AudioForCTC(models.Data2Vec2PreTrainedModel):  # type: ignore[no-untyped-call]
    """Letters of speech: `data2vec2.method.heads.SpeechRecognizer`."""

    def _build(self, config: ArchitectureConfig) -> None:
        super()._build(config)
        if self.config.vocab_size is None:
            raise ValueError("vocab_size is none; set it to the number of letters (len(tokenizer)), blank included")
        self.lm_head = SpeechRecognizer(self.encoder, self.config.vocab_size).head

    def _init_weights(self, module: nn.Module) -> None:
        """As others; the head's weight as `SpeechRecognizer` has it."""
        super()._init_weights(module)
        if module is self.lm_head:
            models.sparing_loaded(module, lambda _: nn.init.xavier_uniform_(self.lm_head.weight))

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
        encoded, seen = self._observe(input_values, attention_mask, output_hidden_states, output_attentions)
        logits_NTV, num_tokens_N = recognized(self.lm_head(encoded.features_NTD), encoded.tokens.padding_BT)
        loss = None
        if labels is not None:
            if labels.numel() and int(labels.max()) >= logits_NTV.shape[2]:
                raise ValueError(f"label {int(labels.max())} of a vocabulary of {logits_NTV.shape[2]} letters")
            real_NL = labels > 0
            found = losses.ctc(logits_NTV, num_tokens_N, torch.where(real_NL, labels, 0), real_NL.sum(dim=1))
            loss = found.loss / len(labels)
        output = CausalLMOutput(loss=loss, logits=logits_NTV, **seen)
        return self._given(output, return_dict)  # type: ignore[no-any-return]


class Data2Vec2CTCTokenizer(transformers.Wav2Vec2CTCTokenizer):
    """Letters, as `data2vec2.data.labels` has them: between words there is one space."""

    def convert_tokens_to_string(  # type: ignore[override]  # as of the class above
        self, tokens: list[str], *arguments: Any, **more: Any
    ) -> dict[str, Any]:
        """As of `Wav2Vec2CTCTokenizer`; the unknown letter, which nobody reads, is silence; several spaces are one."""
        readable = [self.pad_token if token == self.unk_token else token for token in tokens]
        said: dict[str, Any] = super().convert_tokens_to_string(readable, *arguments, **more)
        return {**said, "text": " ".join(said["text"].split())}


register(
    Data2Vec2AudioConfig,
    {
        transformers.AutoModel: Data2Vec2AudioModel,
        transformers.AutoModelForPreTraining: Data2Vec2AudioForPreTraining,
        transformers.AutoModelForAudioClassification: Data2Vec2AudioForAudioClassification,
        transformers.AutoModelForCTC: Data2Vec2AudioForCTC,
    },
)
transformers.AutoTokenizer.register(  # type: ignore[no-untyped-call]
    Data2Vec2AudioConfig, slow_tokenizer_class=Data2Vec2CTCTokenizer, exist_ok=True
)
