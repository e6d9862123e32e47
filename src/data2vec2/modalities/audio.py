"""Speech and other audio: 20 ms tokens, positions from neighbours, symmetric ALiBi.

Shapes: `B` samples, `S` samples of a waveform, `N` student rows, `T` tokens, `K` kept tokens, `D` width, `H` heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from data2vec2.config import AudioConfig
from data2vec2.modalities.base import Modality, Rows, Tokens
from data2vec2.nn.attention import AttentionBias, alibi_slopes
from data2vec2.nn.gather import put, take
from data2vec2.nn.positions import ConvPositions
from data2vec2.nn.stems import MelStem, WaveformStem


class AudioModality(Modality):
    """The stem makes tokens of waveforms or of their mel spectra; the teacher starts from the student's tokens."""

    teacher_owns = frozenset({"context", "trunk"})
    num_axes = 1
    slopes_H: Tensor

    def __init__(self, config: AudioConfig, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.config = config
        if config.stem == "waveform":
            self.stem = WaveformStem(config.conv_dim, config.layers, embed_dim)
        else:
            self.stem = MelStem(config.sample_rate, config.num_mels, config.mel_window, config.mel_hop, embed_dim)
        self.positions = ConvPositions(embed_dim, config.position_depth, config.position_kernel, config.position_groups)
        self.alibi_scale_H = nn.Parameter(torch.empty(num_heads))
        self.register_buffer("slopes_H", alibi_slopes(num_heads), persistent=False)

    def tokens(self, inputs: Tensor, lengths_B: Tensor | None = None) -> Tokens:
        """Tokens of waveforms `BS` of zero mean and unit variance; `lengths_B` in samples.

        `ValueError` for another shape, and for waveforms shorter than one token.
        """
        shortest = self.config.receptive_field
        if inputs.ndim != 2 or inputs.shape[1] < shortest:
            raise ValueError(f"waveforms of shape {tuple(inputs.shape)}; (batch, {shortest} samples or more) is needed")
        assert self.stem is not None
        tokens_BTD = self.stem(inputs)
        num_tokens, padding_BT = tokens_BTD.shape[1], None
        if lengths_B is not None:
            real_B = (lengths_B - shortest) // self.config.hop + 1  # as AudioConfig.num_tokens
            padding_BT = torch.arange(num_tokens, device=inputs.device) >= real_B[:, None]
        return Tokens(tokens_BTD, (num_tokens,), padding_BT)

    def arrange(self, tokens: Tokens, keep_ids_NK: Tensor | None = None) -> Rows:
        """Add positions, take the kept tokens; the attention's bias knows where they were.

        The positions of a student row are made of its kept tokens alone: masked and padded ones are zero.
        """
        x_BTD, padding_BT = tokens.tokens_BTD, tokens.padding_BT
        T, D = x_BTD.shape[1:]
        if padding_BT is not None:
            x_BTD = x_BTD.masked_fill(padding_BT[..., None], 0.0)
        if keep_ids_NK is None:
            places_1T = torch.arange(T, device=x_BTD.device)[None]
            return Rows(x_BTD + self.positions(x_BTD, padding_BT), self._bias(places_1T, padding_BT))
        kept_NKD = take(x_BTD, keep_ids_NK)
        sparse_NTD = put(kept_NKD.new_zeros(len(keep_ids_NK), T, D), keep_ids_NK, kept_NKD)
        padding_NT = padding_NK = None
        if padding_BT is not None:
            padding_NT = padding_BT.repeat_interleave(len(keep_ids_NK) // len(padding_BT), dim=0)
            padding_NK = padding_NT.gather(1, keep_ids_NK)
        positions_NKD = take(self.positions(sparse_NTD, padding_NT), keep_ids_NK)
        return Rows(kept_NKD + positions_NKD, self._bias(keep_ids_NK, padding_NK))

    def reset_parameters(self) -> None:
        """The stem as it says, positions PyTorch's default, ALiBi scales 1, its slopes anew."""
        for part in (self.stem, self.positions):
            if isinstance(part, WaveformStem | MelStem | ConvPositions):
                part.reset_parameters()
        nn.init.ones_(self.alibi_scale_H)
        with torch.no_grad():
            self.slopes_H.copy_(alibi_slopes(len(self.slopes_H)))

    def _bias(self, positions_NL: Tensor, padding_NL: Tensor | None) -> AttentionBias:
        return AttentionBias(
            positions_NL=positions_NL, slopes_H=self.slopes_H, scale_H=self.alibi_scale_H, padding_NL=padding_NL
        )
