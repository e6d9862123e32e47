"""Real pictures for tests: matplotlib's sample photograph and the bundled Fashion-MNIST."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data2vec2.data.records import Parts, Records, open_data
from data2vec2.errors import UserError
from data2vec2.modalities.image import fashion_mnist
from data2vec2.modalities.image.arrays import ARRAYS
from data2vec2.modalities.image.reader import PICTURES


@cache
def photo(width: int = 128, height: int = 96) -> Image.Image:
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return Image.open(path).convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


def open_pictures(data: str | Path) -> Parts:
    return open_data(data, PICTURES, ARRAYS)


def refuse(data: str | Path, match: str) -> None:
    with pytest.raises(UserError, match=match):
        open_pictures(data)


@cache
def clothes() -> Records:
    return open_pictures(fashion_mnist()).train.select(range(200))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def put(path: Path, content: bytes | None = None) -> None:
    """Write a file: a small photograph as its name says, unless there is a content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    formats = {".png": "PNG", ".webp": "WEBP", ".gif": "GIF", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}
    path.write_bytes(encoded(photo(24, 16), formats.get(path.suffix.lower(), "JPEG")) if content is None else content)


def pixels(image: Image.Image) -> NDArray[np.int64]:
    return np.asarray(image).astype(np.int64)


def mean_difference(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(pixels(a) - pixels(b)).mean())


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims a size; its pixel data are a few bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
