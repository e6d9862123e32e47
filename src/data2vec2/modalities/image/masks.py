"""Masks of pictures (semantic segmentation): their files, the class of each pixel, and the job.

A mask is a grey or palette picture of the size of its own, whose values are classes, 255 being none.

Shapes: `H` and `W` pixels, `C` classes or channels, `h` and `w` rows and columns of patches, `R` patches.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from data2vec2.config.run import DataConfig, FinetuneConfig
from data2vec2.data.account import Bad
from data2vec2.data.batch import Addition
from data2vec2.data.labels import IGNORED, some
from data2vec2.data.reader import Reader
from data2vec2.data.records import Parts, Records, open_data
from data2vec2.data.sampler import Plan
from data2vec2.data.source import BadSample, readable
from data2vec2.errors import UsageError, UserError
from data2vec2.evaluation.dense import decided
from data2vec2.method import losses
from data2vec2.method.encoder import Encoder
from data2vec2.method.heads import TokenClassifier
from data2vec2.modalities.data import Columns, ModelInfo, narrow
from data2vec2.modalities.dense import DenseJob, column_beside, unclassed
from data2vec2.modalities.image.arrays import ARRAYS
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig, ImageTaskConfig
from data2vec2.modalities.image.finetune import ImageClassifyJob, needs_timm
from data2vec2.modalities.image.pictures import MAX_PIXELS, bad_samples, find_levels, open_picture, upright
from data2vec2.modalities.image.reader import PICTURES, Box, ImageReader
from data2vec2.modalities.jobs import FinetuneData, Sized

MASKS, OWN = ("masks", "mask", "annotations"), ("images", "image")
"""Folders of masks and of pictures; a picture and its mask differ in these, and in what their names end in."""
COLUMNS = ("mask", "annotation", "segmentation_mask")
NO_CLASS = 255
CLASSES = "classes.txt"
"""Names of the classes, one a line, in the folder of the data."""
UNMASKED, OTHER_SIZE = "no mask", "a mask of another size than its picture"
INEXACT = "a mask in JPEG, which changes values; save it as PNG"
MAX_SCORED = 1 << 20
"""Masks of more pixels are scored at a smaller size, of about so many."""


class MaskFile(NamedTuple):
    """A mask on a disk; its size in bytes tells whether it has changed."""

    path: Path
    size: int

    def __str__(self) -> str:
        return f"{self.path.name} {self.size}"


def open_masks(data: str, max_pixels: int = MAX_PIXELS) -> Parts:
    """Pictures with masks: of folders `images` and `masks`, or of a column `mask` of their table.

    Such a column holds encoded pictures, or their paths. Every mask is read: those of another size than their picture,
    in colour, or damaged can't be used. Classes have the names of `CLASSES`, or numbers. Pictures without masks are
    left out. `UserError` for data without masks, for a picture with several, and for values that `CLASSES` has no name
    for.
    """
    parts, root = unclassed(open_data(data, PICTURES, ARRAYS)), Path(data)
    root = root if root.is_dir() else root.parent
    found: dict[str, Any] = {}
    seen: set[int] = set()
    files: dict[str, list[str]] = {}
    for name in (name for part in parts.each.values() for name in part.names if _is_mask(name)):
        files.setdefault(_key(name), []).append(name)
    for key, records in parts.each.items():
        masks, of_part = _masks_of(data, root, records, files), parts.account.part(key)
        pictures = [place for place, name in enumerate(records.names) if not _is_mask(name)]
        of_part.found -= len(records) - len(pictures)
        of_part.leave_out(Bad(records.names[place], UNMASKED) for place in pictures if masks[place] is None)
        known = [place for place in pictures if masks[place] is not None]
        masked = replace(records.select(known), marks=tuple(masks[place] for place in known))
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            looked = list(pool.map(lambda place: _survey(masked, place, max_pixels), range(len(masked))))  # noqa: B023
        of_part.bad.update({masked.names[n]: one for n, one in enumerate(looked) if isinstance(one, str)})
        seen = seen.union(*(one for one in looked if not isinstance(one, str)))
        found[key] = masked.select([place for place, one in enumerate(looked) if not isinstance(one, str)])
    if not len(found["train"]):
        why = parts.account.part("train").summary()
        raise UserError(
            f"{data} has no masks to learn from ({why or parts.description}); put pictures into a folder images and "
            "masks of the same names into a folder masks, or give a table with a column mask"
        )
    if (highest := max(seen, default=-1)) < 1:
        raise UserError(
            f"the masks of {data} have no values but 0 (and {NO_CLASS}, which is no class): write 0, 1, ..."
        )
    if len(seen) <= highest / 2:
        values = some([*map(str, sorted(seen))])
        parts.account.remarks.append(f"masks have only the values {values}, which makes {highest + 1:,} classes")
    classes, levels = _class_names(root, highest), find_levels(list(found.values()))
    found = {key: replace(one, classes=classes, levels=levels) for key, one in found.items()}
    counts = ", ".join(f"{len(one):,} {key}" for key, one in found.items())
    return replace(parts, **found, description=f"pictures with masks: {counts}, {len(classes):,} classes")


def _is_mask(name: str) -> bool:
    return any(folder.lower() in MASKS for folder in PurePosixPath(name).parent.parts)


def _key(name: str) -> str:
    """What a picture and its mask have in common."""
    path = PurePosixPath(name)
    return "/".join([*(one for one in path.parent.parts if one.lower() not in (*MASKS, *OWN)), path.stem])


def _masks_of(data: str, root: Path, records: Records, files: Mapping[str, Sequence[str]]) -> list[Any]:
    """The mask of each picture as bytes or a `MaskFile`; None for none."""
    for column in COLUMNS:
        if (values := column_beside(data, records, column)) is not None:
            return [_given(root, name, value) for name, value in zip(records.names, values, strict=True)]
    found = {name: files.get(_key(name), ()) for name in records.names if not _is_mask(name)}
    if name := next((name for name, masks in found.items() if len(masks) > 1), None):
        raise UserError(f"{name} of {data} has several masks, {' and '.join(found[name])}; keep one of them")
    return [_given(root, name, next(iter(found.get(name, ())), None)) for name in records.names]


def _given(root: Path, name: str, value: Any) -> bytes | MaskFile | None:
    """The mask of a picture: its content, or a path below the folder, or below one in which the picture stands."""
    inner = isinstance(value, dict)
    value = (value.get("bytes") or value.get("path")) if inner else value
    if not value or isinstance(value, bytes):
        return value or None
    below = PurePosixPath(str(value).replace("\\", "/"))
    if not inner and (below.is_absolute() or ".." in below.parts):
        raise UserError(f"the mask of {name} is {value}, which is outside the folder of the data")
    places = [root / below, *(root / parent / below for parent in PurePosixPath(name).parents)]
    path = next((path for path in places if path.is_file()), places[0])
    return MaskFile(path, path.stat().st_size if path.is_file() else -1)


def _class_names(root: Path, highest: int) -> tuple[str, ...]:
    """Names of the classes; `UserError` where there are too few, or some are the same."""
    path = root / CLASSES
    if not path.is_file():
        return tuple(map(str, range(highest + 1)))
    names = tuple(line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip())
    if highest >= len(names):
        raise UserError(f"a mask has the value {highest}, and {path} names {len(names)} classes, from 0 on")
    if len(set(names)) < len(names):
        raise UserError(f"{path} names a class twice")
    return names


def _survey(records: Records, place: int, max_pixels: int) -> set[int] | str:
    """The classes in a mask, or why it can't be used."""
    try:
        values = mask_of(records, place, max_pixels)[0]
    except BadSample as error:
        return error.reason
    return {*np.unique(values).tolist()} - {NO_CLASS}


def mask_of(records: Records, sample: int, max_pixels: int) -> tuple[NDArray[np.int32], Image.Transpose | None]:
    """The values `HW` of a mask as stored, and what turns it as its picture is turned; raises `BadSample`."""
    mark = (records.marks or ())[sample]
    with readable():
        raw = mark if isinstance(mark, bytes) else Path(mark.path).read_bytes()
    with bad_samples(max_pixels):
        opened = open_picture(raw, max_pixels=max_pixels)
        if not isinstance(opened, Image.Image) or opened.mode not in ("1", "L", "P", "I", "I;16"):
            raise BadSample("a mask that is no grey or palette picture")
        if opened.format == "JPEG":
            raise BadSample(INEXACT)
        values = np.asarray(opened).astype(np.int32)
        values[values < 0] = NO_CLASS
        picture = open_picture(records.read(sample), max_pixels=max_pixels)
        size = picture.size if isinstance(picture, Image.Image) else picture.shape[1::-1]
        if tuple(size) != opened.size:
            raise BadSample(OTHER_SIZE)
        return values, upright(picture)


class MaskReader(ImageReader):
    """Batches of pictures, of whose pixels each has a class; a mask is cut, scaled and mirrored as its picture is."""

    def marked(self, sample: int, epoch: int | None = None, plan: Plan | None = None) -> NDArray[np.int64]:
        """The class `HW` of each pixel: of a crop at the model's size, of a whole picture as large as the mask."""
        try:
            values, turn = mask_of(self.records, sample, self.data.max_pixels)
        except BadSample as error:
            raise UserError(f"the mask of {self.records.names[sample]} has changed: {error.reason}") from error
        mask, size = Image.fromarray(values), 2 * (self.config.image_size,)
        box_of, mirror = self.view(sample, epoch)
        box: Box = box_of(*mask.size)
        if epoch is None and self.data.whole:
            scale = min(1.0, (MAX_SCORED / (mask.width * mask.height)) ** 0.5)
            size = max(1, round(mask.width * scale)), max(1, round(mask.height * scale))
        cut = mask.resize(size, Image.Resampling.NEAREST, box)
        cut = cut if turn is None else cut.transpose(turn)
        classes_HW = np.asarray(ImageOps.mirror(cut) if mirror else cut).astype(np.int64)
        return np.where(classes_HW == NO_CLASS, IGNORED, classes_HW)


class PatchesJob(ImageClassifyJob, DenseJob):
    """A class of each pixel, from logits of patches."""

    name, places, measures, raw = "patches", "pixels", ("miou", "macro_f1", "accuracy"), "mean colours of patches"
    draws, unused = True, ("task.augment.label_smoothing",)

    def open_marked(self, path: str, columns: Columns, data: DataConfig) -> Parts:
        """Pictures with masks."""
        return open_masks(path, narrow(data, ImageDataConfig).max_pixels)

    def completed(self, config: FinetuneConfig, info: ModelInfo) -> tuple[FinetuneConfig, ModelInfo]:
        """`UsageError` for augmentation that moves pictures, but not their masks."""
        if needs_timm(narrow(config.task, ImageTaskConfig).augment):
            raise UsageError(
                "timm's augmentation changes pictures without their masks; turn it off for finetune patches"
            )
        return super().completed(config, info)

    def named(self, records: Records, classes: tuple[str, ...]) -> Records:
        """Also `UserError` where the same values of masks have other names; values without names have the model's."""
        if records.classes == tuple(map(str, range(len(records.classes)))) and len(records.classes) <= len(classes):
            records = replace(records, classes=classes[: len(records.classes)])
        if records.classes != classes[: len(records.classes)]:
            ours, theirs = (", ".join(one[:10]) for one in (classes, records.classes))
            raise UserError(f"masks with the classes {theirs}, from 0 on, where the model has {ours} ({CLASSES})")
        return super().named(records, classes)

    def reader(self, records: Records, info: ModelInfo, seed: int) -> Reader:
        """Of pictures and their masks."""
        modality, data = narrow(info.model.modality, ImageConfig), narrow(info.data, ImageDataConfig)
        return MaskReader(records, modality, data, seed)

    def additions(self, config: FinetuneConfig, info: ModelInfo, data: FinetuneData) -> list[Addition]:
        """Classes of pixels."""
        return [self.targets(data)]

    def in_memory(self, data: FinetuneData, config: FinetuneConfig) -> bool:
        """Never: masks are decoded."""
        return False

    def model(self, config: FinetuneConfig, encoder: Encoder, data: FinetuneData) -> TokenClassifier:  # type: ignore[override]
        """A class at every patch."""
        drop_path = narrow(config.task, ImageTaskConfig).model.drop_path
        return TokenClassifier(encoder, data.outputs, drop_path=drop_path)

    def largest(self, config: FinetuneConfig, info: ModelInfo, model: Any, count: int) -> Sized:
        """Of pictures, with the logits of their pixels."""
        found = self.tools.largest(info.model, info.data)
        inputs = found.inputs.to(next(model.parameters()).device).repeat_interleave(count, 0)
        classes = torch.zeros((count, *inputs.shape[-2:]), dtype=torch.long, device=inputs.device)
        return Sized(lambda: losses.dense(model(inputs), classes), count * found.size)

    def raw_rows(self, reader: Reader, sample: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Mean colours `RC` of patches, and which patch each pixel is of."""
        own = narrow(reader, MaskReader)
        pixels_CHW, (rows, columns) = own.whole(sample), own.config.grid
        patch, (height, width) = own.config.patch_size, own.marked(sample).shape
        means = pixels_CHW.reshape(len(pixels_CHW), rows, patch, columns, patch).mean(axis=(2, 4))
        of_row, of_column = np.arange(height) * rows // height, np.arange(width) * columns // width
        return means.reshape(len(means), -1).T.astype(np.float32), of_row[:, None] * columns + of_column

    def told_of(
        self, reader: Reader, sample: int, logits: NDArray[np.float32], info: ModelInfo
    ) -> Iterator[dict[str, Any]]:
        """Classes with their shares of the pixels, largest first."""
        side = narrow(reader, MaskReader).config.image_size
        places_HW = decided(torch.from_numpy(logits), (side, side))
        shares = np.bincount(places_HW.ravel(), minlength=len(info.classes)) / places_HW.size
        for place in np.argsort(-shares, kind="stable").tolist():
            if shares[place]:
                yield {"class": info.classes[place], "share": float(shares[place])}

    def mask(self, reader: Reader, sample: int, logits: NDArray[np.float32]) -> bytes:
        """The classes of pixels as a PNG file with a palette, of the size of the whole picture, else of the model's."""
        own = narrow(reader, MaskReader)
        side = own.config.image_size
        width, height = side, side
        if own.data.whole:
            with bad_samples(own.data.max_pixels):
                picture = open_picture(own.records.read(sample), max_pixels=own.data.max_pixels)
                width, height = picture.size if isinstance(picture, Image.Image) else picture.shape[1::-1]
                turn = upright(picture)
                turned = turn is not None and turn in (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270)
                width, height = (height, width) if turned else (width, height)
        scale = min(1.0, (MAX_SCORED / (width * height)) ** 0.5)
        places_HW = decided(torch.from_numpy(logits), [max(1, round(size * scale)) for size in (height, width)])
        if len(logits) > NO_CLASS:
            raise UsageError(f"masks have at most {NO_CLASS} classes, and the model has {len(logits)}")
        mask = Image.fromarray(places_HW.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
        mask.putpalette([(place * step) % 256 for place in range(256) for step in (67, 131, 197)])
        file = io.BytesIO()
        mask.save(file, "PNG")
        return file.getvalue()
