"""Configuration of sounds: the model's input; they are read, and fine-tuned on, as recordings are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from data2vec2.config.model import EncoderConfig
from data2vec2.config.tree import require
from data2vec2.modalities.audio.config import (
    AudioDataConfig,
    AudioFinetuneDataConfig,
    AudioTaskConfig,
    WaveformConfig,
)


@dataclass(frozen=True, kw_only=True)
class SoundConfig(WaveformConfig):
    """A log-mel spectrogram, cut into square patches; a frame is 10 ms."""

    usual_names: ClassVar = {"sampling_rate": "sample_rate", "num_mel_bins": "num_mels"}
    """As Transformers' models have them."""
    added: ClassVar = frozenset({"num_frames"})
    """Since the first exports."""
    resizable: ClassVar = frozenset({"num_frames"})
    """Can be another than that of the weights."""
    kind: Literal["sound"] = "sound"
    """The modality."""
    num_mels: int = 128
    """Mel bins of a frame; divisible by `patch_size`."""
    patch_size: int = 16
    """Frames and mel bins of a patch; one patch is one token."""
    spectrum_mean: float = 1.4
    """What is subtracted from log-mel energies."""
    spectrum_std: float = 4.2
    """What they are divided by then. Both defaults are those of speech of unit variance (LOG.md)."""
    unit_variance: bool = True  # type: ignore[misc]  # a field here
    """Give waveforms unit variance first, so that loudness counts for nothing; EAT's models have it off."""
    num_frames: int = 0
    """Frames that every spectrogram is filled up to, by energies of 1, or cut to; 0: each has its own length."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.patch_size >= 1, "model.modality.patch_size", self.patch_size, "at least 1")
        fits = self.num_mels >= self.patch_size and self.num_mels % self.patch_size == 0
        require(fits, "model.modality.num_mels", self.num_mels, f"a multiple of patch_size ({self.patch_size})")
        require(self.spectrum_std > 0, "model.modality.spectrum_std", self.spectrum_std, "above 0")
        whole = self.num_frames >= 0 and self.num_frames % self.patch_size == 0
        expected = f"0 or a multiple of patch_size ({self.patch_size})"
        require(whole, "model.modality.num_frames", self.num_frames, expected)

    def check(self, encoder: EncoderConfig) -> None:
        """`UsageError` for a width that positions of two axes can't have."""
        require(encoder.embed_dim % 4 == 0, "model.encoder.embed_dim", encoder.embed_dim, "a multiple of 4")

    @property
    def bands(self) -> int:  # type: ignore[override]
        """Patches on top of each other."""
        return self.num_mels // self.patch_size

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """Frames of 25 ms every 10 ms, then patches of them."""
        return (self.sample_rate // 40, self.sample_rate // 100), (self.patch_size, self.patch_size)

    @property
    def max_samples(self) -> int | None:
        """All that a spectrogram of `num_frames` is of."""
        window, hop = self.layers[0]
        return window + (self.num_frames - 1) * hop if self.num_frames else None

    def num_steps(self, num_samples: int) -> int:
        """Steps of a waveform of so many samples."""
        return self.num_frames // self.patch_size or super().num_steps(num_samples)


@dataclass(frozen=True, kw_only=True)
class SoundDataConfig(AudioDataConfig):
    """How sounds are read."""

    kind: Literal["sound"] = "sound"  # type: ignore[assignment]
    """The modality."""
    min_seconds: float = 0.5
    """Shorter recordings are left out."""
    max_seconds: float = 10.0
    """Longer recordings are randomly cropped to this length; very long ones give several crops."""


@dataclass(frozen=True, kw_only=True)
class SoundFinetuneDataConfig(AudioFinetuneDataConfig):
    """How sounds are read in fine-tuning."""

    kind: Literal["sound"] = "sound"  # type: ignore[assignment]
    """The modality."""


@dataclass(frozen=True, kw_only=True)
class SoundTaskConfig(AudioTaskConfig):
    """How fine-tuning changes a sound encoder and its inputs."""

    kind: Literal["sound"] = "sound"  # type: ignore[assignment]
    """The modality."""
