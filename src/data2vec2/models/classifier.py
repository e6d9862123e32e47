"""The encoder with a linear head, as it is fine-tuned (paper, section 4.1).

Shapes: `B` samples, `T` tokens, `C` classes, `D` width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data2vec2.models.ctc import mask_tokens
from data2vec2.models.encoder import Encoded, Encoder, initialise
from data2vec2.nn.block import Block

Pooling = Literal["mean", "linear_softmax", "first"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


class Classifier(nn.Module):
    """Mean of the features over real tokens (without CLS), LayerNorm, Linear; or pooled after these.

    Or of text, as RoBERTa has it: features of the first token, a layer with tanh, Linear.
    """

    def __init__(
        self,
        encoder: Encoder,
        num_classes: int,
        drop_path: float = 0.0,
        pooling: Pooling = "mean",
        noise_std: float = 0.01,
    ) -> None:
        """`drop_path` is the last block's rate; it rises linearly over the trunk from 0 at its first block.

        `pooling` linear_softmax is for samples that can have several classes, each for a part of the time.
        `noise_std` is the deviation of the noise in place of masked tokens.
        """
        super().__init__()
        self.pooling, self.noise_std = pooling, noise_std
        self.skips_parts = False  # for the loop: whether a pass may leave out trained parts (`freeze_encoder`)
        dim, config = encoder.config.embed_dim, encoder.config
        self.encoder = encoder
        self.norm: nn.Module = nn.Identity() if pooling == "first" else nn.LayerNorm(dim, eps=1e-6)
        self.dense: nn.Module = nn.Identity()
        if pooling == "first":
            self.dense = nn.Sequential(nn.Linear(dim, dim), nn.Tanh())
            initialise(self.dense)
        self.head = nn.Linear(dim, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        rates = torch.linspace(0, drop_path, config.depth, device="cpu").tolist()  # Transformers builds on "meta"
        for block, rate in zip(encoder.blocks[config.prenet_depth :], rates, strict=True):
            assert isinstance(block, Block)
            block.drop_path.rate = rate

    def forward(
        self,
        inputs: Tensor,
        lengths_B: Tensor | None = None,
        time_masks_BT: Tensor | None = None,
        channel_masks_BD: Tensor | None = None,
        *,
        freeze_encoder: bool = False,
    ) -> Tensor:
        """Logits `BC` of normalised inputs, of which only the first `lengths_B` of each are real where given.

        Masks and `freeze_encoder` as in `SpeechRecognizer`.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not freeze_encoder):
            tokens = self.encoder.modality.tokens(inputs, lengths_B)
            tokens = mask_tokens(tokens, time_masks_BT, channel_masks_BD, self.noise_std)
            encoded = self.encoder(tokens=tokens)
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
        return head(encoded.pooled() if pooling == "mean" else encoded.x_NLD[:, 0])
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
