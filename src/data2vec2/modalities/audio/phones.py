"""Phones: which is said when, log-mel spectra, and a linear probe of the phone at each token.

Shapes: `B` recordings, `S` samples, `T` tokens of a recording, `E` mel bins, `D` width, `F` labelled tokens of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data2vec2.data.tables import read_table
from data2vec2.errors import UsageError, UserError
from data2vec2.evaluation.features import Inputs, LabelledFeatures, Note, readable_batches, token_features
from data2vec2.evaluation.intervals import Interval, of_ratio
from data2vec2.evaluation.probes import fit
from data2vec2.method.encoder import Encoder
from data2vec2.modalities.audio.config import AudioConfig
from data2vec2.modalities.audio.model import MelStem
from data2vec2.modalities.audio.reader import AudioReader

SILENCE = "SIL"
PHONES = (
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH", "IH", "IY", "JH", "K",
    "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH",
)  # fmt: skip
"""The 39 phones of the CMU pronouncing dictionary, without stress; a phone's label is its place here."""
_FRAME_S = 0.01
_SHIFT_S = 0.0078  # aligned frames are windows of 25.6 ms: half of a window less half of a frame


Alignment = tuple[tuple[float, float, str], ...]
"""One recording's phones: start and end in seconds, phone or `SILENCE`; in order, without gaps."""


def read_phones(path: Path) -> dict[str, Alignment]:
    """Alignments in a CSV file by `file_name`, from `phones` ("SIL:12 W:8", frames of 10 ms); raises `UserError`."""
    found = {}
    for place, row in enumerate(read_table(path, path.name, strict=True).rows(), 1):
        missing = [column for column in ("file_name", "phones") if not (row.get(column) or "").strip()]
        if missing:
            raise UserError(f"{path}: row {place} has no {' and no '.join(missing)}; columns are file_name and phones")
        try:
            found[row["file_name"]] = _alignment(row["phones"])
        except ValueError as error:
            raise UserError(
                f"{path}: row {place} ({row['file_name']}): {error}; phones are PHONE:FRAMES with spaces between, as "
                f"in {SILENCE}:12 W:8, where PHONE is {SILENCE} or one of {', '.join(PHONES)}, and FRAMES of 10 ms are "
                "1 or more"
            ) from error
    return found


def _alignment(runs: str) -> Alignment:
    """Seconds of "PHONE:FRAMES" one after another; `UsageError` for what is none."""
    pairs = [run.partition(":") for run in runs.split()]
    for phone, colon, count in pairs:
        if phone not in (*PHONES, SILENCE) or not count.isdecimal() or not int(count):
            raise UsageError(f"{phone}{colon}{count[:10]} is not understood")
    bounds = (np.cumsum([0, *(int(count) for _, _, count in pairs)]) * _FRAME_S + _SHIFT_S).tolist()
    return tuple(zip(bounds, bounds[1:], [phone for phone, _, _ in pairs], strict=False))


def phones_beside(data: str) -> dict[str, Alignment]:
    """Alignments of DATA/phones.csv; none where there is no such file, errors as above."""
    path = Path(data) / "phones.csv"
    return read_phones(path) if path.is_file() else {}


def frame_labels(
    alignment: Alignment, num_frames: int, frame_s: float = 0.02, offset_s: float = 0.0125
) -> NDArray[np.int64]:
    """Places in `PHONES` of a model's tokens; -1 for silence and outside the alignment.

    A token's label is the phone at its centre, which for token t is `t * frame_s + offset_s` seconds.
    """
    starts, ends, phones = zip(*alignment, strict=True)
    codes = np.array([PHONES.index(phone) if phone != SILENCE else -1 for phone in phones])
    centres = np.arange(num_frames) * frame_s + offset_s
    place = np.searchsorted(starts, centres, side="right") - 1
    return np.where((place >= 0) & (centres < ends[-1]), codes[place], -1)


ITERATIONS = 60
"""Of LBFGS."""


@dataclass(frozen=True)
class PhoneProbe:
    """Recordings with phone alignments, to learn from and to score on."""

    train: AudioReader
    test: AudioReader
    alignments: Mapping[str, Alignment]
    """By the name of the recording; those without are left out."""

    def accuracy(
        self, encoder: Encoder | None, device: torch.device, note: Note = lambda _: None
    ) -> tuple[float, Interval]:
        """Share of tokens whose phone is told from the encoder's output (none: from their log-mel energies).

        By logistic regression on standardised features, `C` 1; with its interval over recordings. `UserError` if there
        are too few phones.
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        train, test, counts_B = self._parts(encoder, device, note)
        probe = fit(make_pipeline(StandardScaler(), LogisticRegression(max_iter=ITERATIONS)), train)
        return _share(probe.predict(test.x) == test.y, counts_B)

    def majority(self, device: torch.device) -> tuple[float, Interval]:
        """Accuracy of always answering the most frequent phone, and its interval."""
        train, test, counts_B = self._parts(None, device, lambda _: None)
        return _share(test.y == np.bincount(train.y).argmax(), counts_B)

    def _parts(
        self, encoder: Encoder | None, device: torch.device, note: Note
    ) -> tuple[LabelledFeatures, LabelledFeatures, list[int]]:
        """Tokens to learn from and to score on, and how many of these each recording has; `UserError` for too few."""
        train, _ = self._tokens(self.train, encoder, device, note)
        test, counts_B = self._tokens(self.test, encoder, device, note)
        if (phones := len(np.unique(train.y))) < 2 or not len(test.y):
            raise UserError(
                f"the readable recordings have {phones} phones to learn from and {len(test.y):,} "
                "tokens to score; the phone probe needs at least two phones and one token"
            )
        return train, test, counts_B

    def _tokens(
        self, reader: AudioReader, encoder: Encoder | None, device: torch.device, note: Note
    ) -> tuple[LabelledFeatures, list[int]]:
        """Features and phones of tokens that are neither silence nor outside the alignment, and how many each has."""
        names, rate = reader.records.names, reader.rate
        config = reader.config if encoder else AudioConfig(stem="mel", sample_rate=rate)
        centre_s, hop_s = config.receptive_field / 2 / config.sample_rate, config.hop / config.sample_rate
        samples = np.array([place for place, name in enumerate(names) if name in self.alignments], dtype=np.int64)
        x_FD, y_F = [], []
        for batch in readable_batches(reader, reader.eval_groups(samples), note):
            rows = token_features(encoder, *on_device(batch, device)) if encoder else mels_of(batch, config.sample_rate)
            for sample, row_TD in zip(batch.samples_B.tolist(), rows, strict=True):
                labels_T = frame_labels(self.alignments[names[sample]], len(row_TD), hop_s, centre_s)
                x_FD.append(row_TD[labels_T >= 0])
                y_F.append(labels_T[labels_T >= 0])
        tokens = LabelledFeatures(np.concatenate(x_FD), np.concatenate(y_F)) if x_FD else LabelledFeatures.none()
        return tokens, list(map(len, y_F))


def _share(right_F: NDArray[np.bool_], counts_B: list[int]) -> tuple[float, Interval]:
    """Of tokens that are told right, with the interval over recordings that have so many each."""
    right_B = [int(part.sum()) for part in np.split(right_F, np.cumsum(counts_B)[:-1])]
    return float(right_F.mean()), of_ratio(right_B, counts_B)


def on_device(batch: Inputs, device: torch.device) -> tuple[Tensor, Tensor]:
    """Recordings `BS` and their lengths."""
    assert batch.lengths_B is not None
    return batch.inputs.to(device), batch.lengths_B.to(device)


def log_mel(waveforms_BS: NDArray[np.floating[Any]], sample_rate: int) -> NDArray[np.float32]:
    """Log-mel energies of each token's two 10 ms frames, one after the other: `B x T x 2E`, what the mel stem sees."""
    stem = MelStem(AudioConfig(stem="mel", sample_rate=sample_rate), 1)
    return stem.spectra(torch.from_numpy(np.asarray(waveforms_BS, dtype=np.float32))).numpy()


def mels_of(batch: Inputs, sample_rate: int) -> list[NDArray[np.float32]]:
    """`log_mel` of each recording without what fills it up, `T x 2E`."""
    waves_BS, lengths_B = on_device(batch, torch.device("cpu"))
    pairs = zip(waves_BS.numpy(), lengths_B.tolist(), strict=True)
    return [log_mel(wave_S[None, :length], sample_rate)[0] for wave_S, length in pairs]
