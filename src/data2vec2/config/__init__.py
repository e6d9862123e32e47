"""The configuration of a run: frozen dataclasses, standard library only."""

from data2vec2.config.model import (
    ArchitectureConfig,
    DecoderConfig,
    EncoderConfig,
    LossConfig,
    MaskConfig,
    ModalityConfig,
    ModelConfig,
    TargetConfig,
)
from data2vec2.config.run import (
    DataConfig,
    EmaConfig,
    FinetuneConfig,
    FinetuneDataConfig,
    FinetuneOptimConfig,
    OptimConfig,
    RunConfig,
    Schedule,
    TaskConfig,
    TrainConfig,
    fit_schedule,
)
from data2vec2.config.tree import Kinds, from_dict, require, to_dict, updated

__all__ = [
    "ArchitectureConfig",
    "DataConfig",
    "DecoderConfig",
    "EmaConfig",
    "EncoderConfig",
    "FinetuneConfig",
    "FinetuneDataConfig",
    "FinetuneOptimConfig",
    "Kinds",
    "LossConfig",
    "MaskConfig",
    "ModalityConfig",
    "ModelConfig",
    "OptimConfig",
    "RunConfig",
    "Schedule",
    "TargetConfig",
    "TaskConfig",
    "TrainConfig",
    "fit_schedule",
    "from_dict",
    "require",
    "to_dict",
    "updated",
]
