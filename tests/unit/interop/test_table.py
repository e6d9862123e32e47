"""The table of features is written in pieces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data2vec2.files import whole_file
from data2vec2.interop.table import ROW_GROUP_BYTES, FeatureTable

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
