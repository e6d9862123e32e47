"""Attentive probe: a learned query looks at the patches of a frozen model.

Shapes: `B` samples, `T` tokens, `D` width, `H` heads of width `E = D / H`, `C` classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from data2vec2 import rng
from data2vec2.data.reader import Reader
from data2vec2.evaluation.features import readable_batches
from data2vec2.method.encoder import Encoder
from data2vec2.training.device import free_memory
from data2vec2.training.optim import learning_rate

EPOCHS, BATCH = 20, 100
LR, WEIGHT_DECAY = 5e-3, 0.05


class AttentiveProbe(nn.Module):
    """One multi-head cross-attention block whose only query is learned, then a linear layer."""

    def __init__(self, dim: int, num_heads: int, num_classes: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.BatchNorm1d(dim, affine=False)
        self.query = nn.Parameter(torch.randn(dim))
        self.key = nn.Linear(dim, dim, bias=False)  # a bias would add the same to every score
        self.value = nn.Linear(dim, dim)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, tokens_BTD: Tensor) -> Tensor:
        """Logits `BC`."""
        x_BTD = self.norm(tokens_BTD.flatten(0, 1)).view_as(tokens_BTD)
        H, D = self.num_heads, x_BTD.shape[-1]
        # With one query, keys and values of single tokens are never needed: the query goes through the key's weights,
        # and the values are made of the H averages of tokens.
        query_HD = torch.einsum("he,hed->hd", self.query.view(H, -1), self.key.weight.view(H, -1, D))
        weights_BHT = (query_HD @ x_BTD.transpose(1, 2) / math.sqrt(D // H)).softmax(-1)
        value_HED = self.value.weight.view(H, -1, D)
        pooled_BD = torch.einsum("bhd,hed->bhe", weights_BHT @ x_BTD, value_HED).flatten(1) + self.value.bias
        logits_BC: Tensor = self.head(pooled_BD)
        return logits_BC


class Patches:
    """Patch features of samples, made once if they fit a quarter of the free memory, else again whenever needed."""

    def __init__(
        self,
        encoder: Encoder,
        reader: Reader,
        samples: NDArray[np.int64],
        normalise: Callable[[Tensor], Tensor],
        device: torch.device,
        free: int | None = None,
    ) -> None:
        """`samples` must have labels; the encoder should be in eval mode. `free` is the free memory in bytes."""
        self.encoder, self.reader, self.samples = encoder, reader, samples
        self.normalise, self.device = normalise, device
        self.stored: tuple[Tensor, Tensor] | None = None
        tokens = math.prod(reader.grid(reader.eval_batch(samples[:1]).inputs))
        needed = 4 * len(samples) * tokens * encoder.config.embed_dim
        if needed <= (free_memory(device) if free is None else free) / 4:
            found = list(self._encoded(samples))
            self.stored = torch.cat([x for x, _ in found]), torch.cat([y for _, y in found])

    def batches(self, order: NDArray[np.int64]) -> Iterator[tuple[Tensor, Tensor]]:
        """Features `BTD` and labels `B` of the samples at the places `order`, on the device."""
        if self.stored is None:
            yield from self._encoded(self.samples[order])
            return
        x, y = self.stored
        order = order[order < len(y)]  # fewer than were asked for, if some can't be read
        for places in torch.split(torch.from_numpy(order).to(self.device), BATCH):
            yield x[places], y[places]

    @torch.no_grad()
    def _encoded(self, samples: NDArray[np.int64]) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in readable_batches(self.reader, samples, size=BATCH):
            features = self.encoder(self.normalise(batch.inputs.to(self.device))).features_NTD
            yield features.float(), torch.from_numpy(batch.labels_B).to(self.device)


def attentive_accuracy(train: Patches, test: Patches, seed: int = 0) -> float:
    """Accuracy of an attentive probe: AdamW, 20 epochs of batches of 100, cosine after one epoch of warm-up.

    `seed` decides initialisation and order.
    """
    config = train.encoder.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = AttentiveProbe(config.embed_dim, config.num_heads, len(train.reader.records.classes)).to(train.device)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    per_epoch, step = math.ceil(len(train.samples) / BATCH), 0
    for epoch in range(EPOCHS):
        order = rng.permutation(rng.keys(rng.Stream.ORDER, seed, epoch), len(train.samples))
        for tokens_BTD, labels_B in train.batches(order):
            # From 1, for at rate 0 nothing would be learned.
            rate = learning_rate(step + 1, peak=LR, warmup=per_epoch, updates=EPOCHS * per_epoch + 1)
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            F.cross_entropy(probe(tokens_BTD), labels_B).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
    probe.eval()
    with torch.no_grad():
        right = [probe(tokens).argmax(1) == labels for tokens, labels in test.batches(np.arange(len(test.samples)))]
    return float(torch.cat(right).float().mean())
