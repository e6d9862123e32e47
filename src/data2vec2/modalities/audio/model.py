"""Speech and other audio: waveforms or their mel spectra become tokens of 20 ms.

Shapes: `B` samples, `S` samples of a waveform, `F` frames, `E` mel bins, `T` tokens, `D` width, `C` channels.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data2vec2.config.model import ArchitectureConfig
from data2vec2.errors import UsageError
from data2vec2.method.convolution import FixedFilters
from data2vec2.method.encoder import Encoder, Tokens
from data2vec2.modalities.audio.config import AudioConfig
from data2vec2.modalities.sequence import SequenceModality


class AudioModality(SequenceModality):
    """The stem makes tokens of waveforms or of their mel spectra."""

    def __init__(self, config: AudioConfig, embed_dim: int, num_heads: int) -> None:
        stem = (WaveformStem if config.stem == "waveform" else MelStem)(config, embed_dim)
        shape: dict[str, int] = {
            "depth": config.position_depth,
            "kernel": config.position_kernel,
            "groups": config.position_groups,
            "num_extra_tokens": config.num_extra_tokens,
        }
        super().__init__(stem, embed_dim, num_heads, **shape, norm=config.position_norm, alibi=config.alibi)
        self.config = config

    @classmethod
    def of(cls, model: ArchitectureConfig) -> Self:
        """Of a model's configuration."""
        assert isinstance(model.modality, AudioConfig)
        return cls(model.modality, model.encoder.embed_dim, model.encoder.num_heads)

    def tokens(self, inputs: Tensor, lengths_B: Tensor | None = None) -> Tokens:
        """Tokens of waveforms `BS` of zero mean and unit variance; `lengths_B` in samples.

        `UsageError` for another shape, and for waveforms shorter than one token.
        """
        shortest = self.config.receptive_field
        if inputs.ndim != 2 or inputs.shape[1] < shortest:
            raise UsageError(f"waveforms of shape {tuple(inputs.shape)}; (batch, {shortest} samples or more) is needed")
        return super().tokens(inputs, lengths_B)

    def embedded(self, inputs: Tensor, lengths_B: Tensor | None) -> Tensor:
        """What the stem makes of inputs; a norm over time must know how long each is."""
        stem = self.stem
        return stem(inputs, lengths_B) if isinstance(stem, WaveformStem) else super().embedded(inputs, lengths_B)

    def real_tokens(self, lengths_B: Tensor) -> Tensor:
        """As `AudioConfig.num_tokens`."""
        return (lengths_B - self.config.receptive_field) // self.config.hop + 1

    def make_portable(self) -> None:
        """ONNX and torch.export know no windows of any number."""
        if isinstance(self.stem, MelStem):
            self.stem = MelConvStem(self.stem)


class WaveformStem(nn.Module):
    """Waveforms to tokens: convolutions, each with LayerNorm over channels and GELU, then LayerNorm and Linear.

    A token depends on the samples it sees and on no others, so padding behind a waveform changes none of its tokens.
    With `stem_norm` group only the first convolution has a norm, over the time of each channel, of real samples alone:
    padding still changes nothing, but every token depends on mean and deviation of the whole recording. So do a
    student's, which then knows these of what is masked; and a long recording's differ from window to window.
    """

    def __init__(self, config: AudioConfig, dim: int) -> None:
        super().__init__()
        self.config, channels = config, config.conv_dim
        self.convs = nn.ModuleList(
            nn.Conv1d(channels if i else 1, channels, kernel, stride, bias=config.conv_bias)
            for i, (kernel, stride) in enumerate(config.layers)
        )
        over_time = config.stem_norm == "group"
        norms = [TimeNorm(channels)] if over_time else [nn.LayerNorm(channels) for _ in self.convs]
        self.norms = nn.ModuleList(norms)
        self.norm = nn.LayerNorm(channels)
        self.proj = nn.Linear(channels, dim)

    def forward(self, waveforms_BS: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """`BS` to `BTD`."""
        x_BTC = waveforms_BS[..., None]
        for place, conv in enumerate(self.convs):
            # Channels stay the last axis in memory; the convolution sees a channels-first view of it.
            x_BTC = conv(x_BTC.transpose(1, 2)).transpose(1, 2)
            if self.config.stem_norm == "layer":
                x_BTC = self.norms[place](x_BTC)
            elif place == 0:
                x_BTC = self.norms[0](x_BTC, lengths_B if lengths_B is None else self._frames(lengths_B))
            x_BTC = F.gelu(x_BTC)
        return self.proj(self.norm(x_BTC))  # type: ignore[no-any-return]

    def _frames(self, lengths_B: Tensor) -> Tensor:
        """What the first convolution makes of so many samples."""
        kernel, stride = self.config.layers[0]
        return (lengths_B - kernel) // stride + 1

    def reset_parameters(self) -> None:
        """Convolutions Kaiming normal, the projection PyTorch's default, norms 1 and 0."""
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.get_parameter("weight"))
            if self.config.conv_bias:
                nn.init.zeros_(conv.get_parameter("bias"))
        for part in (*self.norms, self.norm, self.proj):
            part.reset_parameters()


class TimeNorm(nn.GroupNorm):
    """Zero mean and unit variance of each channel over the time of a sample, then a learned scale and shift."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def forward(self, x_BTC: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """`BTC` to `BTC`; `lengths_B` says how many places of each sample are real, and only these count."""
        if lengths_B is None:
            return super().forward(x_BTC.transpose(1, 2)).transpose(1, 2)
        real_BT1 = (torch.arange(x_BTC.shape[1], device=x_BTC.device) < lengths_B[:, None])[..., None].float()
        count_B11, x_BTC = lengths_B[:, None, None], x_BTC.float()
        centred_BTC = x_BTC - (x_BTC * real_BT1).sum(1, keepdim=True) / count_B11
        variance_B1C = (centred_BTC.square() * real_BT1).sum(1, keepdim=True) / count_B11
        return (centred_BTC * (variance_B1C + self.eps).rsqrt()).to(self.weight.dtype) * self.weight + self.bias


def freeze_stem(encoder: Encoder) -> None:
    """Stop the learning of the waveform stem's convolutions; what makes tokens of their channels learns."""
    if isinstance(stem := encoder.modality.stem, WaveformStem):
        for part in (stem.convs, stem.norms):
            part.requires_grad_(False)


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Products of `x` in the bits that it has."""
    kind = x.device.type  # the meta device has no autocast
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


class MelStem(FixedFilters):
    """Waveforms to tokens: fixed log-mel spectra of two frames, not centred and without padding; LayerNorm, Linear."""

    window_S: Tensor
    mels_FE: Tensor

    def __init__(self, config: AudioConfig, dim: int) -> None:
        super().__init__()
        self.config, (self.window, self.hop) = config, config.layers[0]
        self.register_buffer("window_S", torch.hann_window(self.window, dtype=torch.float32), persistent=False)
        self.register_buffer("mels_FE", mel_filters(config), persistent=False)
        self.norm = nn.LayerNorm(2 * config.num_mels)
        self.proj = nn.Linear(2 * config.num_mels, dim)

    def forward(self, waveforms_BS: Tensor) -> Tensor:
        """`BS` to `BTD`."""
        return self.proj(self.norm(self.spectra(waveforms_BS).to(self.norm.weight.dtype)))  # type: ignore[no-any-return]

    @torch.no_grad()
    def spectra(self, waveforms_BS: Tensor) -> Tensor:
        """Log-mel energies of each token's two frames, one after the other: `B x T x 2E`, float32."""
        with full_precision(waveforms_BS):
            frames = waveforms_BS.float().unfold(1, self.window, self.hop) * self.window_S
            mel_BFE = torch.fft.rfft(frames).abs().square() @ self.mels_FE
        B, num_frames, E = mel_BFE.shape
        pairs: Tensor = mel_BFE[:, : num_frames // 2 * 2].reshape(B, num_frames // 2, 2 * E)
        return (pairs + 1e-3).log()

    def reset_parameters(self) -> None:
        """The projection PyTorch's default, the norm 1 and 0; the fixed window and filters anew."""
        self.norm.reset_parameters()
        self.proj.reset_parameters()
        with torch.no_grad():
            self.window_S.copy_(torch.hann_window(self.window))
            self.mels_FE.copy_(mel_filters(self.config))


class MelConvStem(MelStem):
    """A `MelStem` whose spectra are one convolution: for formats that have no Fourier transform of sliding windows.

    Its kernels are the cosines and sines of both frames of a token. Tokens are the same to rounding, but slower.
    """

    kernels_O1S: Tensor

    def __init__(self, stem: MelStem) -> None:
        """Shares norm and projection with `stem`."""
        super().__init__(stem.config, stem.proj.out_features)
        self.norm, self.proj = stem.norm, stem.proj
        places_S = torch.arange(self.window, dtype=torch.float64)
        angles_FS = 2 * math.pi / self.window * torch.arange(self.window // 2 + 1)[:, None] * places_S
        waves = torch.stack([angles_FS.cos(), angles_FS.sin()]) * torch.hann_window(self.window, dtype=torch.float64)
        frames = torch.stack([F.pad(waves, (0, self.hop)), F.pad(waves, (self.hop, 0))])
        self.register_buffer("kernels_O1S", frames.flatten(0, 2)[:, None].float(), persistent=False)

    def spectra(self, waveforms_BS: Tensor) -> Tensor:
        """`B x T x 2E`, above silence: less by a constant, which the norm takes away, than a `MelStem`'s.

        So silence is 0, where ONNX Runtime before 1.27 normalises it rightly: beside a large mean it loses variances.
        """
        x_BOT = F.conv1d(waveforms_BS[:, None], self.kernels_O1S, stride=2 * self.hop)
        B, _, T = x_BOT.shape
        power_BT2F = x_BOT.transpose(1, 2).reshape(B, T, 2, 2, -1).square().sum(3)  # of each token's two frames
        mel_BTE: Tensor = (power_BT2F @ self.mels_FE).flatten(2)
        return (1 + mel_BTE / 1e-3).log()


def mel_filters(config: AudioConfig) -> Tensor:
    """Triangles of peak 1 that sum a power spectrum to even mel bins up to half the rate, `(window // 2 + 1) x E`."""
    window, rate = config.layers[0][0], config.sample_rate
    low, high = (2595 * math.log10(1 + hz / 700) for hz in (20.0, rate / 2))
    step = (high - low) / (config.num_mels + 1)
    edges_hz = 700 * (10 ** ((low + step * torch.arange(config.num_mels + 2, dtype=torch.float64)) / 2595) - 1)
    bins_hz = torch.arange(window // 2 + 1, dtype=torch.float64)[:, None] * rate / window
    left, centre, right = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    return torch.minimum((bins_hz - left) / (centre - left), (right - bins_hz) / (right - centre)).clamp(min=0).float()
