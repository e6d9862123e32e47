"""What is trained: the modality, the encoder, masks, decoder, targets and loss.

Symbols in brackets are those of the paper (Baevski et al., 2023) and of this project's tensor names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from data2vec2.config.check import require


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """Pictures, cut into square patches."""

    kind: Literal["image"] = "image"
    """Which modality this is."""
    image_size: int = 224
    """Height and width of the model's input in pixels; divisible by `patch_size`."""
    patch_size: int = 16
    """Height and width of a patch in pixels; one patch is one token."""
    num_channels: int | None = 3
    """3 for colour, 1 for grey pictures; none: as the training data are."""
    position_size: int | None = None
    """Height and width in pixels of the pictures that the positions are made for; none: `image_size`. Set to the size
    of pre-training where fine-tuning sees larger pictures: the positions of another size are interpolated."""

    def __post_init__(self) -> None:
        require(self.patch_size >= 1, "model.modality.patch_size", self.patch_size, "at least 1")
        for name, size in (("image_size", self.image_size), ("position_size", self.position_size)):
            is_multiple = size is None or (size >= self.patch_size and size % self.patch_size == 0)
            require(is_multiple, f"model.modality.{name}", size, f"a multiple of patch_size ({self.patch_size})")
        require(self.num_channels in (None, 1, 3), "model.modality.num_channels", self.num_channels, "1 or 3")

    @property
    def channels(self) -> int:
        """`num_channels`; 1 where it is left to data that have not been looked at."""
        return self.num_channels or 1

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches; T is their product."""
        side = self.image_size // self.patch_size
        return side, side

    @property
    def position_grid(self) -> tuple[int, int]:
        """Rows and columns of patches that the positions are made for."""
        side = (self.position_size or self.image_size) // self.patch_size
        return side, side


@dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """A waveform of one channel, cut into tokens of 20 ms."""

    kind: Literal["audio"] = "audio"
    """Which modality this is."""
    sample_rate: int = 16_000
    """Samples a second; every file is converted to it."""
    stem: Literal["waveform", "mel"] = "waveform"
    """waveform: learned convolutions, as published. mel: fixed log-mel spectra and one linear layer, which learns more
    from little data (LOG.md)."""
    conv_dim: int = 512
    """Channels of the waveform stem."""
    conv_kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    """Kernel of each of its layers."""
    conv_strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    """Stride of each of its layers."""
    num_mels: int = 40
    """Bins of a frame of the mel stem; a frame is 10 ms, two make a token."""
    position_depth: int = 5
    """Convolutional layers that make positions."""
    position_kernel: int = 19
    """Their kernel in tokens; odd."""
    position_groups: int = 16
    """Their groups; divides the encoder's width."""

    def __post_init__(self) -> None:
        require(self.sample_rate >= 100, "model.modality.sample_rate", self.sample_rate, "at least 100")
        for name in ("conv_dim", "num_mels", "position_depth", "position_groups"):
            require(getattr(self, name) >= 1, f"model.modality.{name}", getattr(self, name), "at least 1")
        for name in ("conv_kernels", "conv_strides"):
            value = getattr(self, name)
            fits = bool(value) and min(value) >= 1 and len(value) == len(self.conv_kernels)
            require(fits, f"model.modality.{name}", value, "numbers of at least 1, as many kernels as strides")
        odd = self.position_kernel >= 1 and self.position_kernel % 2 == 1
        require(odd, "model.modality.position_kernel", self.position_kernel, "odd")

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """Kernel and stride, in samples or in what the layer before makes, of each step from waveform to tokens."""
        if self.stem == "waveform":
            return tuple(zip(self.conv_kernels, self.conv_strides, strict=True))
        return (self.mel_window, self.mel_hop), (2, 2)

    @property
    def mel_window(self) -> int:
        """Samples of a mel frame's window: 25 ms."""
        return self.sample_rate // 40

    @property
    def mel_hop(self) -> int:
        """Samples between mel frames: 10 ms."""
        return self.sample_rate // 100

    @property
    def hop(self) -> int:
        """Samples between the starts of two tokens (320 is 20 ms)."""
        return math.prod(stride for _, stride in self.layers)

    @property
    def receptive_field(self) -> int:
        """Samples that one token sees (400 is 25 ms), and so the shortest input."""
        field = 1
        for kernel, stride in reversed(self.layers):
            field = (field - 1) * stride + kernel
        return field

    def num_tokens(self, num_samples: int) -> int:
        """Tokens of a waveform of so many samples: floor((L - kernel) / stride + 1) through all layers."""
        return max(0, (num_samples - self.receptive_field) // self.hop + 1)


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Text, cut into the tokens of a tokenizer."""

    kind: Literal["text"] = "text"
    """Which modality this is."""
    vocab_size: int = 50_265
    """Entries of the tokenizer's vocabulary."""
    max_tokens: int = 512
    """Tokens of a block of pre-training, and of the longest input."""
    bos_id: int = 0
    """Token at the start of a block."""
    pad_id: int = 1
    """Token that fills a batch up."""
    eos_id: int = 2
    """Token behind every sentence or document."""
    token_scale: float = 1.0
    """Factor of the tokens' embeddings before those of places are added; both start N(0, 0.02). With 1, as published,
    half of what a block sees at first is where a token stands, and that is easy to predict (LOG.md)."""

    def __post_init__(self) -> None:
        require(self.max_tokens >= 2, "model.modality.max_tokens", self.max_tokens, "at least 2")
        require(self.token_scale > 0, "model.modality.token_scale", self.token_scale, "above 0")
        ids = [self.bos_id, self.pad_id, self.eos_id]
        fits = min(ids) >= 0 and len(set(ids)) == 3
        require(fits, "model.modality.pad_id", self.pad_id, "0 or more, and another than bos_id and eos_id")
        expected = f"above bos_id, pad_id and eos_id ({max(ids)})"
        require(self.vocab_size > max(ids), "model.modality.vocab_size", self.vocab_size, expected)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The post-norm Transformer that student and teacher share (paper, section 3)."""

    embed_dim: int = 768
    """Width of a token [D]."""
    num_heads: int = 12
    """Attention heads [H]; divides `embed_dim`."""
    prenet_depth: int = 2
    """Blocks before the trunk; the teacher's targets do not look at them."""
    depth: int = 10
    """Blocks of the trunk."""
    mlp_ratio: float = 4.0
    """Hidden width of a block's MLP, in multiples of `embed_dim`."""
    norm_eps: float = 1e-6
    """Epsilon of the LayerNorms in the blocks and before the first one."""
    dropout: float = 0.0
    """Dropout before the first block, after the attention projection and after the MLP."""
    attention_dropout: float = 0.0
    """Dropout of the attention weights."""
    layer_drop: float = 0.0
    """Share of training passes in which a block is left out, drawn for the whole batch; the teacher keeps all."""

    def __post_init__(self) -> None:
        require(
            self.num_heads >= 1 and self.embed_dim % self.num_heads == 0,
            "model.encoder.num_heads",
            self.num_heads,
            f"a divisor of embed_dim ({self.embed_dim})",
        )
        require(self.depth >= 1, "model.encoder.depth", self.depth, "at least 1")
        require(self.prenet_depth >= 0, "model.encoder.prenet_depth", self.prenet_depth, "0 or more")
        require(self.norm_eps > 0, "model.encoder.norm_eps", self.norm_eps, "above 0")
        for name in ("dropout", "attention_dropout", "layer_drop"):
            value = getattr(self, name)
            require(0 <= value < 1, f"model.encoder.{name}", value, "from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """Which tokens the student sees (paper, section 3.3)."""

    num_masks: int = 16
    """Different masks a sample, all with the same targets [M]."""
    mask_ratio: float = 0.8
    """Share of tokens removed from the student's input [R]."""
    adjust: float = 0.07
    """Added to the share that the blocks cover, because blocks overlap [A]."""
    block_length: int = 3
    """Side of a block in tokens [B]."""
    inverse: bool = True
    """True: the blocks are what is kept. False: the blocks are what is removed."""

    def __post_init__(self) -> None:
        require(self.num_masks >= 1, "model.masks.num_masks", self.num_masks, "at least 1")
        require(0 < self.mask_ratio < 1, "model.masks.mask_ratio", self.mask_ratio, "between 0 and 1")
        require(0 <= self.adjust < 1, "model.masks.adjust", self.adjust, "from 0 to below 1")
        require(self.block_length >= 1, "model.masks.block_length", self.block_length, "at least 1")


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The small convolutional network that predicts the targets (paper, section 3.2)."""

    depth: int = 6
    """Convolutional layers."""
    kernel: int = 3
    """Kernel size in tokens; odd."""
    dim: int = 768
    """Channels of the convolutional layers."""
    groups: int = 16
    """Groups of the convolutions; divides `dim` and the encoder's width."""
    input_dropout: float = 0.0
    """Dropout of the student's outputs before noise fills the masked places."""
    noise_std: float = 0.01
    """Standard deviation of the noise at masked places."""
    residual: bool = True
    """Add a layer's input to its output where the channel counts agree."""
    projection_depth: int = 1
    """Linear layers after the convolutions: 1, or 2 with GELU and twice `dim` between them."""

    def __post_init__(self) -> None:
        require(self.depth >= 1, "model.decoder.depth", self.depth, "at least 1")
        require(self.kernel >= 1 and self.kernel % 2 == 1, "model.decoder.kernel", self.kernel, "odd")
        require(
            self.groups >= 1 and self.dim % self.groups == 0,
            "model.decoder.groups",
            self.groups,
            f"a divisor of model.decoder.dim ({self.dim})",
        )
        require(self.projection_depth in (1, 2), "model.decoder.projection_depth", self.projection_depth, "1 or 2")
        require(0 <= self.input_dropout < 1, "model.decoder.input_dropout", self.input_dropout, "from 0 to below 1")
        require(self.noise_std >= 0, "model.decoder.noise_std", self.noise_std, "0 or more")


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """How the teacher's layer outputs become targets (paper, section 3.1)."""

    average_layers: int = 10
    """How many of the trunk's last layers are averaged [K_top]."""
    layer_norm: Literal["none", "instance", "layer"] = "instance"
    """Normalisation of each layer's output before the mean: none (prone to collapse), over time, or over channels."""
    final_norm: Literal["none", "instance", "layer"] = "layer"
    """Normalisation of the mean."""

    def __post_init__(self) -> None:
        require(self.average_layers >= 1, "model.targets.average_layers", self.average_layers, "at least 1")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Masked regression of the targets, and the CLS token's."""

    scale: float | None = None
    """Factor of the squared error summed over channels; none: 1 / sqrt(D)."""
    beta: float = 0.0
    """Smooth-L1 threshold; 0 is the plain square."""
    cls_loss_weight: float = 2.56
    """Weight of the CLS token's loss, a mean over student rows. The released image recipes weigh a sum over the rows
    of one device by .01, which for base (16 images x 16 masks) is this 2.56."""

    def __post_init__(self) -> None:
        require(self.scale is None or self.scale > 0, "model.loss.scale", self.scale, "above 0")
        require(self.beta >= 0, "model.loss.beta", self.beta, "0 or more")
        require(self.cls_loss_weight >= 0, "model.loss.cls_loss_weight", self.cls_loss_weight, "0 or more")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that decides the shape and the objective of the model."""

    modality: ImageConfig | AudioConfig | TextConfig = field(default_factory=ImageConfig)
    """What the inputs are and how they become tokens."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """The Transformer."""
    masks: MaskConfig = field(default_factory=MaskConfig)
    """The masks."""
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    """The decoder."""
    targets: TargetConfig = field(default_factory=TargetConfig)
    """The targets."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The loss."""

    def __post_init__(self) -> None:
        require(
            self.targets.average_layers <= self.encoder.depth,
            "model.targets.average_layers",
            self.targets.average_layers,
            f"at most model.encoder.depth ({self.encoder.depth})",
        )
        require(
            self.encoder.embed_dim % self.decoder.groups == 0,
            "model.decoder.groups",
            self.decoder.groups,
            f"a divisor of model.encoder.embed_dim ({self.encoder.embed_dim})",
        )
        if isinstance(self.modality, AudioConfig):
            groups = self.modality.position_groups
            fits = self.encoder.embed_dim % groups == 0
            expected = f"a divisor of model.encoder.embed_dim ({self.encoder.embed_dim})"
            require(fits, "model.modality.position_groups", groups, expected)
