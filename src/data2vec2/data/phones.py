"""Phone alignments of recordings: which phone is said when, and the phone of each token of a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data2vec2.data.metadata import csv_rows
from data2vec2.errors import UserError

SILENCE = "SIL"
# fmt: off
PHONES = (
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH", "IH", "IY", "JH", "K",
    "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH",
)
# fmt: on
"""The 39 phones of the CMU pronouncing dictionary, without stress; a phone's label is its place here."""

_FRAME_S = 0.01
_SHIFT_S = 0.0078  # aligned frames are windows of 25.6 ms: half of a window less half of a frame


@dataclass(frozen=True)
class Alignment:
    """One recording's phones: start and end in seconds, phone or `SILENCE`; in order, without gaps."""

    name: str
    phones: tuple[tuple[float, float, str], ...]


def read_phones(path: Path) -> tuple[Alignment, ...]:
    """Alignments in a CSV file: columns `file_name` and `phones`, such as "SIL:12 W:8" in frames of 10 ms.

    Raises `UserError` for a file that is no such table.
    """
    found = []
    for place, row in enumerate(csv_rows(path), 1):
        missing = [column for column in ("file_name", "phones") if not row.get(column)]
        if missing:
            raise UserError(f"{path}: row {place} has no {' and no '.join(missing)}; columns are file_name and phones")
        try:
            found.append(Alignment(row["file_name"], _spans(row["phones"])))
        except ValueError as error:
            raise UserError(
                f"{path}: row {place} ({row['file_name']}): {error}; phones are PHONE:FRAMES with spaces between, as "
                f"in {SILENCE}:12 W:8, where PHONE is {SILENCE} or one of {', '.join(PHONES)}, and FRAMES of 10 ms are "
                "1 or more"
            ) from error
    return tuple(found)


def phones_beside(data: Path) -> dict[str, Alignment]:
    """Alignments of DATA/phones.csv by the recordings' names; none where there is no such file, errors as above."""
    path = data / "phones.csv"
    return {alignment.name: alignment for alignment in read_phones(path)} if path.is_file() else {}


def frame_labels(
    alignment: Alignment, num_frames: int, frame_s: float = 0.02, offset_s: float = 0.0125
) -> NDArray[np.int64]:
    """Places in `PHONES` of a model's tokens; -1 for silence and outside the alignment.

    A token's label is the phone at its centre, which for token t is `t * frame_s + offset_s` seconds. The defaults fit
    tokens of 400 samples every 320 at 16 kHz.
    """
    starts = np.array([start for start, _, _ in alignment.phones])
    end = alignment.phones[-1][1]
    codes = np.array([PHONES.index(phone) if phone != SILENCE else -1 for _, _, phone in alignment.phones])
    centres = np.arange(num_frames) * frame_s + offset_s
    place = np.searchsorted(starts, centres, side="right") - 1
    return np.where((place >= 0) & (centres < end), codes[place], -1)


def _spans(runs: str) -> tuple[tuple[float, float, str], ...]:
    """Seconds of "PHONE:FRAMES" one after another; `ValueError` for what is none."""
    pairs = [run.partition(":") for run in runs.split()]
    for phone, colon, count in pairs:
        if phone not in (*PHONES, SILENCE) or not count.isdecimal() or not int(count):
            raise ValueError(f"{phone}{colon}{count[:10]} is not understood")
    bounds = np.cumsum([0, *(int(count) for _, _, count in pairs)]) * _FRAME_S + _SHIFT_S
    return tuple(
        (float(start), float(end), phone) for start, end, (phone, _, _) in zip(bounds, bounds[1:], pairs, strict=False)
    )
