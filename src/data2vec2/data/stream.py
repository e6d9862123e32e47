"""Every sample of a source once and in order: read by threads while others are encoded, and never replaced.

Shapes: `C` channels, `H` and `W` pixels.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from data2vec2.data.image import Raw, decode
from data2vec2.data.reader import Bad
from data2vec2.data.records import BadSample, Records

MAX_ASPECT = 20
"""Pictures whose sides differ by a larger factor are refused where the aspect is kept: they have too many patches."""
_AHEAD = 3


@dataclass(frozen=True)
class Chunk:
    """Consecutive samples of a source."""

    good: dict[int, Any]
    """Index of each record that could be read, to its picture `CHW` or what else was read; in order."""
    bad: dict[int, Bad]
    """Index of each of the others."""


def stream(records: Records, read_of: Callable[[int], Any], size: int) -> Iterator[Chunk]:
    """All samples in chunks of `size`, some chunks ahead of the caller.

    `read_of` makes a picture or anything else of the record at an index or raises `BadSample`; threads call it.
    """

    def read(index: int) -> Any:
        try:
            sample = read_of(index)
        except BadSample as error:
            return Bad(records.names[index], error.reason)
        if not isinstance(sample, Image.Image):
            return sample
        pixels = np.asarray(sample)
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    waiting: deque[tuple[range, list[Future[NDArray[Any] | Bad]]]] = deque()
    try:
        for start in range(0, len(records), size):
            indices = range(start, min(start + size, len(records)))
            waiting.append((indices, [pool.submit(read, index) for index in indices]))
            if len(waiting) > _AHEAD:
                yield _chunk(*waiting.popleft())
        while waiting:
            yield _chunk(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def whole_picture(raw: Raw, shorter: int, multiple: int, num_channels: int) -> Image.Image:
    """The whole picture, upright by its EXIF orientation, as "L" (1 channel) or "RGB" (3).

    Its shorter side becomes `shorter` pixels and the longer one follows, both rounded to the nearest multiple of
    `multiple` (at least one); nothing is cut off. Raises `BadSample`.
    """
    picture = decode(raw, num_channels)
    with suppress(Exception):  # damaged metadata are no reason to drop a picture
        picture = ImageOps.exif_transpose(picture)
    if max(picture.size) > MAX_ASPECT * min(picture.size):
        raise BadSample("too narrow")
    scale = shorter / min(picture.size) / multiple
    width, height = (max(1, round(side * scale)) * multiple for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def _chunk(indices: range, futures: list[Future[NDArray[Any] | Bad]]) -> Chunk:
    """Wait for the samples of a chunk."""
    results = {index: future.result() for index, future in zip(indices, futures, strict=True)}
    good = {index: result for index, result in results.items() if not isinstance(result, Bad)}
    return Chunk(good, {index: result for index, result in results.items() if isinstance(result, Bad)})
