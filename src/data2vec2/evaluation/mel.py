"""Log-mel spectra: what a probe can do with recordings without a model.

Shapes: `B` recordings, `S` samples, `T` tokens of 20 ms, `E` mel bins.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data2vec2.data.reader import Reader
from data2vec2.evaluation.features import Inputs, Note, features_of
from data2vec2.evaluation.probes import Part
from data2vec2.nn.stems import MelStem

BINS = 40


def log_mel(waveforms_BS: NDArray[np.floating[Any]], sample_rate: int) -> NDArray[np.float32]:
    """Log-mel energies of each token's two 10 ms frames, one after the other: `B x T x 2E`, what the mel stem sees."""
    stem = MelStem(sample_rate, BINS, sample_rate // 40, sample_rate // 100, 1)
    return stem.spectra(torch.from_numpy(np.asarray(waveforms_BS, dtype=np.float32))).numpy()


def mel_statistics(reader: Reader, samples: NDArray[np.int64], sample_rate: int, note: Note = lambda _: None) -> Part:
    """Mean and deviation of each log-mel bin over each recording, with labels."""

    def statistics(batch: Inputs) -> NDArray[np.float32]:
        rows = []
        for place, waveform_S in enumerate(batch.inputs.numpy()):
            length = len(waveform_S) if batch.lengths_B is None else int(batch.lengths_B[place])
            frames = log_mel(waveform_S[None, :length], sample_rate).reshape(-1, BINS)
            rows.append(np.concatenate([frames.mean(0), frames.std(0)]))
        return np.stack(rows)

    return features_of(statistics, reader, samples, note)
