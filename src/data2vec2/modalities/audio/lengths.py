"""Lengths of recordings, from the data or the headers of the files; what takes long is measured once and kept.

Shapes: `N` records.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from data2vec2.data.folder import Files
from data2vec2.data.hub import HubRows
from data2vec2.data.records import Records
from data2vec2.data.source import BadSample, Spans
from data2vec2.errors import UserError
from data2vec2.files import cache_folder, whole_file
from data2vec2.modalities.audio.waveform import length_of

Note = Callable[[str], None]
Lengths = tuple[NDArray[np.int64], dict[int, str]]
"""Samples `N`, 0 where there is a reason why they can't be told, and these reasons."""
KEPT_FROM_S = 1.0
"""Measurements that take so many seconds are kept, for other processes and later runs."""
_NOTE_EVERY_S = 5.0


def measured(records: Records, rate: int, note: Note | None = None) -> Lengths:
    """Lengths at `rate`; `note` hears of long waits. Kept in the cache folder, as far as it can be written."""
    if records.seconds is not None:
        return (records.seconds * rate).astype(np.int64), {}
    kept = _place(records, rate)
    if kept and kept.is_file():
        with suppress(OSError, EOFError, ValueError, KeyError, BadZipFile), np.load(kept, allow_pickle=False) as file:
            return file["lengths"], dict(zip(file["places"].tolist(), file["reasons"].tolist(), strict=True))
    start = time.monotonic()
    lengths_N, bad = _measured(records, rate, note)
    slow = time.monotonic() - start >= KEPT_FROM_S
    if kept and slow and "unreadable" not in bad.values():  # which may be so for now only
        places, reasons = np.array([*bad], dtype=np.int64), np.array([*bad.values()], dtype=np.str_)
        with suppress(UserError), whole_file(kept, shared=True) as file:
            np.savez(file, allow_pickle=False, lengths=lengths_N, places=places, reasons=reasons)
    return lengths_N, bad


def _measured(records: Records, rate: int, note: Note | None) -> Lengths:
    """From the headers."""

    def length(place: int) -> int | str:
        try:
            with records.open(place) as file:
                return length_of(file, rate)
        except BadSample as error:
            return error.reason

    lengths_N, reasons, said = np.zeros(len(records), dtype=np.int64), {}, time.monotonic()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for place, found in enumerate(pool.map(length, range(len(records)))):
            if isinstance(found, str):
                reasons[place] = found
            else:
                lengths_N[place] = found
            if note is not None and time.monotonic() - said > _NOTE_EVERY_S:
                said = time.monotonic()
                note(f"measured {place + 1:,} of {len(records):,} recordings")
    return lengths_N, reasons


def _place(records: Records, rate: int) -> Path | None:
    """Where lengths are kept: elsewhere if any file or its size or time is another; none if they can't be told."""
    source, digest = records.source, hashlib.sha256(f"{rate} {len(records)}\0".encode())
    if isinstance(source, Files):
        paths = [os.path.join(source.root.absolute(), name) for name in source.names]  # noqa: PTH118  (many)
    elif isinstance(source, Spans):
        paths = [str(path.absolute()) for path in source.paths]
    else:
        paths = [file["filename"] for file in source.dataset.cache_files] if isinstance(source, HubRows) else []
    for path in paths:
        digest.update(os.fsencode(path))
        with suppress(OSError, ValueError):  # a name with a NUL
            stat = os.stat(path)  # noqa: PTH116
            digest.update(f"\0{stat.st_size} {stat.st_mtime_ns}\0".encode())
    for part in () if isinstance(source, Files) else source.content():
        digest.update(part)
    return cache_folder() / f"lengths-{digest.hexdigest()[:32]}.npz" if paths else None
