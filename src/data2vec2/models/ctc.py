"""The encoder with a letter at every token, as it is fine-tuned to write down speech.

Shapes: `B` samples, `S` samples of a waveform, `T` tokens, `D` width, `V` symbols of the vocabulary.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from data2vec2.modalities import Tokens
from data2vec2.models.encoder import Encoder


class Recognized(NamedTuple):
    """What a recogniser says of a batch."""

    logits_BTV: Tensor
    """Scores of symbols; those of padded tokens say blank (0) for sure."""
    num_tokens_B: Tensor
    """Tokens of each sample that are real."""


class SpeechRecognizer(nn.Module):
    """Dropout and Linear on every token of the encoder; symbol 0 is CTC's blank."""

    skips_parts = True
    """For the loop: a pass may leave out trained parts (`freeze_encoder`)."""

    def __init__(self, encoder: Encoder, num_symbols: int, *, dropout: float = 0.0, noise_std: float = 0.01) -> None:
        """`noise_std` is the deviation of the noise in place of masked tokens."""
        super().__init__()
        self.encoder = encoder
        self.noise_std = noise_std
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(encoder.config.embed_dim, num_symbols)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(
        self,
        inputs: Tensor,
        lengths_B: Tensor | None = None,
        time_masks_BT: Tensor | None = None,
        channel_masks_BD: Tensor | None = None,
        *,
        freeze_encoder: bool = False,
    ) -> Recognized:
        """Scores of the symbols for waveforms `BS`, of which `lengths_B` samples are real.

        Masked tokens become noise and masked channels 0 before positions are added (in training). With
        `freeze_encoder` only the head gets a gradient.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not freeze_encoder):
            tokens = self.encoder.modality.tokens(inputs, lengths_B)
            tokens = mask_tokens(tokens, time_masks_BT, channel_masks_BD, self.noise_std)
            features_BTD = self.encoder(tokens=tokens).features_NTD
        return recognized(self.head(self.dropout(features_BTD)), tokens.padding_BT)


def recognized(logits_BTV: Tensor, padding_BT: Tensor | None) -> Recognized:
    """The scores, with those of padded tokens replaced by blank's."""
    B, T = logits_BTV.shape[:2]
    if padding_BT is None:
        return Recognized(logits_BTV, torch.full((B,), T, device=logits_BTV.device))
    blank_V = torch.full_like(logits_BTV[0, 0], float("-inf"))
    blank_V[0] = 0.0
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
