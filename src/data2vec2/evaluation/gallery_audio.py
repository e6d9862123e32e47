"""Recordings and what features know of them: colours of tokens over the spectrogram, neighbours to listen to, a map.

Shapes: `Q` recordings shown, `K` neighbours of each, `R` searched recordings, `S` samples, `T` tokens, `D` width, `E`
mel bins, `P` phones of all shown recordings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data2vec2.data.audio import AudioReader
from data2vec2.data.phones import SILENCE, Alignment
from data2vec2.evaluation.features import readable_batches, token_features
from data2vec2.evaluation.mel import log_mel
from data2vec2.evaluation.similarity import (
    FILE,
    SEARCHED,
    colours,
    map_of,
    nearest,
    shown_samples,
    spread,
    write_arrays,
)
from data2vec2.models.encoder import Encoder

RECORDINGS = 6
NEIGHBOURS = 4
SHOWN_S, NEIGHBOUR_S = 4.0, 3.0
"""So many seconds are shown and can be heard; the page should stay light."""


def write_audio_gallery(
    run_path: Path,
    encoder: Encoder,
    reader: AudioReader,
    samples: NDArray[np.int64],
    alignments: Mapping[str, Alignment],
    device: torch.device,
) -> None:
    """Write `run_path`/gallery.npz, whole or not at all; with fewer than two readable recordings there is none.

    It holds of the recordings shown, from their beginning, `names`, `transcripts` ("": none) and `labels` Q, `clips`
    (QS float16) with `clip_lengths` Q, `spectra` (QT2E), `colours` (QT3 uint8) with `num_tokens` Q, `phone_places` P
    (which recording), `phone_spans` (P2, seconds), `phone_names` P; of neighbours `neighbour_names`,
    `neighbour_labels`, `neighbour_cosines`, `neighbour_clip_lengths` QK and `neighbour_clips` QKS; `sample_rate`,
    `hop_s`, and the map as for pictures. Labels are indices into `classes`, or -1. `alignments` are by name. The
    encoder should be in eval mode.
    """
    features, labels, read = [], [], []
    for batch in readable_batches(reader, samples[spread(len(samples), SEARCHED)]):
        lengths_B = None if batch.lengths_B is None else batch.lengths_B.to(device)
        features += [row_TD.mean(0) for row_TD in token_features(encoder, batch.inputs.to(device), lengths_B)]
        labels.append(batch.labels_B)
        read.append(batch.samples_B)
    if len(features) < 2:
        (run_path / FILE).unlink(missing_ok=True)
        return
    features_RD, labels_R, samples_R = np.stack(features), np.concatenate(labels), np.concatenate(read)
    shown_Q = shown_samples(labels_R, RECORDINGS)
    near_QK, cosines_QK = nearest(features_RD, shown_Q, NEIGHBOURS)
    near_clips, near_lengths = _clips([reader.whole(int(place)) for place in samples_R[near_QK].ravel()], reader)
    names = [reader.records.names[place] for place in samples_R[shown_Q].tolist()]
    texts = reader.records.texts
    arrays: dict[str, Any] = {
        "names": np.array(names, dtype=np.str_),
        "transcripts": np.array([(texts[place] if texts else None) or "" for place in samples_R[shown_Q]], np.str_),
        "labels": labels_R[shown_Q],
        **_pictures([reader.whole(place) for place in samples_R[shown_Q].tolist()], encoder, reader, device),
        **_phones([alignments.get(name) for name in names]),
        "neighbour_names": np.array([[reader.records.names[i] for i in row] for row in samples_R[near_QK]], np.str_),
        "neighbour_labels": labels_R[near_QK],
        "neighbour_cosines": cosines_QK,
        "neighbour_clips": near_clips.reshape(*near_QK.shape, -1),
        "neighbour_clip_lengths": near_lengths.reshape(near_QK.shape),
        "sample_rate": reader.config.sample_rate,
        "hop_s": reader.config.hop / reader.config.sample_rate,
        **map_of(features_RD, labels_R, reader.records.classes),
    }
    write_arrays(run_path, arrays)


def _clips(
    waves: Sequence[NDArray[np.float32]], reader: AudioReader, seconds: float = NEIGHBOUR_S
) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """The beginnings of recordings with zeros behind the shorter ones, and their lengths."""
    lengths = np.array([min(len(wave), int(seconds * reader.config.sample_rate)) for wave in waves])
    clips = np.zeros((len(waves), lengths.max()), dtype=np.float16)
    for clip, wave, length in zip(clips, waves, lengths.tolist(), strict=True):
        clip[:length] = wave[:length]
    return clips, lengths


def _pictures(
    waves: Sequence[NDArray[np.float32]], encoder: Encoder, reader: AudioReader, device: torch.device
) -> dict[str, NDArray[Any]]:
    """Clips, spectrograms, and colours of the tokens, which are features in the context of the whole recording."""
    clips, lengths = _clips(waves, reader, SHOWN_S)
    spectra, features = [], []
    for wave, length in zip(waves, lengths.tolist(), strict=True):
        (row_TD,) = token_features(encoder, torch.from_numpy(wave)[None].to(device), None)
        mel_TE = log_mel(wave[None], reader.config.sample_rate)[0]
        tokens = min(reader.config.num_tokens(length), len(mel_TE), len(row_TD))
        spectra.append(mel_TE[:tokens])
        features.append(row_TD[:tokens])
    counts = np.array([len(rows) for rows in features])
    flat_T3 = colours(np.concatenate(features))
    colours_QT3 = np.zeros((len(waves), counts.max(), 3), dtype=np.uint8)
    spectra_QTE = np.zeros((len(waves), counts.max(), spectra[0].shape[1]), dtype=np.float16)
    for place, (start, count) in enumerate(zip(np.cumsum(counts) - counts, counts, strict=True)):
        colours_QT3[place, :count] = flat_T3[start : start + count]
        spectra_QTE[place, :count] = spectra[place]
    return {
        "clips": clips,
        "clip_lengths": lengths,
        "spectra": spectra_QTE,
        "colours": colours_QT3,
        "num_tokens": counts,
    }


def _phones(alignments: Sequence[Alignment | None]) -> dict[str, NDArray[Any]]:
    """What is said in the seconds shown, without silence."""
    rows = [
        (place, start, min(end, SHOWN_S), phone)
        for place, alignment in enumerate(alignments)
        for start, end, phone in (alignment.phones if alignment else ())
        if phone != SILENCE and start < SHOWN_S
    ]
    return {
        "phone_places": np.array([place for place, *_ in rows], dtype=np.int64),
        "phone_spans": np.array([(start, end) for _, start, end, _ in rows], dtype=np.float64).reshape(-1, 2),
        "phone_names": np.array([phone for *_, phone in rows], dtype=np.str_),
    }
