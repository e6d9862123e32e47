"""Segments of recordings: their files, and the class of each token, also of crops."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data2vec2.data.labels import IGNORED
from data2vec2.data.sampler import Plan
from data2vec2.errors import UserError
from data2vec2.modalities.audio import english_prompts
from data2vec2.modalities.audio.config import AudioConfig, AudioDataConfig
from data2vec2.modalities.audio.frames import NONE, UNSEGMENTED, FramesReader, Segment, open_segments
from data2vec2.modalities.audio.phones import PHONES, frame_labels, read_phones
from tests.unit.data.sounds import RATE, encoded, put, sound

SEGMENTS = [{"start": 0.25, "end": 0.75, "label": "voice"}, {"start": 0.75, "end": 1.1, "label": "noise"}]


def reader(path: Path, classes: tuple[str, ...] = ("noise", "voice", NONE), **data: float) -> FramesReader:
    records = open_segments(str(path)).train
    object.__setattr__(records, "classes", classes)
    chosen = AudioDataConfig(**({"min_seconds": 0.1, "max_seconds": 2.0} | data))
    return FramesReader(records, AudioConfig(stem="mel"), chosen, seed=0)


def described(folder: Path, segments: dict[str, object]) -> Path:
    lines = [json.dumps({"file_name": name, "segments": value}) for name, value in segments.items()]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "labels"])
def test_every_format_gives_the_same_segments(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    put(folder / "a.wav", 1.2, RATE, 0)
    put(folder / "b.wav", 1.2, RATE, 1)
    if kind == "jsonl":
        described(folder, {"a.wav": SEGMENTS, "b.wav": []})
    elif kind == "csv":
        quoted = json.dumps(SEGMENTS).replace('"', '""')
        (folder / "metadata.csv").write_text(f'file_name,segments\na.wav,"{quoted}"\nb.wav,[]\n')
    elif kind == "parquet":
        sounds = [(folder / name).read_bytes() for name in ("a.wav", "b.wav")]
        folder = tmp_path / "table"
        folder.mkdir()
        pq.write_table(pa.table({"audio": sounds, "segments": [SEGMENTS, []]}), folder / "train.parquet")
    else:
        lines = [f"{one['start']:.6f}\t{one['end']:.6f}\t{one['label']}" for one in SEGMENTS]
        (folder / "a.txt").write_text("\n".join([*lines, "\\\t100\t200"]) + "\n")
        (folder / "b.txt").write_text("")
    parts = open_segments(str(folder))
    assert parts.train.classes == ("noise", "voice")
    assert parts.train.marks == (tuple(Segment(**one) for one in SEGMENTS), ())
    assert not parts.account.beside


def test_recordings_without_segments_are_left_out_and_wrong_ones_refused(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        put(tmp_path / name, 1.2, RATE, 0)
    parts = open_segments(str(described(tmp_path, {"a.wav": SEGMENTS})))
    assert parts.account.part("train").left_out == {"b.wav": UNSEGMENTED}
    assert (parts.account.part("train").found, len(parts.train)) == (2, 1)
    for wrong, match in (
        ([{"start": 1.0, "end": 0.5, "label": "voice"}], "a.wav: a segment from 1 to 0.5 s, 'voice', can't be"),
        ([{"start": -1, "end": 0.5, "label": "voice"}], "can't be"),
        ([{"start": 0, "end": 0.5, "label": ""}], "can't be"),
        ([{"start": 0, "end": 0.5, "label": None}], "can't be"),
        ([{"start": 0, "end": 0.5}], "lists of start, end and label"),
        (["voice"], "lists of start, end and label"),
        (7, "lists of start, end and label"),
    ):
        with pytest.raises(UserError, match=match):
            open_segments(str(described(tmp_path, {"a.wav": wrong})))
    (tmp_path / "metadata.jsonl").unlink()
    with pytest.raises(UserError, match="no segments to learn from"):
        open_segments(str(tmp_path))


def test_names_in_tables_and_empty_cells(tmp_path: Path) -> None:
    for name in ("cafe\u0301.wav", "b.wav", "c.wav"):
        put(tmp_path / name, 1.2, RATE, 0)
    quoted = json.dumps(SEGMENTS).replace('"', '""')
    rows = f'caf\u00e9.wav,"{quoted}"\n{tmp_path / "b.wav"},[]\nc.wav,\n'
    (tmp_path / "metadata.csv").write_text(f"file_name,segments\n{rows}")
    parts = open_segments(str(tmp_path))
    assert list(map(len, parts.train.marks or ())) == [0, 2]
    assert parts.account.part("train").left_out == {"c.wav": UNSEGMENTED}
    (tmp_path / "metadata.csv").write_text(f"file_name,segments\n{rows}b.wav,[7]\n")
    with pytest.raises(UserError, match=r"rows of b\.wav have different segments; put all into one row"):
        open_segments(str(tmp_path))


def test_encodings_of_label_files(tmp_path: Path) -> None:
    put(tmp_path / "a.wav", 1.2, RATE, 0)
    labels = "0.1\t0.5\tb\u00e9\u2028\n0.6\t0.9\tb\u00e8\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "a.txt").write_text(labels, encoding)
        assert open_segments(str(tmp_path)).train.classes == ("b\u00e8", "b\u00e9")
    (tmp_path / "a.txt").write_bytes(labels.replace("\u2028", "").encode("latin-1"))
    with pytest.raises(UserError, match=r"a\.txt is not UTF-8; save the file as UTF-8"):
        open_segments(str(tmp_path))


@pytest.mark.parametrize("rate", [1_000, RATE])
def test_segments_in_milliseconds_or_samples_are_refused(tmp_path: Path, rate: int) -> None:
    names = ("a.wav", "b.wav", "c.wav")
    for name in names:
        put(tmp_path / name, 1.2, RATE, 0)
    wrong = [one | {"start": rate * float(one["start"]), "end": rate * float(one["end"])} for one in SEGMENTS]
    own = reader(described(tmp_path, dict.fromkeys(names, SEGMENTS) | {"a.wav": wrong}))
    assert len(own.pieces) == 3
    own = reader(described(tmp_path, dict.fromkeys(names, wrong) | {"a.wav": SEGMENTS}))
    match = rf"segments of b\.wav end at {1.1 * rate:g} s, it at 1\.2 s, .*; start and end must be in seconds"
    with pytest.raises(UserError, match=match):
        own.marked(0)


def test_the_class_of_a_token_is_that_at_its_centre(tmp_path: Path) -> None:
    """Real phones, as the probe of phones has them."""
    name, alignment = next(item for item in read_phones(english_prompts() / "phones.csv").items() if len(item[1]) > 9)
    (tmp_path / "a.ogg").write_bytes((english_prompts() / name).read_bytes())
    segments = [{"start": start, "end": end, "label": phone} for start, end, phone in alignment if phone != "SIL"]
    own = reader(described(tmp_path, {"a.ogg": segments}), PHONES)
    classes, config = own.marked(0), own.config
    assert len(classes) == config.num_tokens(len(own.whole(0)))
    times = config.hop / RATE, config.receptive_field / 2 / RATE
    expected = frame_labels(alignment, len(classes), *times)
    assert (expected >= 0).sum() > 20
    assert np.array_equal(classes, np.where(expected < 0, IGNORED, expected))


def test_crops_have_the_classes_of_what_they_hold(tmp_path: Path) -> None:
    """Found by looking for the crop in the recording: of pieces of a long one, and of one that comes over and over."""
    wave = sound(7.3)
    (tmp_path / "long.wav").write_bytes(encoded(wave))
    (tmp_path / "short.wav").write_bytes(encoded(wave[: round(0.9 * RATE)]))
    edges = [0.1, 0.33, 1.7, 2.0, 2.95, 3.6, 4.4, 5.9, 6.1, 7.2]
    segments = [
        {"start": a, "end": b, "label": ("voice", "noise")[n % 2]}
        for n, (a, b) in enumerate(pairwise(edges))
        if n % 4 != 3
    ]
    own = reader(described(tmp_path, {"long.wav": segments, "short.wav": segments}), max_seconds=2.0)
    assert len(own.pieces) == 4
    length = round(1.5 * RATE)
    for epoch in range(3):
        plan = Plan(np.full(4, epoch), np.arange(4), length)
        batch = own.train_batch(plan)
        for place, piece in enumerate(range(4)):
            record, start = int(own.pieces.records_P[piece]), int(own.pieces.starts_P[piece])
            size, whole = int(own.pieces.lengths_P[piece]), own.piece(piece)
            crop = batch.inputs[place]
            if size >= length:
                offsets = [n for n in range(size - length + 1) if np.array_equal(whole[n : n + length], crop)]
            else:
                assert np.array_equal(np.resize(whole, length), crop)
                offsets = [0]
            assert len(offsets) == 1
            classes = own.marked(piece, epoch, plan)
            assert len(classes) == own.config.num_tokens(length)
            for token, code in enumerate(classes.tolist()):
                centre = (offsets[0] + token * own.config.hop + own.config.receptive_field / 2) % size
                time = (start + centre) / RATE
                of = next((one.label for one in own.segments(record) if one.start <= time < one.end), None)
                assert own.records.classes[code] == (of or NONE), (piece, token, time)


def test_gaps_are_a_class_or_ignored(tmp_path: Path) -> None:
    put(tmp_path / "a.wav", 1.2, RATE, 0)
    path = described(tmp_path, {"a.wav": SEGMENTS})
    with_gaps, without = reader(path).marked(0), reader(path, ("noise", "voice")).marked(0)
    assert np.array_equal(with_gaps == 2, without == IGNORED)
    assert (with_gaps == 2).sum() == pytest.approx((0.25 + 0.1) / 0.02, abs=2)
    assert np.array_equal(with_gaps[with_gaps < 2], without[without != IGNORED])
