"""Files of sound become waveforms of one channel at the model's rate, whole or a window at a time.

Lengths come from the data or the headers of the files; what takes long is measured once and kept.

Shapes: `N` records, `S` samples.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from zipfile import BadZipFile

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from data2vec2.data.folder import Files
from data2vec2.data.hub import HubRows
from data2vec2.data.reader import Windowed, stream
from data2vec2.data.records import Records
from data2vec2.data.source import BadSample, Spans
from data2vec2.errors import UserError
from data2vec2.files import cache_folder, whole_file
from data2vec2.modalities.audio.config import AudioConfig

TOO_SHORT = "too short"
"""Why a recording is left out that is below `AudioDataConfig.min_seconds`, or has no token."""
_LEAD_S = 0.25  # read on both sides of a part, where resampling and MP3's decoder don't know what was before
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
        # One read: soundfile seeks after each, and an MP3 is not what it was just after that.
        count = -1 if seconds is None else math.ceil((start_s + seconds + _LEAD_S - first_s) * sound.samplerate)
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


def sound_facts(file: BinaryIO) -> dict[str, float | str]:
    """Seconds, rate, channels and coding, as the header says; raises `BadSample`."""
    with _opened(file) as sound:
        seconds, coding = sound.frames / sound.samplerate, f"{sound.format} {sound.subtype}"
        rate, channels = f"{sound.samplerate:,} Hz", f"{sound.channels}"
        return {"seconds": seconds, "rate": rate, "channels": channels, "coding": coding}


def normalise(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """Zero mean and unit variance."""
    mean, variance = wave.mean(dtype=np.float64), wave.var(dtype=np.float64)
    scaled: NDArray[np.float32] = ((wave - mean) / math.sqrt(variance + _EPS)).astype(np.float32)
    return scaled


def normal_audio(file: BinaryIO, config: AudioConfig, seconds: float | None = None) -> NDArray[np.float32]:
    """A whole waveform (or its first `seconds`) as models hear it; raises `BadSample`, also for less than a token."""
    wave = read_audio(file, config.sample_rate, seconds=seconds)
    if len(wave) < config.receptive_field:
        raise BadSample(TOO_SHORT)
    return normalise(wave)


@contextmanager
def _opened(file: BinaryIO) -> Iterator[soundfile.SoundFile]:
    """A decoder; whatever goes wrong with it is a `BadSample`."""
    try:
        if not file.read(1):
            raise BadSample("empty file")
        file.seek(0)
        with soundfile.SoundFile(_Quiet(file)) as sound:
            if not 1_000 <= sound.samplerate <= 1_000_000:
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
        self.file, self.tell = file, file.tell

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> None:
        with suppress(OSError, ValueError):  # damaged headers ask for places before the start
            self.file.seek(offset, whence)

    def read(self, count: int) -> bytes:
        with suppress(OSError):
            return self.file.read(count)
        return b""


OpenFile = Callable[[], BinaryIO]
OVERLAP_S = 2.5
"""Seconds of a window's tokens that are dropped on either side of it, where they lack context."""


class Windows(Windowed):
    """Waveforms `S`, normalised as the whole, each with the tokens that are kept of it: one after another, all of them.

    A longer file is read twice: at once, to find mean and deviation, and in windows.
    """

    def __init__(self, config: AudioConfig, open_file: OpenFile, window_s: float, overlap_s: float = OVERLAP_S) -> None:
        """Raises `BadSample`, as iterating can if the file changes."""
        self.config, self.open_file = config, open_file
        rate, hop = config.sample_rate, config.hop
        self.window, self.overlap = round(window_s * rate / hop), round(overlap_s * rate / hop)
        size = self.window * hop
        self._only: NDArray[np.float32] | None = None
        with open_file() as file:
            self.total = length_of(file, rate)
            if self.total <= size:  # as in training, whatever the header says of the end
                file.seek(0)
                self._only = normal_audio(file, config)
                return
        total = squares = 0.0
        for start in range(0, self.total, size):
            part_S = self._part(start, min(size, self.total - start))
            total += float(part_S.sum(dtype=np.float64))
            squares += float(np.square(part_S, dtype=np.float64).sum())
        self.mean = total / self.total
        variance = max(0.0, squares / self.total - self.mean**2)
        if variance < _SILENT**2:
            raise BadSample("silent")
        self.deviation = math.sqrt(variance + _EPS)

    def __iter__(self) -> Iterator[tuple[NDArray[np.float32], slice]]:
        if self._only is not None:
            yield self._only, slice(None)
            return
        tokens, step, hop = self.config.num_tokens(self.total), self.window - 2 * self.overlap, self.config.hop
        for first in range(0, tokens, step):
            begin, end = max(0, first - self.overlap), min(tokens, first + step + self.overlap)
            wave_S = self._part(begin * hop, (end - begin - 1) * hop + self.config.receptive_field)
            normal_S = ((wave_S.astype(np.float64) - self.mean) / self.deviation).astype(np.float32)
            yield normal_S, slice(first - begin, first - begin + step)

    def _part(self, start: int, samples: int) -> NDArray[np.float32]:
        """A part of the recording, with zeros where it ends too early; that a part is silent is no fault."""
        rate = self.config.sample_rate
        try:
            with self.open_file() as file:
                part_S = read_audio(file, rate, start / rate, samples / rate)
        except BadSample as error:
            if error.reason not in ("silent", "truncated"):
                raise
            part_S = np.zeros(0, dtype=np.float32)
        return np.pad(part_S, (0, samples - len(part_S)))


Note = Callable[[str], None]
Lengths = tuple[NDArray[np.int64], dict[int, str]]
"""Samples `N`, 0 where there is a reason why they can't be told, and these reasons."""
KEPT_FROM_S = 1.0  # measurements that take so long are kept, for other processes and later runs
_NOTE_EVERY_S = 5.0


def measured(records: Records, rate: int, note: Note = lambda _: None) -> Lengths:
    """Lengths at `rate`; `note` hears of long waits. Kept in the cache folder, as far as it can be written."""
    if records.seconds is not None:
        return (records.seconds * rate).astype(np.int64), {}
    kept = _place(records, rate)
    if kept and kept.is_file():
        with suppress(OSError, EOFError, ValueError, KeyError, BadZipFile), np.load(kept, allow_pickle=False) as file:
            return file["lengths"], dict(zip(file["places"].tolist(), file["reasons"].tolist(), strict=True))

    def length(place: int) -> int:
        with records.open(place) as file:
            return length_of(file, rate)

    start = said = time.monotonic()
    lengths_N, done = np.zeros(len(records), dtype=np.int64), 0
    bad: dict[int, str] = {}
    for chunk in stream(records, length, size=100):
        lengths_N[[*chunk.good]] = [*chunk.good.values()]
        bad |= {place: one.reason for place, one in chunk.bad.items()}
        done += len(chunk.good) + len(chunk.bad)
        if time.monotonic() - said > _NOTE_EVERY_S:
            said = time.monotonic()
            note(f"measured {done:,} of {len(records):,} recordings")
    slow = time.monotonic() - start >= KEPT_FROM_S
    if kept and slow and "unreadable" not in bad.values():  # which may be so for now only
        places, reasons = np.array([*bad], dtype=np.int64), np.array([*bad.values()], dtype=np.str_)
        with suppress(UserError), whole_file(kept, shared=True) as file:
            np.savez(file, allow_pickle=False, lengths=lengths_N, places=places, reasons=reasons)
    return lengths_N, bad


def _place(records: Records, rate: int) -> Path | None:
    """Where lengths are kept: elsewhere if any file or its size or time is another; none if they can't be told."""
    source, digest = records.source, hashlib.sha256(f"{rate} {len(records)}\0".encode())
    if isinstance(source, Files):
        paths = [os.path.join(source.root.absolute(), name) for name in source.names]  # noqa: PTH118  (many)
    elif isinstance(source, Spans):
        paths = [str(path.absolute()) for path in source.paths]
    else:
        paths = [file["filename"] for file in source.dataset.cache_files] if isinstance(source, HubRows) else []
    for path in paths:
        digest.update(os.fsencode(path))
        with suppress(OSError, ValueError):  # a name with a NUL
            stat = os.stat(path)  # noqa: PTH116
            digest.update(f"\0{stat.st_size} {stat.st_mtime_ns}\0".encode())
    for part in () if isinstance(source, Files) else source.content():
        digest.update(part)
    return cache_folder() / f"lengths-{digest.hexdigest()[:32]}.npz" if paths else None
