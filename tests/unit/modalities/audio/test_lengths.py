"""Lengths that are measured once, and again where a file changes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data2vec2.data.records import Records
from data2vec2.modalities.audio import waveform as lengths
from tests.unit.data.sounds import RATE, encoded, open_recordings, put, sound


@pytest.fixture(autouse=True)
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Places that are opened; all measurements are kept, quick ones too."""
    places: list[int] = []
    original = Records.open

    def noted(records: Records, index: int) -> BinaryIO:
        places.append(index)
        return original(records, index)

    monkeypatch.setattr(Records, "open", noted)
    monkeypatch.setattr(lengths, "KEPT_FROM_S", 0.0)
    return places


def folder(root: Path) -> Path:
    for place in range(5):
        put(root / "data" / f"{place}.flac", 1 + 0.1 * place)
    (root / "data" / "3.flac").write_bytes(b"no sound")
    return root / "data"


def table(root: Path) -> Path:
    rows = [encoded(sound(1 + 0.1 * place)) if place != 3 else b"no sound" for place in range(5)]
    pq.write_table(pa.table({"audio": rows}), root / "data.parquet")
    return root / "data.parquet"


def hub(root: Path) -> str:
    datasets: Any = pytest.importorskip("datasets")
    rows = [encoded(sound(1 + 0.1 * place)) if place != 3 else b"no sound" for place in range(5)]
    datasets.Dataset.from_dict({"audio": [{"bytes": row, "path": None} for row in rows]}).save_to_disk(root / "saved")
    return f"hf:{root / 'saved'}"


def same(one: lengths.Lengths, other: lengths.Lengths) -> bool:
    return np.array_equal(one[0], other[0]) and one[0].dtype == other[0].dtype and one[1] == other[1]


@pytest.mark.parametrize("make", [folder, table, hub])
def test_what_is_kept_is_what_was_measured(tmp_path: Path, looked_at: list[int], make: Any) -> None:
    data = make(tmp_path)
    first = lengths.measured(open_recordings(data).train, RATE)
    assert sorted(looked_at) == list(range(5))
    assert first[1] == {3: "not audio"}
    assert first[0].tolist() == [0 if place == 3 else round((1 + 0.1 * place) * RATE) for place in range(5)]
    looked_at.clear()
    assert same(first, lengths.measured(open_recordings(data).train, RATE))
    assert not looked_at
    halved, _ = lengths.measured(open_recordings(data).train, RATE // 2)
    assert halved.tolist() == (first[0] // 2).tolist()
    some, _ = lengths.measured(open_recordings(data).train.select([4, 0]), RATE)
    assert some.tolist() == first[0][[4, 0]].tolist()


def test_a_file_that_changes_is_measured_again(tmp_path: Path, looked_at: list[int]) -> None:
    data = folder(tmp_path)
    lengths.measured(open_recordings(data).train, RATE)
    put(data / "3.flac", 2.0)
    again, bad = lengths.measured(open_recordings(data).train, RATE)
    assert (again[3], bad) == (2 * RATE, {})
    looked_at.clear()
    os.utime(data / "1.flac", ns=(0, 0))  # the same size, another time
    lengths.measured(open_recordings(data).train, RATE)
    assert looked_at


def test_what_may_be_read_later_is_not_kept(tmp_path: Path, cache: Path) -> None:
    records = open_recordings(folder(tmp_path)).train
    (tmp_path / "data" / "1.flac").unlink()
    assert lengths.measured(records, RATE)[1] == {1: "unreadable", 3: "not audio"}
    assert not cache.exists()


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 and no more"])
def test_a_damaged_cache_is_written_again(tmp_path: Path, cache: Path, content: bytes) -> None:
    data = folder(tmp_path)
    first = lengths.measured(open_recordings(data).train, RATE)
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(content)
    assert same(first, lengths.measured(open_recordings(data).train, RATE))
    assert kept.read_bytes()[:4] == whole[:4]
    assert [path.name for path in cache.iterdir()] == [kept.name]


def test_a_cache_that_can_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = folder(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert lengths.measured(open_recordings(data).train, RATE)[1] == {3: "not audio"}


def test_short_measurements_are_not_kept(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lengths, "KEPT_FROM_S", 100.0)
    lengths.measured(open_recordings(folder(tmp_path)).train, RATE)
    assert not cache.exists()
