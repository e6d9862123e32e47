"""Phone alignments of recordings: which phone is said when, and the phone of each token of a model."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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


def read_phones(folder: Path) -> tuple[Alignment, ...]:
    """Alignments in `phones.csv`: columns `file_name` and `phones`, such as "SIL:12 W:8" in frames of 10 ms."""
    return tuple(Alignment(row["file_name"], _spans(row["phones"])) for row in _rows(folder / "phones.csv"))


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
    """Seconds of "PHONE:FRAMES" one after another."""
    pairs = [run.split(":") for run in runs.split()]
    bounds = np.cumsum([0, *(int(count) for _, count in pairs)]) * _FRAME_S + _SHIFT_S
    return tuple(
        (float(start), float(end), phone) for start, end, (phone, _) in zip(bounds, bounds[1:], pairs, strict=False)
    )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
