"""Pictures: decoding, crops, batches, and the statistics that normalise them.

Shapes: `B` samples, `C` channels, `H` and `W` pixels of the model's input, `X` uniform numbers that decide a crop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from data2vec2 import rng
from data2vec2.data.reader import Reader
from data2vec2.data.records import Records
from data2vec2.data.sampler import Plan
from data2vec2.data.source import BadSample, Content
from data2vec2.modalities.data import Survey
from data2vec2.modalities.image.arrays import channels_last
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig
from data2vec2.modalities.image.pictures import (
    MAX_PIXELS,
    Levels,
    Raw,
    bad_samples,
    bands,
    open_picture,
    plain,
    upright,
)

_PORTABLE = (".ppm", ".pgm", ".pbm")
_EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", *_PORTABLE)
_COLUMNS = (
    *("image", "img", "picture", "photo", "pixel_values", "image_bytes"),
    *("jpg", "jpeg", "png", "webp", "content", "bytes"),
)


def picture_array(sample: Any) -> NDArray[Any]:
    """A picture of Pillow, an array or a tensor `HW`, `HWC` or `CHW` as an array `HW` or `HWC`; raises `BadSample`."""
    if isinstance(sample, Image.Image):
        turned = ImageOps.exif_transpose(sample)
        return np.asarray(turned if turned.mode == "F" or turned.mode.startswith("I") else plain(turned))
    try:
        values = np.asarray(sample)
    except (TypeError, ValueError, RuntimeError) as error:  # of a GPU, say
        raise BadSample(f"a {type(sample).__name__}, which is not a picture") from error
    if values.ndim not in (2, 3) or values.dtype.kind not in "biuf" or not values.size:
        raise BadSample(f"values of type {values.dtype} and shape {list(values.shape)}, which are not a picture")
    if values.ndim == 2 and values.shape[1] in (3, 4):
        raise BadSample(f"a row of pixels of shape {list(values.shape)}; give one picture in colour as [picture]")
    if values.ndim == 3 and not channels_last(*values.shape):
        values = values.transpose(1, 2, 0)
    return values[..., 0] if values.shape[2:] == (1,) else values


PICTURES = Content("picture", "pictures", "images", "Image", frozenset(_EXTENSIONS), _COLUMNS, raw=picture_array)
Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""
_MODES = {1: "L", 3: "RGB"}
_TRIES = 10
_NUM_DRAWS = 2 * _TRIES + 3  # area and aspect of each try; place (x, y); mirror
_MIN_STD = 1e-3


def decode(
    raw: Raw, num_channels: int, levels: Levels | None = None, max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """The whole picture, `HW` (1 channel) or `HWC`, by the rules of `pictures`; raises `BadSample`.

    EXIF orientation is not applied (but Pillow applies that of a TIFF).
    """
    with bad_samples(max_pixels):
        found = bands(open_picture(raw, num_channels, max_pixels), raw, num_channels, levels)
        return _array([_as_seen(part, num_channels) for part in found])


def crop(
    raw: Raw,
    box_of: Callable[[int, int], Box],
    size: int,
    num_channels: int,
    mirror: bool = False,
    *,
    levels: Levels | None = None,
    max_pixels: int = MAX_PIXELS,
) -> NDArray[np.uint8]:
    """A part of the picture, `HW` (1 channel) or `HWC`, at `size` x `size` pixels, upright by its EXIF orientation.

    `box_of` chooses the part from width and height as stored. Cutting and scaling are one resampling; a JPEG is first
    decoded at the smallest scale (1, 1/2, 1/4, 1/8) that has `size` pixels in the box. Raises `BadSample`.
    """
    with bad_samples(max_pixels):
        opened = open_picture(raw, num_channels, max_pixels)
        box = box_of(*(opened.size if isinstance(opened, Image.Image) else opened.shape[1::-1]))
        if isinstance(opened, Image.Image) and opened.format in ("JPEG", "MPO"):
            box = _draft(opened, box, size, _MODES.get(num_channels, "RGB"))
        found, turn = bands(opened, raw, num_channels, levels), upright(opened)
        small = [part.resize((size, size), Image.Resampling.BICUBIC, box) for part in found]
        small = [_as_seen(part, num_channels, turn) for part in small]
        return _array([ImageOps.mirror(part) if mirror else part for part in small])


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


def whole_box(width: int, height: int) -> Box:
    """All of it."""
    return 0, 0, width, height


def central_box(share: float, width: int, height: int) -> Box:
    """The central square whose side is `share` of the shorter side."""
    side = share * min(width, height)
    return (width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2


class ImageReader(Reader):
    """Batches of pictures of the model's size, `BCHW` uint8. Samples `CHW`."""

    def __init__(self, records: Records, config: ImageConfig, data: ImageDataConfig, seed: int) -> None:
        super().__init__(records, seed)
        self.config, self.data = config, data

    @property
    def levels(self) -> Levels | None:
        """Those of the configuration; where it has none, those of the data."""
        return self.data.levels or self.records.levels

    def whole(self, sample: int) -> NDArray[np.uint8]:
        """The central square, or all of the picture; raises `BadSample`."""
        return self._cut(sample, *self.view(sample))

    def crop(self, sample: int, epoch: int, plan: Plan) -> NDArray[np.uint8]:
        """A random part, mirrored half of the time; raises `BadSample`."""
        return self._cut(sample, *self.view(sample, epoch))

    def view(self, sample: int, epoch: int | None = None) -> tuple[Callable[[int, int], Box], bool]:
        """What chooses the part of a picture, and whether it is mirrored; with an epoch by (seed, epoch, sample)."""
        if epoch is None:
            return whole_box if self.data.whole else partial(central_box, self.data.eval_crop), False
        draws = rng.uniforms(rng.keys(rng.Stream.CROP, self.seed, epoch, sample), _NUM_DRAWS)[0].tolist()
        return partial(random_box, draws, self.data.min_crop), self.data.flip and draws[-1] < 0.5

    def entirely(self, sample: int) -> NDArray[np.uint8]:
        """The whole picture, its shorter side as long as the model's input; raises `BadSample`."""
        of_model = self.config.image_size, self.config.patch_size, self.config.channels
        return pixels(whole_picture(self.records.read(sample), *of_model, self.levels, self.data.max_pixels))

    def _cut(self, sample: int, box: Callable[[int, int], Box], mirror: bool = False) -> NDArray[np.uint8]:
        of_model, how = (self.config.image_size, self.config.channels), (self.levels, self.data.max_pixels)
        cut = crop(self.records.read(sample), box, *of_model, mirror, levels=how[0], max_pixels=how[1])
        return pixels(cut)

    def stacked(self, rows: Sequence[NDArray[Any]]) -> tuple[NDArray[np.uint8], None]:
        """Pictures `BCHW` of one size. In this order in memory too, on which the last bits of sums depend."""
        size = self.config.image_size
        return np.array(rows, dtype=np.uint8).reshape(-1, self.config.channels, size, size), None

    def grid(self, inputs: NDArray[Any]) -> tuple[int, ...]:
        """Rows and columns of patches."""
        return self.config.grid

    def shown(self, samples: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """`pictures` NHWC."""
        return {"pictures": visible(self.eval_batch(samples).inputs).transpose(0, 2, 3, 1)}


def pixels(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture `HW` or `HWC` as `CHW`."""
    return picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1)


def visible(pixels_BCHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The channels that a page can show: the first, of three and more the first three."""
    return pixels_BCHW[:, : 3 if pixels_BCHW.shape[1] >= 3 else 1]


def survey(reader: Any, limit: int = 2048) -> tuple[Survey, tuple[float, ...], tuple[float, ...]]:
    """Read the central squares of up to `limit` samples of an `ImageReader`, evenly spread; `UserError` if all are bad.

    Mean and deviation of each channel are in units of 0 to 1, the deviation at least 0.001 (a single colour), which is
    a remark.
    """

    def sums(pixels_CHW: NDArray[np.uint8]) -> NDArray[np.int64]:
        values_CP = pixels_CHW.reshape(len(pixels_CHW), -1).astype(np.int64)
        return np.stack((values_CP.sum(axis=1), (values_CP**2).sum(axis=1)))

    good, bad = reader.looked_at(limit, sums)
    mean_C, square_C = np.sum(good, axis=0) / (len(good) * reader.config.image_size**2)
    std_C = np.sqrt(np.maximum(square_C - mean_C**2, 0)) / 255
    mean, std = tuple((mean_C / 255).tolist()), tuple(np.maximum(std_C, _MIN_STD).tolist())
    flat = np.flatnonzero(std_C < _MIN_STD).tolist()
    channels = f"channel {', '.join(map(str, flat))} of the pictures" if len(std_C) > 1 else "the pictures"
    remark = f"{channels} hardly vary: the standard deviation is below {_MIN_STD:g}, as in a single colour"
    return Survey(len(good) + len(bad), tuple(bad), remarks=(remark,) if flat else ()), mean, std


def _draft(image: Image.Image, box: Box, size: int, mode: str) -> Box:
    """Have a JPEG decoded smaller, as long as the box keeps `size` pixels; returns the box at that scale."""
    side = min(box[2] - box[0], box[3] - box[1])
    reduction = next((factor for factor in (8, 4, 2) if side >= factor * size), 1)
    full = image.width
    drafted = image.draft(mode, (image.width // reduction, image.height // reduction))
    factor = 1 if drafted is None else round(full / drafted[1][2])
    return box[0] / factor, box[1] / factor, box[2] / factor, box[3] / factor


def _as_seen(part: Image.Image, num_channels: int, turn: Image.Transpose | None = None) -> Image.Image:
    """One of what `bands` gave, in the model's colours, and turned."""
    part = part.convert(_MODES[num_channels]) if num_channels in _MODES else part
    return part if turn is None else part.transpose(turn)


def _array(parts: Sequence[Image.Image]) -> NDArray[np.uint8]:
    """`HW` or `HWC`."""
    found = [np.asarray(part) for part in parts]
    return found[0] if len(found) == 1 else np.stack(found, axis=2)


MAX_ASPECT = 20
"""Pictures whose sides differ by a larger factor are refused where the aspect is kept: they have too many patches."""


def whole_picture(
    raw: Raw,
    shorter: int | None,
    multiple: int,
    num_channels: int,
    levels: Levels | None = None,
    max_pixels: int = MAX_PIXELS,
) -> NDArray[np.uint8]:
    """The whole picture, `HW` (1 channel) or `HWC`, upright by its EXIF orientation. Raises `BadSample`.

    Its shorter side becomes `shorter` pixels and the longer one follows, both rounded to multiples of `multiple`; none:
    both stay as they are.
    """
    with bad_samples(max_pixels):
        opened = open_picture(raw, num_channels, max_pixels)
        found, turn = bands(opened, raw, num_channels, levels), upright(opened)
        parts = [_as_seen(part, num_channels, turn) for part in found]
        width, height = parts[0].size
        if shorter is None:
            return _array(parts)
        if max(width, height) > MAX_ASPECT * min(width, height):
            raise BadSample("too narrow")
        scale = shorter / min(width, height) / multiple
        width, height = (max(1, round(side * scale)) * multiple for side in (width, height))
        return _array([part.resize((width, height), Image.Resampling.BICUBIC) for part in parts])


class Normalise:
    """Raw values 0 to 255 to zero mean and unit variance: what the model sees, in training and in every later use."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> None:
        """Mean and standard deviation of each channel, in units of 0 to 1."""
        self.mean_C11 = torch.tensor(mean, device=device).view(-1, 1, 1) * 255
        self.std_C11 = torch.tensor(std, device=device).view(-1, 1, 1) * 255

    def __call__(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """uint8 pictures `BCHW` on the device to float32."""
        return (pixels_BCHW.float() - self.mean_C11) / self.std_C11
