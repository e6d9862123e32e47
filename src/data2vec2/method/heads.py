"""The encoder with a head, as it is fine-tuned: classes or numbers of samples, a class or a letter at every token.

Shapes: `B` samples, `S` samples of a waveform, `T` tokens, `C` classes, `D` width, `V` symbols of the vocabulary, `h`
and `w` rows and columns of patches.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data2vec2.method.block import Block
from data2vec2.method.encoder import Encoded, Encoder, Tokens, initialise

Pooling = Literal["mean", "linear_softmax", "first", "cls", "bare"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
MEANS: tuple[Pooling, ...] = ("mean", "bare")
"""Those that begin with the mean of the features."""


class _Headed(nn.Module):
    """An encoder with something on it; `noise_std` is the deviation of the noise in place of masked tokens."""

    def __init__(self, encoder: Encoder, noise_std: float) -> None:
        super().__init__()
        self.encoder, self.noise_std = encoder, noise_std

    def forward(
        self,
        inputs: Tensor,
        lengths_B: Tensor | None = None,
        time_masks_BT: Tensor | None = None,
        channel_masks_BD: Tensor | None = None,
        *,
        freeze_encoder: bool = False,
    ) -> Any:
        """Outputs of normalised inputs, of which only the first `lengths_B` of each are real where given.

        Masked tokens become noise and masked channels 0 before positions are added (in training). With
        `freeze_encoder` only the head gets a gradient.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not freeze_encoder):
            tokens = self.encoder.modality.tokens(inputs, lengths_B)
            encoded = self.encoder(tokens=mask_tokens(tokens, time_masks_BT, channel_masks_BD, self.noise_std))
        return self.outputs(encoded)

    @abstractmethod
    def outputs(self, encoded: Encoded) -> Any:
        """What the head makes of what the encoder computed."""


class Classifier(_Headed):
    """Classes of samples, by `pooling`:

    mean            mean of the features over real tokens (without CLS), LayerNorm, Linear
    linear_softmax  LayerNorm, Linear, then the mean; of samples that have classes for a part of the time
    first           the first token's features, a layer with tanh, Linear: of text, as RoBERTa has it
    cls             the CLS token's features, LayerNorm, Linear: as EAT has it
    bare            mean of the features, Linear: as emotion2vec has it
    """

    def __init__(
        self,
        encoder: Encoder,
        num_classes: int,
        drop_path: float = 0.0,
        pooling: Pooling = "mean",
        noise_std: float = 0.01,
    ) -> None:
        """`drop_path` is the last block's rate; it rises linearly over the trunk from 0 at its first block."""
        super().__init__(encoder, noise_std)
        self.pooling, dim = pooling, encoder.config.embed_dim
        self.norm: nn.Module = nn.Identity() if pooling in ("first", "bare") else nn.LayerNorm(dim, eps=1e-6)
        self.dense: nn.Module = nn.Identity()
        if pooling == "first":
            self.dense = nn.Sequential(nn.Linear(dim, dim), nn.Tanh())
            initialise(self.dense)
        self.head = nn.Linear(dim, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        set_drop_path(encoder, drop_path)

    def outputs(self, encoded: Encoded) -> Tensor:
        """Logits `BC`."""
        return pool(encoded, self.pooling, self.of_pooled)

    def of_pooled(self, features_D: Tensor) -> Tensor:
        """Logits `C` of features that are pooled already, or of single tokens; any axes before."""
        return self.head(self.dense(self.norm(features_D)))  # type: ignore[no-any-return]

    @torch.no_grad()
    def rescale(self, mean: float, deviation: float) -> None:
        """Make outputs that were learned as (number - mean) / deviation the numbers themselves."""
        self.head.weight *= deviation
        self.head.bias.copy_(self.head.bias * deviation + mean)


def pool(encoded: Encoded, pooling: Pooling, head: Callable[[Tensor], Tensor]) -> Tensor:
    """Logits `BC` of whole samples by a head that gives them for features `D` with any axes before."""
    if pooling != "linear_softmax":
        return head(encoded.pooled() if pooling in MEANS else encoded.first())
    return linear_softmax(head(encoded.features_NTD), encoded.tokens.padding_BT)


def linear_softmax(logits_BTC: Tensor, padding_BT: Tensor | None = None) -> Tensor:
    """Logits `BC` of the classes' probabilities sum p^2 / sum p over real tokens (Wang et al., ICASSP 2019); float32.

    In logarithms: with q = 1 - p, the odds of the pooled probability are sum p^2 / sum p q.
    """
    logits_BTC = logits_BTC.float()
    p_BTC, q_BTC = F.logsigmoid(logits_BTC), F.logsigmoid(-logits_BTC)
    if padding_BT is not None:
        p_BTC = p_BTC.masked_fill(padding_BT[..., None], float("-inf"))
    return (2 * p_BTC).logsumexp(dim=1) - (p_BTC + q_BTC).logsumexp(dim=1)


def set_drop_path(encoder: Encoder, rate: float) -> None:
    """Give the last block this rate of stochastic depth; it rises linearly over the trunk from 0 at its first block."""
    trunk = encoder.blocks[encoder.config.prenet_depth :]
    rates = torch.linspace(0, rate, len(trunk), device="cpu").tolist()  # Transformers builds on "meta"
    for block, of_block in zip(trunk, rates, strict=True):
        assert isinstance(block, Block)
        block.drop_path.rate = of_block


class TokenClassifier(_Headed):
    """LayerNorm, dropout and Linear on every token of the encoder: the class of a word, a frame or a patch."""

    def __init__(
        self,
        encoder: Encoder,
        num_classes: int,
        *,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        noise_std: float = 0.01,
    ) -> None:
        """`drop_path` as of `Classifier`."""
        super().__init__(encoder, noise_std)
        self.norm, self.dropout = nn.LayerNorm(encoder.config.embed_dim, eps=1e-6), nn.Dropout(dropout)
        self.head = nn.Linear(encoder.config.embed_dim, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        set_drop_path(encoder, drop_path)

    def outputs(self, encoded: Encoded) -> Tensor:
        """Logits as `on_grid` has them."""
        return on_grid(self.of_features(encoded.features_NTD), encoded.tokens.grid)

    def of_features(self, features_TD: Tensor) -> Tensor:
        """Logits `TC` of tokens; any axes before."""
        return self.head(self.dropout(self.norm(features_TD)))  # type: ignore[no-any-return]


class AnswerFinder(TokenClassifier):
    """Two numbers at every token of a question and its context: logits of where the answer starts, and of its end."""

    def __init__(self, encoder: Encoder, *, dropout: float = 0.0) -> None:
        super().__init__(encoder, 2, dropout=dropout)


def on_grid(logits_BTC: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Logits of tokens: `BTC` where these are a sequence, `BChw` where they are patches of a plane."""
    return logits_BTC if len(grid) == 1 else torch.unflatten(logits_BTC.mT, -1, grid)


class Recognized(NamedTuple):
    """What a recogniser says of a batch."""

    logits_BTV: Tensor
    """Scores of symbols; those of padded tokens say blank (0) for sure."""
    num_tokens_B: Tensor
    """Tokens of each sample that are real."""


class SpeechRecognizer(_Headed):
    """Dropout and Linear on every token of the encoder; symbol 0 is CTC's blank."""

    def __init__(self, encoder: Encoder, num_symbols: int, *, dropout: float = 0.0, noise_std: float = 0.01) -> None:
        super().__init__(encoder, noise_std)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.config.embed_dim, num_symbols)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def outputs(self, encoded: Encoded) -> Recognized:
        """Scores of the symbols."""
        return recognized(self.head(self.dropout(encoded.features_NTD)), encoded.tokens.padding_BT)


def recognized(logits_BTV: Tensor, padding_BT: Tensor | None, blank: int = 0) -> Recognized:
    """The scores, with those of padded tokens replaced by the blank's, which is symbol `blank`."""
    B, T = logits_BTV.shape[:2]
    if padding_BT is None:
        return Recognized(logits_BTV, torch.full((B,), T, device=logits_BTV.device))
    blank_V = torch.full_like(logits_BTV[0, 0], float("-inf"))
    blank_V[blank] = 0.0
    return Recognized(torch.where(padding_BT[..., None], blank_V, logits_BTV), (~padding_BT).sum(dim=1))


def mask_tokens(
    tokens: Tokens, time_masks_BT: Tensor | None, channel_masks_BD: Tensor | None, noise_std: float
) -> Tokens:
    """The tokens with noise N(0, noise_std) where time is masked (True), then 0 where channels are."""
    x_BTD = tokens.tokens_BTD
    if time_masks_BT is not None:
        x_BTD = torch.where(time_masks_BT[..., None], torch.randn_like(x_BTD) * noise_std, x_BTD)
    if channel_masks_BD is not None:
        x_BTD = x_BTD.masked_fill(channel_masks_BD[:, None], 0.0)
    return replace(tokens, tokens_BTD=x_BTD)
