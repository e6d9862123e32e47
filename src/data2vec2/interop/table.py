"""Features as a Parquet file.

Columns: `name` (string), `part` (string), `label` (string or null; a list of strings where samples can have several),
`features`; of recordings `transcript` (string or null), of text `texts` (a list of one string, of a pair two). Pooled
features are a list of the fixed length `dim`. Dense ones are one flat list a sample: of pictures patch after patch, row
by row, with `grid` (int32, rows and columns), so `features.reshape(*grid, dim)`; of recordings token after token, with
`num_tokens` (int32); of text likewise, with `tokens` (strings, as the vocabulary has them) and `offsets` (int32, first
character of each in its text and the one behind its last). The schema's metadata hold a JSON object under "data2vec2"
that says what they are; of recordings also `hop_s` and `first_centre_s`: token t stands for the sound around
`first_centre_s + t * hop_s` seconds.

Shapes: `D` width, `T` patches.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data2vec2.errors import UserError

ROW_GROUP_BYTES = 16 << 20
METADATA_KEY = b"data2vec2"


class FeatureTable:
    """Rows on their way to a file: kept until they fill a row group, then written. A context: leaving it is the end."""

    def __init__(
        self,
        file: Any,
        dim: int,
        dtype: str,
        *,
        dense: bool,
        tagged: bool,
        about: dict[str, Any],
        more: Sequence[pa.Field] = (),
    ) -> None:
        """`file` is open for writing; `dtype`: float32 or float16; `tagged`: labels are lists; `about`: metadata.

        `more` are the columns after `features`.
        """
        self._value = {"float32": pa.float32(), "float16": pa.float16()}[dtype]
        self.largest = float(np.finfo(dtype).max)
        self._dim, self._dense = dim, dense
        fields = [
            pa.field("name", pa.string(), nullable=False),
            pa.field("part", pa.string(), nullable=False),
            pa.field("label", pa.list_(pa.string()) if tagged else pa.string()),
            pa.field("features", pa.list_(self._value) if dense else pa.list_(self._value, dim), nullable=False),
        ]
        self._more = tuple(more)
        self.schema = pa.schema([*fields, *more], metadata={METADATA_KEY: json.dumps(about)})
        repeated = ["part", "label.list.element" if tagged else "label"]  # floats gain nothing from a dictionary
        self._writer = pq.ParquetWriter(file, self.schema, use_dictionary=repeated)
        self._pending: list[pa.RecordBatch] = []
        self.num_rows = 0

    def add(
        self,
        part: str,
        names: Sequence[str],
        labels: Sequence[Any],
        features: Sequence[NDArray[np.floating[Any]]],
        cells: Mapping[str, Sequence[Any]],
    ) -> None:
        """Append rows of one part; each row's features are `D`, or `TD` for a dense table; `cells` of `more`."""
        values = np.concatenate([row.ravel() for row in features]).astype(self._value.to_pandas_dtype(), copy=False)
        flat = pa.array(values, self._value)
        columns = [
            # what is no text in a file's name becomes a question mark
            pa.array([name.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for name in names]),
            pa.array([part] * len(names), pa.string()),
            pa.array(labels, self.schema.field("label").type),
        ]
        if self._dense:
            ends = np.cumsum([0, *(row.size for row in features)])
            columns.append(pa.ListArray.from_arrays(pa.array(ends, pa.int32()), flat))
        else:
            columns.append(pa.FixedSizeListArray.from_arrays(flat, self._dim))
        columns += [pa.array(cells[field.name], field.type) for field in self._more]
        self._pending.append(pa.RecordBatch.from_arrays(columns, schema=self.schema))
        self.num_rows += len(names)
        if sum(batch.nbytes for batch in self._pending) >= ROW_GROUP_BYTES:
            self._write()

    def __enter__(self) -> FeatureTable:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._pending:
            self._write()
        self._writer.close()

    def _write(self) -> None:
        """One row group."""
        table = pa.Table.from_batches(self._pending)
        self._writer.write_table(table, row_group_size=table.num_rows)
        self._pending = []


def check_out(path: Path, overwrite: bool, example: str = "features.parquet") -> None:
    """`UserError` for a path that must not be written."""
    if path.is_dir():
        raise UserError(f"--out {path} is a folder; give a file, such as {path / example}")
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists; --overwrite replaces it")
