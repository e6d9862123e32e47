"""The recordings of a report: spectrograms with masks, colours and phones, and clips to listen to.

Shapes: `N` recordings, `S` samples, `T` tokens, `E` mel bins, `M` masks, `K` kept tokens.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from matplotlib import colormaps
from numpy.typing import NDArray

from data2vec2.reporting.pictures import Pixels, class_name, data_uri, draw_map

MASKS_SHOWN = 3
"""Masks shown of each recording."""
GHOST = 50
"""How much is left of masked tokens, of 255."""
LOUDEST = 0.9
"""The highest peak of a clip, of 1."""
MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


def read_sound_masks(path: Path) -> dict[str, Any]:
    """Recordings with their masks, from the `masks.npz` of an audio run (`AudioKind.preview`).

    What doesn't fit together raises ValueError, KeyError or IndexError.
    """
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    keep_ids_NMK, num_tokens, rate = arrays["keep_ids"], int(arrays["num_tokens"]), int(arrays["sample_rate"])
    keys = ("waveforms", "spectra", "keep_ids", "names")
    recordings = []
    for wave_S, spectrum_TE, ids_MK, name in zip(*(arrays[key] for key in keys), strict=True):
        picture = spectrogram(spectrum_TE)
        masked = []
        for ids in ids_MK[:MASKS_SHOWN]:
            seen_T = np.zeros(num_tokens, dtype=bool)
            seen_T[ids] = True
            columns = np.arange(picture.shape[1]) * num_tokens // picture.shape[1]
            seen = np.broadcast_to(seen_T[columns], picture.shape[:2])
            masked.append(data_uri(picture, seen, hidden=GHOST))
        recordings.append({"name": str(name), "clip": clip(wave_S, rate), "whole": data_uri(picture), "masked": masked})
    _, num_masks, kept = keep_ids_NMK.shape
    seconds = arrays["waveforms"].shape[1] / rate
    shown = {"masks": num_masks, "kept": kept, "tokens": num_tokens, "seconds": seconds}
    return {"kind": "audio", "recordings": recordings, **shown}


def read_sound_gallery(path: Path) -> dict[str, Any]:
    """Recordings with colours, phones and neighbours, and the map of samples (`evaluation/gallery_audio.py`).

    What doesn't fit together raises ValueError, KeyError or IndexError.
    """
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    classes, rate = [str(name) for name in arrays["classes"]], int(arrays["sample_rate"])
    seconds_N = arrays["num_tokens"] * float(arrays["hop_s"])
    shown = []
    for place, name in enumerate(arrays["names"]):
        count, label = int(arrays["num_tokens"][place]), int(arrays["labels"][place])
        seconds = float(seconds_N[place])
        shown.append(
            {
                "name": str(name),
                "label": class_name(label, classes),
                "transcript": str(arrays["transcripts"][place]),
                "clip": clip(arrays["clips"][place][: int(arrays["clip_lengths"][place])], rate),
                "seconds": seconds,
                "share": f"{100 * seconds / float(seconds_N.max()):.2f}",
                "picture": data_uri(spectrogram(arrays["spectra"][place][:count])),
                "colours": data_uri(arrays["colours"][place][None, :count], exact=True),
                "phones": _phones(arrays, place, seconds),
                "neighbours": _neighbours(arrays, place, classes, rate),
            }
        )
    labels = arrays["map_labels"]
    svg, legend = draw_map(arrays["map"], labels, classes)
    drawn = {"map": svg, "legend": legend, "method": str(arrays["map_method"]), "count": len(labels)}
    return {"kind": "audio", "recordings": shown, **drawn}


def spectrogram(spectrum_TE: NDArray[np.floating[Any]]) -> Pixels:
    """Log-mel energies, two frames a token, as a picture: time to the right, high pitches above, loud is bright."""
    energies_FE = spectrum_TE.astype(np.float32).reshape(2 * len(spectrum_TE), -1)
    low, high = np.percentile(energies_FE, (5, 99.5))
    shares = np.clip((energies_FE.T[::-1] - low) / max(float(high - low), 1e-9), 0, 1)
    pixels: Pixels = np.rint(colormaps["magma"](shares)[..., :3] * 255).astype(np.uint8)
    return pixels


def clip(wave_S: NDArray[np.floating[Any]], sample_rate: int) -> str:
    """A waveform as the source of an `audio` element: MP3, which all browsers play, or WAV at rates that it lacks."""
    wave = wave_S.astype(np.float32)
    if wave.ndim != 1 or not len(wave) or not np.isfinite(wave).all():
        raise ValueError(f"a clip of shape {wave.shape}, or not finite")
    wave *= LOUDEST / max(float(np.abs(wave).max()), 1e-9)
    buffer = io.BytesIO()
    if sample_rate in MP3_RATES:
        kind, level = "mpeg", 0.9  # of compression: some 4 kB a second
        soundfile.write(buffer, wave, sample_rate, format="MP3", subtype="MPEG_LAYER_III", compression_level=level)
    else:
        kind = "wav"
        soundfile.write(buffer, wave, sample_rate, format="WAV", subtype="PCM_16")
    return f"data:audio/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _phones(arrays: dict[str, Any], place: int, seconds: float) -> list[dict[str, str]]:
    """A recording's phones with place and width in percent of what is shown."""
    keys = ("phone_places", "phone_spans", "phone_names")
    return [
        {
            "name": str(name),
            "left": f"{100 * start / seconds:.2f}",
            "width": f"{100 * (min(end, seconds) - start) / seconds:.2f}",
        }
        for owner, (start, end), name in zip(*(arrays[key].tolist() for key in keys), strict=True)
        if owner == place and start < seconds
    ]


def _neighbours(arrays: dict[str, Any], place: int, classes: list[str], rate: int) -> list[dict[str, Any]]:
    keys = ("names", "labels", "cosines", "clips", "clip_lengths")
    rows = zip(*(arrays[f"neighbour_{key}"][place] for key in keys), strict=True)
    own = int(arrays["labels"][place])
    return [
        {
            "name": str(name),
            "label": class_name(int(label), classes),
            "same": int(label) == own,
            "cosine": float(cosine),
            "clip": clip(wave_S[: int(length)], rate),
        }
        for name, label, cosine, wave_S, length in rows
    ]
