"""Models of recordings as Hugging Face Transformers has them, and its tokenizer of letters.

Recordings are read by Transformers' own `Wav2Vec2FeatureExtractor`: waveforms `(N, samples)` of zero mean and unit
variance, with an `attention_mask`. A token is 20 ms.

Shapes: `N` recordings, `T` tokens, `V` letters, `L` letters of a transcript.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutput
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES
from transformers.utils.hub import cached_file

from data2vec2.config.model import ArchitectureConfig
from data2vec2.data.letters import TOKENIZER
from data2vec2.errors import UsageError
from data2vec2.method import losses
from data2vec2.method.heads import SpeechRecognizer, recognized
from data2vec2.modalities.audio.config import AudioConfig
from data2vec2.modalities.audio.model import AudioModality, freeze_stem
from data2vec2.modalities.transformers import models, register
from data2vec2.modalities.transformers.pretraining import Data2Vec2ForPreTraining


class Data2Vec2AudioConfig(models.Data2Vec2Config, modality=AudioConfig):
    """Shape of an audio encoder: fields of `AudioConfig`, and those that all modalities have."""

    vocab_size: int | None = None
    """Letters that a recogniser writes, blank included."""
    pad_token_id: int | None = 0
    """The letter that is CTC's blank, as the tokenizer has it."""
    tokenizer_class: str | None = "Data2Vec2CTCTokenizer"
    """Of a vocabulary with no word on its class, as scripts write it for `AutoTokenizer`."""

    @property
    def inputs_to_logits_ratio(self) -> int:
        """Samples between two tokens; pipelines cut long recordings and tell times by it."""
        modality = self.to_architecture().modality
        assert isinstance(modality, AudioConfig)
        return modality.hop


class AudioInputs(models.Data2Vec2PreTrainedModel):  # type: ignore[no-untyped-call]
    """What models of recordings have in common."""

    config_class = Data2Vec2AudioConfig

    def _modality(self, config: ArchitectureConfig) -> AudioModality:
        return AudioModality.of(config)

    def freeze_feature_encoder(self) -> None:
        """Let the stem's convolutions learn no more, as `finetune` does; mel spectra learn nothing anyway."""
        freeze_stem(self.encoder)


class Data2Vec2AudioModel(AudioInputs, models.Data2Vec2Model):  # type: ignore[no-untyped-call]
    """The audio encoder without a head."""


class Data2Vec2AudioForPreTraining(AudioInputs, Data2Vec2ForPreTraining):  # type: ignore[no-untyped-call]
    """data2vec 2.0 on recordings."""


class Data2Vec2AudioForAudioClassification(  # type: ignore[no-untyped-call]
    AudioInputs, models.Data2Vec2ForClassification
):
    """Classes of recordings."""


class Data2Vec2AudioForAudioFrameClassification(  # type: ignore[no-untyped-call]
    AudioInputs, models.Data2Vec2ForTokenClassification
):
    """A class of each 20 ms: `logits` (`NTC`), `labels` (`NT`, -100 for none)."""


class Data2Vec2AudioForCTC(AudioInputs):  # type: ignore[no-untyped-call]
    """Letters of speech: `data2vec2.method.heads.SpeechRecognizer`."""

    def _build(self, config: ArchitectureConfig) -> None:
        super()._build(config)
        if self.config.vocab_size is None:
            raise UsageError("vocab_size is none; set it to the number of letters (len(tokenizer)), blank included")
        blank, letters = self.config.pad_token_id, self.config.vocab_size
        if blank is None or not 0 <= blank < letters:
            raise UsageError(f"pad_token_id is {blank}; it is CTC's blank, one of {letters} letters (vocab_size)")
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
        **others: Any,
    ) -> CausalLMOutput | tuple[Any, ...]:
        """`logits` (`NTV`) of waveforms, as for the encoder; those of padded tokens say blank for sure.

        `labels` (`NL`) are letters, filled up behind with -100 or blank (`pad_token_id`); the `loss` is the mean over
        recordings, of which one with more letters than tokens counts 0. `UsageError` for a letter that is not in the
        vocabulary, and for blank or -100 between letters. `others` may be none.
        """
        encoded, seen = self._observe(input_values, attention_mask, output_hidden_states, output_attentions, others)
        blank: int = self.config.pad_token_id
        logits_NTV, num_tokens_N = recognized(self.lm_head(encoded.features_NTD), encoded.tokens.padding_BT, blank)
        loss = None
        if labels is not None:
            real_NL = self._letters(labels, blank)
            targets_NL = torch.where(real_NL, labels, blank)
            loss = losses.ctc(logits_NTV, num_tokens_N, targets_NL, real_NL.sum(dim=1), blank).loss / len(labels)
        output = CausalLMOutput(loss=loss, logits=logits_NTV, **seen)
        return self._given(output, return_dict)  # type: ignore[no-any-return]

    def _letters(self, labels: Tensor, blank: int) -> Tensor:
        """Where labels are letters, `NL`; `UsageError` for labels that can't be learned as they are."""
        letters = self.lm_head.out_features
        if labels.numel() and int(labels.max()) >= letters:
            raise UsageError(f"label {int(labels.max())} of a vocabulary of {letters} letters")
        real_NL = (labels >= 0) & (labels != blank)
        if (inner_N := (real_NL[:, 1:] & ~real_NL[:, :-1]).any(dim=1)).any():
            row = int(inner_N.int().argmax())
            raise UsageError(
                f"labels of recording {row} of the batch have blank (pad_token_id {blank}) or -100 before a letter: "
                "CTC puts blanks between letters itself; fill labels up behind"
            )
        return real_NL


class Data2Vec2CTCTokenizer(transformers.Wav2Vec2CTCTokenizer):
    """Letters, as `data2vec2.data.letters` has them: between words there is one space."""

    def __init__(self, *arguments: Any, processor_class: str = "Wav2Vec2Processor", **more: Any) -> None:
        """As of `Wav2Vec2CTCTokenizer`; `AutoProcessor` finds its class in what is saved, and asks no model for it."""
        super().__init__(*arguments, processor_class=processor_class, **more)  # type: ignore[no-untyped-call]

    def convert_tokens_to_string(  # type: ignore[override]  # as of the class above
        self, tokens: list[str], *arguments: Any, **more: Any
    ) -> dict[str, Any]:
        """As of `Wav2Vec2CTCTokenizer`; the unknown letter, which nobody reads, is silence; several spaces are one."""
        readable = [self.pad_token if token == self.unk_token else token for token in tokens]
        said: dict[str, Any] = super().convert_tokens_to_string(readable, *arguments, **more)
        return {**said, "text": " ".join(said["text"].split())}


class Data2Vec2AudioProcessor:
    """What `AutoProcessor` loads where no file names a class."""

    @staticmethod
    def from_pretrained(name: str | Path, **options: Any) -> Any:
        """A `Wav2Vec2Processor` with the tokenizer that is there, whatever its class; else the feature extractor."""
        where = {key: options[key] for key in ("cache_dir", "revision", "subfolder", "token") if key in options}
        if cached_file(name, TOKENIZER, _raise_exceptions_for_missing_entries=False, **where) is None:
            return transformers.AutoFeatureExtractor.from_pretrained(name, **options)  # type: ignore[no-untyped-call]
        return transformers.Wav2Vec2Processor.from_pretrained(name, **options)


register(
    Data2Vec2AudioConfig,
    {
        transformers.AutoModel: Data2Vec2AudioModel,
        transformers.AutoModelForPreTraining: Data2Vec2AudioForPreTraining,
        transformers.AutoModelForAudioClassification: Data2Vec2AudioForAudioClassification,
        transformers.AutoModelForAudioFrameClassification: Data2Vec2AudioForAudioFrameClassification,
        transformers.AutoModelForCTC: Data2Vec2AudioForCTC,
    },
    files={"tokenizer_config.json": {"AutoTokenizer": Data2Vec2CTCTokenizer}},
)
transformers.AutoProcessor.register(  # type: ignore[no-untyped-call]
    Data2Vec2AudioConfig, Data2Vec2AudioProcessor, exist_ok=True
)
transformers.AutoTokenizer.register(  # type: ignore[no-untyped-call]
    Data2Vec2AudioConfig, slow_tokenizer_class=Data2Vec2CTCTokenizer, exist_ok=True
)
# Scripts name the tokenizer of a new vocabulary by the model's type, which `register` does not make known.
TOKENIZER_MAPPING_NAMES[Data2Vec2AudioConfig.model_type] = Data2Vec2CTCTokenizer.__name__
