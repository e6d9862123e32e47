"""How a pre-trained encoder of audio is fine-tuned: to write down speech, or to tell classes apart."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from data2vec2.config.check import require
from data2vec2.config.finetune import FinetuneOptimConfig
from data2vec2.config.run import AudioDataConfig, TrainConfig


@dataclass(frozen=True, kw_only=True)
class AudioFinetuneModelConfig:
    """What changes of the pre-trained encoder; its shape stays."""

    dropout: float = 0.0
    """Dropout of the features before the letters' linear layer."""
    activation_dropout: float = 0.1
    """Dropout inside the blocks' MLPs."""
    layer_drop: float = 0.1
    """Share of training passes in which a block is left out."""
    freeze_stem: bool = True
    """Leave the waveform stem's convolutions as pre-trained."""
    freeze_updates: int = 10_000
    """Updates at the start in which only the head learns."""
    pooling: Literal["mean", "linear_softmax"] = "mean"
    """How tokens become classes: the features' mean; or, where a recording has several tags, each token's
    probabilities, weighted by themselves."""

    def __post_init__(self) -> None:
        for name in ("dropout", "activation_dropout", "layer_drop"):
            require(0 <= getattr(self, name) < 1, f"model.{name}", getattr(self, name), "from 0 to below 1")
        require(self.freeze_updates >= 0, "model.freeze_updates", self.freeze_updates, "0 or more")


@dataclass(frozen=True, kw_only=True)
class SpanMaskConfig:
    """What is hidden of a recording in training: spans of tokens, which become noise, and of channels, which become 0.

    Spans overlap: of a share of .65 about half is hidden (1 - exp(-.65)).
    """

    time_share: float = 0.65
    """Tokens in spans, as a share of a recording's, as if no two spans met; 0: none."""
    time_length: int = 10
    """Tokens of a span (10 are 200 ms)."""
    channel_share: float = 0.25
    """Channels in spans, as a share of the width, as if no two spans met; 0: none."""
    channel_length: int = 64
    """Channels of a span."""
    noise_std: float = 0.01
    """Standard deviation of the noise."""

    def __post_init__(self) -> None:
        for name in ("time_share", "channel_share"):
            finite = 0 <= getattr(self, name) < math.inf
            require(finite, f"masks.{name}", getattr(self, name), "0 or more, and finite")
        for name in ("time_length", "channel_length"):
            require(getattr(self, name) >= 1, f"masks.{name}", getattr(self, name), "at least 1")
        require(self.noise_std >= 0, "masks.noise_std", self.noise_std, "0 or more")


@dataclass(frozen=True, kw_only=True)
class AudioFinetuneDataConfig(AudioDataConfig):
    """How recordings are read, and how many labels are used.

    A recording whose speech is written down is never cut: longer ones than max_seconds are left out.
    """

    max_minutes: float | None = None
    """Minutes of training recordings that are used, drawn by train.seed; none: all."""
    labels_per_class: int | None = None
    """Of classes, training samples of each, drawn by train.seed; none: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        above = self.max_minutes is None or self.max_minutes > 0
        require(above, "data.max_minutes", self.max_minutes, "above 0, or none")
        least_one = self.labels_per_class is None or self.labels_per_class >= 1
        require(least_one, "data.labels_per_class", self.labels_per_class, "at least 1, or none")


@dataclass(frozen=True, kw_only=True)
class AudioFinetuneConfig:
    """A complete fine-tuning run on audio: what a recipe returns and what `config.yaml` of a run folder holds."""

    recipe: str = "ctc_base_100h"
    """The recipe this started from."""
    from_scratch: bool = False
    """Random initialisation instead of the model's weights."""
    weights: str | None = None
    """SHA-256 of the model's weights; filled in when the run starts, and checked when it is resumed."""
    model: AudioFinetuneModelConfig = field(default_factory=AudioFinetuneModelConfig)
    """What changes of the encoder."""
    masks: SpanMaskConfig = field(default_factory=SpanMaskConfig)
    """What is hidden in training."""
    optim: FinetuneOptimConfig = field(default_factory=FinetuneOptimConfig)
    """The optimiser."""
    data: AudioFinetuneDataConfig = field(default_factory=AudioFinetuneDataConfig)
    """Reading recordings."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The loop."""

    def __post_init__(self) -> None:
        longest = math.ceil(self.data.max_seconds) * (self.train.processes or 1)
        expected = f"at least {longest} seconds, so that every process has a recording of data.max_seconds"
        require(self.train.batch_size >= longest, "train.batch_size", self.train.batch_size, expected)
