"""The table of features is written in pieces."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data2vec2.errors import UsageError
from data2vec2.files import whole_file
from data2vec2.interop.table import ROW_GROUP_BYTES, FeatureTable, table_kind

GRID = pa.field("grid", pa.list_(pa.int32(), 2), nullable=False)


def test_full_row_groups_are_on_disk_before_the_end(tmp_path: Path) -> None:
    rng, out = np.random.default_rng(0), tmp_path / "f.parquet"
    dim, count = 1024, 512
    rows = [rng.standard_normal((count, dim), dtype=np.float32) for _ in range(12)]
    sizes = []
    with (
        whole_file(out) as file,
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
        whole_file(tmp_path / "f") as file,
        FeatureTable(file, 2, "float32", dense=True, tagged=True, about={}, more=[GRID]) as table,
    ):
        table.add("test", ["caf\udce9.jpg"], [["a"]], [np.zeros((6, 2))], {"grid": [(3, 2)]})
    row = pq.read_table(tmp_path / "f").to_pylist()[0]
    assert row == {"name": "caf\ufffd.jpg", "part": "test", "label": ["a"], "features": [0.0] * 12, "grid": [3, 2]}


def written(path: Path, **more: object) -> Path:
    rows, more_fields = [np.arange(3.0) + place for place in range(2)], [pa.field("texts", pa.list_(pa.string()))]
    with (
        whole_file(path) as file,
        FeatureTable(
            file, 3, "float16", dense=False, about={"dim": 3}, more=more_fields, kind=table_kind(path, False), **more
        ) as table,
    ):
        table.add("train", ["a,b.png", "caf\udce9"], [["x", "y\udce9"], []], rows[:2], {"texts": [["é"], ["1", "2"]]})
        table.add("test", ["c"], [["z"]], rows[:1], {"texts": [[]]})
    return path


def test_the_extension_decides(tmp_path: Path) -> None:
    want = np.array([[0, 1, 2], [1, 2, 3], [0, 1, 2]])
    lines = pd.read_csv(written(tmp_path / "e.csv", tagged=True), keep_default_na=False)
    assert lines.columns.tolist() == ["name", "part", "label", "texts", "f0", "f1", "f2"]
    assert lines["name"].tolist() == ["a,b.png", "caf\ufffd", "c"]
    assert lines["label"].tolist() == ["x|y\ufffd", "", "z"]
    assert lines["texts"].tolist() == ['["é"]', '["1", "2"]', "[]"]
    assert np.array_equal(lines[["f0", "f1", "f2"]], want)
    with np.load(written(tmp_path / "E.NPZ", tagged=True), allow_pickle=False) as arrays:
        assert np.array_equal(arrays["features"], want)
        assert arrays["features"].dtype == np.float16
        assert arrays["part"].tolist() == ["train", "train", "test"]
        assert json.loads(str(arrays["about"])) == {"dim": 3}
    assert np.array_equal(np.load(written(tmp_path / "e.npy", tagged=True), allow_pickle=False), want)
    assert pq.read_table(written(tmp_path / "e", tagged=True)).num_rows == 3


def test_other_extensions_are_refused() -> None:
    with pytest.raises(
        UsageError, match=r"e\.xlsx ends in \.xlsx; features are written as \.parquet, \.csv, \.npz, \.npy"
    ):
        table_kind(Path("e.xlsx"), dense=False)
    with pytest.raises(UsageError, match=r"\(--pool none\) are written as \.parquet only"):
        table_kind(Path("e.csv"), dense=True)
