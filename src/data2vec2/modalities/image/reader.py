"""Pictures: decoding, crops, batches, and the statistics that normalise them.

Shapes: `B` samples, `C` channels, `H` and `W` pixels of the model's input, `X` uniform numbers that decide a crop.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from data2vec2 import rng
from data2vec2.data.reader import Reader
from data2vec2.data.records import Records
from data2vec2.data.sampler import Plan
from data2vec2.data.source import BadSample, Content
from data2vec2.modalities.data import Survey
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig

_EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_COLUMNS = ("image", "img", "picture", "photo", "image_bytes", "jpg", "jpeg", "png", "webp", "content", "bytes")
PICTURES = Content("picture", "pictures", "images", "Image", frozenset(_EXTENSIONS), _COLUMNS)
MAX_PIXELS = 100_000_000
"""Larger pictures are refused before they are decoded."""
Raw = bytes | NDArray[np.uint8]
"""What `Records.read` returns: the content of a file, or an array `HW` or `HWC`."""
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"II*\0", b"MM\0*")
_MODES = {1: "L", 3: "RGB"}
_TRIES = 10
_NUM_DRAWS = 2 * _TRIES + 3  # area and aspect of each try; place (x, y); mirror
_MIN_STD = 1e-3
_TURNS = "FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_270 TRANSVERSE ROTATE_90"
_UPRIGHT = {orientation: Image.Transpose[turn] for orientation, turn in enumerate(_TURNS.split(), start=2)}

# Pillow warns of large pictures and of damaged metadata. What matters of it is reported as a bad sample.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode(raw: Raw, num_channels: int) -> Image.Image:
    """The whole picture as "L" (1 channel) or "RGB" (3); of several frames the first; transparency becomes white.

    EXIF orientation is not applied (but Pillow applies that of a TIFF). Raises `BadSample`.
    """
    with _bad_samples():
        image = _open(raw)
        image.load()  # else an error would wait for the first use
        return _plain(image).convert(_MODES[num_channels])


def crop(
    raw: Raw, box_of: Callable[[int, int], Box], size: int, num_channels: int, mirror: bool = False
) -> Image.Image:
    """A part of the picture at `size` x `size` pixels, upright by its EXIF orientation, as "L" or "RGB".

    `box_of` chooses the part from width and height as stored. Cutting and scaling are one resampling; a JPEG is first
    decoded at the smallest scale (1, 1/2, 1/4, 1/8) that has `size` pixels in the box. Raises `BadSample`.
    """
    with _bad_samples():
        image = _open(raw)
        box = box_of(*image.size)
        if image.format in ("JPEG", "MPO"):
            box = _draft(image, box, size, _MODES[num_channels])
        small = _plain(image).resize((size, size), Image.Resampling.BICUBIC, box).convert(_MODES[num_channels])
        if not isinstance(raw, np.ndarray):
            with suppress(Exception):  # upright already, or damaged metadata, no reason to drop a picture
                small = small.transpose(_UPRIGHT[int(image.getexif()[ExifTags.Base.Orientation])])
        return ImageOps.mirror(small) if mirror else small


def random_box(draws: Sequence[float], min_crop: float, width: int, height: int) -> Box:
    """A random part: share of the area uniform in (min_crop, 1), logarithm of the aspect uniform in (3/4, 4/3).

    The first of ten tries that fits is taken, else the largest central part with an aspect in that range. `draws` are
    23 uniform numbers: area and aspect of each try, then the place from left and top; the last one is for the mirror.
    """
    for area_draw, aspect_draw in zip(draws[0 : 2 * _TRIES : 2], draws[1 : 2 * _TRIES : 2], strict=True):
        area = width * height * (min_crop + (1 - min_crop) * area_draw)
        aspect = (4 / 3) ** (2 * aspect_draw - 1)
        w, h = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if w <= width and h <= height:
            left, top = draws[-3] * (width - w), draws[-2] * (height - h)
            return left, top, min(left + w, width), min(top + h, height)
    w, h = min(width, height * 4 / 3), min(height, width * 4 / 3)
    return (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2


def central_box(share: float, width: int, height: int) -> Box:
    """The central square whose side is `share` of the shorter side."""
    side = share * min(width, height)
    return (width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2


class ImageReader(Reader):
    """Batches of pictures of the model's size, `BCHW` uint8. Samples `CHW`."""

    def __init__(self, records: Records, config: ImageConfig, data: ImageDataConfig, seed: int) -> None:
        super().__init__(records, seed)
        self.config, self.data = config, data

    def whole(self, sample: int) -> NDArray[np.uint8]:
        """The central square; raises `BadSample`."""
        box = partial(central_box, self.data.eval_crop)
        return pixels(crop(self.records.read(sample), box, self.config.image_size, self.config.channels))

    def crop(self, sample: int, epoch: int, plan: Plan) -> NDArray[np.uint8]:
        """A random part, mirrored half of the time; raises `BadSample`."""
        draws = rng.uniforms(rng.keys(rng.Stream.CROP, self.seed, epoch, sample), _NUM_DRAWS)[0].tolist()
        box, mirror = partial(random_box, draws, self.data.min_crop), self.data.flip and draws[-1] < 0.5
        return pixels(crop(self.records.read(sample), box, self.config.image_size, self.config.channels, mirror))

    def stacked(self, rows: Sequence[NDArray[Any]]) -> tuple[NDArray[np.uint8], None]:
        """Pictures `BCHW` of one size. In this order in memory too, on which the last bits of sums depend."""
        size = self.config.image_size
        return np.array(rows, dtype=np.uint8).reshape(-1, self.config.channels, size, size), None

    def grid(self, inputs: NDArray[Any]) -> tuple[int, ...]:
        """Rows and columns of patches."""
        return self.config.grid

    def shown(self, samples: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """`pictures` NHWC."""
        return {"pictures": self.eval_batch(samples).inputs.transpose(0, 2, 3, 1)}


def pixels(picture: Image.Image) -> NDArray[np.uint8]:
    """A picture as an array `CHW`."""
    values = np.asarray(picture)
    return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)


def survey(reader: Any, limit: int = 2048) -> tuple[Survey, tuple[float, ...], tuple[float, ...]]:
    """Read the central squares of up to `limit` samples of an `ImageReader`, evenly spread; `UserError` if all are bad.

    Mean and deviation of each channel are in units of 0 to 1, the deviation at least 0.001 (a single colour).
    """

    def sums(pixels_CHW: NDArray[np.uint8]) -> NDArray[np.int64]:
        values_CP = pixels_CHW.reshape(len(pixels_CHW), -1).astype(np.int64)
        return np.stack((values_CP.sum(axis=1), (values_CP**2).sum(axis=1)))

    good, bad = reader.looked_at(limit, sums)
    mean_C, square_C = np.sum(good, axis=0) / (len(good) * reader.config.image_size**2)
    std_C = np.sqrt(np.maximum(square_C - mean_C**2, 0)) / 255
    mean, std = tuple((mean_C / 255).tolist()), tuple(np.maximum(std_C, _MIN_STD).tolist())
    return Survey(len(good) + len(bad), tuple(bad)), mean, std


@contextmanager
def _bad_samples() -> Iterator[None]:
    """Turn whatever Pillow raises on damaged or hostile files into `BadSample`; its list of errors is open-ended."""
    try:
        yield
    except BadSample:
        raise
    except Exception as error:
        if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning | MemoryError):
            raise BadSample("too large") from error
        cut_off = isinstance(error, EOFError) or "truncated" in str(error).lower()
        raise BadSample("truncated" if cut_off else "damaged") from error


def _open(raw: Raw) -> Image.Image:
    """A picture of which only the header is read."""
    if isinstance(raw, np.ndarray):
        return Image.fromarray(raw[..., 0] if raw.shape[2:] == (1,) else raw)
    try:
        image = Image.open(io.BytesIO(raw), formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise BadSample("damaged" if raw.startswith(_MAGIC) else "not an image") from error
    if image.width * image.height > MAX_PIXELS:
        raise BadSample("too large")
    return image


def picture_facts(raw: Raw) -> dict[str, float | str]:
    """Width, height and Pillow's mode, as the header says; raises `BadSample`."""
    with _bad_samples(), _open(raw) as image:
        return {"width": image.width, "height": image.height, "mode": image.mode}


def _draft(image: Image.Image, box: Box, size: int, mode: str) -> Box:
    """Have a JPEG decoded smaller, as long as the box keeps `size` pixels; returns the box at that scale."""
    side = min(box[2] - box[0], box[3] - box[1])
    reduction = next((factor for factor in (8, 4, 2) if side >= factor * size), 1)
    full = image.width
    drafted = image.draft(mode, (image.width // reduction, image.height // reduction))
    factor = 1 if drafted is None else round(full / drafted[1][2])
    return box[0] / factor, box[1] / factor, box[2] / factor, box[3] / factor


def _plain(image: Image.Image) -> Image.Image:
    """The picture as "L" or "RGB": transparency over white, 16-bit grey scaled to 8."""
    if image.mode == "F":
        raise BadSample("floating-point pixels")
    if image.mode.startswith("I"):
        values = np.asarray(image).clip(0, 65535).astype(np.uint32)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")


MAX_ASPECT = 20
"""Pictures whose sides differ by a larger factor are refused where the aspect is kept: they have too many patches."""


def whole_picture(raw: Raw, shorter: int, multiple: int, num_channels: int) -> Image.Image:
    """The whole picture, upright by its EXIF orientation, as "L" (1 channel) or "RGB" (3). Raises `BadSample`.

    Its shorter side becomes `shorter` pixels and the longer one follows, both rounded to multiples of `multiple`.
    """
    picture = decode(raw, num_channels)
    with suppress(Exception):  # damaged metadata are no reason to drop a picture
        picture = ImageOps.exif_transpose(picture)
    if max(picture.size) > MAX_ASPECT * min(picture.size):
        raise BadSample("too narrow")
    scale = shorter / min(picture.size) / multiple
    width, height = (max(1, round(side * scale)) * multiple for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


class Normalise:
    """Raw values 0 to 255 to zero mean and unit variance: what the model sees, in training and in every later use."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> None:
        """Mean and standard deviation of each channel, in units of 0 to 1."""
        self.mean_C11 = torch.tensor(mean, device=device).view(-1, 1, 1) * 255
        self.std_C11 = torch.tensor(std, device=device).view(-1, 1, 1) * 255

    def __call__(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """uint8 pictures `BCHW` on the device to float32."""
        return (pixels_BCHW.float() - self.mean_C11) / self.std_C11
