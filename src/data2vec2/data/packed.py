"""Files that may be compressed, as streams: their content is never on a disk or in memory as a whole, or cut short."""

from __future__ import annotations

import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from data2vec2.data.remote import RemoteFile
from data2vec2.errors import UserError
from data2vec2.files import unpacked

DAMAGE = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)
"""What openers and what they open raise."""
_AHEAD = 1 << 17  # bytes read at once


class Packing(NamedTuple):
    """A way to compress."""

    magic: bytes
    """How such files begin."""
    opener: Callable[[Any], Any]
    """Makes a readable file of one that is packed so; raises `DAMAGE` unless all of it can be unpacked."""


def open_text(file: Path | RemoteFile, hear: Callable[[int], object] = lambda _: None) -> io.BufferedReader:
    """The bytes of a file, of one whose name says that it is compressed those of its content.

    `hear` is told of bytes of the file that were read. `UserError` for one that can't be unpacked to its end.
    """
    packing = PACKINGS.get(Path(file.name).suffix.lower())
    if packing is None:
        return io.BufferedReader(_Heard(file.open("rb", buffering=0), hear), _AHEAD)
    return io.BufferedReader(_Pieces(_unpacked(file, packing, hear)), _AHEAD)


def size_of(file: Path | RemoteFile) -> int:
    """Bytes of a file."""
    return file.stat().st_size if isinstance(file, Path) else file.size


def _unpacked(file: Path | RemoteFile, packing: Packing, hear: Callable[[int], object]) -> Generator[bytes, None, None]:
    def opened(raw: Any) -> Any:
        heard = io.BufferedReader(_Heard(raw, hear), _AHEAD)
        if not heard.peek(len(packing.magic)).startswith(packing.magic):
            raise ValueError("it is not compressed as its name says")
        return packing.opener(heard)

    try:
        yield from unpacked(file, opened, size_of(file))
    except DAMAGE as error:
        raise UserError(f"can't unpack {file}: {error}; download or create it again") from error


class _Heard(io.RawIOBase):
    """A file of which someone hears how much is read."""

    def __init__(self, file: Any, hear: Callable[[int], object]) -> None:
        self.file, self.hear = file, hear

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self.file.readinto(buffer)
        self.hear(count)
        return count

    def close(self) -> None:
        self.file.close()
        super().close()


class _Pieces(io.RawIOBase):
    """Pieces of bytes, one behind the other, as a file."""

    def __init__(self, pieces: Generator[bytes, None, None]) -> None:
        self.pieces, self.rest = pieces, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.rest and (piece := next(self.pieces, None)) is not None:
            self.rest = memoryview(piece)
        count = min(len(buffer), len(self.rest))
        buffer[:count], self.rest = self.rest[:count], self.rest[count:]
        return count

    def close(self) -> None:
        self.pieces.close()
        super().close()


def _xz(file: io.BufferedReader) -> Generator[bytes, None, None]:
    """The content of xz streams that follow one another; to the standard library a damaged one is the end."""
    while rest := file.read(_AHEAD):
        rest = rest.lstrip(b"\0")  # padding
        while rest:
            stream = lzma.LZMADecompressor(lzma.FORMAT_XZ)
            yield stream.decompress(rest, _AHEAD)
            while not stream.eof:
                if stream.needs_input and not (rest := file.read(_AHEAD)):
                    raise EOFError("it is cut off")
                yield stream.decompress(rest if stream.needs_input else b"", _AHEAD)
            rest = stream.unused_data.lstrip(b"\0")


PACKINGS = {
    ".gz": Packing(b"\x1f\x8b", gzip.open),
    ".bz2": Packing(b"BZh", partial(pa.input_stream, compression="bz2")),  # sees damage that bz2 takes for the end
    ".xz": Packing(b"\xfd7zXZ", lambda file: _Pieces(_xz(file))),
    ".zst": Packing(b"(\xb5/\xfd", partial(pa.input_stream, compression="zstd")),
}
"""By the endings of names."""
