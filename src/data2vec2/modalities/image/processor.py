"""What makes the inputs of models of pictures for Hugging Face Transformers, without torchvision, and its pipelines.

Transformers' image pipelines turn pictures into RGB before any processor sees them, so that what is transparent becomes
whatever colour lies under it, mostly black. The pipelines here leave that to our processor, which lays it over white as
training does; with other processors they do what Transformers' do.

Shapes: `N` pictures, `H` and `W` pixels, `C` channels.
"""

from __future__ import annotations

import base64
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from transformers import (
    ImageClassificationPipeline,
    ImageFeatureExtractionPipeline,
    ImageSegmentationPipeline,
    Pipeline,
)
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import load_image
from transformers.pipelines import PIPELINE_REGISTRY

from data2vec2.errors import UsageError
from data2vec2.method.losses import upsampled
from data2vec2.modalities.fields import PREFIX
from data2vec2.modalities.image.pictures import MAX_PIXELS, TRANSPARENCY, Raw
from data2vec2.modalities.image.reader import central_box, crop, whole_box, whole_picture


class Data2Vec2ImageProcessor(BaseImageProcessor):
    """The central square of pictures, scaled to the model's size, in its colours, normalised; as `evaluate` has it."""

    model_input_names = ["pixel_values"]  # noqa: RUF012  (Transformers' own attribute)

    def __init__(
        self,
        *,
        size: int | Mapping[str, int] = 224,
        image_mean: Sequence[float] = (0.5, 0.5, 0.5),
        image_std: Sequence[float] = (0.5, 0.5, 0.5),
        eval_crop: float = 0.875,
        whole: bool = False,
        transparency: str = TRANSPARENCY,
        levels: Sequence[float] | None = None,
        max_pixels: int = MAX_PIXELS,
        do_resize: bool = True,
        do_rescale: bool = True,
        do_normalize: bool = True,
        do_reduce_labels: bool = False,
        **kwargs: Any,
    ) -> None:
        """`size` in pixels, a number or `height` and `width`, which are the same; `UsageError` for others.

        Mean and deviation of each channel are in units of 0 to 1: 3 for colour, 1 for grey pictures. `eval_crop` is the
        side of the square, as a share of the shorter side, and `whole` instead takes all of a picture, stretched to a
        square; `transparency` is "white", on which transparent pictures are
        laid (on black if nothing of them would be darker than 240); `levels` are the values that become black and white
        in pictures of more than 8 bits; `max_pixels` is the size above which a file is refused. Without `do_resize`
        pictures stay whole and as large as they are, without `do_rescale` their values are 0 to 255. `do_reduce_labels`
        is kept for scripts that ask whether they left out class 0; it changes no picture.
        """
        super().__init__(**kwargs)
        self.size = _square(size)
        if len(image_mean) != len(image_std):
            raise UsageError(f"image_mean has {len(image_mean)} values and image_std {len(image_std)}, one a channel")
        if transparency != TRANSPARENCY:
            raise UsageError(f"transparency is {transparency!r}; it must be {TRANSPARENCY!r}")
        self.image_mean, self.image_std = list(image_mean), list(image_std)
        self.eval_crop, self.transparency, self.levels, self.max_pixels = eval_crop, transparency, levels, max_pixels
        self.whole = whole
        self.do_resize, self.do_rescale, self.do_normalize = do_resize, do_rescale, do_normalize
        self.do_reduce_labels = do_reduce_labels

    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As of all processors; options among `kwargs`, which `from_pretrained` gives, are checked as at first."""
        given = {name: kwargs.pop(name) for name in OPTIONS if name in kwargs}
        return super().from_dict(image_processor_dict | given, **kwargs)

    def preprocess(
        self, images: Any, return_tensors: str | None = None, timeout: float | None = None, **options: Any
    ) -> BatchFeature:
        """`pixel_values` (`(N, channels, size, size)`) of one picture or several.

        A picture is a Pillow image, an array or tensor `HW`, `HWC` or `CHW` of bytes (or of other numbers, for a model
        that has `levels`), the content of a file, a path, an address (waited for `timeout` seconds) or base64.
        `options` are those of the constructor, for this call; none: as they are. `BadSample` where a file is damaged,
        `UsageError` for another kind of value and for an unknown option.
        """
        given = {name: value for name, value in options.items() if value is not None}
        if unknown := sorted(given.keys() - set(OPTIONS)):
            raise UsageError(f"{', '.join(unknown)}: the image processor has {', '.join(OPTIONS)}")
        how = type(self)(**{name: getattr(self, name) for name in OPTIONS} | given) if given else self
        several = isinstance(images, list | tuple) or (hasattr(images, "ndim") and images.ndim == 4)
        pixels = [how._normalised(image, timeout) for image in (images if several else [images])]
        return BatchFeature({"pixel_values": pixels}, tensor_type=return_tensors)

    def _normalised(self, image: Any, timeout: float | None) -> NDArray[np.float32]:
        """A picture as `CHW`."""
        channels = len(self.image_mean)
        raw = _raw(image, channels, self.levels is not None, timeout)
        levels = None if self.levels is None else (self.levels[0], self.levels[1])
        if self.do_resize:
            box = whole_box if self.whole else partial(central_box, self.eval_crop)
            picture = crop(raw, box, self.size["height"], channels, levels=levels, max_pixels=self.max_pixels)
        else:
            picture = whole_picture(raw, None, 1, channels, levels, self.max_pixels)
        values_HWC = picture.astype(np.float32).reshape(*picture.shape[:2], -1)
        if self.do_rescale:
            values_HWC /= 255
        if self.do_normalize:
            mean, std = (np.asarray(values, dtype=np.float32) for values in (self.image_mean, self.image_std))
            values_HWC = (values_HWC - mean) / std
        return np.ascontiguousarray(values_HWC.transpose(2, 0, 1))

    def post_process_semantic_segmentation(self, outputs: Any, target_sizes: Any = None) -> list[Tensor]:
        """The class `HW` of each pixel of pictures of these sizes (height, width; none: of patches), from `logits`.

        `UsageError` for a processor that does not see whole pictures: its classes are of their central squares.
        """
        if target_sizes is None:
            return list(outputs.logits.argmax(dim=1))
        if not self.whole:
            raise UsageError(
                "the processor sees central squares, so classes of whole pictures are unknown (whole=False); "
                "save AutoImageProcessor.from_pretrained(MODEL, whole=True) beside the model"
            )
        pairs = zip(outputs.logits, target_sizes, strict=True)
        return [upsampled(logits[None], tuple(map(int, size)))[0].argmax(dim=0) for logits, size in pairs]


OPTIONS = tuple(signature(Data2Vec2ImageProcessor).parameters)[:-1]
"""What the processor can be told, at first or in a call."""


def _square(size: Any) -> dict[str, int]:
    """Height and width, of a number or of both; `UsageError` for anything else."""
    known: Any = {"height": size, "width": size} if isinstance(size, int) else size
    try:
        sides = {name: value for name, value in dict(known).items() if value is not None}
    except (TypeError, ValueError):
        sides = {}
    if set(sides) != {"height", "width"} or sides["height"] != sides["width"] or not 0 < sides["height"] < np.inf:
        raise UsageError(
            f"size is {size}; pictures become squares, so give a number of pixels, or height and width of it"
        )
    return {name: int(value) for name, value in sides.items()}


def _raw(image: Any, num_channels: int, wide: bool, timeout: float | None) -> Raw:
    """The picture as `crop` takes it; `wide` allows for arrays of more than 8 bits."""
    if isinstance(image, Image.Image):
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "F" or upright.mode[0] == "I":
            return np.asarray(upright)
        if upright.has_transparency_data:
            return np.asarray(upright.convert("RGBA"))
        return np.asarray(upright if upright.mode in ("L", "RGB") else upright.convert("RGB"))
    if isinstance(image, Path) or (isinstance(image, str) and _is_file(image)):
        return Path(image).read_bytes()
    if isinstance(image, str):
        return _fetched(image, timeout)
    if isinstance(image, bytes):
        return image
    array = np.asarray(image)
    if not (array.dtype == np.uint8 or (wide and array.dtype.kind in "iuf")) or array.ndim not in (2, 3):
        raise UsageError(f"a picture of shape {array.shape} and type {array.dtype}; HW, HWC or CHW of uint8 is needed")
    known = {1, 3, 4, num_channels}
    channels_first = array.ndim == 3 and array.shape[0] in known and array.shape[2] not in known
    return array.transpose(1, 2, 0) if channels_first else array


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long for a name
        return False


def _fetched(text: str, timeout: float | None) -> bytes:
    """The content at an address, or of base64; `UsageError` for text that is neither."""
    if text.startswith(("http://", "https://")):
        with urlopen(Request(text, headers={"User-Agent": "data2vec2"}), timeout=timeout) as answer:
            return answer.read()  # type: ignore[no-any-return]
    try:
        return base64.b64decode("".join(text.removeprefix("data:").split(",")[-1].split()), validate=True)
    except ValueError as error:
        raise UsageError(f"{text[:80]!r} is no file, no address (http, https) and no base64 of a picture") from error


class KeepsTransparency(Pipeline):
    """A pipeline whose processor, if it is ours, gets pictures as they were given."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As of all pipelines; a warning for a model of ours with another processor, as of older exports."""
        super().__init__(*args, **kwargs)
        ours = isinstance(self.image_processor, Data2Vec2ImageProcessor)
        if not ours and self.model.config.model_type.startswith(PREFIX):
            name = type(self.image_processor).__name__
            warnings.warn(
                f"{name} puts transparent pictures on black, and the model was trained with them on white; export the "
                "model again, or give pictures without transparency",
                stacklevel=2,
            )

    def preprocess(self, image: Any, **options: Any) -> Any:  # type: ignore[override]
        """Inputs of a picture, which is whatever the processor takes."""
        if not isinstance(self.image_processor, Data2Vec2ImageProcessor):
            return super().preprocess(image, **options)  # type: ignore[safe-super]
        return self.image_processor.preprocess(image, return_tensors="pt", **options).to(self.dtype)


class Data2Vec2ImageClassificationPipeline(KeepsTransparency, ImageClassificationPipeline):  # type: ignore[misc]
    """Classes of pictures."""


class Data2Vec2ImageSegmentationPipeline(KeepsTransparency, ImageSegmentationPipeline):
    """Classes of pixels."""

    def preprocess(self, image: Any, **options: Any) -> Any:  # type: ignore[override]
        """And the size of a picture, upright as the processor has it."""
        if not isinstance(self.image_processor, Data2Vec2ImageProcessor):
            return super().preprocess(image, **options)
        options.pop("subtask", None)
        loaded = load_image(image, timeout=options.get("timeout"))
        return super().preprocess(image, **options) | {"target_size": [(loaded.height, loaded.width)]}


class Data2Vec2ImageFeatureExtractionPipeline(  # type: ignore[misc]
    KeepsTransparency, ImageFeatureExtractionPipeline
):
    """Features of pictures."""


# Not by `register_pipeline`, which takes the tasks' default models away and would save these classes with all models.
PIPELINE_REGISTRY.supported_tasks["image-classification"]["impl"] = Data2Vec2ImageClassificationPipeline
PIPELINE_REGISTRY.supported_tasks["image-segmentation"]["impl"] = Data2Vec2ImageSegmentationPipeline
PIPELINE_REGISTRY.supported_tasks["image-feature-extraction"]["impl"] = Data2Vec2ImageFeatureExtractionPipeline
