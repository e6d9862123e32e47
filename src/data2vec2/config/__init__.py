"""The configuration of a run: frozen dataclasses, standard library only."""

from data2vec2.config.any_finetune import FINETUNE_KINDS, AnyFinetuneConfig, read_finetune_config
from data2vec2.config.audio_finetune import (
    AudioFinetuneConfig,
    AudioFinetuneDataConfig,
    AudioFinetuneModelConfig,
    SpanMaskConfig,
)
from data2vec2.config.finetune import (
    AugmentConfig,
    FinetuneConfig,
    FinetuneDataConfig,
    FinetuneModelConfig,
    FinetuneOptimConfig,
    Schedule,
)
from data2vec2.config.model import (
    AudioConfig,
    DecoderConfig,
    EncoderConfig,
    ImageConfig,
    LossConfig,
    MaskConfig,
    ModelConfig,
    TargetConfig,
    TextConfig,
)
from data2vec2.config.run import (
    AudioDataConfig,
    DataConfig,
    EmaConfig,
    ImageDataConfig,
    OptimConfig,
    RunConfig,
    TextDataConfig,
    TrainConfig,
)
from data2vec2.config.schedule import fit_schedule
from data2vec2.config.text_finetune import TextFinetuneConfig, TextFinetuneDataConfig, TextFinetuneModelConfig
from data2vec2.config.tree import from_dict, to_dict, updated

__all__ = [
    "FINETUNE_KINDS",
    "AnyFinetuneConfig",
    "AudioConfig",
    "AudioDataConfig",
    "AudioFinetuneConfig",
    "AudioFinetuneDataConfig",
    "AudioFinetuneModelConfig",
    "AugmentConfig",
    "DataConfig",
    "DecoderConfig",
    "EmaConfig",
    "EncoderConfig",
    "FinetuneConfig",
    "FinetuneDataConfig",
    "FinetuneModelConfig",
    "FinetuneOptimConfig",
    "ImageConfig",
    "ImageDataConfig",
    "LossConfig",
    "MaskConfig",
    "ModelConfig",
    "OptimConfig",
    "RunConfig",
    "Schedule",
    "SpanMaskConfig",
    "TargetConfig",
    "TextConfig",
    "TextDataConfig",
    "TextFinetuneConfig",
    "TextFinetuneDataConfig",
    "TextFinetuneModelConfig",
    "TrainConfig",
    "fit_schedule",
    "from_dict",
    "read_finetune_config",
    "to_dict",
    "updated",
]
