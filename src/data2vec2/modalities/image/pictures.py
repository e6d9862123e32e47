"""One picture: a file or an array becomes 8-bit channels, by rules that hold for a whole data set.

- A picture of more than 8 bits is scaled by `Levels`, the values that become black and white: for whole numbers 0 (or,
  with negative ones, minus a power of two) and the smallest power of two that holds the largest value, less one; for
  floats 0 and 1, or 0 and 255, if the largest lies in the upper half of these, else their range. `find_levels` looks at
  all parts of a data set together; a model keeps what it was trained with. What GDAL's tag says to be no data (TIFF) is
  masked: it does not count for the levels, and becomes black.
- Transparency is laid over white; over black where that would leave nothing darker than 240. An alpha that is 0
  everywhere is none (32-bit BMP files have it so).
- Of several frames the first is taken; several channels of a TIFF file are one picture (extra `tiff`).

Shapes: `H` and `W` pixels, `C` channels.
"""

from __future__ import annotations

import importlib
import io
import logging
import math
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from data2vec2.data.reader import stream
from data2vec2.data.records import Records
from data2vec2.data.source import BadSample
from data2vec2.errors import UserError

Levels = tuple[float, float]
"""Values that become black and white, in pictures of more than 8 bits."""
Raw = bytes | NDArray[Any]
"""What `Records.read` returns: the content of a file, or an array `HW` or `HWC`."""
MAX_PIXELS = 100_000_000
"""Larger pictures are refused before they are decoded, unless a configuration allows them."""
TRANSPARENCY = "white"
"""The one rule on what is transparent, as a processor's file names it; see `plain`."""
STEPS = ("do_resize", "do_rescale", "do_normalize")
"""What an image processor can be asked to leave out."""
UNIT: Levels = (0.0, 1.0)
FULL: Levels = (0.0, 65535.0)
"""Of whole numbers where nothing else is known."""
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
_PNG = b"\x89PNG"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MAGIC = (b"\xff\xd8\xff", _PNG, b"RIFF", b"GIF8", *_TIFF)
_METADATA = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_BITS, _PHOTOMETRIC, _DESCRIPTION, _SAMPLES, _PLANES = 258, 262, 270, 277, 284  # tags of TIFF
_SAMPLE_FORMAT, _NO_DATA = 339, 42113
_SIGNED = 2
_MAX_PLANES = 32
_NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
_OTHER_BYTE = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
_DARK = 240
_TURNS = "FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_270 TRANSVERSE ROTATE_90"
_UPRIGHT = {orientation: Image.Transpose[turn] for orientation, turn in enumerate(_TURNS.split(), start=2)}

# What matters of large pictures and damaged metadata is reported as a bad sample.
warnings.filterwarnings("ignore", module=r"PIL\.")
for _library in ("PIL.TiffImagePlugin", "tifffile"):
    logging.getLogger(_library).setLevel(logging.CRITICAL)


def bands(opened: Image.Image | NDArray[Any], raw: Raw, num_channels: int, levels: Levels | None) -> list[Image.Image]:
    """What `open_picture` found, whole: one picture "L" or "RGB" for 1 or 3 channels, else as many "L" pictures."""
    if isinstance(opened, Image.Image):
        values = _wide(opened, raw)
        picture = _loaded(opened, raw) if values is None else _narrow(values, levels)
        if values is not None and getattr(opened, "tag_v2", {}).get(_PHOTOMETRIC) == 0:
            picture = ImageOps.invert(picture)  # 0 is white, which Pillow heeds of 8 bits only
    else:
        values_HWC = scaled(opened, levels).reshape(*opened.shape[:2], -1)
        channels = values_HWC.shape[2]
        if num_channels not in (1, 3) and channels == num_channels:
            return [Image.fromarray(np.ascontiguousarray(values_HWC[..., place])) for place in range(channels)]
        if channels not in ((1, 3, 4) if isinstance(raw, np.ndarray) else (1, 3)):
            raise BadSample(f"{channels} channels, where the model takes {num_channels}")
        picture = Image.fromarray(values_HWC[..., 0] if channels == 1 else values_HWC)
    if num_channels in (1, 3):
        return [plain(picture)]
    if len(found := picture.split()) != num_channels:
        raise BadSample(f"{len(found)} channels, where the model takes {num_channels}")
    return list(found)


def scaled(values: NDArray[Any], levels: Levels | None) -> NDArray[np.uint8]:
    """Values as bytes, by the levels; `BadSample` for floats without levels, what is no number, and no data."""
    if values.dtype == np.uint8:
        return values
    if values.size and not np.ma.count(values):
        raise BadSample("no data in it")
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise BadSample("pixels that are not numbers")
        if levels is None:
            raise BadSample("floating-point pixels")
    else:
        values = values.astype(np.float64)
    low, high = levels or FULL
    values = np.ma.filled(values, low)
    return np.rint((values.clip(low, high) - low) * (255 / (high - low))).astype(np.uint8)


def find_levels(parts: Sequence[Records], limit: int = 1000, floats: Levels | None = None) -> Levels | None:
    """The levels of data, from up to `limit` pictures a part, `floats` if all are in these; none: all of 8 bits."""
    found = []
    for part in parts:
        places = np.unique(np.linspace(0, len(part) - 1, min(limit, len(part))).astype(np.int64))
        some = part.select(places)
        chunks = stream(some, lambda place: _range(some, place), 64)  # noqa: B023 (used up before the next)
        found += [one for chunk in chunks for one in chunk.good.values() if one]
    if not found:
        return None
    low, high, is_float = min(one[0] for one in found), max(one[1] for one in found), any(one[2] for one in found)
    if not is_float:
        bits = [int(value).bit_length() for value in (max(0, -low - 1), max(1, high))]
        return -float(1 << bits[0]) if low < 0 else 0.0, float((1 << bits[1]) - 1)
    if floats and floats[0] <= low and high <= floats[1]:
        return floats
    if low >= 0 and (top := next((top for top in (1.0, 255.0) if top / 2 < high <= top), None)):
        return 0.0, top
    return low, high if high > low else low + 1


def open_picture(
    raw: Raw | BinaryIO, num_channels: int | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image | NDArray[Any]:
    """A picture of which only the header is read, or an array `HW` or `HWC`; `BadSample` if it is none, or too large.

    `num_channels` are the model's, if there is one: for 1 or 3, a spare channel beside grey or colour is left out.
    """
    if isinstance(raw, np.ndarray):
        return raw
    if max_pixels > MAX_PIXELS:
        Image.MAX_IMAGE_PIXELS = None  # else Pillow has a limit of its own
    file = io.BytesIO(raw) if isinstance(raw, bytes) else raw
    file.seek(0)
    start = file.read(8)
    file.seek(0)
    try:
        image: Image.Image = Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError as error:
        if start[:4] in _TIFF:
            return _read_tiff(file, max_pixels)
        other = "HEIC or AVIF, not read" if start[4:] == b"ftyp" else "not an image"
        raise BadSample("damaged" if start.startswith(_MAGIC) else other) from error
    except ValueError:  # text or a colour profile that is too long for Pillow
        if start[:4] != _PNG:
            raise
        image = _without_metadata(file)
    if image.width * image.height > max_pixels:
        raise too_large(max_pixels)
    if image.format == "TIFF" and _has_more(image, num_channels):
        return _read_tiff(file, max_pixels)
    if image.format == "TIFF" and isinstance(image, ImageFile):  # of which libtiff turns the bytes, and Pillow again
        native = _NATIVE.get(_raw_mode(image))
        image.tile = [_lying(one, native) if native and one.codec_name == "libtiff" else one for one in image.tile]
    return image


def picture_facts(raw: Raw) -> dict[str, float | str]:
    """Width, height and mode (Pillow's, or the type of an array), as the header says; raises `BadSample`.

    The mode also says if the file has several frames.
    """
    with bad_samples():
        opened = open_picture(raw)
        if isinstance(opened, np.ndarray):
            return {"width": opened.shape[1], "height": opened.shape[0], "mode": _array_mode(opened)}
        several = ", first of several" if getattr(opened, "n_frames", 1) > 1 and opened.format != "MPO" else ""
        return {"width": opened.width, "height": opened.height, "mode": opened.mode + several}


def upright(opened: Image.Image | NDArray[Any]) -> Image.Transpose | None:
    """What turns a picture as its EXIF orientation says; none if it is upright, or its metadata are damaged."""
    with suppress(Exception):
        if isinstance(opened, Image.Image):
            return _UPRIGHT[int(opened.getexif()[ExifTags.Base.Orientation])]
    return None


@contextmanager
def bad_samples(max_pixels: int = MAX_PIXELS) -> Iterator[None]:
    """Turn whatever Pillow raises on damaged or hostile files into `BadSample`; its list of errors is open-ended."""
    try:
        yield
    except (BadSample, UserError):
        raise
    except Exception as error:
        if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning | MemoryError):
            raise too_large(max_pixels) from error
        cut_off = isinstance(error, EOFError) or "truncated" in str(error).lower()
        raise BadSample("truncated" if cut_off else "damaged") from error


def too_large(max_pixels: int) -> BadSample:
    """Says the limit, and what raises it."""
    where = "--data.max-pixels in training, max_pixels in preprocessor_config.json of a model"
    return BadSample(f"too large, above {max_pixels:,} pixels ({where})")


def _array_mode(values: NDArray[Any]) -> str:
    """As Pillow calls it, if it knows it: "L", "RGB"; else type and channels, as in "uint16 x 5"."""
    channels = values.shape[2] if values.ndim == 3 else 1
    known = {1: "L", 3: "RGB", 4: "RGBA"} if values.dtype == np.uint8 else {}
    return known.get(channels, f"{values.dtype} x {channels}")


def plain(image: Image.Image) -> Image.Image:
    """An 8-bit picture as "L" or "RGB", laid over white or, as said above, over black."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() == (0, 0):
            return image.convert("RGB")
        over = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        if over.convert("L").getextrema()[0] < _DARK:  # type: ignore[operator]
            return over
        return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")


def _wide(image: Image.Image, raw: Raw | BinaryIO) -> NDArray[Any] | None:
    """The values of a picture of more than 8 bits, `HW` or `HWC`, the last channel of 2 or 4 an alpha; none: of 8."""
    raw_mode, tags = _raw_mode(image), getattr(image, "tag_v2", {})
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(_loaded(image, raw))
        values = values.view(np.uint32) if raw_mode in ("I;32", "I;32B", "I;32N") else values
        return _with_data(values, tags.get(_NO_DATA))
    if image.mode == "L" and _SIGNED in tags.get(_SAMPLE_FORMAT, ()):
        return _with_data(np.asarray(_loaded(image, raw)).view(np.int8), tags.get(_NO_DATA))
    if raw_mode == "LA;16B":  # four bytes a pixel
        return _decoded(raw, "RGBA").view(">u2")
    if image.mode in ("RGB", "RGBA") and ";16" in raw_mode:  # Pillow has no such mode, and reads the higher byte alone
        other = raw_mode[:-1] + _OTHER_BYTE[raw_mode[-1]]
        high, low = (_decoded(raw, mode).astype(np.uint16) for mode in (raw_mode, other))
        return _with_data(high << 8 | low, tags.get(_NO_DATA))
    return None


def _with_data(values: NDArray[Any], none: object) -> NDArray[Any]:
    """Values of more than 8 bits, of which those are masked that GDAL's tag says to be none."""
    try:
        number = float(str(none))
    except ValueError:  # there is no tag
        return values
    with np.errstate(over="ignore"):  # the least number of other floats, say
        return np.ma.masked_array(values, np.isnan(values) if math.isnan(number) else values == number)


def _raw_mode(image: Image.Image) -> str:
    """How the pixels lie in the file, as Pillow calls it: "RGB;16B"; "" where there are none yet to read."""
    arguments = image.tile[0].args if isinstance(image, ImageFile) and image.tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _decoded(raw: Raw | BinaryIO, raw_mode: str) -> NDArray[np.uint8]:
    """The pixels, as if they lay so in the file."""
    image = open_picture(raw)
    assert isinstance(image, ImageFile)
    image.tile = [_lying(tile, raw_mode) for tile in image.tile]
    return np.asarray(_loaded(image, raw))


def _lying(tile: Any, raw_mode: str) -> Any:
    """A part of a picture, as if its pixels lay so in the file."""
    return tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode)


def _narrow(values: NDArray[Any], levels: Levels | None) -> Image.Image:
    """What `_wide` found as an 8-bit picture."""
    channels = 1 if values.ndim == 2 else values.shape[2]
    if channels in (1, 3):
        return Image.fromarray(scaled(values, levels))
    colour, alpha = values[..., :-1], (np.ma.getdata(values)[..., -1] >> 8).astype(np.uint8)
    picture = Image.fromarray(scaled(colour[..., 0] if channels == 2 else colour, levels))
    picture.putalpha(Image.fromarray(alpha))
    return picture


def _range(records: Records, place: int) -> tuple[float, float, bool] | None:
    """Smallest and largest value of a picture of more than 8 bits, and whether they are floats; none: of 8."""
    with bad_samples():
        values: Any = records.read(place) if records.source.in_memory else b""
        if isinstance(values, bytes):
            with records.open(place) as file:
                values = open_picture(file)
                if isinstance(values, Image.Image) and (values := _wide(values, file)) is not None:
                    values = values[..., :-1] if values.shape[2:] in ((2,), (4,)) else values  # without the alpha
        if values is None or values.dtype == np.uint8:
            return None
        values = np.ma.compressed(values)
        if values.dtype.kind == "f":
            values = values[np.isfinite(values)]
        return (values.min().item(), values.max().item(), values.dtype.kind == "f") if values.size else None


def _loaded(image: Image.Image, raw: Raw | BinaryIO) -> Image.Image:
    """The picture with its pixels, even if the text behind them is too long for Pillow."""
    try:
        image.load()
    except ValueError:
        if image.format != "PNG" or isinstance(raw, np.ndarray):
            raise
        return _without_metadata(io.BytesIO(raw) if isinstance(raw, bytes) else raw)
    return image


def _without_metadata(file: BinaryIO) -> Image.Image:
    """The picture of a PNG file without its texts and colour profile."""
    file.seek(0)
    png = file.read()
    kept, place = [png[:8]], 8
    while place < len(png):
        size = int.from_bytes(png[place : place + 4]) + 12
        if png[place + 4 : place + 8] not in _METADATA:
            kept.append(png[place : place + size])
        place += size
    return Image.open(io.BytesIO(b"".join(kept)), formats=_FORMATS)


def _has_more(image: Image.Image, num_channels: int | None) -> bool:
    """Whether a TIFF file has channels that Pillow would leave out, or planes that it would read wrongly."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    samples, shown = tags.get(_SAMPLES, 1), len(image.getbands())
    if samples > shown and not (num_channels in (1, 3) and samples == shown + 1):
        return True
    if tags.get(_PLANES) == 2 and max(tags.get(_BITS, (8,))) > 8:
        return True
    several = re.search(r"^channels=(\d+)|SizeC=\"(\d+)", str(tags.get(_DESCRIPTION, "")), re.MULTILINE)
    return bool(several and int(several[1] or several[2]) > 1 and getattr(image, "n_frames", 1) > 1)


def _read_tiff(file: BinaryIO, max_pixels: int) -> NDArray[Any]:
    """The channels of a TIFF file, `HW` or `HWC`, of other axes the first place; `BadSample` without tifffile."""
    try:
        tifffile = importlib.import_module("tifffile")
    except ImportError as error:
        raise BadSample("damaged, or channels that need pip install 'data2vec2[tiff]'") from error
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        series = tiff.series[0]
        sizes = dict(zip(series.axes, series.shape, strict=True))
        if sizes["Y"] * sizes["X"] > max_pixels or series.size > _MAX_PLANES * max_pixels:
            raise too_large(max_pixels)
        if series.dtype.kind not in "buif":
            raise BadSample(f"pixels of type {series.dtype}")
        values, no_data = series.asarray(), tiff.pages.first.tags.valueof(_NO_DATA)
    for place, axis in reversed(list(enumerate(series.axes))):
        if axis not in "YXCS":
            values = values.take(0, axis=place)
    left = [axis for axis in series.axes if axis in "YXCS"]
    values = values.transpose([left.index(axis) for axis in ("Y", "X", *(axis for axis in left if axis in "CS"))])
    values = np.asarray(values.reshape(*values.shape[:2], -1) if values.ndim > 3 else values)
    return values if values.dtype == np.uint8 else _with_data(values, no_data)
