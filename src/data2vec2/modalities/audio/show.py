"""What a report shows of recordings: spectrograms with masks, colours and phones, neighbours, and clips to listen to.

Shapes: `Q` recordings shown, `K` neighbours of each, `R` searched recordings, `S` samples, `T` tokens, `D` width, `E`
mel bins, `P` phones of all shown recordings, `N` recordings, `M` masks. A token is a column of 20 ms here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from numpy.typing import NDArray

from data2vec2.data.reader import padded
from data2vec2.evaluation.features import readable_batches, token_features
from data2vec2.evaluation.scores import Samples
from data2vec2.evaluation.similarity import FILE, NEIGHBOURS, SEARCHED, arranged, colours, spread, write_arrays
from data2vec2.method.encoder import Encoder
from data2vec2.modalities.audio.phones import SILENCE, Alignment, log_mel, on_device
from data2vec2.modalities.audio.reader import AudioReader
from data2vec2.modalities.show import Arrays, Show

RECORDINGS = 6
SHOWN_S, NEIGHBOUR_S = 4.0, 3.0
"""So many seconds are shown and can be heard; the page should stay light."""


class AudioShow(Show):
    """Spectrograms with masks, colours of tokens and phones, and recordings to listen to."""

    template = ("data2vec2.modalities.audio", "audio.html.j2")
    sample = {  # noqa: RUF012
        "name": "names",
        "transcript": "transcripts",
        "clip": "clips",
        "length": "clip_lengths",
        "picture": "spectra",
        "colours": "colours",
        "tokens": "num_tokens",
    }
    neighbour = {"name": "neighbour_names", "clip": "neighbour_clips", "length": "neighbour_clip_lengths"}  # noqa: RUF012

    def masks(self, arrays: Arrays) -> dict[str, Any]:
        """Recordings with their spectrogram and, by mask, which of its columns the student hears."""
        seen_NMT, counts = self.seen(arrays["keep_ids"], int(arrays["num_tokens"]))
        rate, samples = int(arrays["sample_rate"]), []
        columns = (arrays[key] for key in ("names", "waveforms", "spectra"))
        for name, clip, spectrum_TE, seen_MT in zip(*columns, seen_NMT, strict=True):
            picture = spectrogram(spectrum_TE)
            seen = np.broadcast_to(seen_MT.repeat(2, axis=1)[:, None], (len(seen_MT), *picture.shape[:2]))
            samples.append({"name": name, "clip": clip, "picture": picture, "seen": seen})
        seconds = arrays["waveforms"].shape[1] / rate
        return {"samples": samples, "sample_rate": rate, "seconds": seconds, **counts}

    def gallery(self, arrays: Arrays) -> dict[str, Any]:
        """Recordings, each with its length in seconds and in percent of the longest, and its phones."""
        shown, seconds_N = super().gallery(arrays), arrays["num_tokens"] * float(arrays["hop_s"])
        phones = [arrays[f"phone_{key}"].tolist() for key in ("places", "spans", "names")]
        for place, (item, seconds) in enumerate(zip(shown["samples"], seconds_N.tolist(), strict=True)):
            tokens = item["tokens"]
            item |= {
                "picture": spectrogram(item["picture"][:tokens]),
                "colours": item["colours"][None, :tokens],
                "seconds": seconds,
                "share": 100 * seconds / seconds_N.max(),
                "phones": [  # with place and width in percent of what is shown
                    (name, 100 * start / seconds, 100 * (min(end, seconds) - start) / seconds)
                    for owner, (start, end), name in zip(*phones, strict=True)
                    if owner == place and start < seconds
                ],
            }
            for sound in (item, *item["neighbours"]):
                sound["clip"] = sound["clip"][: sound["length"]]
        return {**shown, "sample_rate": int(arrays["sample_rate"])}


def write_audio_gallery(
    run: Path, encoder: Encoder, samples: Samples, alignments: Mapping[str, Alignment], device: torch.device
) -> None:
    """Write `run`/gallery.npz by an encoder in eval mode; with fewer than two readable recordings there is none.

    Beside the arrays of any gallery it holds of the recordings shown, from their beginning, `names` and `transcripts`
    ("": none) Q, `clips` (QS float16) with `clip_lengths` Q, `spectra` (QT2E), `colours` (QT3 uint8) with `num_tokens`
    Q, `phone_places` P (which recording), `phone_spans` (P2, seconds), `phone_names` P; of neighbours
    `neighbour_names`, `neighbour_clip_lengths` QK and `neighbour_clips` QKS; `sample_rate` and `hop_s`.
    """
    reader, chosen = samples
    assert isinstance(reader, AudioReader)
    chosen = chosen if len(chosen) else np.arange(len(reader.records))
    features, labels, read = [], [], []
    for batch in readable_batches(reader, reader.eval_groups(chosen[spread(len(chosen), SEARCHED)])):
        features += [row_TD.mean(0) for row_TD in token_features(encoder, *on_device(batch, device))]
        labels.append(batch.labels_B)
        read.append(batch.samples_B)
    if len(features) < 2:
        (run / FILE).unlink(missing_ok=True)
        return
    records, samples_R = reader.records, np.concatenate(read)
    known = np.stack(features), np.concatenate(labels), records.classes
    shown_Q, near_QK, arrays = arranged(*known, RECORDINGS, NEIGHBOURS)
    shown, near = samples_R[shown_Q].tolist(), samples_R[near_QK]
    near_clips, near_lengths = _clips(reader, near.ravel().tolist(), NEIGHBOUR_S)
    arrays |= {
        "names": np.array([records.names[place] for place in shown], np.str_),
        "transcripts": np.array([(records.texts[place] if records.texts else None) or "" for place in shown], np.str_),
        **_pictures(reader, shown, encoder, device),
        **_phones([alignments.get(records.names[place], ()) for place in shown]),
        "neighbour_names": np.array([[records.names[place] for place in row] for row in near.tolist()], np.str_),
        "neighbour_clips": near_clips.reshape(*near.shape, -1),
        "neighbour_clip_lengths": near_lengths.reshape(near.shape),
        "sample_rate": reader.rate,
        "hop_s": 2 * (reader.rate // 100) / reader.rate,
    }
    write_arrays(run, "audio", arrays)


def _clips(reader: AudioReader, places: list[int], seconds: float) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The beginnings of recordings with zeros behind the shorter ones, and their lengths."""
    return padded([reader.whole(place)[: int(seconds * reader.rate)] for place in places], 0, np.float16)


def _pictures(
    reader: AudioReader, places: list[int], encoder: Encoder, device: torch.device
) -> dict[str, NDArray[Any]]:
    """Clips, spectrograms, and colours of the tokens, which are features in the context of the whole recording."""
    clips, lengths = _clips(reader, places, SHOWN_S)
    spectra, features, column = [], [], 2 * (reader.rate // 100)
    for place, length in zip(places, lengths.tolist(), strict=True):
        wave = reader.whole(place)
        (row_TD,) = token_features(encoder, torch.from_numpy(wave)[None].to(device), None)
        mel_TE = log_mel(wave[None], reader.rate)[0]
        heard = min(reader.config.num_steps(length) * reader.config.hop // column, len(mel_TE))
        step_SD = row_TD.reshape(-1, reader.config.bands, row_TD.shape[1]).mean(axis=1)
        spectra.append(mel_TE[:heard])
        features.append(step_SD[np.minimum(np.arange(heard) * column // reader.config.hop, len(step_SD) - 1)])
    spectra_QTE, counts = padded(spectra, 0, np.float16)
    flat_T3 = colours(np.concatenate(features))
    colours_QT3, _ = padded(np.split(flat_T3, np.cumsum(counts)[:-1]), 0, np.uint8)
    of_tokens = {"spectra": spectra_QTE, "colours": colours_QT3, "num_tokens": counts}
    return {"clips": clips, "clip_lengths": lengths, **of_tokens}


def _phones(alignments: Sequence[Alignment]) -> dict[str, NDArray[Any]]:
    """What is said in the seconds shown, without silence."""
    rows = [
        (place, (start, min(end, SHOWN_S)), phone)
        for place, alignment in enumerate(alignments)
        for start, end, phone in alignment
        if phone != SILENCE and start < SHOWN_S
    ]
    return {
        "phone_places": np.array([place for place, *_ in rows], np.int64),
        "phone_spans": np.array([span for _, span, _ in rows], np.float64).reshape(-1, 2),
        "phone_names": np.array([phone for *_, phone in rows], np.str_),
    }


def spectrogram(spectrum_TE: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Log-mel energies, two frames a token, as a picture: time to the right, high pitches above, loud is bright."""
    energies_FE = spectrum_TE.astype(np.float32).reshape(2 * len(spectrum_TE), -1)
    low, high = np.percentile(energies_FE, (5, 99.5))
    shares = np.clip((energies_FE.T[::-1] - low) / max(float(high - low), 1e-9), 0, 1)
    pixels: NDArray[np.uint8] = np.rint(colormaps["magma"](shares)[..., :3] * 255).astype(np.uint8)
    return pixels
