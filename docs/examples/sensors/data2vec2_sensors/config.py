"""Configuration of series: the model's input, and how files are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from data2vec2.config.model import ModalityConfig
from data2vec2.config.run import DataConfig, FinetuneDataConfig
from data2vec2.config.tree import require


@dataclass(frozen=True, kw_only=True)
class SensorConfig(ModalityConfig):
    """Series of several channels; some steps of all channels make a token."""

    kind: Literal["sensors"] = "sensors"
    """Which modality this is."""
    num_channels: int | None = None
    """Channels of a series; none: as most of the training data have."""
    stride: int = 4
    """Steps that make a token."""
    mean: tuple[float, ...] | None = None
    """Mean of each channel; none: that of the training data."""
    std: tuple[float, ...] | None = None
    """Standard deviation of each channel; none: that of the training data."""

    def __post_init__(self) -> None:
        at_least_one = self.num_channels is None or self.num_channels >= 1
        require(at_least_one, "model.modality.num_channels", self.num_channels, "at least 1")
        require(self.stride >= 1, "model.modality.stride", self.stride, "at least 1")
        require((self.mean is None) == (self.std is None), "model.modality.std", self.std, "given together with mean")
        for name, values in (("mean", self.mean), ("std", self.std)):
            fits = values is None or len(values) == self.num_channels
            require(fits, f"model.modality.{name}", values, f"num_channels ({self.num_channels}) numbers")
        require(self.std is None or min(self.std) > 0, "model.modality.std", self.std, "above 0")

    def num_tokens(self, length: int) -> int:
        """Tokens of a series of so many steps; what is left over at its end belongs to none."""
        return length // self.stride


@dataclass(frozen=True, kw_only=True)
class SensorDataConfig(DataConfig):
    """How series are read."""

    kind: Literal["sensors"] = "sensors"
    """Which modality this is for."""
    crop_steps: int = 128
    """Steps of the random crops to train on; a shorter series is repeated until it has as many."""
    max_steps: int = 2_048
    """Steps that evaluation looks at, from the first; embed and predict take longer series in parts of so many."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("crop_steps", "max_steps"):
            require(getattr(self, name) >= 1, f"data.{name}", getattr(self, name), "at least 1")


@dataclass(frozen=True, kw_only=True)
class SensorFinetuneDataConfig(SensorDataConfig, FinetuneDataConfig):
    """How series are read in fine-tuning."""
