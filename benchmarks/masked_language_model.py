"""A masked language model (Devlin et al., 2019) of the same encoder: `masked_language_model.py DATA OUT`.

15 % of a block's tokens are to be told from the rest; of these 80 % are hidden behind `<mask>`, 10 % replaced by random
tokens and 10 % left. Tokenizer, blocks, split and seed are those of a data2vec2 recipe or run. One process, one thread.
Writes OUT, an exported model for `data2vec2 evaluate OUT DATA`.

Shapes: `B` samples, `T` tokens, `U` tokens to tell, `D` width, `V` entries of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import rival  # first: it makes the package importable
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data2vec2.config.model import MaskConfig, ModelConfig
from data2vec2.config.run import RunConfig
from data2vec2.data.batch import Batches
from data2vec2.errors import UserError
from data2vec2.interop.folder import export_model
from data2vec2.method.masking import complement, take
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.fields import build_encoder
from data2vec2.modalities.text.tokenizer import MASK, load_tokenizer
from data2vec2.tasks.pretrain import Masks

MASKS = MaskConfig(num_masks=1, mask_ratio=0.15, adjust=0.0, block_length=1)
HIDDEN, REPLACED = 0.8, 0.1
"""Shares of the tokens to tell."""
BATCH_SIZE, LR = 16, 2e-3
"""Blocks a step; peak learning rate. LOG.md says how they were chosen."""


class MaskedLanguageModel(nn.Module):
    """Encoder, a layer, and the embeddings once more as the classifier of tokens."""

    def __init__(self, config: ModelConfig, mask_id: int) -> None:
        super().__init__()
        dim, vocabulary = config.encoder.embed_dim, config.modality.vocab_size
        self.mask_id, self.vocabulary = mask_id, vocabulary
        self.encoder = build_encoder(config)
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim))
        self.bias_V = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, ids_BT: Tensor, asked_BU: Tensor) -> Tensor:
        """Cross-entropy of the tokens at the places `asked_BU`."""
        true_BU, chance_BU = ids_BT.gather(1, asked_BU), torch.rand(asked_BU.shape)
        shown_BU = torch.where(chance_BU < HIDDEN, self.mask_id, true_BU)
        random_BU = torch.randint_like(true_BU, self.vocabulary)
        shown_BU = torch.where(chance_BU > 1 - REPLACED, random_BU, shown_BU)
        encoded = self.encoder(ids_BT.scatter(1, asked_BU, shown_BU))
        embeddings_VD = self.encoder.modality.stem.tokens.weight
        scores_BUV = self.head(take(encoded.features_NTD, asked_BU)) @ embeddings_VD.T + self.bias_V
        return F.cross_entropy(scores_BUV.flatten(0, 1), true_BU.flatten())


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
    mask_id = load_tokenizer(Path(config.data.tokenizer)).backend.token_to_id(MASK)
    if mask_id is None:
        raise UserError(f"the tokenizer {config.data.tokenizer} has no {MASK}")
    batches = Batches(reader, reader.order(batch_size), [Masks(MASKS, reader)])
    torch.manual_seed(config.train.seed)
    shape = replace(config.model, modality=replace(config.model.modality, token_scale=1.0))  # as masked models have it
    model = MaskedLanguageModel(shape, mask_id)

    def loss(step: int) -> Tensor:
        batch = batches[step]
        return model(batch.inputs, complement(batch.keep_ids_NK, batch.inputs.shape[1]))

    done = rival.train(model, loss, seconds=seconds, updates=updates, lr=lr, say=say)
    card = f"Encoder of a masked language model: {done:,} updates of {batch_size} blocks; a baseline of data2vec2.\n"
    export_model(model.encoder.eval(), ModelInfo(model=shape, data=config.data), out, card)
    return done


def main() -> None:
    """Parse and run."""
    rival.main(pretrain, __doc__, "text_tiny", BATCH_SIZE, LR)


if __name__ == "__main__":
    main()
