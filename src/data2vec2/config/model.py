"""What is trained: the modality, the encoder, masks, decoder, targets and loss.

Symbols in brackets are those of the paper (Baevski et al., 2023) and of this project's tensor names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from data2vec2.config.tree import require, require_finite


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The Transformer that student and teacher share: post-norm in the paper (section 3), pre-norm in other models."""

    embed_dim: int = 768
    """Width of a token [D]."""
    num_heads: int = 12
    """Attention heads [H]; divides `embed_dim`."""
    prenet_depth: int = 2
    """Blocks before the trunk; they do not contribute to the targets."""
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
    """Probability of skipping a block in training, drawn for the whole batch; the teacher skips none."""
    pre_norm: bool = False
    """A block normalises what enters attention and MLP, and the LayerNorm before the first block stands after the last
    one, as in ViT; off: blocks normalise their sums, as in the paper."""
    layer_scale: bool = False
    """A learned factor for each channel of what attention and MLP add, as in DINOv2."""

    def __post_init__(self) -> None:
        require(self.embed_dim >= 1, "model.encoder.embed_dim", self.embed_dim, "at least 1")
        hidden = self.embed_dim * self.mlp_ratio
        expected = f"finite, and at least 1 / embed_dim ({self.embed_dim})"
        require(1 <= hidden < math.inf, "model.encoder.mlp_ratio", self.mlp_ratio, expected)
        divides = self.num_heads >= 1 and self.embed_dim % self.num_heads == 0
        require(divides, "model.encoder.num_heads", self.num_heads, f"a divisor of embed_dim ({self.embed_dim})")
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
    """Masks per sample, all with the same targets [M]."""
    mask_ratio: float = 0.8
    """Share of tokens removed from the student's input [R]."""
    adjust: float = 0.07
    """Added to the share that the blocks cover, because blocks overlap [A]."""
    block_length: int = 3
    """Side of a block in tokens [B]."""
    inverse: bool = True
    """True: blocks are kept. False: blocks are removed."""

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
    """Dropout on the student's outputs before noise fills the masked positions."""
    noise_std: float = 0.01
    """Standard deviation of the noise at masked positions."""
    residual: bool = True
    """Add a layer's input to its output if the channel counts agree."""
    projection_depth: int = 1
    """Linear layers after the convolutions: 1, or 2 with GELU and twice `dim` between them."""

    def __post_init__(self) -> None:
        require(self.depth >= 1, "model.decoder.depth", self.depth, "at least 1")
        require(self.kernel >= 1 and self.kernel % 2 == 1, "model.decoder.kernel", self.kernel, "odd")
        require(self.dim >= 1, "model.decoder.dim", self.dim, "at least 1")
        divides = self.groups >= 1 and self.dim % self.groups == 0
        require(divides, "model.decoder.groups", self.groups, f"a divisor of model.decoder.dim ({self.dim})")
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
    """Normalisation of the average."""

    def __post_init__(self) -> None:
        require(self.average_layers >= 1, "model.targets.average_layers", self.average_layers, "at least 1")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Regression of the targets at masked positions and at the CLS token."""

    scale: float | None = None
    """Factor for the squared error summed over channels; none: 1 / sqrt(D)."""
    beta: float = 0.0
    """Smooth-L1 threshold; 0: squared error."""
    cls_loss_weight: float = 2.56
    """Weight of the CLS token's loss, a mean over student rows. The released image recipes weight a sum over the rows
    of one device by .01, which for base (16 images x 16 masks) equals 2.56."""

    def __post_init__(self) -> None:
        require(self.scale is None or self.scale > 0, "model.loss.scale", self.scale, "above 0")
        require(self.beta >= 0, "model.loss.beta", self.beta, "0 or more")
        require(self.cls_loss_weight >= 0, "model.loss.cls_loss_weight", self.cls_loss_weight, "0 or more")


@dataclass(frozen=True, kw_only=True)
class ModalityConfig:
    """What the inputs of a model are and how they become tokens; every modality adds fields of its own."""

    usual_names: ClassVar[Mapping[str, str]] = {}
    """Fields that `config.json` has under the names that Transformers' models use, by these names."""
    added: ClassVar[frozenset[str]] = frozenset()
    """Fields that `config.json` of older exports does not have."""
    resizable: ClassVar[frozenset[str]] = frozenset()
    """Fields that may be others than those of the weights that a model starts from."""
    kind: str
    """The modality."""

    def check(self, encoder: EncoderConfig) -> None:
        """Raise `UsageError` for an encoder that does not suit."""

    @property
    def summarised(self) -> bool:
        """Whether models have tokens for a whole sample, which learn the mean of its targets."""
        return True

    def num_tokens(self, length: int) -> int:
        """Tokens of a sample whose first axis is so long."""
        return length


@dataclass(frozen=True, kw_only=True)
class ArchitectureConfig:
    """What describes an encoder: all that is needed to build it and to load its weights."""

    modality: ModalityConfig
    """What the inputs are and how they become tokens."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """The Transformer."""

    def __post_init__(self) -> None:
        require_finite(self, "model.")
        self.modality.check(self.encoder)


@dataclass(frozen=True, kw_only=True)
class ModelConfig(ArchitectureConfig):
    """An encoder, and the objective that it is pre-trained with."""

    masks: MaskConfig = field(default_factory=MaskConfig)
    """The masks."""
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    """The decoder."""
    targets: TargetConfig = field(default_factory=TargetConfig)
    """The targets."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        depth, dim = self.encoder.depth, self.encoder.embed_dim
        layers, groups = self.targets.average_layers, self.decoder.groups
        require(layers <= depth, "model.targets.average_layers", layers, f"at most model.encoder.depth ({depth})")
        require(dim % groups == 0, "model.decoder.groups", groups, f"a divisor of model.encoder.embed_dim ({dim})")
