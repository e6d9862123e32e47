"""The contract that a modality keeps.

Shapes: `B` samples, `M` masks, `N = B*M` student rows (`N = B` without masks), `T` tokens, `K` kept tokens, `L` tokens
of a row with extra ones, `D` width, `H` heads.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from data2vec2.method.attention import AttentionBias


@dataclass(frozen=True)
class Tokens:
    """What the stem makes of a batch, once per sample."""

    tokens_BTD: Tensor
    """One row a sample."""
    grid: tuple[int, ...]
    """Their arrangement: (T,), or (rows, columns)."""
    padding_BT: Tensor | None = None
    """True at tokens that only fill a batch up."""

    def detach(self) -> Tokens:
        """The same tokens without gradient, for a teacher that starts from the student's."""
        return Tokens(self.tokens_BTD.detach(), self.grid, self.padding_BT)


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
    num_extra_tokens: ClassVar[int] = 0
    """Tokens in front of every row that stand for no place of the input."""
    first_norm: ClassVar[bool] = True
    """Whether a LayerNorm stands before the first block."""
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
