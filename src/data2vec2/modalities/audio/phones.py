"""Phones: which is said when, log-mel spectra, and a linear probe of the phone at each token.

Shapes: `B` recordings, `S` samples, `T` tokens of a recording, `E` mel bins, `D` width, `F` labelled tokens of all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data2vec2.data.reader import Reader
from data2vec2.data.tables import read_table
from data2vec2.errors import UsageError, UserError
from data2vec2.evaluation.features import Inputs, LabelledFeatures, Note, features_of, readable_batches, token_features
from data2vec2.evaluation.probes import fit, majority_accuracy
from data2vec2.method.encoder import Encoder
from data2vec2.modalities.audio.model import MelStem
from data2vec2.modalities.audio.reader import AudioReader

SILENCE = "SIL"
# fmt: off
PHONES = (
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH", "IH", "IY", "JH", "K",
    "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH",
)
# fmt: on
"""The 39 phones of the CMU pronouncing dictionary, without stress; a phone's label is its place here."""
_FRAME_S = 0.01
_SHIFT_S = 0.0078  # aligned frames are windows of 25.6 ms: half of a window less half of a frame


@dataclass(frozen=True)
class Alignment:
    """One recording's phones: start and end in seconds, phone or `SILENCE`; in order, without gaps."""

    name: str
    phones: tuple[tuple[float, float, str], ...]


def read_phones(path: Path) -> tuple[Alignment, ...]:
    """Alignments in a CSV file: columns `file_name` and `phones`, such as "SIL:12 W:8" in frames of 10 ms.

    Raises `UserError` for a file that is no such table.
    """
    found = []
    for place, row in enumerate(read_table(path, path.name, strict=True).rows(), 1):
        missing = [column for column in ("file_name", "phones") if not row.get(column)]
        if missing:
            raise UserError(f"{path}: row {place} has no {' and no '.join(missing)}; columns are file_name and phones")
        try:
            found.append(Alignment(row["file_name"], _spans(row["phones"])))
        except ValueError as error:
            raise UserError(
                f"{path}: row {place} ({row['file_name']}): {error}; phones are PHONE:FRAMES with spaces between, as "
                f"in {SILENCE}:12 W:8, where PHONE is {SILENCE} or one of {', '.join(PHONES)}, and FRAMES of 10 ms are "
                "1 or more"
            ) from error
    return tuple(found)


def phones_beside(data: Path) -> dict[str, Alignment]:
    """Alignments of DATA/phones.csv by the recordings' names; none where there is no such file, errors as above."""
    path = data / "phones.csv"
    return {alignment.name: alignment for alignment in read_phones(path)} if path.is_file() else {}


def frame_labels(
    alignment: Alignment, num_frames: int, frame_s: float = 0.02, offset_s: float = 0.0125
) -> NDArray[np.int64]:
    """Places in `PHONES` of a model's tokens; -1 for silence and outside the alignment.

    A token's label is the phone at its centre, which for token t is `t * frame_s + offset_s` seconds. The defaults fit
    tokens of 400 samples every 320 at 16 kHz.
    """
    starts = np.array([start for start, _, _ in alignment.phones])
    end = alignment.phones[-1][1]
    codes = np.array([PHONES.index(phone) if phone != SILENCE else -1 for _, _, phone in alignment.phones])
    centres = np.arange(num_frames) * frame_s + offset_s
    place = np.searchsorted(starts, centres, side="right") - 1
    return np.where((place >= 0) & (centres < end), codes[place], -1)


def _spans(runs: str) -> tuple[tuple[float, float, str], ...]:
    """Seconds of "PHONE:FRAMES" one after another; `UsageError` for what is none."""
    pairs = [run.partition(":") for run in runs.split()]
    for phone, colon, count in pairs:
        if phone not in (*PHONES, SILENCE) or not count.isdecimal() or not int(count):
            raise UsageError(f"{phone}{colon}{count[:10]} is not understood")
    bounds = np.cumsum([0, *(int(count) for _, _, count in pairs)]) * _FRAME_S + _SHIFT_S
    return tuple(
        (float(start), float(end), phone) for start, end, (phone, _, _) in zip(bounds, bounds[1:], pairs, strict=False)
    )


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
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        train, test = self._parts(encoder, device, note)
        scaler, probe = StandardScaler().fit(train.x), LogisticRegression(max_iter=ITERATIONS)
        fit(probe, LabelledFeatures(scaler.transform(train.x), train.y))
        return float(probe.score(scaler.transform(test.x), test.y))

    def majority(self, device: torch.device) -> float:
        """Accuracy of always answering the most frequent phone."""
        return majority_accuracy(*self._parts(None, device))

    def _parts(
        self, encoder: Encoder | None, device: torch.device, note: Note = lambda _: None
    ) -> tuple[LabelledFeatures, LabelledFeatures]:
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
    ) -> LabelledFeatures:
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
        return LabelledFeatures(np.concatenate(x_FD), np.concatenate(y_F)) if x_FD else LabelledFeatures.none()


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


BINS = 40


def log_mel(waveforms_BS: NDArray[np.floating[Any]], sample_rate: int) -> NDArray[np.float32]:
    """Log-mel energies of each token's two 10 ms frames, one after the other: `B x T x 2E`, what the mel stem sees."""
    stem = MelStem(sample_rate, BINS, sample_rate // 40, sample_rate // 100, 1)
    return stem.spectra(torch.from_numpy(np.asarray(waveforms_BS, dtype=np.float32))).numpy()


def mel_statistics(
    reader: Reader, samples: NDArray[np.int64], sample_rate: int, note: Note = lambda _: None
) -> LabelledFeatures:
    """Mean and deviation of each log-mel bin over each recording, with labels."""

    def statistics(batch: Inputs) -> NDArray[np.float32]:
        rows = []
        for place, waveform_S in enumerate(batch.inputs.numpy()):
            length = len(waveform_S) if batch.lengths_B is None else int(batch.lengths_B[place])
            frames = log_mel(waveform_S[None, :length], sample_rate).reshape(-1, BINS)
            rows.append(np.concatenate([frames.mean(0), frames.std(0)]))
        return np.stack(rows)

    return features_of(statistics, reader, samples, note)
