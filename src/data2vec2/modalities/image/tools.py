"""Pictures at work, and their models as other programs see them.

Shapes: `B` pictures, `C` channels, `H` and `W` pixels, `T` patches, `D` width, `N` pictures shown, `M` masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from data2vec2.config.model import ArchitectureConfig, ModalityConfig
from data2vec2.config.run import DataConfig, RunConfig
from data2vec2.config.tree import require
from data2vec2.data.records import Parts, Records
from data2vec2.data.source import BadSample
from data2vec2.errors import UsageError, UserError
from data2vec2.evaluation.features import LabelledFeatures, Note
from data2vec2.evaluation.scores import Samples
from data2vec2.method.encoder import Encoder
from data2vec2.modalities.data import Columns, Labels, Largest, Log, ModelInfo, Survey, narrow
from data2vec2.modalities.image import SPEC
from data2vec2.modalities.image.arrays import ARRAYS
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig
from data2vec2.modalities.image.finetune import ImageClassifyJob
from data2vec2.modalities.image.masks import PatchesJob
from data2vec2.modalities.image.model import ImageModality
from data2vec2.modalities.image.pictures import (
    FULL,
    MAX_PIXELS,
    STEPS,
    TRANSPARENCY,
    UNIT,
    Levels,
    bad_samples,
    find_levels,
    open_picture,
    picture_facts,
)
from data2vec2.modalities.image.reader import PICTURES, ImageReader, Normalise, decode, survey
from data2vec2.modalities.image.show import ImageShow, raw_pixels, write_gallery
from data2vec2.modalities.interop import Inputs, Interop, Portable, Usage
from data2vec2.modalities.tools import EmbedOptions, Feed, Row, Tools
from data2vec2.training.progress import console


class PortableImage(Portable):
    """Takes `pixel_values`."""

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Of pictures of the model's size."""
        return self.run(pixel_values, None)


class ImageInterop(Interop):
    """Pictures."""

    portable = PortableImage
    heads = {"classifier": "ForImageClassification", "token classifier": "ForSemanticSegmentation"}  # noqa: RUF012
    dense_task = "image-segmentation"
    features_task = "image-feature-extraction"
    fixed_size = True
    licence = ("cc-by-nc-4.0", "CC-BY-NC 4.0: not for commercial use")

    def to_processor(self, info: ModelInfo) -> dict[str, Any]:
        """`UsageError` where mean and deviation are missing or not of the model's channels."""
        modality, data = narrow(info.model.modality, ImageConfig), narrow(info.data, ImageDataConfig)
        if not len(data.mean or ()) == len(data.std or ()) == modality.channels:
            raise UsageError(f"mean {data.mean} and std {data.std} for pictures of {modality.channels} channels")
        statistics = {"image_mean": list(data.mean or ()), "image_std": list(data.std or ())}
        side = modality.image_size
        size = {"image_processor_type": "Data2Vec2ImageProcessor", "size": {"height": side, "width": side}}
        transparency = {"transparency": TRANSPARENCY} if modality.channels in (1, 3) else {}
        levels = {} if data.levels is None else {"levels": list(data.levels)}
        most = {} if data.max_pixels == MAX_PIXELS else {"max_pixels": data.max_pixels}
        whole = {"whole": True} if data.whole else {}
        return {**size, **statistics, "eval_crop": data.eval_crop, **whole, **transparency, **levels, **most}

    def from_processor(self, modality: ModalityConfig, processor: Mapping[str, Any]) -> ImageDataConfig:
        """Mean, deviation, the central square, levels, and the largest size; `UsageError` for what is not done here."""
        if processor.get("transparency", TRANSPARENCY) != TRANSPARENCY:
            raise UsageError(f"transparency is {processor['transparency']!r}; pictures are laid over {TRANSPARENCY!r}")
        if left_out := [step for step in STEPS if not processor.get(step, True)]:
            raise UsageError(f"{', '.join(left_out)} is false, but pictures are read as in training; export again")
        size, own = processor.get("size"), narrow(modality, ImageConfig).image_size
        if (size.get("height", own) if isinstance(size, Mapping) else size or own) != own:
            raise UsageError(f"size is {size}, and the model's image_size is {own}; make them the same")
        try:
            mean, std = (tuple(map(float, processor[name])) for name in ("image_mean", "image_std"))
            low, high = processor.get("levels") or (None, None)
            return ImageDataConfig(
                mean=mean,
                std=std,
                eval_crop=float(processor["eval_crop"]),
                whole=bool(processor.get("whole")),
                levels=None if low is None or high is None else (float(low), float(high)),
                max_pixels=int(processor.get("max_pixels", MAX_PIXELS)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError("it needs image_mean, image_std and eval_crop; export the model again") from error

    def named(self, inputs: Tensor, lengths_B: Tensor | None = None) -> Inputs:
        """`pixel_values`."""
        return {"pixel_values": inputs}

    def describe(self, modality: ImageConfig) -> str:
        """Size, channels and patches."""
        size = f"{modality.image_size} x {modality.image_size} pixels"
        return f"{size}, {modality.channels} channel(s), patches of {modality.patch_size}"

    def usage(self, modality: ImageConfig) -> Usage:
        """With the image processor."""
        note = "`pooler_output` is the mean over patches; `last_hidden_state` starts with the CLS token."
        return Usage(processor="AutoImageProcessor", call="picture", several="picture", note=note, pipeline="picture")


class ImageFeed(Feed):
    """The central square that evaluation sees at some size, or whole pictures. Samples `CHW`."""

    batch = 64
    pictures = cls_token = True

    def __init__(self, tools: Tools, info: ModelInfo, options: EmbedOptions | None = None) -> None:
        """`UsageError` for a size that is no multiple of the model's patches."""
        super().__init__(tools, info, options)
        self.modality = narrow(info.model.modality, ImageConfig)
        patch, asked = self.modality.patch_size, options.size if options else None
        self.size = self.modality.image_size if asked is None else asked
        fits = self.size >= patch and self.size % patch == 0
        require(fits, "--size", self.size, f"a multiple of the model's patch size ({patch})")
        if options and options.pool == "none":
            self.columns = [pa.field("grid", pa.list_(pa.int32(), 2), nullable=False)]
        if options:
            self.about = {"size": self.size, "keep_aspect": options.keep_aspect, "patch_size": patch}

    def open(self, records: Records) -> Callable[[int], NDArray[np.uint8]]:
        """What reads a picture as the model's input: the central square as in evaluation, or the whole."""
        at_size = replace(self.info.model, modality=replace(self.modality, image_size=self.size))
        reader = narrow(self.tools.reader(records, at_size, self.info.data, seed=0), ImageReader)
        if records.levels not in (None, reader.data.levels) and (reader.data.levels or records.levels != UNIT):
            of_model = "as the model was trained" if reader.data.levels else "the model was trained on 8 bits"
            console().print(f"data: {_said(records.levels)}; {_become(reader.levels)} ({of_model})")
        return reader.entirely if self.options and self.options.keep_aspect else reader.whole

    def groups(self, samples: Sequence[NDArray[Any]]) -> Iterator[tuple[list[int], NDArray[Any], None]]:
        """Those of the same shape."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for place, picture in enumerate(samples):
            by_shape.setdefault(picture.shape, []).append(place)
        for places in by_shape.values():
            yield places, np.stack([samples[place] for place in places]), None

    def features(self, encoder: Encoder, samples: Sequence[Any], device: torch.device) -> list[Row]:
        """Features `TD` of each picture, their mean `D`, or the CLS token's."""
        assert self.options is not None
        layer, pool = self.options.layer, self.options.pool

        def several(inputs: Tensor, _: Tensor | None) -> Sequence[Row]:
            encoded = encoder(inputs)
            patches_BTD: Tensor = encoded.features_NTD if layer else encoded.tokens.tokens_BTD
            mean_or_all = patches_BTD if pool == "none" else patches_BTD.mean(dim=1)
            return list((encoded.x_NLD[:, 0] if pool == "cls" else mean_or_all).float().cpu().numpy())

        return self.run(samples, several, lambda _: np.zeros(0, np.float32), device)

    def cells(self, records: Records, good: Mapping[int, Any], rows: Sequence[Row]) -> dict[str, list[Any]]:
        """Rows and columns of each picture's patches."""
        patch = self.modality.patch_size
        grids = [(picture.shape[1] // patch, picture.shape[2] // patch) for picture in good.values()]
        return {"grid": grids} if self.columns else {}


class ImageTools(Tools):
    """Pictures of one size."""

    spec = SPEC
    content = PICTURES
    own_format = ARRAYS
    jobs = {"classify": ImageClassifyJob, "patches": PatchesJob}  # noqa: RUF012
    feed = ImageFeed
    interop = ImageInterop()
    show = ImageShow()

    def build(self, model: ArchitectureConfig) -> ImageModality:
        """Patches, positions, the CLS token and registers."""
        return ImageModality.of(model)

    def largest(self, model: ArchitectureConfig, data: DataConfig) -> Largest:
        """A picture."""
        modality = narrow(model.modality, ImageConfig)
        return Largest(torch.zeros(1, modality.channels, *2 * [modality.image_size]), modality.grid, 1.0)

    def reader(self, records: Records, model: ArchitectureConfig, data: DataConfig, seed: int) -> ImageReader:
        """Crops of the model's size."""
        return ImageReader(records, narrow(model.modality, ImageConfig), narrow(data, ImageDataConfig), seed)

    def open_labelled(self, path: str | Path, columns: Columns, labels: Labels) -> Parts:
        """With the levels of pictures of more than 8 bits, found in all parts together."""
        parts = super().open_labelled(path, columns, labels)
        if (levels := find_levels(list(parts.each.values()))) is None:
            return parts
        note = f"{_said(levels)}; {_become(levels)}, unless training had other levels"
        parts.account.choices.append(note)
        described = f"{parts.description}; {note}"
        each: dict[str, Any] = {name: replace(part, levels=levels) for name, part in parts.each.items()}
        return replace(parts, description=described, **each)

    def listed(self, paths: Sequence[str | Path], columns: Columns) -> list[Records]:
        """With the levels of all of them."""
        return [replace(records, levels=find_levels([records])) for records in super().listed(paths, columns)]

    def given(self, samples: Sequence[Any]) -> Records:
        """With levels: of floats from 0 to 1 these, whatever the brightest of a few pictures is."""
        records = super().given(samples)
        levels = records.levels or find_levels([records], floats=UNIT)
        return replace(records, levels=levels)

    def inspected(self, path: str, config: RunConfig, columns: Columns, say: Log) -> tuple[RunConfig, Parts]:
        """As many channels as the pictures have, unless their number is given."""
        parts = self.open_labelled(path, columns, "classes")
        return _with_channels(config, parts.train, say), parts

    def facts(self, records: Records, index: int) -> Mapping[str, float | str]:
        """Size and mode."""
        return picture_facts(records.read(index))

    def look(self, reader: Any, config: RunConfig, say: Log) -> tuple[RunConfig, Survey]:
        """Channels, levels, mean and deviation of the pictures, unless they were given."""
        config = _with_channels(config, reader.records, say)
        reader = self.reader(reader.records, config.model, config.data, reader.seed)
        found, *statistics = survey(reader)
        data, channels = replace(narrow(config.data, ImageDataConfig), levels=reader.levels), reader.config.channels
        config = replace(config, data=data)
        if (held := num_channels(reader.records)) > 3 >= channels:
            hint = f"the model takes {channels}; --model.modality.num-channels {held} takes all"
            found = replace(found, remarks=(*found.remarks, f"the pictures have {held} channels, and {hint}"))
        if data.mean is None or data.std is None:
            mean, std = (tuple(round(value, 4) for value in values) for values in statistics)
            used = found.checked - len(found.bad)
            say(f"data: normalised with mean {mean} and deviation {std}, from {used:,} pictures")
            config = replace(config, data=replace(data, mean=mean, std=std))
        elif not len(data.mean) == len(data.std) == channels:
            raise UserError(f"--data.mean and --data.std have {len(data.mean)} values for {channels} channels")
        return config, found

    def normalise(self, data: DataConfig, device: torch.device) -> Normalise:
        """Zero mean and unit variance of each channel over the training data."""
        known = narrow(data, ImageDataConfig)
        return Normalise(narrow(known.mean, tuple), narrow(known.std, tuple), device)

    def raw_features(self, train: Samples, test: Samples, note: Note) -> tuple[LabelledFeatures, LabelledFeatures]:
        """Pixels."""
        return raw_pixels(*train, note), raw_pixels(*test, note)

    def preview(self, reader: Any, samples: NDArray[np.int64], config: RunConfig) -> dict[str, Any]:
        """Pictures `NHWC`, kept patches `NMK`."""
        keep_ids, images = self.keep_ids(config, reader.config.grid, samples), reader.shown(samples)["pictures"]
        return {"kind": self.spec.name, "images": images, "keep_ids": keep_ids, "patch_size": reader.config.patch_size}

    def write_gallery(
        self, run: Path, encoder: Encoder, samples: Samples, info: ModelInfo, device: torch.device, data: str
    ) -> None:
        """Patch colours, neighbours, and a map of samples."""
        write_gallery(run, encoder, *samples, self.normalise(info.data, device), device)


def _with_channels(config: RunConfig, records: Records, say: Log) -> RunConfig:
    """The configuration with as many channels as the pictures have, unless their number is given."""
    modality = narrow(config.model.modality, ImageConfig)
    if modality.num_channels is not None:
        return config
    if (channels := num_channels(records)) == 3:
        say("model: 3 channels, because the pictures have colour (--model.modality.num-channels 1 for grey)")
    elif channels > 1:
        say(f"model: {channels} channels, as the pictures have (--model.modality.num-channels for another number)")
    return replace(config, model=replace(config.model, modality=replace(modality, num_channels=channels)))


def num_channels(records: Records, looks: int = 16) -> int:
    """The most that a few pictures, evenly spread, have: 1 if all pixels are grey; transparency is none."""
    found = {1}
    for index in np.unique(np.linspace(0, len(records) - 1, looks).astype(int)).tolist():
        with suppress(BadSample), bad_samples():
            raw = records.read(index)
            opened = open_picture(raw)
            if isinstance(opened, np.ndarray) and opened.shape[2:] not in ((), (1,), (3,)):
                found.add(opened.shape[2])
                continue
            values = decode(raw, 3, records.levels).astype(int)
            found.add(3 if (np.ptp(values, axis=2) > 8).any() else 1)
    return max(found)


def _said(levels: Levels) -> str:
    return f"pictures of more than 8 bits, whose values lie in {levels[0]:,g} to {levels[1]:,g}"


def _become(levels: Levels | None) -> str:
    low, high = levels or FULL
    return f"{low:,g} becomes black and {high:,g} white"
