"""Text: embeddings of tokens and of their places.

Shapes: `B` samples, `N` student rows, `T` tokens, `K` kept tokens, `D` width.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from data2vec2.config.model import ArchitectureConfig
from data2vec2.errors import UsageError
from data2vec2.method.block import AttentionBias
from data2vec2.method.encoder import Modality, Rows, Tokens
from data2vec2.method.masking import take
from data2vec2.modalities.text.config import TextConfig


class TextModality(Modality):
    """All but the blocks is in the stem, which ends in a norm; the teacher starts from the student's tokens."""

    teacher_owns = frozenset({"trunk"})
    num_axes = 1
    first_norm = False

    def __init__(self, config: TextConfig, embed_dim: int, dropout: float) -> None:
        super().__init__()
        self.config = config
        self.stem = TokenStem(config, embed_dim, dropout)

    @classmethod
    def of(cls, model: ArchitectureConfig) -> Self:
        """Of a model's configuration."""
        assert isinstance(model.modality, TextConfig)
        return cls(model.modality, model.encoder.embed_dim, model.encoder.dropout)

    def tokens(self, inputs: Tensor, lengths_B: Tensor | None = None) -> Tokens:
        """Tokens of ids `BT`; where `lengths_B` are given, those with the id of padding are padding, wherever they are.

        Without lengths all are real: full blocks need no mask. `UsageError` for other shapes, types or lengths.
        """
        longest = self.config.max_tokens
        if inputs.ndim != 2 or inputs.is_floating_point() or not 1 <= inputs.shape[1] <= longest:
            shape = f"{tuple(inputs.shape)}, {inputs.dtype}"
            raise UsageError(f"token ids of shape {shape}; (batch, 1 to {longest}) whole numbers are needed")
        assert self.stem is not None
        padding_BT = None if lengths_B is None else inputs == self.config.pad_id
        return Tokens(self.stem(inputs), (inputs.shape[1],), padding_BT)

    def arrange(self, tokens: Tokens, keep_ids_NK: Tensor | None = None) -> Rows:
        """The tokens, or the kept ones; nobody attends to padding."""
        x, padding = tokens.tokens_BTD, tokens.padding_BT
        if keep_ids_NK is not None:
            x = take(x, keep_ids_NK)
        if keep_ids_NK is not None and padding is not None:
            padding = padding.repeat_interleave(len(keep_ids_NK) // len(padding), dim=0).gather(1, keep_ids_NK)
        return Rows(x, None if padding is None else AttentionBias(padding_NL=padding))

    def reset_parameters(self) -> None:
        """The stem as it says."""
        if isinstance(self.stem, TokenStem):
            self.stem.reset_parameters()


class TokenStem(nn.Module):
    """Token ids to tokens: embedding and learned position of each, LayerNorm, dropout."""

    def __init__(self, config: TextConfig, dim: int, dropout: float) -> None:
        """Padding has an embedding and a position of zeros, which do not learn."""
        super().__init__()
        self.pad_id, self.token_scale = config.pad_id, config.token_scale
        self.tokens = nn.Embedding(config.vocab_size, dim, padding_idx=self.pad_id)
        self.positions = nn.Embedding(config.max_tokens + self.pad_id + 1, dim, padding_idx=self.pad_id)
        self.norm = nn.LayerNorm(dim, eps=config.stem_norm_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """`BT` to `BTD`. Positions count the tokens that are not padding, from `pad_id + 1` on."""
        real_BT = ids_BT != self.pad_id
        places_BT = real_BT.cumsum(dim=1) * real_BT + self.pad_id
        x_BTD = self.token_scale * self.tokens(ids_BT) + self.positions(places_BT)
        return self.dropout(self.norm(x_BTD))  # type: ignore[no-any-return]

    def reset_parameters(self) -> None:
        """Embeddings N(0, 0.02), those of padding 0; the norm 1 and 0."""
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)
            with torch.no_grad():
                embedding.weight[self.pad_id] = 0
        self.norm.reset_parameters()
