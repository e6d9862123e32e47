"""Pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data2vec2.commands.kinds.base import AnyData, Log
from data2vec2.config import ImageConfig, ImageDataConfig, ModelConfig, RunConfig
from data2vec2.data.image import ImageReader, Survey, decode, survey
from data2vec2.data.phones import Alignment
from data2vec2.data.reader import Reader
from data2vec2.data.records import BadSample, Parts, Records, open_data
from data2vec2.errors import UserError
from data2vec2.evaluation.features import Normalise, Note, raw_pixels
from data2vec2.evaluation.frames import PhoneProbe
from data2vec2.evaluation.gallery import write_gallery
from data2vec2.evaluation.probes import Part
from data2vec2.evaluation.scores import Samples
from data2vec2.interop.export import ExportInfo
from data2vec2.masking import draw_keep_ids
from data2vec2.models import Encoder


class ImageKind:
    """Pictures of one size."""

    plural = unit = "pictures"
    largest_name = "a picture"
    raw = "raw pixels"

    def open(self, path: Path, config: RunConfig, say: Log) -> Parts:
        """Pictures."""
        return open_data(path)

    def adapted(self, config: RunConfig, recipe: RunConfig, path: Path, say: Log) -> RunConfig:
        """Three channels where there is colour, unless their number is given."""
        modality = _modality(config.model)
        if modality.num_channels is not None:
            return config
        channels = 3 if has_colour(open_data(path).train) else 1
        if channels == 3:
            say("model: 3 channels, because the pictures have colour (--model.modality.num-channels 1 for grey)")
        return replace(config, model=replace(config.model, modality=replace(modality, num_channels=channels)))

    def reader(self, records: Records, model: ModelConfig, data: AnyData, seed: int) -> ImageReader:
        """Crops of the model's size."""
        assert isinstance(data, ImageDataConfig)
        return ImageReader(records, _modality(model), data, seed)

    def look(self, reader: Reader, config: RunConfig, say: Log) -> tuple[RunConfig, Survey]:
        """Mean and deviation of the pictures, unless they were given."""
        assert isinstance(reader, ImageReader) and isinstance(config.data, ImageDataConfig)
        found, data, channels = survey(reader), config.data, _modality(config.model).channels
        if data.mean is None or data.std is None:
            mean, std = (tuple(round(value, 4) for value in values) for values in (found.mean, found.std))
            used = found.checked - len(found.bad)
            say(f"data: normalised with mean {mean} and deviation {std}, from {used:,} pictures")
            return replace(config, data=replace(data, mean=mean, std=std)), found
        if not len(data.mean) == len(data.std) == channels:
            raise UserError(f"--data.mean and --data.std have {len(data.mean)} values for {channels} channels")
        return config, found

    def largest(self, config: RunConfig) -> tuple[Tensor, tuple[int, ...], float]:
        """A picture."""
        modality = _modality(config.model)
        size = modality.image_size
        return torch.zeros(1, modality.channels, size, size), modality.grid, 1.0

    def normalise(self, data: AnyData, device: torch.device) -> Normalise:
        """Zero mean and unit variance of each channel over the training data."""
        assert isinstance(data, ImageDataConfig) and data.mean is not None and data.std is not None
        return Normalise(data.mean, data.std, device)

    def preview(self, reader: Reader, samples: NDArray[np.int64], config: RunConfig) -> dict[str, Any]:
        """Pictures `NHWC`, kept patches `NMK`."""
        modality, masks = _modality(config.model), config.model.masks
        keep_ids = draw_keep_ids(masks, modality.grid, config.train.seed, np.zeros_like(samples), samples)
        return {
            "images": reader.eval_batch(samples).inputs.transpose(0, 2, 3, 1),
            "keep_ids": keep_ids.reshape(len(samples), masks.num_masks, -1),
            "patch_size": modality.patch_size,
        }

    def write_gallery(
        self,
        run: Path,
        encoder: Encoder,
        reader: Reader,
        samples: NDArray[np.int64],
        device: torch.device,
        info: ExportInfo,
        phones: dict[str, Alignment],
    ) -> None:
        """Patch colours, neighbours, and a map of samples."""
        assert isinstance(reader, ImageReader)
        write_gallery(run, encoder, reader, samples, self.normalise(info.data, device), device)

    def phones(self, data: Path, train: Reader, test: Reader) -> PhoneProbe:
        """Pictures say nothing."""
        raise ValueError("--probes phones is for speech; leave it out")

    def raw_features(self, train: Samples, test: Samples, note: Note) -> tuple[Part, Part]:
        """Pixels."""
        return raw_pixels(*train, note=note), raw_pixels(*test, note=note)


def has_colour(records: Records, looks: int = 16) -> bool:
    """Whether any of a few pictures, evenly spread, has a pixel that is not grey."""
    for index in np.unique(np.linspace(0, len(records) - 1, looks).astype(int)).tolist():
        try:
            pixels = np.asarray(decode(records.read(index), 3)).astype(int)
        except BadSample:
            continue
        if (np.ptp(pixels, axis=2) > 8).any():
            return True
    return False


def _modality(model: ModelConfig) -> ImageConfig:
    assert isinstance(model.modality, ImageConfig)
    return model.modality
