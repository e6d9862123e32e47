"""Models of sounds as Hugging Face Transformers has them.

Sounds are read by Transformers' own `Wav2Vec2FeatureExtractor`: waveforms `(N, samples)`, with an `attention_mask`.
"""

from __future__ import annotations

import transformers
from torch import Tensor

from data2vec2.config.model import ArchitectureConfig
from data2vec2.modalities.sound.config import SoundConfig
from data2vec2.modalities.sound.model import SoundModality
from data2vec2.modalities.transformers import models, register
from data2vec2.modalities.transformers.pretraining import Data2Vec2ForPreTraining


class Data2Vec2SoundConfig(models.Data2Vec2Config, modality=SoundConfig):
    """Shape of a sound encoder: fields of `SoundConfig`, and those that all modalities have."""


class SoundInputs(models.Data2Vec2PreTrainedModel):  # type: ignore[no-untyped-call]
    """What models of sounds have in common."""

    config_class = Data2Vec2SoundConfig

    def _modality(self, config: ArchitectureConfig) -> SoundModality:
        return SoundModality.of(config)


class Data2Vec2SoundModel(SoundInputs, models.Data2Vec2Model):  # type: ignore[no-untyped-call]
    """The sound encoder without a head."""


class Data2Vec2SoundForPreTraining(SoundInputs, Data2Vec2ForPreTraining):  # type: ignore[no-untyped-call]
    """data2vec 2.0 on sounds."""

    def _grid(self, inputs: Tensor) -> tuple[int, ...]:
        return self._whole[0].config.modality.grid_of(inputs.shape[1])  # type: ignore[attr-defined, no-any-return]


class Data2Vec2SoundForAudioClassification(  # type: ignore[no-untyped-call]
    SoundInputs, models.Data2Vec2ForClassification
):
    """Classes of sounds."""


register(
    Data2Vec2SoundConfig,
    {
        transformers.AutoModel: Data2Vec2SoundModel,
        transformers.AutoModelForPreTraining: Data2Vec2SoundForPreTraining,
        transformers.AutoModelForAudioClassification: Data2Vec2SoundForAudioClassification,
    },
)
