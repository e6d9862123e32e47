"""Models of pictures as Hugging Face Transformers has them; `processor` makes their inputs.

Shapes: `N` pictures, `L` tokens (CLS, then patches), `D` width, `H` heads, `C` classes.
"""

from __future__ import annotations

from inspect import signature
from typing import Any, Self

from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
    AutoModelForSemanticSegmentation,
)
from transformers.modeling_outputs import ImageClassifierOutput, SemanticSegmenterOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES

from data2vec2.config.model import ArchitectureConfig
from data2vec2.config.run import RunConfig
from data2vec2.errors import UsageError
from data2vec2.modalities.image.config import ImageConfig
from data2vec2.modalities.image.model import ImageModality
from data2vec2.modalities.image.processor import (
    Data2Vec2ImageClassificationPipeline,
    Data2Vec2ImageFeatureExtractionPipeline,
    Data2Vec2ImageProcessor,
)
from data2vec2.modalities.transformers import register
from data2vec2.modalities.transformers.models import (
    Data2Vec2Config,
    Data2Vec2ForClassification,
    Data2Vec2ForTokenClassification,
    Data2Vec2Model,
    Data2Vec2PreTrainedModel,
)
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


class ImageInputs(Data2Vec2PreTrainedModel):  # type: ignore[no-untyped-call]
    """What models of pictures have in common."""

    main_input_name = "pixel_values"
    config_class = Data2Vec2ImageConfig

    def _modality(self, config: ArchitectureConfig) -> ImageModality:
        return ImageModality.of(config)

    def _lengths(self, attention_mask: Tensor) -> Tensor:
        """Pictures have no padding."""
        raise UsageError("attention_mask can't be given to a model of pictures, which have no padding")

    def _check_size(self, pixel_values: Tensor, interpolate_pos_encoding: bool | None) -> None:
        """`UsageError` for another size than the model's where positions must not be interpolated."""
        size, own = tuple(pixel_values.shape[-2:]), self.config.image_size
        if interpolate_pos_encoding is False and size != (own, own):
            raise UsageError(
                f"pictures of {size} pixels for a model of {own}; interpolate_pos_encoding=True takes them"
            )


class Data2Vec2ImageModel(ImageInputs, Data2Vec2Model):  # type: ignore[no-untyped-call]
    """The image encoder without a head."""

    def forward(  # type: ignore[override]
        self,
        pixel_values: Tensor,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        output_attentions: bool | None = None,
        interpolate_pos_encoding: bool | None = None,
        **others: Any,
    ) -> Any:
        """Encode normalised pictures `(N, channels, height, width)`.

        Height and width are any multiples of the patch size (`UsageError` for others); other sizes than `image_size`
        have interpolated positions, unless `interpolate_pos_encoding` is False (`UsageError`). `last_hidden_state`
        (`NLD`) is the last block's output: the CLS token, then the patches row by row. `pooler_output` (`ND`) is the
        mean over the patches **without** the CLS token, as probes and fine-tuning have it. `hidden_states`, if asked
        for, are the first block's input and every block's output; `attentions` every block's weights `NHLL`, computed
        by a slower path that needs more memory. `others` may be none (`UsageError`).
        """
        self._check_size(pixel_values, interpolate_pos_encoding)
        seen: dict[str, Any] = {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions}
        return super().forward(pixel_values, return_dict=return_dict, **seen, **others)


class ImageClassification(ImageInputs, Data2Vec2ForClassification):  # type: ignore[no-untyped-call]
    """What models with classes have in common."""

    def forward(  # type: ignore[override]
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        interpolate_pos_encoding: bool | None = None,
        **others: Any,
    ) -> Any:
        """`logits` (`NC`) of normalised pictures, as for the encoder; `loss` where there are labels.

        `labels` are places of classes (`N`), or for samples of several classes 0 and 1 for each (`NC`, floating-point).
        """
        self._check_size(pixel_values, interpolate_pos_encoding)
        seen: dict[str, Any] = {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions}
        return super().forward(pixel_values, labels=labels, return_dict=return_dict, **seen, **others)


class Data2Vec2ImageForImageClassification(ImageClassification):  # type: ignore[no-untyped-call]
    """Classes of pictures."""

    output_class = ImageClassifierOutput


class Data2Vec2ImageForSemanticSegmentation(  # type: ignore[no-untyped-call]
    ImageClassification, Data2Vec2ForTokenClassification
):
    """Classes of pixels: `logits` of patches (`NChw`), `labels` (`NHW`, 255 or -100 for none)."""

    output_class = SemanticSegmenterOutput


class Data2Vec2ImageForPreTraining(ImageInputs, Data2Vec2ForPreTraining):  # type: ignore[no-untyped-call]
    """data2vec 2.0 on pictures."""

    def forward(  # type: ignore[override]
        self, pixel_values: Tensor, return_dict: bool | None = None, return_loss: bool = True, **others: Any
    ) -> Any:
        """The loss on normalised pictures `(N, channels, image_size, image_size)`.

        `return_loss` changes nothing; it lets the `Trainer` know that there is a loss without labels.
        """
        return super().forward(pixel_values, return_dict=return_dict, **others)

    def _grid(self, inputs: Tensor) -> tuple[int, ...]:
        return self._whole[0].config.modality.grid  # type: ignore[attr-defined, no-any-return]


register(
    Data2Vec2ImageConfig,
    {
        AutoModel: Data2Vec2ImageModel,
        AutoModelForPreTraining: Data2Vec2ImageForPreTraining,
        AutoModelForImageClassification: Data2Vec2ImageForImageClassification,
        AutoModelForSemanticSegmentation: Data2Vec2ImageForSemanticSegmentation,
    },
    files={"preprocessor_config.json": {"AutoImageProcessor": Data2Vec2ImageProcessor}},
    also=(Data2Vec2ImageClassificationPipeline, Data2Vec2ImageFeatureExtractionPipeline),
)
_options: dict[str, Any] = {"slow_image_processor_class": Data2Vec2ImageProcessor}  # of the first releases of 5
if "image_processor_classes" in signature(AutoImageProcessor.register).parameters:  # one class, whatever is installed
    _options = {"image_processor_classes": dict.fromkeys(("pil", "torchvision"), Data2Vec2ImageProcessor)}
AutoImageProcessor.register(Data2Vec2ImageConfig, exist_ok=True, **_options)
# The pipeline for segmentation looks here, where `register` writes nothing, and would call the model unsupported.
MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES[Data2Vec2ImageConfig.model_type] = (
    Data2Vec2ImageForSemanticSegmentation.__name__
)
