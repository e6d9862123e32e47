"""A masked autoencoder (He et al., 2021) of the same encoder, to compare with: `masked_autoencoder.py DATA OUT`.

The encoder sees a random quarter of the patches; a small Transformer predicts the pixels of the others, normalised in
each patch. Split, crops, normalisation and seed are those of a data2vec2 recipe or run. One process, one thread.
Writes OUT, an exported model for `data2vec2 evaluate OUT DATA`.

Shapes: `B` samples, `T` patches, `K` kept patches, `U = T - K` masked ones, `D` width, `P` pixel values of a patch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import rival  # first: it makes the package importable
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data2vec2.config.model import MaskConfig, ModelConfig
from data2vec2.config.run import RunConfig
from data2vec2.data.batch import Batches
from data2vec2.interop.folder import export_model
from data2vec2.method.block import Block
from data2vec2.method.masking import complement, put, take
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.fields import build_encoder
from data2vec2.modalities.image.model import sincos_2d
from data2vec2.modalities.tools import tools_of
from data2vec2.tasks.pretrain import Masks

MASKS = MaskConfig(num_masks=1, mask_ratio=0.75, adjust=0.0, block_length=1)
BATCH_SIZE, LR = 16, 1e-3
"""Pictures a step; peak learning rate. Tuned on the validation part."""
DECODER_DEPTH = 2


class MaskedAutoencoder(nn.Module):
    """Encoder of the kept patches, decoder of all, prediction of the masked ones."""

    positions_TD: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.encoder.embed_dim
        self.patch_size = config.modality.patch_size
        self.encoder = build_encoder(config)
        self.mask_token = nn.Parameter(0.02 * torch.randn(dim))
        self.decoder = nn.ModuleList(Block(config.encoder) for _ in range(DECODER_DEPTH))
        self.pixels = nn.Linear(dim, config.modality.channels * self.patch_size**2)
        self.register_buffer("positions_TD", sincos_2d(dim, config.modality.grid))

    def forward(self, inputs: Tensor, keep_ids_BK: Tensor) -> Tensor:
        """Mean squared error of the masked patches of normalised pictures `BCHW`."""
        encoded = self.encoder(inputs, keep_ids_NK=keep_ids_BK)
        B, T = len(inputs), len(self.positions_TD)
        x_BTD = put(self.mask_token.expand(B, T, -1), keep_ids_BK, encoded.features_NTD) + self.positions_TD
        for block in self.decoder:
            x_BTD, _ = block(x_BTD)
        masked_ids_BU = complement(keep_ids_BK, T)
        return F.mse_loss(self.pixels(take(x_BTD, masked_ids_BU)), take(self.patches(inputs), masked_ids_BU))

    def patches(self, inputs: Tensor) -> Tensor:
        """Pixels `BTP`, zero mean and unit variance in each patch (a patch of one colour: all 0)."""
        patches_BTP = F.unfold(inputs, self.patch_size, stride=self.patch_size).transpose(1, 2)
        return F.layer_norm(patches_BTP, patches_BTP.shape[-1:], eps=1e-6)


def pretrain(
    config: RunConfig,
    data: Path,
    out: Path,
    *,
    seconds: float | None = None,
    updates: int | None = None,
    batch_size: int = BATCH_SIZE,
    lr: float = LR,
    say: Callable[[str], None] = print,
) -> int:
    """Train for so many seconds or updates and export the encoder to `out`; returns the updates that were done."""
    prepared = rival.opened(config, data, say)
    config, reader = prepared.config, prepared.train
    batches = Batches(reader, reader.order(batch_size), [Masks(MASKS, reader)])
    normalise = tools_of("image").normalise(config.data, torch.device("cpu"))
    torch.manual_seed(config.train.seed)
    model = MaskedAutoencoder(config.model)

    def loss(step: int) -> Tensor:
        batch = batches[step]
        return model(normalise(batch.inputs), batch.keep_ids_NK)

    done = rival.train(model, loss, seconds=seconds, updates=updates, lr=lr, say=say)
    card = f"Encoder of a masked autoencoder: {done:,} updates of {batch_size} pictures; a baseline of data2vec2.\n"
    export_model(model.encoder.eval(), ModelInfo(model=config.model, data=config.data), out, card)
    return done


def main() -> None:
    """Parse and run."""
    rival.main(pretrain, __doc__, "image_tiny", BATCH_SIZE, LR)


if __name__ == "__main__":
    main()
