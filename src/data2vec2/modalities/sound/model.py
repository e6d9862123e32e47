"""Sounds: patches of log-mel spectrograms, fixed 2-D positions, one CLS token (EAT: Chen et al., IJCAI 2024).

Shapes: `B` samples, `S` samples of a waveform, `F` frames, `E` mel bins, `O` sines and cosines, `N` student rows, `T`
patches, `K` kept patches, `D` width.
"""

from __future__ import annotations

import math
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data2vec2.config.model import ArchitectureConfig
from data2vec2.errors import UsageError
from data2vec2.method.block import AttentionBias
from data2vec2.method.convolution import FixedFilters
from data2vec2.method.encoder import Modality, Rows, Tokens
from data2vec2.method.masking import take, take_padding
from data2vec2.modalities.audio.model import full_precision
from data2vec2.modalities.image.model import PatchEmbed, sincos_2d
from data2vec2.modalities.sound.config import SoundConfig

STEPS = 400
"""Steps of time whose positions are kept: 64 seconds; those of more are computed anew each time."""
PREEMPHASIS = 0.97
FLOOR = torch.finfo(torch.float32).eps
"""Energies below it count as it."""


class SoundModality(Modality):
    """The stem makes patches of spectrograms; the teacher has its own copy of everything."""

    teacher_owns = frozenset({"stem", "context", "trunk"})
    num_axes = 2
    num_extra_tokens = 1
    positions_TD: Tensor

    def __init__(self, config: SoundConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.stem = SpectrogramStem(config, embed_dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.register_buffer("positions_TD", sincos_2d(embed_dim, (STEPS, config.bands)), persistent=False)

    @classmethod
    def of(cls, model: ArchitectureConfig) -> Self:
        """Of a model's configuration."""
        assert isinstance(model.modality, SoundConfig)
        return cls(model.modality, model.encoder.embed_dim)

    def tokens(self, inputs: Tensor, lengths_B: Tensor | None = None) -> Tokens:
        """Patches of waveforms `BS`, step by step and from low to high; `lengths_B` in samples.

        A patch is real if all that it sees is. `UsageError` for another shape, and for waveforms shorter than a step.
        """
        shortest, bands = self.config.receptive_field, self.config.bands
        if inputs.ndim != 2 or inputs.shape[1] < shortest:
            raise UsageError(f"waveforms of shape {tuple(inputs.shape)}; (batch, {shortest} samples or more) is needed")
        assert self.stem is not None
        tokens_BTD, padding_BT = self.stem(inputs, lengths_B), None
        steps = tokens_BTD.shape[1] // bands
        if lengths_B is not None and not self.config.num_frames:
            real_B = (lengths_B - shortest) // self.config.hop + 1
            padding_BT = torch.arange(steps * bands, device=inputs.device) >= real_B[:, None] * bands
        return Tokens(tokens_BTD, (steps, bands), padding_BT)

    def arrange(self, tokens: Tokens, keep_ids_NK: Tensor | None = None) -> Rows:
        """Add positions, take the kept patches, put the CLS token in front; nobody attends to padding."""
        x, padding = tokens.tokens_BTD, tokens.padding_BT
        positions_TD = self.positions_TD[: x.shape[1]]
        if len(positions_TD) < x.shape[1]:
            positions_TD = sincos_2d(x.shape[2], tokens.grid).to(x.device)  # type: ignore[arg-type]
        x = x + positions_TD.to(x.dtype)
        if keep_ids_NK is not None:
            x = take(x, keep_ids_NK)
        if keep_ids_NK is not None and padding is not None:
            padding = take_padding(padding, keep_ids_NK)
        rows_NLD = torch.cat([self.cls_token.to(x.dtype).expand(x.shape[0], -1, -1), x], dim=1)
        return Rows(rows_NLD, None if padding is None else AttentionBias(padding_NL=F.pad(padding, (1, 0))))

    def reset_parameters(self) -> None:
        """Stem as it says; CLS token N(0, 1); positions anew."""
        if isinstance(self.stem, SpectrogramStem):
            self.stem.reset_parameters()
        nn.init.normal_(self.cls_token)
        with torch.no_grad():
            self.positions_TD.copy_(sincos_2d(self.positions_TD.shape[-1], (STEPS, self.config.bands)))


class SpectrogramStem(FixedFilters):
    """Waveforms to log-mel spectrograms, as Kaldi has them, and these to one token a patch.

    Frames are neither centred nor padded. All that is linear of a frame is one convolution: its mean taken away,
    pre-emphasis, a Hann window, sines and cosines of a Fourier transform; so that every format has it.
    """

    waves_O1S: Tensor
    mels_FE: Tensor

    def __init__(self, config: SoundConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("waves_O1S", frame_waves(config), persistent=False)
        self.register_buffer("mels_FE", kaldi_mels(config), persistent=False)
        self.patches = PatchEmbed(1, config.patch_size, dim)

    def forward(self, waveforms_BS: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """`BS`, of which the first `lengths_B` are real, to `BTD`; frames behind the last whole step are left out."""
        spectra_BFE = self.filled(self.spectra(waveforms_BS), lengths_B)
        whole = spectra_BFE.shape[1] // self.config.patch_size * self.config.patch_size
        return self.patches(spectra_BFE[:, None, :whole].to(self.patches.weight.dtype))  # type: ignore[no-any-return]

    @torch.no_grad()
    def spectra(self, waveforms_BS: Tensor) -> Tensor:
        """Normalised log-mel energies `BFE` of frames, float32."""
        with full_precision(waveforms_BS):
            waves_BOF = F.conv1d(waveforms_BS[:, None].float(), self.waves_O1S, stride=self.config.layers[0][1])
            power_BFO = waves_BOF.transpose(1, 2).square()
            cosines_BFO, sines_BFO = power_BFO.chunk(2, dim=2)
            energies_BFE = (cosines_BFO + sines_BFO) @ self.mels_FE
            return (energies_BFE.clamp(min=FLOOR).log() - self.config.spectrum_mean) / self.config.spectrum_std

    def filled(self, spectra_BFE: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Spectra of `num_frames`, if there is such a number: filled up with energies of 1 as EAT does, or cut."""
        if not self.config.num_frames:
            return spectra_BFE
        silence = -self.config.spectrum_mean / self.config.spectrum_std
        filled_BFE = F.pad(spectra_BFE, (0, 0, 0, self.config.num_frames), value=silence)[:, : self.config.num_frames]
        if lengths_B is None:
            return filled_BFE
        window, hop = self.config.layers[0]
        real_BF = torch.arange(self.config.num_frames, device=lengths_B.device) <= (lengths_B[:, None] - window) // hop
        return torch.where(real_BF[..., None], filled_BFE, silence)

    def reset_parameters(self) -> None:
        """Patches Xavier uniform on the flattened kernel; the fixed waves and filters anew."""
        self.patches.initialise()
        with torch.no_grad():
            self.waves_O1S.copy_(frame_waves(self.config))
            self.mels_FE.copy_(kaldi_mels(self.config))


def frame_waves(config: SoundConfig) -> Tensor:
    """Kernels of a frame, `2(L/2+1) x 1 x S`: first cosines, then sines, of a Fourier transform of the length `L`.

    `L` is the power of two from the window on. A frame loses its mean, then .97 of each sample's left neighbour (the
    first one's is itself), then a symmetric Hann window is laid on.
    """
    window = config.layers[0][0]
    length = 1 << (window - 1).bit_length()
    centred = torch.eye(window, dtype=torch.float64) - 1 / window
    emphasised = centred - PREEMPHASIS * torch.cat([centred[:1], centred[:-1]])
    shaped = emphasised * torch.hann_window(window, periodic=False, dtype=torch.float64)[:, None]
    angles = 2 * math.pi / length * torch.arange(length // 2 + 1)[:, None] * torch.arange(window, dtype=torch.float64)
    return (torch.cat([angles.cos(), angles.sin()]) @ shaped).float()[:, None]


def kaldi_mels(config: SoundConfig) -> Tensor:
    """Triangles, straight on the mel scale, that sum a power spectrum to even mel bins, `(L/2+1) x E`."""
    length = 1 << (config.layers[0][0] - 1).bit_length()

    def mel(hz: Tensor) -> Tensor:
        return 1127 * torch.log1p(hz / 700)

    low, high = (mel(torch.tensor(hz, dtype=torch.float64)) for hz in (20.0, config.sample_rate / 2))
    edges = low + (high - low) / (config.num_mels + 1) * torch.arange(config.num_mels + 2, dtype=torch.float64)
    bins = mel(torch.arange(length // 2 + 1, dtype=torch.float64) * config.sample_rate / length)[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    filters = torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp(min=0)
    filters[-1] = 0  # as Kaldi, which has no bin at half the rate
    return filters.float()
