"""Recordings: pieces of long ones, crops and batches; and manifests as fairseq writes them.

A manifest is a .tsv. Its first line is a folder (relative to the .tsv's own, if not absolute), each other line a path
below it, a tab, and the number of frames at 16 kHz. Beside it, a line a recording, there may be transcripts: in a .wrd,
or in a .ltr, where spaces separate letters, and | words.

Shapes: `B` samples of a batch, `S` samples of a waveform, `N` records, `P` pieces.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data2vec2 import rng
from data2vec2.data.account import Account, Bad, PartAccount, counted
from data2vec2.data.folder import Files
from data2vec2.data.reader import ReadBatch, Reader, by_length
from data2vec2.data.records import Records
from data2vec2.data.sampler import LENGTH_STEP, LengthBatches, Plan
from data2vec2.data.source import BadSample, Content, Listing, Split, by_part, parts_by_name
from data2vec2.errors import UserError
from data2vec2.modalities.audio import waveform
from data2vec2.modalities.audio.config import AudioConfig, AudioDataConfig
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

    def __init__(self, records: Records, config: AudioConfig, data: AudioDataConfig, seed: int) -> None:
        super().__init__(records, seed)
        self.config, self.data, self.rate = config, data, config.sample_rate
        self._longest_eval = round(EVAL_SECONDS * self.rate)
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
        return by_length(samples_B, np.clip(self.pieces.lengths_N, 1, self._longest_eval), self._longest_eval)

    def amount(self) -> float:
        """Seconds of all pieces."""
        return float(self.pieces.lengths_P.sum() / self.rate)

    def order(self, batch_size: int) -> LengthBatches:
        """Global batches of so many seconds of pieces; `UserError` if there is no piece."""
        if not len(self.pieces):
            why = _with_first((*self.pieces.short, *self.pieces.unreadable))
            raise UserError(
                f"none of {len(self.records)} recordings of the {self.records.kind} can be trained on: {why}; "
                f"the shortest may have --data.min-seconds {self.data.min_seconds:g}"
            )
        longest = round(self.data.max_seconds * self.rate)
        return LengthBatches(np.minimum(self.pieces.lengths_P, longest), batch_size, self.seed, self.rate)

    def grid(self, inputs: NDArray[Any]) -> tuple[int]:
        """Tokens of a batch."""
        return (self.config.num_tokens(inputs.shape[1]),)

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
        return ReadBatch(wave_BS, self.records.labels[indices_B], tuple(bad), indices_B)

    def whole(self, sample: int) -> NDArray[np.float32]:
        """One whole recording, of a longer one the first minute, normalised; raises `BadSample`, also if too short."""
        with self.records.open(sample) as file:
            return waveform.normal_audio(file, self.config, EVAL_SECONDS, self._mended(sample))

    def entire(self, sample: int) -> NDArray[np.float32] | Windows:
        """As `whole`, but of a recording above a minute all of it, in windows of a minute; raises `BadSample`."""
        windows = Windows(self.config, partial(self.records.open, sample), EVAL_SECONDS)
        return windows if windows.only is None else windows.only

    def piece(self, piece: int) -> NDArray[np.float32]:
        """One piece, normalised; raises `BadSample`."""
        if piece in self._kept:
            return self._kept[piece]
        start_s, seconds = (int(of_P[piece]) / self.rate for of_P in (self.pieces.starts_P, self.pieces.lengths_P))
        with self.records.open(record := int(self.pieces.records_P[piece])) as file:
            wave = waveform.normalise(waveform.read_audio(file, self.rate, start_s, seconds, self._mended(record)))
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
        draw = rng.uniforms(rng.keys(rng.Stream.CROP, self.seed, epoch, piece), 1)[0, 0]
        offset = int(draw * (len(wave) - plan.length + 1))
        return wave[offset : offset + plan.length]


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


_RATE = 16_000  # frames a second, as manifests count them


class _Manifests:
    """Manifests as a data set of recordings."""

    named = "or .tsv"
    hints: Mapping[str, str] = {}

    def file(self, path: Path) -> Listing | None:
        """One `.tsv`."""
        return _listing(path.parent, [path.name]) if path.suffix.lower() == ".tsv" else None

    def folder(self, path: Path, files: Mapping[str, list[str]]) -> Listing | None:
        """A folder with manifests in it."""
        lists = [name for name in files.get(".tsv", []) if "/" not in name and _is_manifest(path / name)]
        return _listing(path, lists) if lists else None


MANIFESTS = _Manifests()


def _is_manifest(path: Path) -> bool:
    """Whether a .tsv is one: its first line is no header of several columns, its second ends in a number."""
    with suppress(OSError), path.open(encoding="utf-8", errors="surrogateescape") as file:
        first, second = file.readline(4096), file.readline(4096)
        return "\t" not in first and second.rstrip("\n").rpartition("\t")[2].isdecimal()
    return False


def _listing(root: Path, names: Sequence[str]) -> Listing:
    """The recordings that the .tsv files `names` in `root` list; file names tell the parts ("valid.tsv")."""
    parts, of_part = {}, by_part(names, str(root))
    for part, files in of_part.items():
        rows = [row for name in files for row in _rows(root / name)]
        if not rows:
            raise UserError(f"{', '.join(files)} in {root} has no recordings; remove it")
        listed, paths, frames, texts = zip(*rows, strict=True)
        seconds = np.array(frames, dtype=np.float64) / _RATE
        parts[part] = Split(listed, [None] * len(rows), Files(Path(), paths), texts, seconds)
    return Listing("manifest of recordings", parts, account=Account(choices=parts_by_name(of_part)))


def _rows(path: Path) -> list[tuple[str, str, float, str | None]]:
    """What a manifest lists: path below the folder, whole path, frames, and the transcript beside it."""
    first, *lines = _lines(path)
    folder = path.parent.absolute() / first.strip()
    if "\t" in first or not first.strip() or not folder.is_dir():
        raise UserError(f"{path}: line 1 is {first[:80]!r}; it must be the folder that the recordings are in")
    rows = []
    for place, line in enumerate(lines, 2):
        below, _, frames = line.rpartition("\t")
        if not below or not frames.isdecimal():
            raise UserError(f"{path}: line {place} is {line[:80]!r}; it must be a path, a tab and a number of frames")
        rows.append((below, str(folder / below), float(frames)))
    return [(*row, text) for row, text in zip(rows, _transcripts(path, len(rows)), strict=True)]


def _transcripts(path: Path, count: int) -> Sequence[str | None]:
    """Transcripts beside a manifest of `count` recordings; None where there are none."""
    words, letters = path.with_suffix(".wrd"), path.with_suffix(".ltr")
    beside = words if words.exists() else letters
    if not beside.exists():
        return [None] * count
    lines = _lines(beside)
    if len(lines) != count:
        raise UserError(f"{beside} has {len(lines):,} transcripts, but {path} has {count:,} recordings")
    return lines if beside == words else ["".join(line.split()).replace("|", " ") for line in lines]


def _lines(path: Path) -> list[str]:
    """Lines of a text file; names of files may be in any encoding."""
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from error
    return text.removesuffix("\n").split("\n")
