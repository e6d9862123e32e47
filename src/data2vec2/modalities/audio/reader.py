"""Recordings: pieces of long ones, crops and batches; and manifests as fairseq writes them.

A manifest is a .tsv of recordings, with transcripts in .ltr or .wrd files beside it. The first line of a .tsv is a
folder (relative to the .tsv's own, if not absolute); each other line is a path below it, a tab, and the number of
frames, counted at 16 kHz. A .wrd has a transcript a line; a .ltr has it in letters separated by spaces, with | between
words.

Shapes: `B` samples of a batch, `S` samples of a waveform, `N` records, `P` pieces.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data2vec2 import rng
from data2vec2.data.folder import Files
from data2vec2.data.reader import Bad, ReadBatch, Reader, Skipped, by_length
from data2vec2.data.records import Records
from data2vec2.data.sampler import LENGTH_STEP, LengthBatches, Plan
from data2vec2.data.source import BadSample, Content, Listing, Split, by_part
from data2vec2.errors import UserError
from data2vec2.modalities.audio.config import AudioConfig, AudioDataConfig
from data2vec2.modalities.audio.waveform import (
    TOO_SHORT,
    Note,
    Windows,
    length_of,
    measured,
    normalise,
    rate_of,
    read_audio,
)

RECORDINGS = Content(
    "recording",
    "recordings",
    "recordings",
    "Audio",
    frozenset((".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".w64", ".caf")),
    ("audio", "speech", "sound", "recording", "audio_bytes", "wav", "flac", "mp3", "ogg", "opus", "content", "bytes"),
    ("transcription", "text", "sentence", "transcript"),
)
KEPT_BYTES = 512 << 20
"""Training data of up to so many bytes when decoded (2.3 hours at 16 kHz) are decoded once and kept."""
EVAL_SECONDS = 60.0
"""Evaluation looks at so much of a recording, and at so much sound at once: attention is quadratic."""


@dataclass(frozen=True, eq=False)
class Pieces:
    """What pre-training takes crops from: every recording, those of two `max_seconds` and more cut evenly.

    Starts and lengths in samples at the model's rate.
    """

    lengths_N: NDArray[np.int64]
    """Of each whole recording; 0 for those that can't be read."""
    bad: tuple[Bad, ...]
    """Recordings without a piece: those that can't be read, and the short ones."""
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
        self.config, self.data = config, data
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

    def measure(self, note: Note | None = None) -> Pieces:
        """The pieces, from the lengths that the data or the headers of the files say; `note` hears of long waits."""
        if self._pieces is None:
            rate = self.config.sample_rate
            lengths_N, reasons = measured(self.records, rate, note)
            shortest = max(round(self.data.min_seconds * rate), self.config.receptive_field)
            reasons |= {int(place): TOO_SHORT for place in np.flatnonzero(lengths_N < shortest) if place not in reasons}
            bad = tuple(Bad(self.records.names[place], reasons[place]) for place in sorted(reasons))
            good = np.flatnonzero(lengths_N >= shortest)
            counts = np.maximum(1, lengths_N[good] // round(self.data.max_seconds * rate))
            records_P = np.repeat(good, counts)
            within_P = np.arange(len(records_P)) - np.repeat(np.cumsum(counts) - counts, counts)
            counts_P = np.repeat(counts, counts)
            starts_P, ends_P = (lengths_N[records_P] * place_P // counts_P for place_P in (within_P, within_P + 1))
            self._pieces = Pieces(lengths_N, bad, records_P, starts_P, ends_P - starts_P)
        return self._pieces

    def eval_groups(self, samples_B: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """By length, so that little of a batch is padding; at most a minute at once, padding included."""
        return by_length(samples_B, np.clip(self.pieces.lengths_N, 1, self._longest_eval), self._longest_eval)

    @property
    def _longest_eval(self) -> int:
        return round(EVAL_SECONDS * self.config.sample_rate)

    def order(self, batch_size: int) -> LengthBatches:
        """Global batches of so many seconds of pieces; `UserError` if there is no piece."""
        rate, lengths_P = self.config.sample_rate, self.pieces.lengths_P
        if not len(lengths_P):
            raise UserError(
                f"none of {len(self.records)} recordings of the {self.records.kind} can be trained on: "
                f"{_reasons(self.pieces.bad)}; the shortest may have --data.min-seconds {self.data.min_seconds:g}"
            )
        longest = round(self.data.max_seconds * rate)
        return LengthBatches(np.minimum(lengths_P, longest), batch_size, self.seed, rate)

    def grid(self, inputs: NDArray[Any]) -> tuple[int, ...]:
        """Tokens of a batch."""
        return (self.config.num_tokens(inputs.shape[1]),)

    def size(self, batch: ReadBatch) -> float:
        """Seconds of each sample, padding included."""
        return float(batch.inputs.shape[1] / self.config.sample_rate)

    def train_batch(self, plan: Plan) -> ReadBatch:
        """Crops of `plan.length` samples from pieces, which are normalised before; offsets by (seed, epoch, sample)."""
        wave_BS = np.empty((len(plan.samples_B), plan.length), dtype=np.float32)
        indices_B, bad = self.pieces.records_P[plan.samples_B], []
        for place, (epoch, piece) in enumerate(zip(plan.epochs_B.tolist(), plan.samples_B.tolist(), strict=True)):
            try:
                wave_BS[place] = self.crop(piece, epoch, plan)
            except BadSample as error:
                bad.append(Bad(self.name(piece), error.reason))
                wave_BS[place], other = self._other_crop(piece, epoch, plan, bad[-1])
                indices_B[place] = self.pieces.records_P[other]
        return ReadBatch(wave_BS, self.records.labels[indices_B], tuple(bad), indices_B)

    def whole(self, sample: int) -> NDArray[np.float32]:
        """One whole recording, of a longer one the first minute, normalised; raises `BadSample`, also if too short."""
        with self.records.open(sample) as file:
            wave = read_audio(file, self.config.sample_rate, seconds=EVAL_SECONDS)
        if len(wave) < self.config.receptive_field:
            raise BadSample(TOO_SHORT)
        return normalise(wave)

    def entire(self, sample: int) -> NDArray[np.float32] | Windows:
        """As `whole`, but of a recording above a minute all of it, in windows of a minute; raises `BadSample`."""
        with self.records.open(sample) as file:
            length = length_of(file, self.config.sample_rate)
        if length <= self._longest_eval:
            return self.whole(sample)
        return Windows(self.config, partial(self.records.open, sample), EVAL_SECONDS)

    def piece(self, piece: int) -> NDArray[np.float32]:
        """One piece, normalised; raises `BadSample`."""
        if piece in self._kept:
            return self._kept[piece]
        pieces, rate = self.pieces, self.config.sample_rate
        start, length = int(pieces.starts_P[piece]), int(pieces.lengths_P[piece])
        with self.records.open(int(pieces.records_P[piece])) as file:
            wave = normalise(read_audio(file, rate, start / rate, length / rate))
        if self.in_memory:
            self._kept[piece] = wave
        return wave

    def name(self, piece: int) -> str:
        """The recording's name, with the place where it has several pieces."""
        pieces = self.pieces
        record, start = int(pieces.records_P[piece]), int(pieces.starts_P[piece])
        is_whole = pieces.lengths_P[piece] == pieces.lengths_N[record]
        return self.records.names[record] + ("" if is_whole else f" from {start / self.config.sample_rate:.0f} s")

    def crop(self, piece: int, epoch: int, plan: Plan) -> NDArray[np.float32]:
        """`plan.length` samples of a piece; raises `BadSample`."""
        wave = self.piece(piece)
        if len(wave) < plan.length:  # headers may promise more than there is
            raise BadSample("truncated")
        draw = rng.uniforms(rng.keys(rng.Stream.CROP, self.seed, epoch, piece), 1)[0, 0]
        offset = int(draw * (len(wave) - plan.length + 1))
        return wave[offset : offset + plan.length]

    def _other_crop(self, piece: int, epoch: int, plan: Plan, bad: Bad) -> tuple[NDArray[np.float32], int]:
        """What stands in for a bad piece: a crop of one long enough; if all are bad, a shorter one over and over."""

        def crop(other: int) -> NDArray[np.float32]:
            if self.pieces.lengths_P[other] < plan.length:
                return np.resize(self.piece(other), plan.length)
            return self.crop(other, epoch, plan)

        long_enough = np.flatnonzero(self.pieces.lengths_P >= plan.length)
        return self.replacement(piece, bad, crop, long_enough, np.arange(len(self.pieces)))


@dataclass(frozen=True)
class AudioSurvey:
    """What a look at all headers and at part of the sound found."""

    checked: int
    """Recordings: what `bad` is to be compared with."""
    bad: tuple[Bad, ...]
    """Those that can't be read."""
    left_out: tuple[Bad, ...]
    """Those that are shorter than asked for, which is no fault of theirs."""
    hours: float
    """Of what can be trained on."""
    shortest_s: float
    longest_s: float
    rates: Mapping[int, int]
    """How many of the pieces that were decoded come in each sample rate."""


def survey_audio(reader: AudioReader, note: Note, limit: int = 200) -> AudioSurvey:
    """Measure all recordings, and decode up to `limit` pieces, evenly spread, in threads.

    Raises `UserError` if there is no usable piece, or if more of those that were decoded are bad than `data.max_bad`.
    """
    pieces, rate = reader.measure(note), reader.config.sample_rate
    reader.order(1)  # refuses data without a piece

    def look(piece: int) -> int | Bad:
        record, length = int(pieces.records_P[piece]), int(pieces.lengths_P[piece])
        slack = LENGTH_STEP * rate
        try:
            with reader.records.open(record) as file:
                found = rate_of(file)
                if reader.records.seconds is not None:
                    file.seek(0)
                    if abs(length_of(file, rate) - int(pieces.lengths_N[record])) > slack:
                        return Bad(reader.name(piece), "not as long as the manifest says")
            if len(reader.piece(piece)) < length - slack:
                return Bad(reader.name(piece), "truncated")
        except BadSample as error:
            return Bad(reader.name(piece), error.reason)
        return found

    count = min(limit, len(pieces))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = list(pool.map(look, (np.arange(count) * len(pieces) // count).tolist()))
    bad = [result for result in results if isinstance(result, Bad)]
    if len(bad) == count:
        raise UserError(f"none of {count} recordings of the {reader.records.kind} can be used: {_reasons(bad)}")
    Skipped(count, reader.data.max_bad).add(bad)
    lengths = pieces.lengths_N[np.unique(pieces.records_P)] / rate
    rates = Counter(result for result in results if isinstance(result, int))
    short = tuple(item for item in pieces.bad if item.reason == TOO_SHORT)
    unreadable = (*(item for item in pieces.bad if item.reason != TOO_SHORT), *bad)
    hours = float(pieces.lengths_P.sum() / rate / 3600)
    return AudioSurvey(len(reader.records), unreadable, short, hours, float(lengths.min()), float(lengths.max()), rates)


def _reasons(bad: tuple[Bad, ...] | list[Bad]) -> str:
    """Counts by reason, and the first name."""
    counts = ", ".join(f"{count} {reason}" for reason, count in Counter(item.reason for item in bad).most_common())
    return f"{counts} (the first: {bad[0].name})" if bad else "there is none"


RATE = 16_000
"""Frames a second, as manifests count them."""


def is_manifest(path: Path) -> bool:
    """Whether a .tsv is one: its first line is no header of several columns, its second ends in a number."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            first, second = file.readline(4096), file.readline(4096)
    except OSError:
        return False
    return "\t" not in first and second.rstrip("\n").rpartition("\t")[2].isdecimal()


def read(root: Path, names: Sequence[str]) -> Listing:
    """The recordings that the .tsv files `names` in `root` list; file names tell the parts ("valid.tsv").

    Raises `UserError` for a file that is no manifest, and for one whose transcripts are not as many as its recordings.
    """
    parts = {}
    for part, files in by_part(names, str(root)).items():
        listed: list[str] = []
        paths: list[str] = []
        frames: list[int] = []
        texts: list[str | None] = []
        for name in files:
            folder, rows = _rows(root / name)
            listed += [below for below, _ in rows]
            paths += [str(folder / below) for below, _ in rows]
            frames += [count for _, count in rows]
            texts += _transcripts(root / name, len(rows))
        if not listed:
            raise UserError(f"{', '.join(files)} in {root} has no recordings; remove it")
        source = Files(Path(), tuple(paths))
        seconds = np.array(frames, dtype=np.int64) / RATE
        parts[part] = Split(tuple(listed), [None] * len(listed), source, texts, seconds)
    return Listing("manifest of recordings", parts)


def _lines(path: Path) -> list[str]:
    """Lines of a text file; names of files may be in any encoding."""
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from error
    return text.removesuffix("\n").split("\n")


def _rows(path: Path) -> tuple[Path, list[tuple[str, int]]]:
    """The folder of a manifest, and paths below it with their numbers of frames."""
    first, *lines = _lines(path)
    folder = path.parent.absolute() / first.strip()
    if "\t" in first or not first.strip() or not folder.is_dir():
        raise UserError(f"{path}: line 1 is {first[:80]!r}; it must be the folder that the recordings are in")
    rows = []
    for place, line in enumerate(lines, 2):
        below, _, frames = line.rpartition("\t")
        if not below or not frames.isdecimal():
            raise UserError(f"{path}: line {place} is {line[:80]!r}; it must be a path, a tab and a number of frames")
        rows.append((below, int(frames)))
    return folder, rows


def _transcripts(path: Path, count: int) -> list[str | None]:
    """Transcripts beside a manifest of `count` recordings; None where there are none."""
    words, letters = path.with_suffix(".wrd"), path.with_suffix(".ltr")
    beside = words if words.exists() else letters
    if not beside.exists():
        return [None] * count
    lines = _lines(beside)
    if len(lines) != count:
        raise UserError(f"{beside} has {len(lines):,} transcripts, but {path} has {count:,} recordings")
    if beside == letters:
        return ["".join(line.split()).replace("|", " ") for line in lines]
    return list(lines)


class _Manifests:
    """Manifests as a data set of recordings."""

    named = "or .tsv"
    hints: Mapping[str, str] = {}

    def file(self, path: Path) -> Listing | None:
        """One `.tsv`."""
        return read(path.parent, [path.name]) if path.suffix.lower() == ".tsv" else None

    def folder(self, path: Path, files: Mapping[str, list[str]]) -> Listing | None:
        """A folder with manifests in it."""
        lists = [name for name in files.get(".tsv", []) if "/" not in name and is_manifest(path / name)]
        return read(path, lists) if lists else None


MANIFESTS = _Manifests()
