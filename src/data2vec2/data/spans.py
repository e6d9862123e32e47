"""Samples that lie one behind the other in large files: members of a .tar, or the copy of a table."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
from numpy.typing import NDArray

from data2vec2.data.source import BadSample


@dataclass(frozen=True, eq=False)
class Spans:
    """Stretches of bytes in files, read in place."""

    in_memory: ClassVar[bool] = False
    paths: tuple[Path, ...]
    files: NDArray[np.int32]
    """The file of each sample, as a place in `paths`."""
    offsets: NDArray[np.int64]
    """Where each sample begins."""
    sizes: NDArray[np.int64]
    """How many bytes each sample has."""

    def read(self, index: int) -> bytes:
        """Content of one stretch; raises `BadSample`."""
        size = int(self.sizes[index])
        try:
            with self.paths[self.files[index]].open("rb", buffering=0) as file:
                file.seek(int(self.offsets[index]))
                content: bytes = file.read(size)
        except OSError as error:
            raise BadSample("unreadable") from error
        except MemoryError as error:
            raise BadSample("too large") from error
        if len(content) < size:
            raise BadSample("truncated")
        return content

    def open(self, index: int) -> BinaryIO:
        """One stretch as a file; raises `BadSample`."""
        try:
            file = self.paths[self.files[index]].open("rb", buffering=0)
        except OSError as error:
            raise BadSample("unreadable") from error
        return io.BufferedReader(_Stretch(file, int(self.offsets[index]), int(self.sizes[index])))

    def select(self, places: NDArray[np.int64]) -> Spans:
        """The stretches at `places`."""
        return Spans(self.paths, self.files[places], self.offsets[places], self.sizes[places])

    def content(self) -> Iterator[bytes | memoryview]:
        """Places and sizes."""
        yield from (self.files.tobytes(), self.offsets.tobytes(), self.sizes.tobytes())


class _Stretch(io.RawIOBase):
    """A part of a file as a file, which closes the whole."""

    def __init__(self, file: io.FileIO, start: int, size: int) -> None:
        self.file, self.start, self.size, self.place = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = (0, self.place, self.size)[whence] + offset
        return self.place

    def readinto(self, buffer: Any) -> int:
        self.file.seek(self.start + self.place)
        content = self.file.read(max(0, min(len(buffer), self.size - self.place)))
        buffer[: len(content)] = content
        self.place += len(content)
        return len(content)

    def close(self) -> None:
        self.file.close()
        super().close()
