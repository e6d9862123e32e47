"""Recordings: pieces of long ones, crops and batches.

Shapes: `B` samples of a batch, `S` samples of a waveform, `N` records, `P` pieces.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data2vec2 import rng
from data2vec2.data.account import Bad, PartAccount, counted
from data2vec2.data.reader import ReadBatch, Reader, by_length
from data2vec2.data.records import Records
from data2vec2.data.sampler import LENGTH_STEP, LengthBatches, Order, Plan, Repeated
from data2vec2.data.source import BadSample, Content
from data2vec2.errors import UserError
from data2vec2.modalities.audio import waveform
from data2vec2.modalities.audio.config import AudioDataConfig, WaveformConfig
from data2vec2.modalities.audio.decoding import EXTENSIONS, FFMPEG_EXTENSIONS
from data2vec2.modalities.audio.waveform import TOO_SHORT, Note, Windows, measured
from data2vec2.modalities.data import Survey

RECORDINGS = Content(
    "recording",
    "recordings",
    "recordings",
    "Audio",
    EXTENSIONS | FFMPEG_EXTENSIONS,
    ("audio", "speech", "sound", "recording", "audio_bytes", "wav", "flac", "mp3", "ogg", "opus", "content", "bytes"),
    ("transcription", "text", "sentence", "transcript"),
    waveform.wav_of,
)
KEPT_BYTES = 512 << 20
"""Training data of up to so many bytes when decoded (2.3 hours at 16 kHz) are decoded once and kept."""
EVAL_SECONDS = 60.0
"""Evaluation looks at so much of a recording, and at so much sound at once: attention is quadratic."""


@dataclass(frozen=True, eq=False)
class Pieces:
    """What pre-training takes crops from: recordings, those of two `max_seconds` and more cut evenly; in samples."""

    lengths_N: NDArray[np.int64]
    """Of each whole recording; 0 for those that can't be read."""
    unreadable: tuple[Bad, ...]
    short: tuple[Bad, ...]
    """These and the unreadable ones have no piece."""
    records_P: NDArray[np.int64]
    """The record of each piece, ascending."""
    starts_P: NDArray[np.int64]
    lengths_P: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.records_P)


class AudioReader(Reader):
    """Batches of waveforms `BS` of zero mean and unit variance.

    The samples of a training batch are places in `pieces`, those of `eval_batch` are places in the records.
    """

    def __init__(self, records: Records, config: WaveformConfig, data: AudioDataConfig, seed: int) -> None:
        super().__init__(records, seed)
        self.config, self.data, self.rate = config, data, config.sample_rate
        self._longest_eval = self.config.max_samples or round(EVAL_SECONDS * self.rate)
        self._pieces: Pieces | None = None
        self._kept: dict[int, NDArray[np.float32]] = {}

    @property
    def in_memory(self) -> bool:
        """Whether all pieces are kept as they are read, because there are so few."""
        return int(self.pieces.lengths_P.sum()) * 4 <= KEPT_BYTES

    @property
    def pieces(self) -> Pieces:
        """The pieces; the first call measures all recordings."""
        return self.measure()

    def measure(self, note: Note = lambda _: None) -> Pieces:
        """The pieces, from what can be decoded of each recording; `note` hears of long waits."""
        if self._pieces is None:
            lengths_N, reasons = measured(self.records, self.rate, note)
            claimed_N = lengths_N / self.rate if self.records.seconds is None else self.records.seconds
            for place in np.flatnonzero(np.abs(lengths_N / self.rate - claimed_N) > LENGTH_STEP).tolist():
                reasons.setdefault(place, "not as long as the manifest says")
                lengths_N[place] = 0
            shortest = max(round(self.data.min_seconds * self.rate), self.config.receptive_field)
            places, names = np.flatnonzero(lengths_N < shortest).tolist(), self.records.names
            short = tuple(Bad(names[place], TOO_SHORT) for place in places if place not in reasons)
            unreadable = tuple(Bad(names[place], reason) for place, reason in reasons.items())
            good = np.flatnonzero(lengths_N >= shortest)
            counts = np.maximum(1, lengths_N[good] // round(self.data.max_seconds * self.rate))
            records_P = np.repeat(good, counts)
            within_P = np.arange(len(records_P)) - np.repeat(np.cumsum(counts) - counts, counts)
            counts_P = np.repeat(counts, counts)
            starts_P, ends_P = (lengths_N[records_P] * place_P // counts_P for place_P in (within_P, within_P + 1))
            self._pieces = Pieces(lengths_N, unreadable, short, records_P, starts_P, ends_P - starts_P)
        return self._pieces

    def unreadable(self, note: Note) -> Sequence[Bad]:
        """Those that can't be decoded, and those without a token."""
        pieces, names, shortest = self.measure(note), self.records.names, self.config.receptive_field
        short = np.flatnonzero((pieces.lengths_N > 0) & (pieces.lengths_N < shortest)).tolist()
        return (*pieces.unreadable, *(Bad(names[place], TOO_SHORT) for place in short))

    def eval_groups(self, samples_B: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """By length, so that little of a batch is padding; at most a minute at once, padding included."""
        lengths_N = np.clip(self.pieces.lengths_N, 1, self._longest_eval)
        return by_length(samples_B, lengths_N, round(EVAL_SECONDS * self.rate))

    @property
    def num_trained(self) -> int:
        """Recordings that are long enough."""
        return len(np.unique(self.pieces.records_P))

    def amount(self) -> float:
        """Seconds of all pieces."""
        return float(self.pieces.lengths_P.sum() / self.rate)

    def order(self, batch_size: int) -> Order:
        """Global batches of so many seconds of pieces; `UserError` if there is no piece."""
        if not len(self.pieces):
            why = _with_first((*self.pieces.short, *self.pieces.unreadable))
            raise UserError(
                f"none of {len(self.records)} recordings of the {self.records.kind} can be trained on: {why}; "
                f"the shortest allowed is --data.min-seconds {self.data.min_seconds:g}"
            )
        lengths_P = np.minimum(self.pieces.lengths_P, round(self.data.max_seconds * self.rate))
        if self.records.repeats is None:
            return LengthBatches(lengths_P, batch_size, self.seed, self.rate)
        repeats_P = self.records.repeats[self.pieces.records_P]
        return Repeated(repeats_P, lambda pieces: LengthBatches(lengths_P[pieces], batch_size, self.seed, self.rate))

    def grid(self, inputs: NDArray[Any]) -> tuple[int, ...]:
        """Tokens of a batch."""
        return self.config.grid_of(inputs.shape[1])

    def size(self, batch: ReadBatch) -> float:
        """Seconds of each sample, padding included."""
        return float(batch.inputs.shape[1] / self.rate)

    def train_batch(self, plan: Plan) -> ReadBatch:
        """Crops of `plan.length` samples from pieces, which are normalised before; offsets by (seed, epoch, sample).

        What stands in for a bad piece is one long enough; if all of them are bad, a shorter one over and over.
        """
        wave_BS = np.empty((len(plan.samples_B), plan.length), dtype=np.float32)
        pieces_B, bad = plan.samples_B.copy(), []
        among = np.flatnonzero(self.pieces.lengths_P >= plan.length), np.arange(len(self.pieces))
        for place, (epoch, piece) in enumerate(zip(plan.epochs_B.tolist(), plan.samples_B.tolist(), strict=True)):
            crop = partial(self.crop, epoch=epoch, plan=plan)
            try:
                wave_BS[place] = crop(piece)
            except BadSample as error:
                bad.append(Bad(self.name(piece), error.reason))
                wave_BS[place], pieces_B[place] = self.replacement(piece, bad[-1], crop, *among)
        indices_B = self.pieces.records_P[pieces_B]
        return ReadBatch(wave_BS, self.records.labels[indices_B], tuple(bad), indices_B, pieces_B=pieces_B)

    def whole(self, sample: int) -> NDArray[np.float32]:
        """One whole recording, of a longer one the first minute, normalised; raises `BadSample`, also if too short.

        Of a model that hears less, as much as it does.
        """
        seconds = self._longest_eval / self.rate
        with self.records.open(sample) as file:
            return waveform.normal_audio(file, self.config, seconds, self._mended(sample))

    def entire(self, sample: int) -> NDArray[np.float32] | Windows:
        """As `whole`, but of a recording above a minute all of it, in windows of a minute; raises `BadSample`."""
        if self.config.max_samples is not None:
            return self.whole(sample)
        windows = Windows(self.config, partial(self.records.open, sample), EVAL_SECONDS)
        return windows if windows.only is None else windows.only

    def piece(self, piece: int) -> NDArray[np.float32]:
        """One piece, normalised; raises `BadSample`."""
        if piece in self._kept:
            return self._kept[piece]
        start_s, seconds = (int(of_P[piece]) / self.rate for of_P in (self.pieces.starts_P, self.pieces.lengths_P))
        with self.records.open(record := int(self.pieces.records_P[piece])) as file:
            wave = waveform.read_audio(file, self.rate, start_s, seconds, self._mended(record))
            wave = waveform.normalise(wave, self.config.unit_variance)
        if self.in_memory:
            self._kept[piece] = wave
        return wave

    def _mended(self, record: int) -> Note:
        return partial(self.mended.setdefault, self.records.names[record])

    def name(self, piece: int) -> str:
        """The recording's name, with the place where it has several pieces."""
        record, start = int(self.pieces.records_P[piece]), int(self.pieces.starts_P[piece])
        is_whole = self.pieces.lengths_P[piece] == self.pieces.lengths_N[record]
        return self.records.names[record] + ("" if is_whole else f" from {start / self.rate:.0f} s")

    def crop(self, piece: int, epoch: int, plan: Plan) -> NDArray[np.float32]:
        """`plan.length` samples of a piece, a shorter one over and over; raises `BadSample`."""
        wave = self.piece(piece)
        if self.pieces.lengths_P[piece] < plan.length:
            return np.resize(wave, plan.length)
        if len(wave) < plan.length:  # the file has changed
            raise BadSample("truncated")
        offset = self.offset(piece, epoch, len(wave) - plan.length)
        return wave[offset : offset + plan.length]

    def offset(self, piece: int, epoch: int, room: int) -> int:
        """Where in a piece a crop begins that has so much room, by (seed, epoch, piece); in samples."""
        return int(rng.uniforms(rng.keys(rng.Stream.CROP, self.seed, epoch, piece), 1)[0, 0] * (room + 1))


@dataclass(frozen=True, kw_only=True)
class AudioSurvey(Survey):
    """What a look at all lengths and at part of the sound found; `hours` are what can be trained on."""

    hours: float
    shortest_s: float
    longest_s: float


def survey_audio(reader: AudioReader, note: Note, limit: int = 200) -> AudioSurvey:
    """Measure all recordings, and decode up to `limit` pieces, evenly spread.

    `UserError` if there is no usable piece, or if more of those that were decoded are bad than `data.max_bad`.
    """
    pieces, rate, slack = reader.measure(note), reader.rate, LENGTH_STEP * reader.rate
    reader.order(1)  # refuses data without a piece

    def fault(piece: int) -> str | None:
        try:
            return "truncated" if len(reader.piece(piece)) < int(pieces.lengths_P[piece]) - slack else None
        except BadSample as error:
            return error.reason

    count = min(limit, len(pieces))
    chosen = (np.arange(count) * len(pieces) // count).tolist()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        faults = list(pool.map(fault, chosen))
    bad = [Bad(reader.name(piece), reason) for piece, reason in zip(chosen, faults, strict=True) if reason]
    if len(bad) == count:
        raise UserError(f"none of {count} recordings of the {reader.records.kind} can be used: {_with_first(bad)}")
    PartAccount(count, reader.data.max_bad).add(bad)
    seconds = pieces.lengths_N[np.unique(pieces.records_P)] / rate
    return AudioSurvey(
        checked=len(reader.records),
        bad=(*pieces.unreadable, *bad),
        left_out=pieces.short,
        mended=reader.mends(),
        hours=float(pieces.lengths_P.sum() / rate / 3600),
        shortest_s=float(seconds.min()),
        longest_s=float(seconds.max()),
    )


def _with_first(bad: Sequence[Bad]) -> str:
    return f"{counted(item.reason for item in bad)} (the first: {bad[0].name})" if bad else "there is none"
