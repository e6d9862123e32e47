"""kNN, linear and attentive probes on frozen features, and their low-label curves.

Scikit-learn takes seconds to import, so it is imported where it is needed: models load without it.

Shapes: `N` samples, `F` features; of the attentive probe `B` samples, `T` tokens, `D` width, `H` heads of width
`E = D / H`, `C` classes.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from data2vec2 import rng
from data2vec2.data.reader import Reader
from data2vec2.data.sampler import split_validation
from data2vec2.evaluation.features import Features, LabelledFeatures, Normalise, readable_batches
from data2vec2.method.encoder import Encoder
from data2vec2.training.device import free_memory
from data2vec2.training.optim import learning_rate

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression


@dataclass(frozen=True)
class Curve:
    """Accuracy, 0 to 1, of one probe on one kind of features: mean over seeds and 95 % confidence interval."""

    features: str
    probe: str
    labels: tuple[int, ...]
    """Labels a class."""
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    draws: int
    """Of labels, for each point; of one draw there is no interval."""


def low_label_curve(
    features: str, probe: str, labels: Sequence[int], seeds: Sequence[int], accuracy: Callable[[int, int], float]
) -> Curve:
    """The curve of `accuracy(labels per class, seed)` over `seeds`."""
    rows = [interval([accuracy(count, seed) for seed in seeds]) for count in labels]
    mean, low, high = zip(*rows, strict=True)
    return Curve(features, probe, tuple(labels), mean, low, high, len(seeds))


def draws(count: int, seed: int) -> range:
    """The seeds of `count` draws of labels; another `seed` has none of them."""
    return range(count * seed, count * (seed + 1))


def draw_labels(part: LabelledFeatures, per_class: int, seed: int) -> LabelledFeatures:
    """`per_class` samples of each class, or all of a smaller class. Of one seed, a larger draw contains a smaller."""
    shuffled = rng.permutation(rng.keys(rng.Stream.LABELS, seed), len(part.y))
    drawn = [shuffled[part.y[shuffled] == label][:per_class] for label in np.unique(part.y)]
    return part.select(np.sort(np.concatenate(drawn)))


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and the ends of its 95 % confidence interval by Student's t, kept within 0 to 1; of one value, itself."""
    mean = float(np.mean(values))
    if len(values) == 1:
        return mean, mean, mean
    from scipy import stats

    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, max(0.0, mean - half), min(1.0, mean + half)


Scaling = Callable[[Features], Features]
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
"""Values of scikit-learn's `C` (large: little regularisation) that the linear probe chooses from."""
ITERATIONS = 100
"""Of LBFGS for each of them, each going on from the one before."""
CHOOSING = 2_000
"""Of so many labels one split decides about the strength; of fewer, several (up to ten) do together."""


def knn_accuracy(train: LabelledFeatures, test: LabelledFeatures, neighbours: int = 10) -> float:
    """Accuracy of a kNN classifier: cosine similarity, neighbours weighted by the inverse of their distance."""
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import normalize

    if 0 < np.count_nonzero(real := np.asarray(abs(train.x).sum(axis=1)).ravel() > 0) < len(real):
        train = train.select(np.flatnonzero(real))  # a row of zeros is similar to nothing, yet nearer than most
    classifier = KNeighborsClassifier(min(neighbours, len(train.y)), weights="distance", algorithm="brute")
    return float(classifier.fit(normalize(train.x), train.y).score(normalize(test.x), test.y))


def linear_accuracy(train: LabelledFeatures, test: LabelledFeatures, seed: int = 0) -> float:
    """Accuracy of multinomial logistic regression, its scaling and strength chosen on a fifth of the training part.

    The features are scaled to unit variance in each channel or in each principal direction, whichever does better:
    features whose channels say nearly the same (an untrained network's) need the second, pixels the first. Sparse ones
    are taken as they are. `seed` decides what is split off. With fewer than 20 samples nothing is: unit variance in
    each channel, `C` 1.
    """
    from sklearn.linear_model import LogisticRegression

    tried: dict[tuple[int, float], list[tuple[float, LogisticRegression]]] = {}
    scalings = _scalings(train.x)
    both = [LabelledFeatures(scale(train.x), train.y) for scale in scalings]
    splits = min(10, max(1, CHOOSING // len(train.y)))
    for which, split in product(range(len(both)), range(splits)):
        kept, held = split_validation(train.y, 0.2, seed + split)
        if len(held):
            for strength, accuracy, probe in _path(both[which].select(kept), both[which].select(held)):
                tried.setdefault((which, strength), []).append((accuracy, probe))
    which, probe = 0, LogisticRegression(max_iter=3 * ITERATIONS)
    if tried:
        # Where a path stopped early in one split, what it left out is not chosen.
        complete = {key: found for key, found in tried.items() if len(found) == max(map(len, tried.values()))}
        best = max(complete, key=lambda key: np.mean([accuracy for accuracy, _ in complete[key]]))
        which, probe = best[0], complete[best][0][1]
    return float(fit(probe, both[which]).score(scalings[which](test.x), test.y))


def majority_accuracy(train: LabelledFeatures, test: LabelledFeatures) -> float:
    """Accuracy of always answering the training part's most frequent class."""
    return float((test.y == np.bincount(train.y).argmax()).mean())


def _scalings(x: Features) -> tuple[Scaling, ...]:
    """Centred features with unit variance in each channel, and nearly so in each principal direction of those.

    Sparse ones as they are: they would not stay sparse.
    """
    from scipy.sparse import issparse

    if issparse(x):
        return (lambda x: x,)
    mean, std = x.mean(0), x.std(0)
    std = np.where(std > 1e-6 * std.max(initial=0), std, 1)

    def channels(x: Features) -> Features:
        return np.asarray((x - mean) / std, dtype=np.float32)

    scaled = channels(x)
    variances, directions = np.linalg.eigh(scaled.T @ scaled / len(x))
    # A thousandth of the mean keeps directions that hold only noise small.
    turn = (directions / np.sqrt(np.maximum(variances, 0) + 1e-3 * variances.mean() + 1e-12)).astype(np.float32)
    return channels, lambda x: channels(x) @ turn


def _path(train: LabelledFeatures, held: LabelledFeatures) -> Iterator[tuple[float, float, LogisticRegression]]:
    """Strength, accuracy on `held` and the fitted probe, strongest regularisation first, until it gets worse twice."""
    from sklearn.linear_model import LogisticRegression

    probe = LogisticRegression(warm_start=True, max_iter=ITERATIONS)
    accuracies: list[float] = []
    for strength in STRENGTHS:
        fit(probe.set_params(C=strength), train)
        accuracies.append(float(probe.score(held.x, held.y)))
        yield strength, accuracies[-1], copy.deepcopy(probe)
        if len(accuracies) > 2 and max(accuracies[-2:]) < max(accuracies[:-2]):
            return


def fit(probe: LogisticRegression, part: LabelledFeatures) -> LogisticRegression:
    """Fit without a warning where it stops early: the number of iterations is part of the probe."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return probe.fit(part.x, part.y)


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
        normalise: Normalise,
        device: torch.device,
        free: int | None = None,
    ) -> None:
        """`samples` must have labels; the encoder should be in eval mode. `free` is the free memory in bytes."""
        self.encoder, self.reader, self.samples = encoder, reader, samples
        self.normalise, self.device = normalise, device
        tokens = math.prod(reader.grid(reader.eval_batch(samples[:1]).inputs))
        needed = 4 * len(samples) * tokens * encoder.config.embed_dim
        self.stored: tuple[Tensor, Tensor] | None = None
        if needed <= (free_memory(device) if free is None else free) / 4:
            x, y = zip(*self._encoded(samples), strict=True)
            self.stored = torch.cat(x), torch.cat(y)

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
        for batch in readable_batches(self.reader, np.split(samples, range(BATCH, len(samples), BATCH))):
            features = self.encoder(batch.given(self.normalise, self.device)[0]).features_NTD
            yield features.float(), torch.from_numpy(batch.labels_B).to(self.device)


def attentive_accuracy(train: Patches, test: Patches, seed: int = 0) -> float:
    """Accuracy of an attentive probe, trained by AdamW; `seed` decides initialisation and order."""
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
