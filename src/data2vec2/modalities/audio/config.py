"""Configuration of recordings: the model's input, how files are read, and what fine-tuning adds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from data2vec2.config.model import EncoderConfig, ModalityConfig
from data2vec2.config.run import DataConfig, FinetuneDataConfig, TaskConfig, TrainConfig
from data2vec2.config.tree import require


@dataclass(frozen=True, kw_only=True)
class WaveformConfig(ModalityConfig):
    """A mono waveform, cut into steps of time, each of which makes one token or one for each band of pitches."""

    unit_variance: ClassVar[bool] = True
    """Whether waveforms get unit variance; they have zero mean in any case."""
    bands: ClassVar[int] = 1
    """Tokens of a step."""
    kind: str = ""
    """The modality."""
    sample_rate: int = 16_000
    """Sample rate in Hz; every file is resampled to it."""

    def __post_init__(self) -> None:
        require(self.sample_rate >= 100, "model.modality.sample_rate", self.sample_rate, "at least 100")

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """Kernel and stride, in samples or in what the layer before makes, of each part from waveform to steps."""
        raise NotImplementedError

    @property
    def max_samples(self) -> int | None:
        """As much of a waveform as is ever heard; none: all of it."""
        return None

    @property
    def hop(self) -> int:
        """Samples between the starts of two steps (320 is 20 ms)."""
        return math.prod(stride for _, stride in self.layers)

    @property
    def receptive_field(self) -> int:
        """Samples that one step sees (400 is 25 ms), and so the shortest input."""
        field = 1
        for kernel, stride in reversed(self.layers):
            field = (field - 1) * stride + kernel
        return field

    def num_steps(self, num_samples: int) -> int:
        """Steps of a waveform of so many samples: floor((L - kernel) / stride + 1) through all layers."""
        return max(0, (num_samples - self.receptive_field) // self.hop + 1)

    def num_tokens(self, length: int) -> int:
        """Tokens of a waveform of so many samples."""
        return self.num_steps(length) * self.bands

    def grid_of(self, num_samples: int) -> tuple[int, ...]:
        """How they are arranged: by steps and, where there are several, bands."""
        steps = self.num_steps(num_samples)
        return (steps,) if self.bands == 1 else (steps, self.bands)


@dataclass(frozen=True, kw_only=True)
class AudioConfig(WaveformConfig):
    """A mono waveform, cut into tokens of 20 ms."""

    usual_names: ClassVar = {
        "sampling_rate": "sample_rate",
        "feat_extract_norm": "stem_norm",
        "conv_kernel": "conv_kernels",
        "conv_stride": "conv_strides",
        "num_mel_bins": "num_mels",
        "num_conv_pos_embeddings": "position_depth",
        "conv_pos_kernel_size": "position_kernel",
        "num_conv_pos_embedding_groups": "position_groups",
    }
    """As Transformers' models have them."""
    added: ClassVar = frozenset({"feat_extract_norm", "conv_bias", "position_norm", "alibi", "num_extra_tokens"})
    """Since the first exports."""
    kind: Literal["audio"] = "audio"
    """The modality."""
    stem: Literal["waveform", "mel"] = "waveform"
    """waveform: learned convolutions, as in the paper. mel: log-mel spectrograms and one linear layer, which learns
    more from little data (LOG.md)."""
    conv_dim: int = 512
    """Channels of the waveform stem."""
    conv_kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    """Kernel sizes of the waveform stem."""
    conv_strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    """Strides of the waveform stem."""
    conv_bias: bool = False
    """Biases of the waveform stem's convolutions."""
    stem_norm: Literal["layer", "group"] = "layer"
    """layer: a LayerNorm over channels after each of these convolutions. group: one after the first, over the time of a
    recording, as in wav2vec 2.0 base."""
    num_mels: int = 40
    """Mel bins of the mel stem; a frame is 10 ms, a token two frames."""
    position_depth: int = 5
    """Layers of the convolutional positions."""
    position_kernel: int = 19
    """Kernel size of the convolutional positions in tokens; of an even one, more of it lies before a token."""
    position_groups: int = 16
    """Groups of the convolutional positions; divides the encoder's width."""
    position_norm: bool = True
    """A LayerNorm without scale after each of these convolutions."""
    alibi: bool = True
    """Attention knows distances, by a learned factor for each head (ALiBi)."""
    num_extra_tokens: int = 0
    """Learned tokens in front of a recording's; with loss.cls_loss_weight their mean learns the mean of its targets.
    emotion2vec has 10."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("conv_dim", "num_mels", "position_depth", "position_kernel", "position_groups"):
            require(getattr(self, name) >= 1, f"model.modality.{name}", getattr(self, name), "at least 1")
        require(self.num_extra_tokens >= 0, "model.modality.num_extra_tokens", self.num_extra_tokens, "0 or more")
        for name in ("conv_kernels", "conv_strides"):
            value = getattr(self, name)
            fits = bool(value) and min(value) >= 1 and len(value) == len(self.conv_kernels)
            require(fits, f"model.modality.{name}", value, "numbers of at least 1, as many kernels as strides")

    def check(self, encoder: EncoderConfig) -> None:
        """`ValueError` for a width that the positions' groups don't divide."""
        expected = f"a divisor of model.encoder.embed_dim ({encoder.embed_dim})"
        fits = encoder.embed_dim % self.position_groups == 0
        require(fits, "model.modality.position_groups", self.position_groups, expected)

    @property
    def summarised(self) -> bool:
        """By the extra tokens."""
        return self.num_extra_tokens > 0

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """Those of the stem."""
        if self.stem == "waveform":
            return tuple(zip(self.conv_kernels, self.conv_strides, strict=True))
        return (self.sample_rate // 40, self.sample_rate // 100), (2, 2)  # frames of 25 ms every 10 ms


@dataclass(frozen=True, kw_only=True)
class AudioDataConfig(DataConfig):
    """How recordings are read."""

    kind: Literal["audio"] = "audio"
    """The modality."""
    min_seconds: float = 2.0
    """Shorter recordings are left out."""
    max_seconds: float = 20.0
    """Longer recordings are randomly cropped to this length; very long ones give several crops."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.min_seconds < math.inf, "data.min_seconds", self.min_seconds, "above 0")
        fits = self.min_seconds <= self.max_seconds < math.inf
        require(fits, "data.max_seconds", self.max_seconds, f"at least data.min_seconds ({self.min_seconds})")

    def check(self, train: TrainConfig) -> None:
        """`ValueError` for a batch without room for a recording in every process."""
        longest = math.ceil(self.max_seconds) * (train.processes or 1)
        expected = f"at least {longest} seconds, so that every process has a recording of data.max_seconds"
        require(train.batch_size >= longest, "train.batch_size", train.batch_size, expected)


@dataclass(frozen=True, kw_only=True)
class AudioHeadConfig:
    """Changes to the pre-trained encoder."""

    dropout: float = 0.0
    """Dropout on the features before the linear layer."""
    activation_dropout: float = 0.1
    """Dropout inside the blocks' MLPs."""
    layer_drop: float = 0.1
    """Probability of skipping a block in training."""
    freeze_stem: bool = True
    """Freeze the stem, where it is convolutions on waveforms."""
    freeze_updates: int = 10_000
    """Updates at the start that train only the head."""
    pooling: Literal["mean", "linear_softmax"] = "mean"
    """Pooling of tokens for classes: mean of the features; or, for recordings with several tags, linear softmax of the
    tokens' probabilities."""

    def __post_init__(self) -> None:
        for name in ("dropout", "activation_dropout", "layer_drop"):
            require(0 <= getattr(self, name) < 1, f"model.{name}", getattr(self, name), "from 0 to below 1")
        require(self.freeze_updates >= 0, "model.freeze_updates", self.freeze_updates, "0 or more")


@dataclass(frozen=True, kw_only=True)
class SpanMaskConfig:
    """Masks on a recording in training: spans of tokens become noise, spans of channels become 0.

    Spans overlap: a share of .65 masks about half (1 - exp(-.65)).
    """

    time_share: float = 0.65
    """Fraction of the tokens that spans would cover without overlap; 0: none."""
    time_length: int = 10
    """Length of a span in tokens (of speech 10 are 200 ms)."""
    channel_share: float = 0.25
    """Fraction of the channels that spans would cover without overlap; 0: none."""
    channel_length: int = 64
    """Length of a span in channels."""
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
class AudioFinetuneDataConfig(AudioDataConfig, FinetuneDataConfig):
    """How recordings are read in fine-tuning.

    Recordings with transcripts are never cut: those longer than max_seconds are left out.
    """

    max_minutes: float | None = None
    """Minutes of training recordings to use, whole ones, drawn by train.seed; none: all."""
    gaps: Literal["class", "ignore"] = "class"
    """Frames in no segment (finetune frames): a class of their own, `none`, or neither learned nor scored."""

    def __post_init__(self) -> None:
        super().__post_init__()
        above = self.max_minutes is None or self.max_minutes > 0
        require(above, "data.max_minutes", self.max_minutes, "above 0, or none")


@dataclass(frozen=True, kw_only=True)
class AudioTaskConfig(TaskConfig):
    """How fine-tuning changes an audio encoder and masks its inputs."""

    kind: Literal["audio"] = "audio"
    """The modality."""
    model: AudioHeadConfig = field(default_factory=AudioHeadConfig)
    """Changes to the encoder."""
    masks: SpanMaskConfig = field(default_factory=SpanMaskConfig)
    """Masks in training."""

    def shortened(self, reference: TaskConfig, ratio: float) -> AudioTaskConfig:
        """As many updates less in which the encoder is frozen, unless their number was set."""
        assert isinstance(reference, AudioTaskConfig)
        if (frozen := self.model.freeze_updates) != reference.model.freeze_updates:
            return self
        return replace(self, model=replace(self.model, freeze_updates=round(ratio * frozen)))

    @property
    def remark(self) -> str:
        """In how many updates the encoder is frozen."""
        frozen = self.model.freeze_updates
        return f", only the head learns in the first {frozen:,}" if frozen else ""
