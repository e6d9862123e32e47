"""One encoder class for student, teacher, fine-tuning and export, and the contract that a modality keeps.

Shapes: `B` samples, `M` masks, `N = B*M` student rows (`N = B` without masks), `T` tokens, `K` kept tokens, `L` tokens
of a row (extra ones first), `D` width, `H` heads.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from data2vec2.config.model import EncoderConfig
from data2vec2.method.block import AttentionBias, Block, LayerScale


@dataclass(frozen=True)
class Tokens:
    """What the stem makes of a batch, once per sample."""

    tokens_BTD: Tensor
    """One row a sample."""
    grid: tuple[int, ...]
    """Their arrangement: (T,), or (rows, columns)."""
    padding_BT: Tensor | None = None
    """True at tokens that only fill a batch up."""


@dataclass(frozen=True)
class Rows:
    """What enters the Transformer."""

    rows_NLD: Tensor
    """Extra tokens, then kept tokens (all tokens without masks), with their positions."""
    bias: AttentionBias | None = None
    """What every attention adds to its scores."""


class Modality(nn.Module):
    """Turns inputs into tokens, and tokens into the rows that the Transformer sees.

    `stem` holds what makes tokens; every other parameter belongs to the arrangement (positions, extra tokens, ALiBi
    scale). A teacher that does not own the stem starts from the student's tokens of the same step.
    """

    teacher_owns: ClassVar[frozenset[str]]
    """Which of "stem", "context" (arrangement and first norm) and "trunk" (blocks) the teacher has an average of."""
    num_axes: ClassVar[int]
    """Axes of the token grid: 1 for sequences, 2 for images."""
    num_extra_tokens: int = 0
    """Tokens in front of every row that stand for no place of the input."""
    num_summary_tokens: int = 1
    """The first of these, whose mean learns the mean target of the sample."""
    first_norm: ClassVar[bool] = True
    """Whether a LayerNorm stands before the first block (of blocks that are not pre-norm)."""
    stem: nn.Module | None

    @abstractmethod
    def tokens(self, inputs: Tensor, lengths_B: Tensor | None = None) -> Tokens:
        """Tokens `BTD` of the inputs, of which only the first `lengths_B` of each are real where these are given."""

    @abstractmethod
    def arrange(self, tokens: Tokens, keep_ids_NK: Tensor | None = None) -> Rows:
        """Rows with positions: all tokens, or for each of N student rows the kept ones.

        Positions that look at neighbours are computed over the full length of every student row, masked tokens zeroed,
        before the kept ones are gathered.
        """

    @abstractmethod
    def reset_parameters(self) -> None:
        """(Re-)create parameters and buffers in place."""

    def make_portable(self) -> None:
        """Replace in place what programs in other formats can't do by what computes the same."""


@dataclass(frozen=True)
class Encoded:
    """What the encoder computed."""

    x_NLD: Tensor
    """Output of the last block (of pre-norm blocks, normalised), extra tokens first."""
    ffn_outputs: list[Tensor]
    """Every block's feed-forward output `NLD`, prenet first (without blocks that layer-drop left out)."""
    tokens: Tokens
    """What the stem made of the inputs."""
    num_extra_tokens: int

    @property
    def features_NTD(self) -> Tensor:
        """Output of the last block without extra tokens."""
        return self.x_NLD[:, self.num_extra_tokens :]

    def pooled(self) -> Tensor:
        """Mean of the features over the real tokens of each row, `ND`."""
        if self.tokens.padding_BT is None:
            return self.features_NTD.mean(dim=1)
        real_NT1 = (~self.tokens.padding_BT).unsqueeze(-1).to(self.x_NLD.dtype)
        return (self.features_NTD * real_NT1).sum(1) / real_NT1.sum(1)

    def first(self) -> Tensor:
        """Output at the first token of each row that is no padding, extra ones included, `ND`."""
        if self.tokens.padding_BT is None or self.num_extra_tokens:
            return self.x_NLD[:, 0]
        places_N11 = (~self.tokens.padding_BT).int().argmax(dim=1)[:, None, None]
        return self.x_NLD.gather(1, places_N11.expand(-1, -1, self.x_NLD.shape[2]))[:, 0]


class Encoder(nn.Module):
    """A modality's stem and arrangement, a LayerNorm, then prenet and trunk blocks; pre-norm blocks come before it."""

    def __init__(self, config: EncoderConfig, modality: Modality) -> None:
        super().__init__()
        self.config, self.modality = config, modality
        first, dim, eps = modality.first_norm, config.embed_dim, config.norm_eps
        self.norm: nn.Module = nn.LayerNorm(dim, eps=eps) if first or config.pre_norm else nn.Identity()
        self.dropout = nn.Dropout(config.dropout if first else 0.0)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.prenet_depth + config.depth))
        self.layer_drop = config.layer_drop
        self.gradient_checkpointing = False  # for less memory: compute each block again in the backward pass
        initialise(self)

    def forward(
        self,
        inputs: Tensor | None = None,
        *,
        lengths_B: Tensor | None = None,
        tokens: Tokens | None = None,
        keep_ids_NK: Tensor | None = None,
    ) -> Encoded:
        """Encode inputs (or a stem's `tokens`): whole samples, or for each student row only its kept tokens.

        `lengths_B` says how much of each input is real. In training a block is left out with probability `layer_drop`.
        """
        if tokens is None:
            assert inputs is not None, "an encoder needs inputs or tokens"
            tokens = self.modality.tokens(inputs, lengths_B)
        rows = self.modality.arrange(tokens, keep_ids_NK)
        x_NLD = self.dropout(_summable(rows.rows_NLD) if self.config.pre_norm else self.norm(rows.rows_NLD))
        bias_NHLL = rows.bias.dense(_product_dtype(x_NLD)) if rows.bias else None  # once for all blocks
        ffn_outputs = []
        for block in self.blocks:
            if self.training and self.layer_drop and torch.rand(()).item() < self.layer_drop:
                continue
            if self.gradient_checkpointing and self.training:
                x_NLD, ffn_NLD = checkpoint(block, x_NLD, bias_NHLL, use_reentrant=False)
            else:
                x_NLD, ffn_NLD = block(x_NLD, bias_NHLL)
            ffn_outputs.append(ffn_NLD)
        if self.config.pre_norm:
            x_NLD = self.norm(x_NLD)
        return Encoded(x_NLD, ffn_outputs, tokens, self.modality.num_extra_tokens)

    def up_to(self, count: int) -> Encoder:
        """An encoder of the first blocks alone, which shares their weights; the last norm is for all of them only."""
        shorter = copy.copy(self)
        shorter._modules = {**self._modules, "blocks": self.blocks[:count]}
        if self.config.pre_norm and count < len(self.blocks):
            shorter._modules["norm"] = nn.Identity()
        return shorter

    def trunk_outputs(self, encoded: Encoded) -> list[Tensor]:
        """The trunk's feed-forward outputs `NTD` without extra tokens, first layer first."""
        return [ffn[:, encoded.num_extra_tokens :] for ffn in encoded.ffn_outputs[self.config.prenet_depth :]]


def _autocasts(x: Tensor) -> bool:
    """Whether products of `x` are computed here in fewer bits than it has."""
    kind = x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)  # the meta device has none


def _product_dtype(x: Tensor) -> torch.dtype:
    """In what products of `x` are computed here."""
    return torch.get_autocast_dtype(x.device.type) if _autocasts(x) else x.dtype


def _summable(x: Tensor) -> Tensor:
    """`x` for sums that no norm brings back from the few bits of products."""
    return x.float() if _autocasts(x) else x


def make_teacher(student: Encoder) -> Encoder:
    """A frozen copy of the student in eval mode, without the parts that the teacher does not own."""
    teacher = copy.deepcopy(student)
    owned = student.modality.teacher_owns
    if student.config.pre_norm:
        teacher.norm = nn.Identity()  # targets are made before it
    if "stem" not in owned:
        teacher.modality.stem = None
    if "context" not in owned:
        left = [name for name, _ in teacher.modality.named_parameters()] + list(teacher.norm.state_dict())
        assert not left, f"the teacher should not own {left}, but the student's arrangement has them"
    return teacher.requires_grad_(False).eval()


def initialise(module: nn.Module) -> None:
    """Initialise every parameter of a model, in place, from torch's default generator.

    Linear and Embedding: N(0, 0.02), bias 0. Norms: 1 and 0, LayerScale 1. Convolutions: PyTorch's default. The
    modality's own parts as it says (`reset_parameters`); what has other needs (the decoder's projection) is done by its
    owner, after.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)
            if isinstance(part, nn.Linear) and part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, LayerScale) or (isinstance(part, nn.LayerNorm) and part.elementwise_affine):
            part.reset_parameters()
    for part in module.modules():
        if isinstance(part, Modality):
            part.reset_parameters()
