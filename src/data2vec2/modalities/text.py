"""Text: embeddings of tokens and of their places.

Shapes: `B` samples, `N` student rows, `T` tokens, `K` kept tokens, `D` width.
"""

from __future__ import annotations

from torch import Tensor

from data2vec2.config import TextConfig
from data2vec2.modalities.base import Modality, Rows, Tokens
from data2vec2.nn.attention import AttentionBias
from data2vec2.nn.gather import take
from data2vec2.nn.stems import TokenStem


class TextModality(Modality):
    """All but the blocks is in the stem, which ends in a norm; the teacher starts from the student's tokens."""

    teacher_owns = frozenset({"trunk"})
    num_axes = 1
    first_norm = False

    def __init__(self, config: TextConfig, embed_dim: int, dropout: float) -> None:
        super().__init__()
        self.config = config
        shape = (config.vocab_size, config.max_tokens, config.pad_id, embed_dim)
        self.stem = TokenStem(*shape, dropout, config.token_scale)

    def tokens(self, inputs: Tensor, lengths_B: Tensor | None = None) -> Tokens:
        """Tokens of ids `BT`; where `lengths_B` are given, those with the id of padding are padding, wherever they are.

        Without lengths all are real, so that full blocks need no attention mask. `ValueError` for another shape or type
        and for more tokens than there are positions.
        """
        longest = self.config.max_tokens
        if inputs.ndim != 2 or inputs.is_floating_point() or not 1 <= inputs.shape[1] <= longest:
            shape = f"{tuple(inputs.shape)}, {inputs.dtype}"
            raise ValueError(f"token ids of shape {shape}; (batch, 1 to {longest}) whole numbers are needed")
        assert self.stem is not None
        padding_BT = None if lengths_B is None else inputs == self.config.pad_id
        return Tokens(self.stem(inputs), (inputs.shape[1],), padding_BT)

    def arrange(self, tokens: Tokens, keep_ids_NK: Tensor | None = None) -> Rows:
        """The tokens, or the kept ones; nobody attends to padding."""
        x_BTD, padding_BT = tokens.tokens_BTD, tokens.padding_BT
        if keep_ids_NK is None:
            return Rows(x_BTD, None if padding_BT is None else AttentionBias(padding_NL=padding_BT))
        if padding_BT is None:
            return Rows(take(x_BTD, keep_ids_NK))
        padding_NT = padding_BT.repeat_interleave(len(keep_ids_NK) // len(padding_BT), dim=0)
        return Rows(take(x_BTD, keep_ids_NK), AttentionBias(padding_NL=padding_NT.gather(1, keep_ids_NK)))

    def reset_parameters(self) -> None:
        """The stem as it says."""
        if isinstance(self.stem, TokenStem):
            self.stem.reset_parameters()
