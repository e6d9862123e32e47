"""Pictures or recordings in Parquet files.

Parquet can't be read at random: for one sample its whole row group must be decoded, often 100 MB, and a shuffled epoch
asks for another row group each time (LOG.md, "Reading Parquet at random"). So the samples of each file are copied
once, a few rows at a time, into a file in which they lie one behind the other. Copies stay in the cache folder, from
which they may be deleted at any time; memory does not grow with the data.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data2vec2.data.columns import Columns, choose_columns
from data2vec2.data.content import PICTURES, Content
from data2vec2.data.source import Found, Part, by_part
from data2vec2.data.spans import Spans
from data2vec2.errors import UserError

_ROWS = 64  # decoded at a time
_LONG = 1 << 30  # bytes to copy that the user is told of beforehand


def read(root: Path, names: Sequence[str], content: Content = PICTURES) -> Found:
    """The rows of the Parquet files `names` below `root`; file names tell the parts ("test-00000.parquet").

    Raises `UserError` for a file that is damaged, or has other columns or names of classes than the rest,
    and if there is no room for the copy.
    """
    first: Columns | None = None
    parts = {}
    for part, files in by_part(names, str(root)).items():
        labels: list[Any] = []
        texts: list[Any] = []
        ends: list[NDArray[np.int64]] = []
        copies: list[Path] = []
        for name in files:
            path = root / name
            try:
                with pq.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
                    columns = choose_columns(file.schema_arrow, str(path), content)
                    if first not in (None, columns):
                        raise UserError(f"{path} has other columns than the files before it: {columns}, not {first}")
                    first = columns
                    labels += _values(file, columns.label)
                    texts += _values(file, columns.text)
                    copy, of_file = _copied(path, file, columns.leaf, content)
            except pa.ArrowException as error:
                reason = str(error).split("\n", 1)[0]
                raise UserError(f"can't read {path} as Parquet; was a download cut off? {reason}") from error
            except OSError as error:
                raise UserError(f"can't read {path}: {error}") from error
            copies.append(copy)
            ends.append(of_file)
        counts = [len(of_file) - 1 for of_file in ends]
        if not sum(counts):
            raise UserError(f"{', '.join(files)} in {root} has no rows; remove it")
        spans = Spans(
            tuple(copies),
            np.repeat(np.arange(len(files), dtype=np.int32), counts),
            np.concatenate([of_file[:-1] for of_file in ends]),
            np.concatenate([np.diff(of_file) for of_file in ends]),
        )
        rows = tuple(f"{name}[{row}]" for name, count in zip(files, counts, strict=True) for row in range(count))
        parts[part] = Part(rows, labels, spans, texts if first and first.text else None)
    return Found("Parquet tables", parts, first.classes if first else None)


def cache_folder() -> Path:
    """Where copies are kept: data2vec2 in XDG_CACHE_HOME, or in .cache of the home folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "data2vec2"


def _values(file: pq.ParquetFile, column: str | None) -> list[Any]:
    """What a column holds, or so many times None."""
    return file.read([column]).column(0).to_pylist() if column else [None] * file.metadata.num_rows


def _copied(path: Path, file: pq.ParquetFile, leaf: str, content: Content) -> tuple[Path, NDArray[np.int64]]:
    """The copy of a file's samples, made if it is not there yet, and where each of them ends (the first value is 0).

    Rows without a sample take no bytes. Raises `UserError` if the copy can't be written.
    """
    stat = path.stat()
    key = hashlib.sha256(f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0{leaf}".encode()).hexdigest()[:32]
    folder = cache_folder()
    samples, index = folder / f"{key}.{content.many}", folder / f"{key}.npy"
    try:
        if samples.is_file() and index.is_file():
            ends = np.load(index, allow_pickle=False)
            if samples.stat().st_size == ends[-1]:
                return samples, ends
        folder.mkdir(parents=True, exist_ok=True)
        needed, free = _sample_bytes(file, leaf), shutil.disk_usage(folder).free
        if needed > free:
            raise UserError(
                f"the {content.many} of {path} must be copied to {folder} to be read in any order, which takes "
                f"{needed:,} bytes; {free:,} are free. Make room, or set XDG_CACHE_HOME to a larger disk"
            )
        if needed > _LONG:
            print(f"copying the {content.many} of {path} to {folder} ({needed / 1e9:.1f} GB)", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:
            ends = _copy(file, leaf, Path(unfinished) / "samples")
            np.save(Path(unfinished) / "index.npy", ends)
            (Path(unfinished) / "samples").replace(samples)
            (Path(unfinished) / "index.npy").replace(index)
    except OSError as error:
        if error.errno is None:  # Arrow's: it is the table that is damaged
            raise
        raise UserError(
            f"can't copy the {content.many} of {path} to {folder}: {error}; XDG_CACHE_HOME names another"
        ) from error
    return samples, ends


def _copy(file: pq.ParquetFile, leaf: str, target: Path) -> NDArray[np.int64]:
    """Write all samples one behind the other; returns where each of them ends."""
    ends = [0]
    with target.open("wb") as copy:
        for batch in file.iter_batches(_ROWS, columns=[leaf], use_threads=False):
            values = batch.column(0)
            if pa.types.is_struct(values.type):
                values = values.flatten()[0]
            for value in values:
                ends.append(ends[-1] + (copy.write(value.as_buffer()) if value.is_valid else 0))
    return np.array(ends, dtype=np.int64)


def _sample_bytes(file: pq.ParquetFile, leaf: str) -> int:
    """Bytes of a file's samples when decoded, about."""
    groups = (file.metadata.row_group(place) for place in range(file.num_row_groups))
    columns = (group.column(place) for group in groups for place in range(group.num_columns))
    return sum(int(column.total_uncompressed_size) for column in columns if column.path_in_schema == leaf)
