"""What makes a model's inputs of pictures, and text of letters, exactly as this package's own commands do.

Neither needs torchvision. Recordings are read by Transformers' own `Wav2Vec2FeatureExtractor`, texts by its tokenizers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from transformers import BaseImageProcessor, Wav2Vec2CTCTokenizer
from transformers.feature_extraction_utils import BatchFeature

from data2vec2.data.image import central_box, crop


class Data2Vec2ImageProcessor(BaseImageProcessor):
    """The central square of pictures, scaled to the model's size, in its colours, normalised."""

    model_input_names = ["pixel_values"]  # noqa: RUF012  (Transformers' own attribute)

    def __init__(
        self,
        *,
        size: int = 224,
        image_mean: Sequence[float] = (0.5, 0.5, 0.5),
        image_std: Sequence[float] = (0.5, 0.5, 0.5),
        eval_crop: float = 0.875,
        **kwargs: Any,
    ) -> None:
        """`size` in pixels; mean and deviation of each channel in units of 0 to 1: 3 for colour, 1 for grey pictures.

        `eval_crop` is the side of the square, as a share of the shorter side.
        """
        super().__init__(**kwargs)
        self.size, self.eval_crop = size, eval_crop
        self.image_mean, self.image_std = list(image_mean), list(image_std)

    def preprocess(self, images: Any, return_tensors: str | None = None, **_: Any) -> BatchFeature:
        """`pixel_values` (`(N, channels, size, size)`) of one picture or several.

        A picture is a Pillow image, an array or tensor `HW`, `HWC` or `CHW` of bytes, the content of a file, or a path
        to one. `BadSample` where a file is damaged, `ValueError` for another kind of value.
        """
        several = isinstance(images, list | tuple) or (hasattr(images, "ndim") and images.ndim == 4)
        pixels = [self._normalised(image) for image in (images if several else [images])]
        return BatchFeature({"pixel_values": pixels}, tensor_type=return_tensors)

    def _normalised(self, image: Any) -> NDArray[np.float32]:
        box, channels = partial(central_box, self.eval_crop), len(self.image_mean)
        picture = crop(_raw(image), box, self.size, channels)
        values_HWC = np.asarray(picture, dtype=np.float32).reshape(self.size, self.size, channels) / 255
        mean, std = (np.asarray(values, dtype=np.float32) for values in (self.image_mean, self.image_std))
        return np.ascontiguousarray(((values_HWC - mean) / std).transpose(2, 0, 1))


def _raw(image: Any) -> bytes | NDArray[np.uint8]:
    """The picture as `data2vec2.data.image` takes it."""
    if isinstance(image, Image.Image):
        upright = ImageOps.exif_transpose(image)
        plain = upright if upright.mode in ("L", "RGB", "RGBA") else upright.convert("RGBA")
        return np.asarray(plain)
    if isinstance(image, str | Path):
        return Path(image).read_bytes()
    if isinstance(image, bytes):
        return image
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim not in (2, 3):
        raise ValueError(f"a picture of shape {array.shape} and type {array.dtype}; HW, HWC or CHW of uint8 is needed")
    channels_first = array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3)
    return array.transpose(1, 2, 0) if channels_first else array


class Data2Vec2CTCTokenizer(Wav2Vec2CTCTokenizer):
    """Letters, as `data2vec2.data.letters` has them: between words there is one space."""

    def convert_tokens_to_string(  # type: ignore[override]  # as of the class above
        self, tokens: list[str], *arguments: Any, **more: Any
    ) -> dict[str, Any]:
        """As of `Wav2Vec2CTCTokenizer`; the unknown letter, which nobody reads, is silence; several spaces are one."""
        readable = [self.pad_token if token == self.unk_token else token for token in tokens]
        said: dict[str, Any] = super().convert_tokens_to_string(readable, *arguments, **more)
        return {**said, "text": " ".join(said["text"].split())}
