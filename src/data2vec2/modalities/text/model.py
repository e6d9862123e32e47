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
from data2vec2.method.masking import take, take_padding
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

        Without lengths all are real: full blocks need no mask. In place of ids there may be embeddings `BTD`, of which
        the first `lengths_B` are real. `UsageError` for other shapes, types or lengths.
        """
        longest, axes = self.config.max_tokens, 3 if inputs.is_floating_point() else 2
        if inputs.ndim != axes or not 1 <= inputs.shape[1] <= longest:
            shape = f"{tuple(inputs.shape)}, {inputs.dtype}"
            raise UsageError(
                f"token ids of shape {shape}; (batch, 1 to {longest}) whole numbers are needed, or an embedding of each"
            )
        assert self.stem is not None
        padding_BT = None
        if lengths_B is not None and axes == 3:
            padding_BT = torch.arange(inputs.shape[1], device=inputs.device) >= lengths_B[:, None]
        elif lengths_B is not None:
            padding_BT = inputs == self.config.pad_id
        return Tokens(self.stem(inputs, padding_BT), (inputs.shape[1],), padding_BT)

    def arrange(self, tokens: Tokens, keep_ids_NK: Tensor | None = None) -> Rows:
        """The tokens, or the kept ones; nobody attends to padding."""
        x, padding = tokens.tokens_BTD, tokens.padding_BT
        if keep_ids_NK is not None:
            x = take(x, keep_ids_NK)
        if keep_ids_NK is not None and padding is not None:
            padding = take_padding(padding, keep_ids_NK)
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

    def forward(self, inputs: Tensor, padding_BT: Tensor | None = None) -> Tensor:
        """Ids `BT` or their embeddings `BTD`, of which some are padding, to `BTD`.

        Positions count the tokens that are not padding, from `pad_id + 1` on; of ids, those of padding are.
        """
        if inputs.ndim == 2:
            real_BT, embedded_BTD = inputs != self.pad_id, self.tokens(inputs)
        else:
            real_BT, embedded_BTD = torch.ones_like(inputs[..., 0], dtype=torch.bool), inputs
            if padding_BT is not None:
                real_BT, embedded_BTD = ~padding_BT, inputs.masked_fill(padding_BT[..., None], 0.0)
        places_BT = real_BT.cumsum(dim=1) * real_BT + self.pad_id
        x_BTD = self.token_scale * embedded_BTD + self.positions(places_BT)
        return self.dropout(self.norm(x_BTD))  # type: ignore[no-any-return]

    def reset_parameters(self) -> None:
        """Embeddings N(0, 0.02), those of padding 0; the norm 1 and 0."""
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)
            with torch.no_grad():
                embedding.weight[self.pad_id] = 0
        self.norm.reset_parameters()
