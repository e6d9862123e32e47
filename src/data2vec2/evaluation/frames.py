"""What single tokens know: a linear probe of the phone that is said at each of them.

Shapes: `R` recordings, `T` tokens of one, `D` width, `F` labelled tokens of all recordings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from data2vec2.data.reader import Reader
from data2vec2.evaluation.features import Inputs, Note, readable_batches
from data2vec2.evaluation.probes import Part, fit
from data2vec2.models.encoder import Encoder

ITERATIONS = 60
"""Of LBFGS."""

Tokens = Callable[[Inputs], Sequence[NDArray[np.float32]]]
"""Features `TD` of each recording of a batch."""


def token_features(encoder: Encoder, device: torch.device) -> Tokens:
    """The encoder's output for each token. The encoder should be in eval mode."""

    @torch.no_grad()
    def features(batch: Inputs) -> list[NDArray[np.float32]]:
        lengths_B = None if batch.lengths_B is None else batch.lengths_B.to(device)
        encoded = encoder(batch.inputs.to(device), lengths_B=lengths_B)
        rows = encoded.features_NTD.float().cpu().numpy()
        if encoded.tokens.padding_BT is None:
            return list(rows)
        real_B = (~encoded.tokens.padding_BT).sum(1).tolist()
        return [row[:count] for row, count in zip(rows, real_B, strict=True)]

    return features


def labelled_tokens(
    features: Tokens,
    reader: Reader,
    samples: NDArray[np.int64],
    labels_RT: Sequence[NDArray[np.int64]],
    note: Note = lambda _: None,
) -> Part:
    """Features and labels of the tokens that have one (-1: none), of all recordings one after the other.

    `labels_RT` has as many labels of each sample as it has tokens, or a few more or less at the end.
    """
    x_FD, y_F, place = [], [], 0
    for batch in readable_batches(reader, samples, note):
        for index, row_TD in zip(batch.samples_B.tolist(), features(batch), strict=True):
            while samples[place] != index:  # some could not be read
                place += 1
            labels_T = labels_RT[place][: len(row_TD)]
            known = labels_T >= 0
            x_FD.append(row_TD[: len(labels_T)][known])
            y_F.append(labels_T[known])
    return Part(np.concatenate(x_FD), np.concatenate(y_F))


def token_accuracy(train: Part, test: Part) -> float:
    """Accuracy of multinomial logistic regression on standardised features, `C` 1."""
    scaler = StandardScaler().fit(train.x)
    probe = LogisticRegression(max_iter=ITERATIONS)
    fit(probe, Part(scaler.transform(train.x), train.y))
    return float(probe.score(scaler.transform(test.x), test.y))
