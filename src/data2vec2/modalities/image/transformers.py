"""Models of pictures as Hugging Face Transformers has them, and what makes their inputs, without torchvision.

Shapes: `N` pictures, `L` tokens (CLS, then patches), `D` width, `H` heads, `C` classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification, AutoModelForPreTraining
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.modeling_outputs import ImageClassifierOutput

from data2vec2.config.run import RunConfig
from data2vec2.modalities.image.config import ImageConfig
from data2vec2.modalities.image.pictures import MAX_PIXELS, Raw
from data2vec2.modalities.image.reader import central_box, crop
from data2vec2.modalities.transformers import register
from data2vec2.modalities.transformers.models import Data2Vec2Config, Data2Vec2ForClassification, Data2Vec2Model
from data2vec2.modalities.transformers.pretraining import Data2Vec2ForPreTraining


class Data2Vec2ImageConfig(Data2Vec2Config, modality=ImageConfig):
    """Shape of an image encoder: fields of `ImageConfig`, and those that all modalities have."""

    @classmethod
    def from_run_config(cls, config: RunConfig) -> Self:
        """As of all modalities; `ValueError` where the number of a picture's channels is left to the data."""
        made = super().from_run_config(config)
        if made.num_channels is None:
            raise ValueError("model.modality.num_channels is none; set it to 1 (grey pictures), 3 (colour) or another")
        return made


class Data2Vec2ImageModel(Data2Vec2Model):  # type: ignore[no-untyped-call]
    """The image encoder without a head."""

    main_input_name = "pixel_values"

    def forward(  # type: ignore[override]
        self,
        pixel_values: Tensor,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        output_attentions: bool | None = None,
    ) -> Any:
        """Encode normalised pictures `(N, channels, height, width)`.

        Height and width are any multiples of the patch size (`ValueError` for others); other sizes than `image_size`
        have interpolated positions. `last_hidden_state` (`NLD`) is the last block's output: the CLS token, then the
        patches row by row. `pooler_output` (`ND`) is the mean over the patches **without** the CLS token, as probes and
        fine-tuning have it. `hidden_states`, if asked for, are the first block's input and every block's output;
        `attentions` every block's weights `NHLL`, computed by a slower path that needs more memory.
        """
        return super().forward(pixel_values, None, output_hidden_states, return_dict, output_attentions)


class Data2Vec2ImageForImageClassification(Data2Vec2ForClassification):  # type: ignore[no-untyped-call]
    """Classes of pictures."""

    main_input_name = "pixel_values"
    output_class = ImageClassifierOutput

    def forward(  # type: ignore[override]
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """`logits` (`NC`) of normalised pictures, as for the encoder; `loss` where there are labels.

        `labels` are places of classes (`N`), or for samples of several classes 0 and 1 for each (`NC`, floating-point).
        """
        return super().forward(pixel_values, None, labels, output_hidden_states, output_attentions, return_dict)


class Data2Vec2ImageForPreTraining(Data2Vec2ForPreTraining):  # type: ignore[no-untyped-call]
    """data2vec 2.0 on pictures."""

    main_input_name = "pixel_values"

    def forward(  # type: ignore[override]
        self, pixel_values: Tensor, return_dict: bool | None = None, return_loss: bool = True
    ) -> Any:
        """The loss on normalised pictures `(N, channels, image_size, image_size)`.

        `return_loss` changes nothing; it lets the `Trainer` know that there is a loss without labels.
        """
        return super().forward(pixel_values, None, return_dict)

    def _grid(self, inputs: Tensor) -> tuple[int, ...]:
        return self._whole[0].config.modality.grid  # type: ignore[attr-defined, no-any-return]


class Data2Vec2ImageProcessor(BaseImageProcessor):
    """The central square of pictures, scaled to the model's size, in its colours, normalised; as `evaluate` has it."""

    model_input_names = ["pixel_values"]  # noqa: RUF012  (Transformers' own attribute)

    def __init__(
        self,
        *,
        size: int = 224,
        image_mean: Sequence[float] = (0.5, 0.5, 0.5),
        image_std: Sequence[float] = (0.5, 0.5, 0.5),
        eval_crop: float = 0.875,
        levels: Sequence[float] | None = None,
        max_pixels: int = MAX_PIXELS,
        **kwargs: Any,
    ) -> None:
        """`size` in pixels; mean and deviation of each channel in units of 0 to 1: 3 for colour, 1 for grey pictures.

        `eval_crop` is the side of the square, as a share of the shorter side; `levels` are the values that become black
        and white in pictures of more than 8 bits; `max_pixels` is the size above which a file is refused.
        """
        super().__init__(**kwargs)
        self.size, self.eval_crop, self.levels, self.max_pixels = size, eval_crop, levels, max_pixels
        self.image_mean, self.image_std = list(image_mean), list(image_std)

    def preprocess(self, images: Any, return_tensors: str | None = None, **_: Any) -> BatchFeature:
        """`pixel_values` (`(N, channels, size, size)`) of one picture or several.

        A picture is a Pillow image, an array or tensor `HW`, `HWC` or `CHW` of bytes (or of other numbers, for a model
        that has `levels`), the content of a file, or a path to one. `BadSample` where a file is damaged, `ValueError`
        for another kind of value.
        """
        several = isinstance(images, list | tuple) or (hasattr(images, "ndim") and images.ndim == 4)
        pixels = [self._normalised(image) for image in (images if several else [images])]
        return BatchFeature({"pixel_values": pixels}, tensor_type=return_tensors)

    def _normalised(self, image: Any) -> NDArray[np.float32]:
        raw, channels = _raw(image, len(self.image_mean), wide=self.levels is not None), len(self.image_mean)
        levels = None if self.levels is None else (self.levels[0], self.levels[1])
        box = partial(central_box, self.eval_crop)
        picture = crop(raw, box, self.size, channels, levels=levels, max_pixels=self.max_pixels)
        values_HWC = np.asarray(picture, dtype=np.float32).reshape(self.size, self.size, -1) / 255
        mean, std = (np.asarray(values, dtype=np.float32) for values in (self.image_mean, self.image_std))
        return np.ascontiguousarray(((values_HWC - mean) / std).transpose(2, 0, 1))


def _raw(image: Any, num_channels: int, wide: bool) -> Raw:
    """The picture as `crop` takes it; `wide` allows for arrays of more than 8 bits."""
    if isinstance(image, Image.Image):
        upright = ImageOps.exif_transpose(image)
        kept = ("L", "RGB", "RGBA", "F")
        return np.asarray(upright if upright.mode in kept or upright.mode[0] == "I" else upright.convert("RGBA"))
    if isinstance(image, str | Path):
        return Path(image).read_bytes()
    if isinstance(image, bytes):
        return image
    array = np.asarray(image)
    if not (array.dtype == np.uint8 or (wide and array.dtype.kind in "iuf")) or array.ndim not in (2, 3):
        raise ValueError(f"a picture of shape {array.shape} and type {array.dtype}; HW, HWC or CHW of uint8 is needed")
    known = {1, 3, num_channels}
    channels_first = array.ndim == 3 and array.shape[0] in known and array.shape[2] not in known
    return array.transpose(1, 2, 0) if channels_first else array


register(
    Data2Vec2ImageConfig,
    {
        AutoModel: Data2Vec2ImageModel,
        AutoModelForPreTraining: Data2Vec2ImageForPreTraining,
        AutoModelForImageClassification: Data2Vec2ImageForImageClassification,
    },
)
_options: dict[str, Any] = {"slow_image_processor_class": Data2Vec2ImageProcessor}  # of the first releases of 5
if "image_processor_classes" in signature(AutoImageProcessor.register).parameters:  # one class, whatever is installed
    _options = {"image_processor_classes": dict.fromkeys(("pil", "torchvision"), Data2Vec2ImageProcessor)}
AutoImageProcessor.register(Data2Vec2ImageConfig, exist_ok=True, **_options)
