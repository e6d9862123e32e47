"""A masked autoencoder (He et al., 2021) of the same encoder, to compare with: `masked_autoencoder.py DATA OUT`.

The encoder sees a random quarter of the patches; a small Transformer predicts the pixels of the others, normalised in
each patch. Split, crops, normalisation and seed are those of a data2vec2 recipe or run. One process, one thread.
Writes OUT, an exported model for `data2vec2 evaluate OUT DATA`.

Shapes: `B` samples, `T` patches, `K` kept patches, `U = T - K` masked ones, `D` width, `P` pixel values of a patch.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from data2vec2.commands.data import open_training_data
from data2vec2.commands.plan import saved_config
from data2vec2.config import MaskConfig, ModelConfig, OptimConfig, RunConfig
from data2vec2.data.loader import MaskedBatches
from data2vec2.data.sampler import GlobalBatches
from data2vec2.evaluation.features import Normalise
from data2vec2.interop.export import export_encoder
from data2vec2.modalities import build_modality
from data2vec2.models import Encoder
from data2vec2.nn.block import Block
from data2vec2.nn.gather import complement, put, take
from data2vec2.nn.positions import sincos_2d
from data2vec2.recipes import get_recipe
from data2vec2.training.device import cpu_threads
from data2vec2.training.optim import build_optimizer

MASKS = MaskConfig(num_masks=1, mask_ratio=0.75, adjust=0.0, block_length=1)
BATCH_SIZE, LR, WARMUP = 16, 1e-3, 0.1
"""Pictures a step; peak learning rate; share of the run that it rises over. Tuned on the validation part."""
DECODER_DEPTH = 2
CPU = torch.device("cpu")


class MaskedAutoencoder(nn.Module):
    """Encoder of the kept patches, decoder of all, prediction of the masked ones."""

    positions_TD: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim, heads = config.encoder.embed_dim, config.encoder.num_heads
        self.patch_size = config.modality.patch_size
        self.encoder = Encoder(config.encoder, build_modality(config))
        self.mask_token = nn.Parameter(0.02 * torch.randn(dim))
        self.decoder = nn.ModuleList(Block(dim, heads) for _ in range(DECODER_DEPTH))
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
    """Train for so many seconds or updates and export the encoder to `out`; returns the updates that were done.

    Seconds are processor time, which with one thread is the wall-clock time of a machine that does nothing else. The
    learning rate follows them, so that it ends at zero wherever the machine gets to.
    """
    prepared = open_training_data(config, data, None, say)
    config, reader = prepared.config, prepared.train
    assert config.data.mean is not None and config.data.std is not None
    order = GlobalBatches(len(reader.records), batch_size, config.train.seed)
    batches = MaskedBatches(reader, order, MASKS)
    normalise = Normalise(config.data.mean, config.data.std, CPU)
    with cpu_threads(1):
        torch.manual_seed(config.train.seed)
        model = MaskedAutoencoder(config.model)
        optimizer = build_optimizer(model, OptimConfig(lr=lr))
        started, step, mean_loss = time.process_time(), 0, 0.0
        while True:
            share = step / updates if updates else (time.process_time() - started) / (seconds or 1)
            if share >= 1:
                break
            rate = lr * min(1, share / WARMUP) * 0.5 * (1 + math.cos(math.pi * share))
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = batches[step]
            loss = model(normalise(batch.inputs), batch.keep_ids_NK)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            mean_loss += (loss.item() - mean_loss) * max(0.01, 1 / step)
            if step % 500 == 0:
                say(f"masked autoencoder: update {step:,}, {100 * share:.0f} %, loss {mean_loss:.4f}")
    card = f"Encoder of a masked autoencoder: {step:,} updates of {batch_size} pictures; a baseline of data2vec2.\n"
    export_encoder(model.encoder.eval(), config.model, config.data, out, card)
    return step


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="as for data2vec2 pretrain")
    parser.add_argument("out", type=Path, help="exported model to write")
    parser.add_argument(
        "--like", default="image_tiny", help="recipe or run folder whose encoder, crops and split to use"
    )
    parser.add_argument("--seed", type=int, help="instead of the recipe's or the run's")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--seconds", type=float, help="processor time, of the only thread")
    length.add_argument("--updates", type=int)
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    parser.add_argument("--lr", type=float, default=LR, help="peak learning rate")
    args = parser.parse_args()
    config = saved_config(Path(args.like)) if Path(args.like).is_dir() else get_recipe(args.like)
    if args.seed is not None:
        config = replace(config, train=replace(config.train, seed=args.seed))
    lengths = {"seconds": args.seconds, "updates": args.updates}
    done = pretrain(config, args.data, args.out, **lengths, batch_size=args.batch_size, lr=args.lr)
    print(f"{done:,} updates of {args.batch_size} pictures; {args.out}")


if __name__ == "__main__":
    main()
