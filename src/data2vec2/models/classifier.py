"""The encoder with a linear head, as it is fine-tuned (paper, section 4.1).

Shapes: `B` samples, `C` classes, `D` width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from data2vec2.models.encoder import Encoder
from data2vec2.nn.block import Block


class Classifier(nn.Module):
    """Mean of the features over tokens (without CLS), LayerNorm, Linear."""

    def __init__(self, encoder: Encoder, num_classes: int, drop_path: float = 0.0) -> None:
        """`drop_path` is the last block's rate; it rises linearly over the trunk from 0 at its first block."""
        super().__init__()
        dim, config = encoder.config.embed_dim, encoder.config
        self.encoder = encoder
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        rates = torch.linspace(0, drop_path, config.depth).tolist()
        for block, rate in zip(encoder.blocks[config.prenet_depth :], rates, strict=True):
            assert isinstance(block, Block)
            block.drop_path.rate = rate

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits `BC` of normalised inputs."""
        return self.head(self.norm(self.encoder(inputs).pooled()))  # type: ignore[no-any-return]
