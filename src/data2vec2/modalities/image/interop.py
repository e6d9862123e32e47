"""Models of pictures as other programs see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from data2vec2.config import ArchitectureConfig, ModalityConfig
from data2vec2.errors import UsageError
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig
from data2vec2.modalities.info import ModelInfo
from data2vec2.modalities.interop import Inputs, Interop, Portable, Usage


class PortableImage(Portable):
    """Takes `pixel_values`."""

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Of pictures of the model's size."""
        return self.run(pixel_values, None)


class ImageInterop(Interop):
    """Pictures."""

    portable = PortableImage
    heads = {"classifier": "ForImageClassification"}  # noqa: RUF012
    fixed_size = True
    older = frozenset({"position_size"})
    licence = ("cc-by-nc-4.0", "CC-BY-NC 4.0: not for commercial use")

    def to_processor(self, info: ModelInfo) -> dict[str, Any]:
        """`UsageError` where mean and deviation are missing or not of the model's channels."""
        modality, data = info.model.modality, info.data
        assert isinstance(modality, ImageConfig) and isinstance(data, ImageDataConfig)
        if not len(data.mean or ()) == len(data.std or ()) == modality.channels:
            raise UsageError(f"mean {data.mean} and std {data.std} for pictures of {modality.channels} channels")
        return {
            "image_processor_type": "Data2Vec2ImageProcessor",
            "size": modality.image_size,
            "image_mean": list(data.mean or ()),
            "image_std": list(data.std or ()),
            "eval_crop": data.eval_crop,
        }

    def from_processor(self, modality: ModalityConfig, processor: Mapping[str, Any]) -> ImageDataConfig:
        """Mean, deviation and the central square."""
        try:
            return ImageDataConfig(
                mean=tuple(map(float, processor["image_mean"])),
                std=tuple(map(float, processor["image_std"])),
                eval_crop=float(processor["eval_crop"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError("it needs image_mean, image_std and eval_crop; export the model again") from error

    def named(self, inputs: Tensor, lengths_B: Tensor | None = None) -> Inputs:
        """`pixel_values`."""
        return {"pixel_values": inputs}

    def example(self, model: ArchitectureConfig) -> Tensor:
        """Two pictures."""
        modality = model.modality
        assert isinstance(modality, ImageConfig)
        return torch.zeros(2, modality.channels, modality.image_size, modality.image_size)

    def describe(self, modality: ImageConfig) -> str:
        """Size, channels and patches."""
        size = f"{modality.image_size} x {modality.image_size} pixels"
        return f"{size}, {modality.channels} channel(s), patches of {modality.patch_size}"

    def usage(self, modality: ImageConfig) -> Usage:
        """With the image processor."""
        return Usage(
            processor="AutoImageProcessor",
            call="picture",
            several="picture",
            note="`pooler_output` is the mean over patches; `last_hidden_state` starts with the CLS token.",
            pipeline="picture",
        )
