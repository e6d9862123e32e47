"""Features as a file whose name says its kind: Parquet (.parquet, or no extension), .csv, .npz, .npy.

Columns of Parquet: `name` (string), `part` (string), `label` (string or null; a list of strings where samples can have
several), `features`; of recordings `transcript` (string or null), of text `texts` (a list of one string, of a pair
two). Pooled features are a list of the fixed length `dim`. Dense ones are one flat list a sample: of pictures patch
after patch, row by row, with `grid` (int32, rows and columns), so `features.reshape(*grid, dim)`; of recordings token
after token, with `num_tokens` (int32); of text likewise, with `tokens` (strings, as the vocabulary has them) and
`offsets` (int32, first character of each in its text and the one behind its last). The schema's metadata hold a JSON
object under "data2vec2" that says what they are; of recordings also `hop_s` and `first_centre_s`: token t stands for
the sound around `first_centre_s + t * hop_s` seconds.

The other kinds are for pooled features. A .csv file has the same columns but for features, which are `f0`, `f1` and so
on; several labels are separated by "|", and other lists are JSON. A .npz file has an array of each column (of features
`ND`; strings, "" for none) and `about`, the JSON object; a .npy file features `ND` alone.

Shapes: `D` width, `T` patches.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data2vec2.errors import UsageError, UserError

ROW_GROUP_BYTES = 16 << 20
KINDS = (".parquet", ".csv", ".npz", ".npy")
"""What the names of tables end in; the first is taken where one ends in nothing."""
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
        kind: str = KINDS[0],
    ) -> None:
        """`file` is open for writing; `dtype`: float32 or float16; `tagged`: labels are lists; `about`: metadata.

        `more` are the columns after `features`; `kind` is one of `KINDS`.
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
        self._file, self._kind, self._about, self._writer = file, kind, about, None
        if kind == ".parquet":
            self._writer = pq.ParquetWriter(file, self.schema, use_dictionary=repeated)
        elif kind == ".csv":
            self._writer = pc.CSVWriter(file, self._spread(self.schema.empty_table()).schema)
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
            pa.array([_text(name) for name in names]),
            pa.array([part] * len(names), pa.string()),
            pa.array([_text(label) for label in labels], self.schema.field("label").type),
        ]
        if self._dense:
            ends = np.cumsum([0, *(row.size for row in features)])
            columns.append(pa.ListArray.from_arrays(pa.array(ends, pa.int32()), flat))
        else:
            columns.append(pa.FixedSizeListArray.from_arrays(flat, self._dim))
        columns += [pa.array(cells[field.name], field.type) for field in self._more]
        self._pending.append(pa.RecordBatch.from_arrays(columns, schema=self.schema))
        self.num_rows += len(names)
        if self._writer and sum(batch.nbytes for batch in self._pending) >= ROW_GROUP_BYTES:
            self._write(self._writer)

    def __enter__(self) -> FeatureTable:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._writer:
            if kind is None and self._pending:
                self._write(self._writer)
            self._writer.close()
        elif kind is None:
            self._save()

    def _write(self, writer: Any) -> None:
        """One row group, or so many lines."""
        table = pa.Table.from_batches(self._pending)
        if self._kind == ".csv":
            writer.write_table(self._spread(table))
        else:
            writer.write_table(table, row_group_size=table.num_rows)
        self._pending = []

    def _save(self) -> None:
        """Arrays of all rows."""
        table = pa.Table.from_batches(self._pending, self.schema)
        features_ND = self._features(table)
        if self._kind == ".npy":
            np.save(self._file, features_ND, allow_pickle=False)
            return
        columns = {name: np.array(values, dtype=np.str_) for name, values in self._texts(table).items()}
        about = np.array(json.dumps(self._about))
        np.savez(self._file, features=features_ND, about=about, allow_pickle=False, **columns)

    def _features(self, table: pa.Table) -> NDArray[Any]:
        """Features `ND` of a table of pooled ones."""
        chunks = [np.asarray(chunk.flatten()) for chunk in table["features"].chunks]
        return np.concatenate([np.zeros(0, self._value.to_pandas_dtype()), *chunks]).reshape(-1, self._dim)

    def _texts(self, table: pa.Table) -> dict[str, list[str]]:
        """The other columns as strings, "" for none."""
        return {
            name: [_as_text(value, separated=name == "label") for value in table[name].to_pylist()]
            for name in table.column_names
            if name != "features"
        }

    def _spread(self, table: pa.Table) -> pa.Table:
        """A table of strings and numbers, as .csv files have them."""
        columns = {name: pa.array(values, pa.string()) for name, values in self._texts(table).items()}
        numbers = self._features(table).astype(np.float32).T
        return pa.table(columns | {f"f{place}": pa.array(values) for place, values in enumerate(numbers)})


def _text(value: Any) -> Any:
    """A string, or some, in which question marks stand for what is no text in a file's name."""
    if isinstance(value, list):
        return [_text(one) for one in value]
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace") if isinstance(value, str) else value


def _as_text(value: Any, separated: bool) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return "|".join(value) if separated else json.dumps(value, ensure_ascii=False)


def table_kind(path: Path, dense: bool) -> str:
    """Which of `KINDS` a file's name asks for; `UsageError` for another one, or one that can't hold dense features."""
    kind = path.suffix.lower() or KINDS[0]
    if kind not in KINDS:
        raise UsageError(f"--out {path} ends in {path.suffix}; features are written as {', '.join(KINDS)}")
    if dense and kind != KINDS[0]:
        raise UsageError(f"--out {path}: several vectors per sample (--pool none) are written as {KINDS[0]} only")
    return kind


def check_out(path: Path, overwrite: bool, example: str = "features.parquet") -> None:
    """`UserError` for a path that must not be written."""
    if path.is_dir():
        raise UserError(f"--out {path} is a folder; give a file, such as {path / example}")
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists; --overwrite replaces it")
