"""From files to arrays.

Shapes: `S` steps, `C` channels.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data2vec2 import rng
from data2vec2.data.reader import Reader, Windowed
from data2vec2.data.records import Records
from data2vec2.data.sampler import Plan
from data2vec2.data.source import BadSample, Content
from data2vec2_sensors.config import SensorConfig, SensorDataConfig

SERIES = Content(
    one="series",
    many="series",
    files="series",
    feature="List",
    extensions=frozenset((".npz", ".csv")),
    columns=("series", "sensors", "content", "bytes"),
)
EVALUATED = 16
"""Series that go through the model at once in evaluation."""
Series = NDArray[np.float32]


class SensorReader(Reader):
    """Series `SC` as they stand in the files, and crops of them to train on."""

    def __init__(self, records: Records, config: SensorConfig, data: SensorDataConfig, seed: int) -> None:
        super().__init__(records, seed)
        self.config, self.data = config, data

    def series(self, sample: int) -> Series:
        """All of a series; raises `BadSample` if it has no token, or another number of channels than the model."""
        series_SC = read_series(bytes(self.records.read(sample)))
        steps, channels = series_SC.shape
        if channels != (self.config.num_channels or channels):
            raise BadSample(f"{channels} channels, not {self.config.num_channels}")
        if steps < self.config.stride:
            raise BadSample("shorter than a token")
        return series_SC

    def whole(self, sample: int) -> Series:
        """A series, of a longer one the beginning."""
        return self.series(sample)[: self.data.max_steps]

    def entire(self, sample: int) -> Series | Parts:
        """All of a series, a longer one in parts."""
        series_SC = self.series(sample)
        return series_SC if len(series_SC) <= self.data.max_steps else Parts(series_SC, self.data, self.config)

    def crop(self, sample: int, epoch: int, plan: Plan) -> Series:
        """Steps from a random one on."""
        series_SC, steps = self.series(sample), self.data.crop_steps
        if len(series_SC) < steps:
            return np.resize(series_SC, (steps, series_SC.shape[1]))
        draw = rng.uniforms(rng.keys(rng.Stream.CROP, self.seed, epoch, sample), 1)[0, 0]
        start = int(draw * (len(series_SC) - steps + 1))
        return series_SC[start : start + steps]

    def grid(self, inputs: NDArray[Any]) -> tuple[int, ...]:
        """Tokens of a batch."""
        return (self.config.num_tokens(inputs.shape[1]),)

    def eval_groups(self, samples_B: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Few at once: attention is quadratic in their length."""
        return [samples_B[start : start + EVALUATED] for start in range(0, len(samples_B), EVALUATED)]


@dataclass(frozen=True)
class Parts(Windowed):
    """A long series in parts, of which every token is kept."""

    series_SC: Series
    data: SensorDataConfig
    config: SensorConfig

    def __iter__(self) -> Iterator[tuple[Series, slice]]:
        stride = self.config.stride
        size = stride * max(1, self.data.max_steps // stride)
        for start in range(0, len(self.series_SC) - stride + 1, size):
            yield self.series_SC[start : start + size], slice(None)


def read_series(content: bytes) -> Series:
    """A series `SC`; raises `BadSample` for what is no table of finite numbers.

    A `.npz` file holds arrays `S` or `SC`, whose channels stand side by side; a `.csv` file a column a channel, whose
    names are in the first row.
    """
    read = _arrays if content.startswith(b"PK\x03\x04") else _table  # as ZIP files begin
    try:
        with np.errstate(over="ignore"):  # a number too large for float32 is infinite
            series_SC = read(content).astype(np.float32, casting="same_kind")
    except (ValueError, TypeError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise BadSample("no table of numbers") from error
    if series_SC.ndim != 2 or not series_SC.size:
        raise BadSample("no table of numbers")
    if not np.isfinite(series_SC).all():
        raise BadSample("not all numbers are finite")
    return series_SC


def _arrays(content: bytes) -> NDArray[Any]:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return np.column_stack([arrays[name] for name in arrays.files])


def _table(content: bytes) -> NDArray[Any]:
    names, _, rows = content.decode("utf-8-sig").partition("\n")
    if all(_is_number(name) for name in names.split(",")):
        raise BadSample("no names of channels in the first row")
    if not rows.strip():
        raise BadSample("no rows")
    return np.loadtxt(io.StringIO(rows), delimiter=",", comments=None, quotechar='"', ndmin=2)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
