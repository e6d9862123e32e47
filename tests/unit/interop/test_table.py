"""The table of features is written in pieces, and whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data2vec2.errors import UserError
from data2vec2.interop.table import ROW_GROUP_BYTES, FeatureTable, written_whole

GRID = pa.field("grid", pa.list_(pa.int32(), 2), nullable=False)


def test_full_row_groups_are_on_disk_before_the_end(tmp_path: Path) -> None:
    rng, out = np.random.default_rng(0), tmp_path / "f.parquet"
    dim, count = 1024, 512
    rows = [rng.standard_normal((count, dim), dtype=np.float32) for _ in range(12)]
    sizes = []
    with (
        written_whole(out, overwrite=False) as file,
        FeatureTable(file, dim, "float32", dense=False, tagged=False, about={}) as table,
    ):
        for features in rows:
            table.add("train", ["x"] * count, [None] * count, list(features), {})
            sizes.append(file.tell())
        assert not out.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["f.parquet"]
    assert sizes[-1] > 0.5 * rows[0].nbytes * len(rows)
    written = pq.ParquetFile(out)
    groups = [written.metadata.row_group(n).total_byte_size for n in range(written.num_row_groups)]
    assert len(groups) >= 2
    assert max(groups) < 2 * ROW_GROUP_BYTES
    flat = written.read()["features"].combine_chunks().flatten().to_numpy()
    np.testing.assert_array_equal(flat.reshape(-1, dim), np.concatenate(rows))


def test_names_that_are_no_text_are_written(tmp_path: Path) -> None:
    with (
        written_whole(tmp_path / "f", overwrite=False) as file,
        FeatureTable(file, 2, "float32", dense=True, tagged=True, about={}, more=[GRID]) as table,
    ):
        table.add("test", ["caf\udce9.jpg"], [["a"]], [np.zeros((6, 2))], {"grid": [(3, 2)]})
    row = pq.read_table(tmp_path / "f").to_pylist()[0]
    assert row == {"name": "caf\ufffd.jpg", "part": "test", "label": ["a"], "features": [0.0] * 12, "grid": [3, 2]}


def test_a_failure_keeps_the_old_file_and_removes_the_new_one(tmp_path: Path) -> None:
    out = tmp_path / "f"
    out.write_text("old")
    with pytest.raises(RuntimeError), written_whole(out, overwrite=True) as file:
        file.write(b"new")
        raise RuntimeError
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    with pytest.raises(UserError, match="can't write"), written_whole(out / "below", overwrite=False):
        pass


def test_two_writers_of_one_file_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "f"
    with written_whole(out, overwrite=False) as file:
        with pytest.raises(UserError, match="another process is writing"), written_whole(out, overwrite=False):
            pass
        file.write(b"first")
    assert out.read_bytes() == b"first"


def test_a_signal_as_the_file_is_made_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Path.open

    def interrupted(path: Path, *arguments: Any) -> Any:
        original(path, *arguments).close()
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "open", interrupted)
    with pytest.raises(KeyboardInterrupt), written_whole(tmp_path / "f", overwrite=False):
        raise AssertionError("the file was not opened")
    assert not list(tmp_path.iterdir())


def test_a_file_that_another_process_makes_at_the_same_moment_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".f.tmp").write_bytes(b"of another")
    monkeypatch.setattr(Path, "exists", lambda _: False)
    with pytest.raises(UserError, match="File exists"), written_whole(tmp_path / "f", overwrite=False):
        raise AssertionError("the file was not opened")
    assert (tmp_path / ".f.tmp").read_bytes() == b"of another"
