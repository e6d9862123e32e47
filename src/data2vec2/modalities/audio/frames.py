"""Segments of recordings (voice activity, phones): their files, the class of each token, and the job.

Shapes: `T` tokens, `F` raw features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data2vec2.config.run import DataConfig, FinetuneConfig
from data2vec2.data.account import Account, Bad
from data2vec2.data.labels import IGNORED, spelled
from data2vec2.data.reader import Reader
from data2vec2.data.reading import text_of
from data2vec2.data.records import Parts, Records, open_data
from data2vec2.data.sampler import Plan
from data2vec2.errors import UserError
from data2vec2.files import parse_json
from data2vec2.method.encoder import Encoder
from data2vec2.method.heads import TokenClassifier
from data2vec2.modalities.audio.config import AudioConfig, AudioDataConfig, AudioFinetuneDataConfig
from data2vec2.modalities.audio.finetune import AudioClassifyJob, prepare
from data2vec2.modalities.audio.manifests import MANIFESTS
from data2vec2.modalities.audio.phones import log_mel
from data2vec2.modalities.audio.reader import EVAL_SECONDS, RECORDINGS, AudioReader, Pieces
from data2vec2.modalities.audio.waveform import Note
from data2vec2.modalities.data import Columns, Log, ModelInfo, narrow
from data2vec2.modalities.dense import DenseJob, column_beside, probabilities_of, unclassed
from data2vec2.modalities.jobs import FinetuneData

SEGMENTS = "segments"
"""The column of tables."""
NONE = "none"
"""The class of frames in no segment."""
BEYOND_S = 0.1
"""Segments may end so much later than their recording without a word."""
UNSEGMENTED = "no segments"


class Segment(NamedTuple):
    """A part of a recording, in seconds."""

    start: float
    end: float
    label: str


def open_segments(data: str) -> Parts:
    """Recordings with segments: of a column `segments` of their table, or of label files beside them.

    Such a column holds lists of `start`, `end` (seconds) and `label`, in .csv as JSON; a label file, NAME.txt beside
    NAME.wav, a line with these for each, as Audacity writes it. Recordings without either are left out; an empty list
    or file says that there are no segments. Of segments that overlap, the later ones count.

    `UserError` for data without segments, and for a segment that can't be.
    """
    parts = unclassed(open_data(data, RECORDINGS, MANIFESTS))
    found: dict[str, Any] = {}
    labels: set[str] = set()
    for key, records in parts.each.items():
        values = column_beside(data, records, SEGMENTS) or _label_files(Path(data), records, parts.account)
        values = [None if value == "" else value for value in values]  # of .csv
        known = [place for place, value in enumerate(values) if value is not None]
        names, of_part = records.names, parts.account.part(key)
        of_part.leave_out(Bad(names[place], UNSEGMENTED) for place in range(len(values)) if values[place] is None)
        marks = tuple(_segments(values[place], names[place]) for place in known)
        labels |= {one.label for row in marks for one in row}
        found[key] = replace(records.select(known), marks=marks)
    if not len(found["train"]) or not labels:
        raise UserError(
            f"{data} has no segments to learn from ({parts.description}); give a metadata.jsonl with columns file_name "
            f"and {SEGMENTS}, lists of start, end and label, or NAME.txt beside NAME.wav, as Audacity writes labels"
        )
    classes = tuple(sorted(labels))
    counts = ", ".join(
        f"{sum(map(len, one.marks or ())):,} segments in {len(one):,} {key} recordings" for key, one in found.items()
    )
    found = {key: replace(one, classes=classes) for key, one in found.items()}
    return replace(parts, **found, description=f"{parts.train.kind}: {counts}, {len(classes):,} labels")


def _label_files(root: Path, records: Records, account: Account) -> list[Any]:
    """Lines of label files, without comments; None for recordings that have none; `UserError` for another encoding."""
    root = root if root.is_dir() else root.parent
    found: list[Any] = []
    for name in records.names:
        path = (root / name).with_suffix(".txt")
        if not path.is_file():
            found.append(None)
            continue
        account.beside.pop(Path(name).with_suffix(".txt").as_posix(), None)
        lines = text_of(path).split("\n")
        found.append([line.split("\t") for line in lines if line.strip() and not line.startswith("\\")])
    return found


def _segments(value: Any, where: str) -> tuple[Segment, ...]:
    """Segments of a recording, in order; `UserError` for what are none."""
    try:
        rows = parse_json(value) if isinstance(value, str) else value
        fields = [[row[key] for key in Segment._fields] if isinstance(row, dict) else row for row in rows]
        found = [
            Segment(float(start), float(end), spelled("" if label is None else label)) for start, end, label in fields
        ]
    except (ValueError, TypeError, KeyError) as error:
        shown = str(value)[:60]
        raise UserError(
            f"{where}: segments are lists of start, end and label (in .csv as JSON), not {shown!r}"
        ) from error
    for one in found:
        if not (0 <= one.start < one.end < float("inf")) or not one.label:
            raise UserError(f"{where}: a segment from {one.start:g} to {one.end:g} s, {one.label!r}, can't be")
    return tuple(sorted(found, key=lambda one: one.start))


class FramesReader(AudioReader):
    """Batches of waveforms, of whose tokens each has a class: that of the segment at its centre."""

    @cached_property
    def places(self) -> dict[str, int]:
        """Of the classes."""
        return {name: place for place, name in enumerate(self.records.classes)}

    def segments(self, record: int) -> tuple[Segment, ...]:
        """Those of a recording."""
        return narrow(self.records.marks, tuple)[record]  # type: ignore[no-any-return]

    def measure(self, note: Note = lambda _: None) -> Pieces:
        """The pieces; `UserError` where segments can't be in seconds: most are of more than twice the length."""
        if self._pieces is not None:
            return self._pieces
        pieces = super().measure(note)
        seconds_N, marks = pieces.lengths_N / self.rate, self.records.marks or [()] * len(self.records)
        ends_N = np.array([max((one.end for one in row), default=0.0) for row in marks])
        far = np.flatnonzero((seconds_N > 0) & (ends_N > 2 * seconds_N + BEYOND_S)).tolist()
        if 2 * len(far) > np.count_nonzero(seconds_N):
            which = f"segments of {self.records.names[far[0]]} end at {ends_N[far[0]]:g} s"
            what = f"{which}, it at {seconds_N[far[0]]:.1f} s, and most others are alike"
            raise UserError(f"{what}; start and end must be in seconds")
        return pieces

    def marked(self, sample: int, epoch: int | None = None, plan: Plan | None = None) -> NDArray[np.int64]:
        """The class `T` of each token of a recording, or of the crop of a piece."""
        if plan is None:
            length = min(int(self.pieces.lengths_N[sample]), self._longest_eval)
            return self._at(sample, self._centres(length))
        assert epoch is not None
        size, start = int(self.pieces.lengths_P[sample]), int(self.pieces.starts_P[sample])
        offset = self.offset(sample, epoch, size - plan.length) if size >= plan.length else 0
        centres_T = (offset + self._centres(plan.length)) % size  # a shorter piece comes over and over
        return self._at(int(self.pieces.records_P[sample]), start + centres_T)

    def _centres(self, length: int) -> NDArray[np.floating[Any]]:
        """Samples at the centres of tokens."""
        return self.config.receptive_field / 2 + self.config.hop * np.arange(self.config.num_tokens(length))

    def _at(self, record: int, samples_T: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
        """Classes at some samples of a recording."""
        times_T = samples_T / self.rate
        classes_T = np.full(len(times_T), self.places.get(NONE, IGNORED), dtype=np.int64)
        first, last = times_T.min(initial=np.inf), times_T.max(initial=0)
        for start, end, label in self.segments(record):
            if start <= last and end > first:
                classes_T[(times_T >= start) & (times_T < end)] = self.places[label]
        return classes_T


class FramesJob(AudioClassifyJob, DenseJob):
    """A class of each 20 ms."""

    name, places, raw, unused = "frames", "frames", "log-mel frames", ("task.model.pooling",)

    def open_marked(self, path: str, columns: Columns, data: DataConfig) -> Parts:
        """Recordings with segments."""
        return open_segments(path)

    def unmarked(self, config: FinetuneConfig) -> tuple[str, ...]:
        """That of gaps."""
        return (NONE,) if narrow(config.data, AudioFinetuneDataConfig).gaps == "class" else ()

    def reader(self, records: Records, info: ModelInfo, seed: int) -> Reader:
        """Of recordings and their segments."""
        data, modality = narrow(info.data, AudioDataConfig), narrow(info.model.modality, AudioConfig)
        return FramesReader(records, modality, data, seed)

    def open(self, config: FinetuneConfig, info: ModelInfo, path: str, val: str | None) -> FinetuneData:
        """Without a class of gaps where there are none."""
        data = super().open(config, info, path, val)
        readers = {key: narrow(reader, FramesReader) for key, reader in data.readers.items()}
        gap = readers["train"].places.get(NONE, IGNORED)
        of_gaps = [_share(reader, gap) for reader in readers.values()]
        if any(of_gaps):
            use = "neither learned nor scored" if gap == IGNORED else f"the class {NONE!r}"
            data.account.choices.append(f"{of_gaps[0]:.1%} of the time to train on is in no segment: {use}")
        elif gap != IGNORED and NONE not in {one.label for row in data.train.records.marks or () for one in row}:
            classes = tuple(name for name in data.train.records.classes if name != NONE)
            if len(classes) < 2:
                raise UserError(f"all frames of {path} are {classes[0]!r}; there is nothing to learn")
            again: dict[str, Any] = {
                key: self.reader(replace(one.records, classes=classes), info, one.seed) for key, one in readers.items()
            }
            data = replace(data, **again, outputs=len(classes))
        return data

    def look(self, data: FinetuneData, config: FinetuneConfig, log: Log) -> None:
        """And segments that reach out of their recordings, and recordings that are scored in part."""
        super().look(data, config, log)
        for note in data.account.choices:
            if "in no segment" in note:
                log(f"data: {note}")
        for key, one in data.readers.items():
            reader = narrow(one, FramesReader)
            seconds_N, names = reader.pieces.lengths_N / reader.rate, reader.records.names
            beyond = [
                Bad(names[place], "segments beyond its end are cut")
                for place, seconds in enumerate(seconds_N.tolist())
                if seconds and any(segment.end > seconds + BEYOND_S for segment in reader.segments(place))
            ]
            data.account.part(key).mend(beyond)
            if beyond:
                what = f"segments of {len(beyond):,} {key} recordings, such as {beyond[0].name}"
                log(f"data: {what}, reach beyond the end; they are cut")
            long = int(np.count_nonzero(seconds_N > EVAL_SECONDS))
            if long and key != "train":
                log(f"data: of {long:,} {key} recordings the first {EVAL_SECONDS:g} s are scored")

    def model(self, config: FinetuneConfig, encoder: Encoder, data: FinetuneData) -> TokenClassifier:
        """A class at every token."""
        task = prepare(config, encoder)
        return TokenClassifier(encoder, data.outputs, dropout=task.model.dropout, noise_std=task.masks.noise_std)

    def raw_rows(self, reader: Reader, sample: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Log-mel energies `TF` of two frames of 10 ms each, as the phone probe has them."""
        own = narrow(reader, FramesReader)
        rows_TF, tokens = log_mel(own.whole(sample)[None], own.rate)[0], len(own.marked(sample))
        return rows_TF, np.minimum(np.arange(tokens), len(rows_TF) - 1)

    def told_of(
        self, reader: Reader, sample: int, logits: NDArray[np.float32], info: ModelInfo
    ) -> Iterator[dict[str, Any]]:
        """Stretches of tokens of one class, with the mean of its probability; they meet halfway between centres."""
        config, probabilities = narrow(reader, FramesReader).config, probabilities_of(logits)
        best_T = logits.argmax(axis=-1)
        first_s, hop_s = (config.receptive_field - config.hop) / 2 / config.sample_rate, config.hop / config.sample_rate
        bounds = [0, *(np.flatnonzero(np.diff(best_T)) + 1).tolist(), len(best_T)]
        for start, end in pairwise(bounds):
            place = int(best_T[start])
            times = {"start": start * hop_s + first_s if start else 0.0, "end": end * hop_s + first_s}
            times = {key: round(value, 4) for key, value in times.items()}
            yield {**times, "class": info.classes[place], "probability": float(probabilities[start:end, place].mean())}


def _share(reader: FramesReader, gap: int) -> float:
    """Of the frames of all recordings, those that are in no segment."""
    rows = [reader.marked(place) == gap for place in range(len(reader.records))]
    return float(np.concatenate(rows).mean()) if rows else 0.0
