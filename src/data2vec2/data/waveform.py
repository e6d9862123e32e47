"""Files of sound become waveforms of one channel at the model's rate."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from data2vec2.data.source import BadSample

TOO_SHORT = "too short"
"""Why a recording is left out that is below `AudioDataConfig.min_seconds`, or has no token."""
_LEAD_S = 0.25  # read on both sides of a part, where resampling and MP3's decoder don't know what was before
_RATES = (1_000, 1_000_000)
_SILENT = 1e-5
_EPS = 1e-5
_NOT_RECOGNISED = 1  # libsndfile's SF_ERR_UNRECOGNISED_FORMAT


def read_audio(
    file: BinaryIO, sample_rate: int, start_s: float = 0.0, seconds: float | None = None
) -> NDArray[np.float32]:
    """A waveform of what soundfile can decode, or of `seconds` from `start_s` on: the mean of the channels, resampled.

    Only the part is decoded, and it is as in the whole. It is shorter than `seconds` where the file ends before. Raises
    `BadSample`: "empty file", "not audio", "damaged", "truncated" (nothing from `start_s` on), "empty" (no frames),
    "too large", "not finite", "silent".
    """
    with _opened(file) as sound:
        first_s = max(0, math.floor(start_s - _LEAD_S))  # a whole second is a whole number of samples at any two rates
        if first_s:
            sound.seek(min(first_s * sound.samplerate, sound.frames))
        read_s = None if seconds is None else start_s + seconds + _LEAD_S - first_s
        # One read: soundfile seeks after each, and an MP3 is not what it was just after that.
        count = -1 if read_s is None else math.ceil(read_s * sound.samplerate)
        with np.errstate(all="ignore"):  # infinities are refused below
            wave: NDArray[np.float32] = sound.read(count, dtype="float32", always_2d=True).mean(axis=1)
        if sound.samplerate != sample_rate and len(wave):
            wave = soxr.resample(wave, sound.samplerate, sample_rate)
    wave = wave[round(start_s * sample_rate) - first_s * sample_rate :]
    if seconds is not None:
        wave = wave[: round(seconds * sample_rate)]
    if not len(wave):
        raise BadSample("truncated" if start_s else "empty")
    if not np.isfinite(wave).all():
        raise BadSample("not finite")
    if wave.std(dtype=np.float64) < _SILENT:
        raise BadSample("silent")
    return wave


def length_of(file: BinaryIO, sample_rate: int) -> int:
    """Samples of the waveform, as far as the file's header says; raises `BadSample`."""
    with _opened(file) as sound:
        if not sound.frames:
            raise BadSample("empty")
        return int(sound.frames * sample_rate // sound.samplerate)


def rate_of(file: BinaryIO) -> int:
    """Frames a second in the file; raises `BadSample`."""
    with _opened(file) as sound:
        return int(sound.samplerate)


def normalise(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """Zero mean and unit variance."""
    mean, variance = wave.mean(dtype=np.float64), wave.var(dtype=np.float64)
    scaled: NDArray[np.float32] = ((wave - mean) / math.sqrt(variance + _EPS)).astype(np.float32)
    return scaled


@contextmanager
def _opened(file: BinaryIO) -> Iterator[soundfile.SoundFile]:
    """A decoder; whatever goes wrong with it is a `BadSample`."""
    try:
        if not file.read(1):
            raise BadSample("empty file")
        file.seek(0)
        with soundfile.SoundFile(_Quiet(file)) as sound:
            if not _RATES[0] <= sound.samplerate <= _RATES[1]:
                raise BadSample("damaged")
            yield sound
    except BadSample:
        raise
    except Exception as error:
        if isinstance(error, soundfile.LibsndfileError) and error.code == _NOT_RECOGNISED:
            raise BadSample("not audio") from error
        raise BadSample("too large" if isinstance(error, MemoryError) else "damaged") from error


class _Quiet:
    """A file as libsndfile calls it; these calls must not raise, for the error would be printed and lost."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.tell = file.tell

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> None:
        """Damaged headers ask for places before the start."""
        with suppress(OSError, ValueError):
            self.file.seek(offset, whence)

    def read(self, count: int) -> bytes:
        """Nothing where the disk fails."""
        with suppress(OSError):
            return self.file.read(count)
        return b""
