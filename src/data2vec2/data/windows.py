"""Recordings of any length, a window at a time, so that memory stays bounded.

Shapes: `S` samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from data2vec2.config import AudioConfig
from data2vec2.data.source import BadSample
from data2vec2.data.waveform import TOO_SHORT, length_of, read_audio

OVERLAP_S = 2.5
"""Seconds of a window's tokens that are dropped on either side of it, where they lack context."""
_EPS = 1e-5


class Windows:
    """Waveforms `S`, normalised as the whole, each with the tokens that are kept of it: one after another, all of them.

    A recording of up to a window is one. The file is read twice: at once, to find mean and deviation, and in windows.
    """

    def __init__(
        self,
        config: AudioConfig,
        open_file: Callable[[], BinaryIO],
        window_s: float,
        overlap_s: float = OVERLAP_S,
    ) -> None:
        """Raises `BadSample`, as iterating can if the file changes."""
        self.config, self.open_file = config, open_file
        rate, hop = config.sample_rate, config.hop
        self.window, self.overlap = round(window_s * rate / hop), round(overlap_s * rate / hop)
        with open_file() as file:
            self.total = length_of(file, rate)
        self._only: NDArray[np.float32] | None = None
        size = self.window * hop
        if self.total <= size:  # as in training, whatever the header says of the end
            with open_file() as file:
                self._only = read_audio(file, rate)
            if len(self._only) < config.receptive_field:
                raise BadSample(TOO_SHORT)
            self._statistics([self._only])
        else:
            self._statistics(self._part(start, min(size, self.total - start)) for start in range(0, self.total, size))

    def __iter__(self) -> Iterator[tuple[NDArray[np.float32], slice]]:
        if self._only is not None:
            yield self._normalised(self._only), slice(None)
            return
        tokens, step, hop = self.config.num_tokens(self.total), self.window - 2 * self.overlap, self.config.hop
        for first in range(0, tokens, step):
            begin, end = max(0, first - self.overlap), min(tokens, first + step + self.overlap)
            wave_S = self._part(begin * hop, (end - begin - 1) * hop + self.config.receptive_field)
            yield self._normalised(wave_S), slice(first - begin, first - begin + step)

    def _normalised(self, wave_S: NDArray[np.float32]) -> NDArray[np.float32]:
        return ((wave_S.astype(np.float64) - self.mean) / self.deviation).astype(np.float32)

    def _part(self, start: int, samples: int) -> NDArray[np.float32]:
        """A part of the recording, with zeros where it ends too early; that a part is silent is no fault."""
        wave_S, rate = np.zeros(samples, dtype=np.float32), self.config.sample_rate
        try:
            with self.open_file() as file:
                read = read_audio(file, rate, start / rate, samples / rate)
            wave_S[: len(read)] = read
        except BadSample as error:
            if error.reason not in ("silent", "truncated"):
                raise
        return wave_S

    def _statistics(self, parts: Iterable[NDArray[np.float32]]) -> None:
        """Mean and deviation over all parts; `BadSample` if nothing is heard."""
        count, total, squares = 0, 0.0, 0.0
        for part_S in parts:
            count, total = count + len(part_S), total + float(part_S.sum(dtype=np.float64))
            squares += float(np.square(part_S, dtype=np.float64).sum())
        variance = max(0.0, squares / count - (total / count) ** 2)
        if variance < _EPS**2:
            raise BadSample("silent")
        self.mean, self.deviation = total / count, float(np.sqrt(variance + _EPS))
