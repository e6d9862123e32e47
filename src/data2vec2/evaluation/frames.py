"""What single tokens know: a linear probe of the phone that is said at each of them.

Shapes: `T` tokens of a recording, `D` width, `F` labelled tokens of all recordings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from data2vec2.data.audio import AudioReader
from data2vec2.data.phones import Alignment, frame_labels
from data2vec2.errors import UserError
from data2vec2.evaluation.features import Inputs, Note, readable_batches, token_features
from data2vec2.evaluation.mel import log_mel
from data2vec2.evaluation.probes import Part, fit, majority_accuracy
from data2vec2.models.encoder import Encoder

ITERATIONS = 60
"""Of LBFGS."""

Tokens = Callable[[Inputs], Sequence[NDArray[np.float32]]]
"""Features `TD` of each recording of a batch."""


@dataclass(frozen=True)
class PhoneProbe:
    """Recordings with phone alignments, to learn from and to score on."""

    train: AudioReader
    test: AudioReader
    alignments: Mapping[str, Alignment]
    """By the name of the recording; those without are left out."""

    def accuracy(self, encoder: Encoder | None, device: torch.device, note: Note = lambda _: None) -> float:
        """Share of tokens whose phone is told from the encoder's output (none: from their log-mel energies).

        Multinomial logistic regression on standardised features, `C` 1. The encoder should be in eval mode.
        Raises `UserError` if there are too few phones.
        """
        train, test = self._parts(encoder, device, note)
        scaler, probe = StandardScaler().fit(train.x), LogisticRegression(max_iter=ITERATIONS)
        fit(probe, Part(scaler.transform(train.x), train.y))
        return float(probe.score(scaler.transform(test.x), test.y))

    def majority(self, device: torch.device) -> float:
        """Accuracy of always answering the most frequent phone."""
        return majority_accuracy(*self._parts(None, device))

    def _parts(self, encoder: Encoder | None, device: torch.device, note: Note = lambda _: None) -> tuple[Part, Part]:
        """Tokens to learn from and to score on; `UserError` if a probe can learn nothing from them."""
        train, test = (self._tokens(reader, encoder, device, note) for reader in (self.train, self.test))
        if len(np.unique(train.y)) < 2 or not len(test.y):
            raise UserError(
                f"of the recordings that could be read, {len(np.unique(train.y))} phones are there to learn from and "
                f"{len(test.y):,} tokens to score on; the probe of phones needs at least two phones and one token"
            )
        return train, test

    def _tokens(
        self, reader: AudioReader, encoder: Encoder | None, device: torch.device, note: Note = lambda _: None
    ) -> Part:
        """Features and phones of all tokens that are neither silence nor outside the alignment."""
        config, names = reader.config if encoder else replace(reader.config, stem="mel"), reader.records.names
        features = _of_encoder(encoder, device) if encoder else _of_mel(config.sample_rate)
        centre_s, hop_s = config.receptive_field / 2 / config.sample_rate, config.hop / config.sample_rate
        samples = np.array([place for place, name in enumerate(names) if name in self.alignments], dtype=np.int64)
        x_FD, y_F = [], []
        for batch in readable_batches(reader, samples, note):
            for sample, row_TD in zip(batch.samples_B.tolist(), features(batch), strict=True):
                labels_T = frame_labels(self.alignments[names[sample]], len(row_TD), hop_s, centre_s)
                x_FD.append(row_TD[labels_T >= 0])
                y_F.append(labels_T[labels_T >= 0])
        return Part(np.concatenate(x_FD), np.concatenate(y_F)) if x_FD else Part.none()


def _of_encoder(encoder: Encoder, device: torch.device) -> Tokens:
    """The encoder's output for each real token."""

    def features(batch: Inputs) -> list[NDArray[np.float32]]:
        lengths_B = None if batch.lengths_B is None else batch.lengths_B.to(device)
        return token_features(encoder, batch.inputs.to(device), lengths_B)

    return features


def _of_mel(sample_rate: int) -> Tokens:
    """Log-mel energies of each token's two frames."""

    def features(batch: Inputs) -> list[NDArray[np.float32]]:
        lengths = [batch.inputs.shape[1]] * len(batch.inputs) if batch.lengths_B is None else batch.lengths_B.tolist()
        waves = batch.inputs.numpy()
        return [log_mel(wave[None, :length], sample_rate)[0] for wave, length in zip(waves, lengths, strict=True)]

    return features
