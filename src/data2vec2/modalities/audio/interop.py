"""Models of recordings as other programs see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from data2vec2.config import ArchitectureConfig, ModalityConfig
from data2vec2.data.letters import TOKENIZER, VOCAB
from data2vec2.errors import UsageError
from data2vec2.modalities.audio.config import AudioConfig, AudioDataConfig
from data2vec2.modalities.info import ModelInfo
from data2vec2.modalities.interop import PROCESSOR, Interop, Usage


class AudioInterop(Interop):
    """Recordings."""

    heads = {"classifier": "ForAudioClassification", "recogniser": "ForCTC"}  # noqa: RUF012
    files = (PROCESSOR, VOCAB, TOKENIZER)
    older = frozenset({"layerdrop"})

    def to_processor(self, info: ModelInfo) -> dict[str, Any]:
        """Transformers' own feature extractor."""
        assert isinstance(info.model.modality, AudioConfig)
        return {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "feature_size": 1,
            "sampling_rate": info.model.modality.sample_rate,
            "padding_value": 0.0,
            "padding_side": "right",
            "do_normalize": True,
            "return_attention_mask": True,
        }

    def from_processor(self, modality: ModalityConfig, processor: Mapping[str, Any]) -> AudioDataConfig:
        """What evaluation accepts: any length that makes a token."""
        assert isinstance(modality, AudioConfig)
        if (rate := processor.get("sampling_rate")) != modality.sample_rate:
            raise UsageError(f"sampling_rate is {rate}, and the model's is {modality.sample_rate}")
        return AudioDataConfig(min_seconds=modality.receptive_field / modality.sample_rate)

    def example(self, model: ArchitectureConfig) -> Tensor:
        """Two recordings of some tokens."""
        modality = model.modality
        assert isinstance(modality, AudioConfig)
        return torch.zeros(2, modality.receptive_field + 20 * modality.hop + 7)

    def describe(self, modality: AudioConfig) -> str:
        """Rate and stem."""
        return f"waveforms of {modality.sample_rate:,} Hz, one channel ({modality.stem} stem)"

    def usage(self, modality: AudioConfig) -> Usage:
        """With the feature extractor."""
        rate = modality.sample_rate
        return Usage(
            processor="AutoFeatureExtractor",
            call=f"waveform, sampling_rate={rate}",
            several=f"waveforms, sampling_rate={rate}, padding=True",
            note="`pooler_output` is the mean over time; `last_hidden_state` has one vector for each 20 ms.",
            pipeline=f'{{"raw": waveform, "sampling_rate": {rate}}}',
        )
