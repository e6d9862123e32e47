"""Files of sound become waveforms of one channel at the model's rate, whole or a window at a time.

Lengths are those of what can be decoded; what takes long is measured once and kept.

Shapes: `N` records, `S` samples.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from data2vec2.data.folder import Files
from data2vec2.data.reader import Windowed, stream
from data2vec2.data.records import Records
from data2vec2.data.source import BadSample
from data2vec2.errors import UserError
from data2vec2.files import cache_folder, whole_file
from data2vec2.modalities.audio.config import WaveformConfig
from data2vec2.modalities.audio.decoding import NEEDS_FFMPEG, opened

TOO_SHORT = "too short"
"""Why a recording is left out that is below `AudioDataConfig.min_seconds`, or has no token."""
_LEAD_S = 0.25  # read on both sides of a part, where resampling and MP3's decoder don't know what was before
_SILENT = 1e-5
_EPS = 1e-5
_CANCELLED = 0.01  # of the channels' energy is left in their mean
CANCELLED = "one channel used, because the channels cancel out"
"""What is done to a recording whose channels do so."""
Note = Callable[[str], Any]


def read_audio(
    file: BinaryIO,
    sample_rate: int,
    start_s: float = 0.0,
    seconds: float | None = None,
    mended: Note = lambda _: None,
) -> NDArray[np.float32]:
    """A waveform of what can be decoded, or of `seconds` from `start_s` on: the mean of the channels, resampled.

    `mended` hears of what is done to it besides.

    Only the part is decoded where the format allows, and it is as in the whole. It is shorter than `seconds` where the
    file ends before. Raises `BadSample`: "empty file", "not audio", "damaged", "truncated" (less than is claimed, or
    nothing from `start_s` on), "longer than its header says", "empty" (no frames), "too large", "not finite", "silent".
    """
    with opened(file) as sound:
        first_s = max(0, math.floor(start_s - _LEAD_S))  # a whole second is a whole number of samples at any two rates
        count = math.inf if seconds is None else math.ceil((start_s + seconds + _LEAD_S - first_s) * sound.rate)
        blocks = [np.zeros((0, 1), dtype=np.float32), *sound.blocks(first_s * sound.rate, count)]
        wave = _mixed(np.concatenate(blocks[1:] or blocks)[: None if seconds is None else int(count)], mended)
        if sound.rate != sample_rate and len(wave):
            wave = soxr.resample(wave, sound.rate, sample_rate)
    wave = wave[round(start_s * sample_rate) - first_s * sample_rate :]
    if seconds is not None:
        wave = wave[: round(seconds * sample_rate)]
    if not len(wave):
        raise BadSample("truncated" if start_s else "empty")
    with np.errstate(all="ignore"):
        mean, power = wave.mean(dtype=np.float64), np.dot(wave, wave) / len(wave)
    if not math.isfinite(mean):
        raise BadSample("not finite")
    if power - mean**2 < max(power / 100, 4 * _SILENT**2) and wave.std(dtype=np.float64) < _SILENT:  # exact, but slow
        raise BadSample("silent")
    return wave


def _mixed(wave_SC: NDArray[np.float32], mended: Note = lambda _: None) -> NDArray[np.float32]:
    """The mean of the channels; where they cancel each other, as both lines of a balanced one do, a loud channel."""
    if wave_SC.shape[1] == 1:
        return wave_SC[:, 0]
    with np.errstate(all="ignore"):  # infinities are refused later
        wave = np.asarray(sum(wave_SC.T) / np.float32(wave_SC.shape[1]))  # wave_SC.mean(axis=1), in half of the time
        left = wave.var() / _CANCELLED if len(wave) else 0
        if left * wave_SC.size < np.vdot(wave_SC, wave_SC):  # cheap; variances are not
            energy_C = wave_SC.var(axis=0)
            if left < energy_C.mean():
                mended(CANCELLED)
                return wave_SC[:, np.argmax(energy_C > energy_C.max() / 2)]
    return wave


def _stream(file: BinaryIO, sample_rate: int) -> Iterator[NDArray[np.float32]]:
    """A whole waveform as `read_audio` gives it, a block at a time; raises `BadSample` as far as decoding does."""
    with opened(file) as sound:
        resampled = soxr.ResampleStream(sound.rate, sample_rate, 1) if sound.rate != sample_rate else None
        for block_SC in sound.blocks(0, math.inf):
            yield resampled.resample_chunk(_mixed(block_SC)) if resampled else _mixed(block_SC)
        if resampled:
            yield resampled.resample_chunk(np.zeros(0, dtype=np.float32), last=True)


def length_of(file: BinaryIO, sample_rate: int) -> int:
    """Samples of the waveform: decoded and counted where a header can be wrong; raises `BadSample`."""
    with opened(file) as sound:
        frames = sum(map(len, sound.blocks(0, math.inf))) if sound.frames is None else sound.frames
        if not frames:
            raise BadSample("empty")
        return frames * sample_rate // sound.rate


def sound_facts(file: BinaryIO) -> dict[str, float | str]:
    """Seconds, rate, channels, and the coding as the header names it; raises `BadSample`."""
    coding = "known to ffmpeg only"
    with suppress(soundfile.LibsndfileError):
        header = soundfile.info(file)
        coding = f"{header.format} {header.subtype}"
    with opened(file) as sound:
        blocks = sound.blocks(0, math.inf)  # which may be asked for only once
        first_SC = next(blocks)
        frames, channels = sound.frames or len(first_SC) + sum(map(len, blocks)), first_SC.shape[1]
        return {
            "seconds": frames / sound.rate,
            "rate": f"{sound.rate:,} Hz",
            "channels": f"{channels}",
            "coding": coding,
        }


def normalise(wave: NDArray[np.float32], unit_variance: bool = True) -> NDArray[np.float32]:
    """Zero mean and, where asked, unit variance."""
    centred: NDArray[np.float64] = wave - wave.mean(dtype=np.float64)
    if unit_variance:
        centred /= math.sqrt(np.dot(centred, centred) / len(wave) + _EPS)
    return centred.astype(np.float32)


def normal_audio(
    file: BinaryIO, config: WaveformConfig, seconds: float | None = None, mended: Note = lambda _: None
) -> NDArray[np.float32]:
    """A whole waveform (or its first `seconds`) as models hear it; raises `BadSample`, also for less than a token."""
    wave = read_audio(file, config.sample_rate, seconds=seconds, mended=mended)
    if len(wave) < config.receptive_field:
        raise BadSample(TOO_SHORT)
    return normalise(wave, config.unit_variance)


OpenFile = Callable[[], BinaryIO]
OVERLAP_S = 2.5
"""Seconds of a window's tokens that are dropped on either side of it, where they lack context."""


class Windows(Windowed):
    """Waveforms `S`, normalised as the whole, each with the tokens that are kept of it: one after another, all of them.

    A longer file is decoded twice from end to end: at once, to find length, mean and deviation, and window by window.
    """

    def __init__(
        self, config: WaveformConfig, open_file: OpenFile, window_s: float, overlap_s: float = OVERLAP_S
    ) -> None:
        """Raises `BadSample`, as iterating can if the file changes."""
        self.config, self.open_file = config, open_file
        rate, hop = config.sample_rate, config.hop
        self.window, self.overlap = round(window_s * rate / hop), round(overlap_s * rate / hop)
        self.only: NDArray[np.float32] | None = None
        """All of a file that is not longer than a window, as in training."""
        size = self.window * hop
        try:
            with open_file() as file:
                wave_S = normal_audio(file, config, (size + 1) / rate)
            if len(wave_S) <= size:
                self.only = wave_S
                return
        except BadSample as error:
            if error.reason != "silent":  # it may begin so
                raise
        self.total, total, squares = 0, 0.0, 0.0
        with np.errstate(all="ignore"):
            for part_S in self._blocks():
                self.total += len(part_S)
                total += float(part_S.sum(dtype=np.float64))
                squares += float(np.square(part_S, dtype=np.float64).sum())
        if not math.isfinite(squares):
            raise BadSample("not finite")
        self.mean = total / self.total
        variance = max(0.0, squares / self.total - self.mean**2)
        if variance < _SILENT**2:
            raise BadSample("silent")
        self.deviation = math.sqrt(variance + _EPS) if config.unit_variance else 1.0

    def __iter__(self) -> Iterator[tuple[NDArray[np.float32], slice]]:
        if self.only is not None:
            yield self.only, slice(None)
            return
        steps, step, hop = self.config.num_steps(self.total), self.window - 2 * self.overlap, self.config.hop
        blocks, read_S, start, bands = self._blocks(), np.zeros(0, dtype=np.float32), 0, self.config.bands
        for first in range(0, steps, step):
            begin, end = max(0, first - self.overlap), min(steps, first + step + self.overlap)
            stop = (end - 1) * hop + self.config.receptive_field
            parts = [read_S[begin * hop - start :]]
            start = begin * hop
            while sum(map(len, parts)) < stop - start:
                if (part_S := next(blocks, None)) is None:
                    raise BadSample("truncated")
                parts.append(part_S)
            read_S = np.concatenate(parts)
            normal_S = ((read_S[: stop - start].astype(np.float64) - self.mean) / self.deviation).astype(np.float32)
            yield normal_S, slice((first - begin) * bands, (first - begin + step) * bands)

    def _blocks(self) -> Iterator[NDArray[np.float32]]:
        with self.open_file() as file:
            yield from _stream(file, self.config.sample_rate)


def wav_of(sample: Any) -> bytes:
    """A WAV file of a waveform: `array` (`S`, `SC` or `CS`) and `sampling_rate` by name; raises `BadSample`."""
    try:
        wave, rate = np.asarray(sample["array"]), int(sample["sampling_rate"])
    except (TypeError, KeyError, ValueError, IndexError, RuntimeError) as error:
        raise BadSample(f"a {type(sample).__name__}, where a waveform needs array and sampling_rate") from error
    if wave.ndim not in (1, 2) or wave.dtype.kind not in "if" or rate < 1:
        raise BadSample(f"values of type {wave.dtype} and shape {list(wave.shape)}, which are not a waveform")
    if wave.ndim == 2 and wave.shape[0] < wave.shape[1]:
        wave = wave.T
    if wave.dtype not in (np.int16, np.int32):
        wave = wave.astype(np.float32)
    file, coding = io.BytesIO(), {np.dtype(np.int16): "PCM_16", np.dtype(np.int32): "PCM_32"}.get(wave.dtype, "FLOAT")
    soundfile.write(file, wave, rate, format="WAV", subtype=coding)
    return file.getvalue()


Lengths = tuple[NDArray[np.int64], dict[int, str]]
"""Samples `N`, 0 where there is a reason why they can't be told, and these reasons."""
KEPT_FROM_S = 1.0  # measurements that take so long are kept, for other processes and later runs
_NOTE_EVERY_S = 5.0


def measured(records: Records, rate: int, note: Note = lambda _: None) -> Lengths:
    """Lengths at `rate`; `note` hears of long waits. Kept in the cache folder, as far as it can be written."""
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
    if kept and slow and not {"unreadable", NEEDS_FFMPEG} & {*bad.values()}:  # which may be so for now only
        places, reasons = np.array([*bad], dtype=np.int64), np.array([*bad.values()], dtype=np.str_)
        with suppress(UserError), whole_file(kept, shared=True) as file:
            np.savez(file, allow_pickle=False, lengths=lengths_N, places=places, reasons=reasons)
    return lengths_N, bad


def _place(records: Records, rate: int) -> Path | None:
    """Where lengths are kept: elsewhere if any file or its size or time is another; none if they can't be told."""
    source, digest = records.source, hashlib.sha256(f"decoded 2 {rate} {len(records)}\0".encode())
    told = False
    for path in source.files():
        told = True
        digest.update(os.fsencode(path))
        with suppress(OSError, ValueError):  # a name with a NUL
            stat = os.stat(path)  # noqa: PTH116
            digest.update(f"\0{stat.st_size} {stat.st_mtime_ns}\0".encode())
    for part in () if isinstance(source, Files) else source.content():
        digest.update(part)
    return cache_folder() / f"lengths-{digest.hexdigest()[:32]}.npz" if told else None
