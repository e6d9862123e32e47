"""Recordings for tests: a voiced tone that glides, in bursts, with noise."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from data2vec2.data.records import Parts, open_data
from data2vec2.errors import UserError
from data2vec2.modalities.audio.manifests import MANIFESTS
from data2vec2.modalities.audio.reader import RECORDINGS

RATE = 16_000
FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".oga": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".aiff": ("AIFF", "PCM_16"),
    ".aif": ("AIFF", "PCM_16"),
    ".aifc": ("AIFF", "ULAW"),
    ".au": ("AU", "PCM_16"),
    ".w64": ("W64", "PCM_16"),
    ".caf": ("CAF", "PCM_16"),
    ".sph": ("NIST", "PCM_16"),
    ".voc": ("VOC", "PCM_16"),
    ".mpga": ("MP3", "MPEG_LAYER_III"),
}
"""Container and coding of each extension."""


def open_recordings(data: str | Path) -> Parts:
    return open_data(data, RECORDINGS, MANIFESTS)


def refuse(data: str | Path, match: str) -> None:
    with pytest.raises(UserError, match=match):
        open_recordings(data)


def sound(seconds: float, rate: int = RATE, seed: int = 0) -> NDArray[np.float32]:
    """Another sound for each seed; at any rate the same one."""
    times = np.arange(round(seconds * rate)) / rate
    draws = np.random.default_rng(seed)
    pitch, glide, tempo = draws.uniform(90, 250), draws.uniform(10, 40), draws.uniform(2, 5)
    phase = 2 * np.pi * (pitch * times + glide * np.sin(times))
    voice = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 6))
    breath = sum(np.sin(2 * np.pi * f * times + f) for f in draws.uniform(300, 3000, 20)) / 20
    return (0.2 * voice * (1.1 + np.sin(2 * np.pi * tempo * times)) + 0.05 * breath).astype(np.float32)


def encoded(wave: NDArray[np.float32], rate: int = RATE, extension: str = ".wav", subtype: str | None = None) -> bytes:
    kind, default = FORMATS[extension]
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=kind, subtype=subtype or default)
    return file.getvalue()


def put(path: Path, seconds: float = 3.0, rate: int = RATE, seed: int = 0) -> Path:
    """Write a sound as its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(sound(seconds, rate, seed), rate, path.suffix.lower()))
    return path
