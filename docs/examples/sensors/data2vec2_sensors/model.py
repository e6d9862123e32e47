"""From series to tokens.

Shapes: `B` series, `S` steps, `C` channels, `T` tokens, `D` width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from data2vec2.modalities.sequence import SequenceModality
from data2vec2_sensors.config import SensorConfig


class SensorModality(SequenceModality):
    """Tokens of a sequence, with positions from neighbours."""

    def __init__(self, config: SensorConfig, embed_dim: int, num_heads: int) -> None:
        super().__init__(SensorStem(config, embed_dim), embed_dim, num_heads, depth=2, kernel=9, groups=num_heads)
        self.config = config

    def real_tokens(self, lengths_B: Tensor) -> Tensor:
        """As `SensorConfig.num_tokens`."""
        return lengths_B // self.config.stride


class SensorStem(nn.Module):
    """Series `BSC` as they stand in the files to tokens `BTD`: channels are normalised, and steps go together."""

    mean_C: Tensor
    std_C: Tensor

    def __init__(self, config: SensorConfig, embed_dim: int) -> None:
        super().__init__()
        self.config, channels = config, config.num_channels or 1
        self.proj = nn.Conv1d(channels, embed_dim, config.stride, config.stride)
        self.register_buffer("mean_C", torch.zeros(channels), persistent=False)
        self.register_buffer("std_C", torch.ones(channels), persistent=False)

    def forward(self, series_BSC: Tensor) -> Tensor:
        """`BSC` to `BTD`."""
        x_BSC = (series_BSC - self.mean_C) / self.std_C
        return self.proj(x_BSC.transpose(1, 2)).transpose(1, 2)  # type: ignore[no-any-return]

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """PyTorch's default; mean and deviation as the configuration has them."""
        self.proj.reset_parameters()
        self.mean_C.copy_(torch.tensor(self.config.mean or (0.0,)))
        self.std_C.copy_(torch.tensor(self.config.std or (1.0,)))
