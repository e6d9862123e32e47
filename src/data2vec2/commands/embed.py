"""embed MODEL DATA --out F.parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track
from torch import Tensor

from data2vec2.data import folder
from data2vec2.data.image import ImageReader
from data2vec2.data.records import Records, open_data
from data2vec2.data.skipped import SHOWN, Skipped
from data2vec2.data.stream import Chunk, stream, whole_picture
from data2vec2.errors import UserError
from data2vec2.evaluation.features import Normalise
from data2vec2.interop.export import ExportInfo, export_of, load_encoder
from data2vec2.interop.table import FeatureTable, check_out, written_whole
from data2vec2.models import Encoder
from data2vec2.training.device import choose_device
from data2vec2.training.progress import console
from data2vec2.version import __version__

Paths = str | Path | Sequence[str | Path]
Pool = Literal["mean", "none", "cls"]
PartName = Literal["train", "val", "test", "all"]


@dataclass(frozen=True)
class Embedded:
    """What was written."""

    out: Path
    rows: int
    """Pictures in the table."""
    dim: int
    """Width of a feature vector."""
    skipped: dict[str, str]
    """Pictures that could not be read, and why; they are not in the table."""


def embed(
    model: str | Path,
    data: Paths,
    out: str | Path,
    *,
    layer: int | None = None,
    pool: Pool = "mean",
    part: PartName = "all",
    size: int | None = None,
    keep_aspect: bool = False,
    batch: int = 64,
    dtype: Literal["float32", "float16"] = "float32",
    device: str = "auto",
    overwrite: bool = False,
) -> Embedded:
    """Write the features of every picture of DATA to the Parquet file `out` (its columns: interop/table.py).

    `model` is a run folder or an exported model; `data` a data set, or picture files and folders of them (which then
    have no labels). `layer` is the block whose output is taken, from 1 (none: the last), or 0 for the stem's patch
    embeddings. `pool`: the mean over patches, none of it (a vector for each patch), or the CLS token.

    Pictures are cut to the central square that evaluation sees, at `size` pixels (none: the model's own) with
    interpolated positions. With `keep_aspect` nothing is cut: the shorter side becomes `size`, the longer follows, both
    rounded to whole patches.

    Raises `UserError` (model, data or file can't be used, or no picture can be read) or `ValueError` (an option).
    """
    out, say = Path(out), console().print
    check_out(out, overwrite)
    encoder, info = load_encoder(export_of(Path(model)))
    size, layer, patch = _checked(info, layer, pool, size, batch)
    parts = _parts(data, part, say)
    torch_device = choose_device(device)
    features_of = _feature_function(encoder.to(torch_device), layer, pool)
    normalise = image_normalise(info, torch_device)
    dim, skipped = info.model.encoder.embed_dim, Skipped(sum(map(len, parts.values())), max_bad=1)
    about = _about(model, info, layer=layer, pool=pool, size=size, keep_aspect=keep_aspect)
    dense, tagged = pool == "none", any(records.tags is not None for records in parts.values())
    with (
        written_whole(out, overwrite) as file,
        FeatureTable(file, dim, dtype, dense=dense, tagged=tagged, about=about) as table,
    ):
        for name, records in parts.items():
            chunks = stream(records, _picture_function(records, info, size, keep_aspect), batch)
            for chunk in _shown(chunks, len(records), batch, f"encoding {name}"):
                skipped.add(chunk.bad.values())
                if chunk.good:
                    features = encode_all(list(chunk.good.values()), features_of, normalise, torch_device)
                    _add(table, name, records, chunk, features, patch)
        if not table.num_rows:
            raise UserError(f"none of {skipped.total} pictures can be used: {_listed(skipped) or 'there are none'}")
    if skipped.reasons:
        say(f"{len(skipped.reasons)} of {skipped.total} pictures are left out: {_listed(skipped)}")
    return Embedded(out, table.num_rows, dim, skipped.reasons)


def image_normalise(info: ExportInfo, device: torch.device) -> Normalise:
    """What makes the input of a model of pictures; `UserError` for another model."""
    data = info.image[1]
    assert data.mean is not None and data.std is not None
    return Normalise(data.mean, data.std, device)


def picture_files(paths: Iterable[str | Path]) -> Records:
    """Picture files, and those below folders, as records without labels; `UserError` for a folder without any."""
    names: list[str] = []
    for path in map(Path, paths):
        if path.is_dir():
            by_extension = folder.scan(path)
            found = sorted(name for extension in folder.EXTENSIONS for name in by_extension.get(extension, ()))
            if not found:
                raise UserError(f"no images in {path} ({', '.join(sorted(folder.EXTENSIONS))})")
            names += [str(path / name) for name in found]
        else:
            names.append(str(path))
    labels = np.full(len(names), -1, dtype=np.int64)
    return Records("list of pictures", names, labels, (), {}, folder.Files(Path(), tuple(names)))


@torch.inference_mode()
def encode_all(
    pictures: Sequence[NDArray[np.uint8]],
    features_of: Callable[[Tensor], Tensor],
    normalise: Normalise,
    device: torch.device,
) -> list[NDArray[np.float32]]:
    """What `features_of` makes of each picture `CHW`; those of the same shape go through the model together.

    `UserError` if a GPU's memory does not suffice.
    """
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for place, picture in enumerate(pictures):
        by_shape.setdefault(picture.shape, []).append(place)
    results: dict[int, NDArray[np.float32]] = {}
    for places in by_shape.values():
        pixels_BCHW = torch.from_numpy(np.stack([pictures[place] for place in places]))
        try:
            features = features_of(normalise(pixels_BCHW.to(device))).float().cpu().numpy()
        except torch.OutOfMemoryError as error:
            what = f"{len(places)} pictures of {pixels_BCHW.shape[3]} x {pixels_BCHW.shape[2]} pixels at once"
            raise UserError(f"out of memory on {device} with {what}; give a smaller --batch") from error
        results.update(zip(places, features, strict=True))
    return [results[place] for place in range(len(pictures))]


def _checked(info: ExportInfo, layer: int | None, pool: Pool, size: int | None, batch: int) -> tuple[int, int, int]:
    """Size, layer and patch size in numbers; `ValueError` for options that don't fit the model."""
    (modality, _), encoder = info.image, info.model.encoder
    depth = encoder.prenet_depth + encoder.depth
    layer = depth if layer is None else layer
    size = modality.image_size if size is None else size
    if not 0 <= layer <= depth:
        raise ValueError(f"--layer is {layer}; it must be 1 to {depth} for a block of this model, or 0 for its stem")
    if pool not in get_args(Pool):
        raise ValueError(f"--pool is {pool!r}; it must be one of {', '.join(get_args(Pool))}")
    if layer == 0 and pool == "cls":
        raise ValueError("--layer 0 has patches only; --pool cls needs a block, so give a layer from 1 on")
    if size < modality.patch_size or size % modality.patch_size:
        raise ValueError(f"--size is {size}; it must be a multiple of the model's patch size ({modality.patch_size})")
    if batch < 1:
        raise ValueError(f"--batch is {batch}; it must be at least 1")
    return size, layer, modality.patch_size


def _about(model: str | Path, info: ExportInfo, **options: Any) -> dict[str, Any]:
    """What the table says of its features."""
    versions = {"data2vec2": __version__, "torch": torch.__version__, "pyarrow": pa.__version__}
    shape = {"patch_size": info.image[0].patch_size, "dim": info.model.encoder.embed_dim}
    return {"model": str(model), **options, **shape, "versions": versions}


def _parts(data: Paths, part: PartName, say: Callable[[str], None]) -> dict[str, Records]:
    """The records to encode, by part."""
    paths = [data] if isinstance(data, str | Path) else list(data)
    if not paths:
        raise ValueError("there is no DATA; name a data set or picture files")
    if len(paths) > 1 or Path(paths[0]).suffix.lower() in folder.EXTENSIONS:
        found = {"train": picture_files(paths)}
        say(f"data: {len(found['train']):,} pictures")
    else:
        parts = open_data(paths[0])
        say(f"data: {paths[0]}: {parts.description}")
        found = {name: records for name in ("train", "val", "test") if (records := getattr(parts, name)) is not None}
    if part != "all" and part not in found:
        raise UserError(f"the data have no {part} part; there is {', '.join(found)}")
    return found if part == "all" else {part: found[part]}


def _picture_function(records: Records, info: ExportInfo, size: int, keep_aspect: bool) -> Callable[[int], Image.Image]:
    """What reads a picture as the model's input: the central square as in evaluation, or the whole."""
    modality, data = info.image
    if not keep_aspect:
        return ImageReader(records, replace(modality, image_size=size), data, seed=0).central_square
    return lambda index: whole_picture(records.read(index), size, modality.patch_size, modality.num_channels)


def _feature_function(encoder: Encoder, layer: int, pool: Pool) -> Callable[[Tensor], Tensor]:
    """What makes features `BD` (`BTD` for pool none) of normalised pictures; blocks above `layer` are dropped."""
    encoder.blocks = encoder.blocks[:layer]

    def features_of(inputs: Tensor) -> Tensor:
        encoded = encoder(inputs)
        patches_BTD: Tensor = encoded.features_NTD if layer else encoded.tokens.tokens_BTD
        if pool == "cls":
            return encoded.x_NLD[:, 0]  # type: ignore[no-any-return]
        return patches_BTD if pool == "none" else patches_BTD.mean(dim=1)

    return features_of


def _add(
    table: FeatureTable,
    part: str,
    records: Records,
    chunk: Chunk,
    features: list[NDArray[np.float32]],
    patch: int,
) -> None:
    """Write a chunk's rows; `UserError` if a feature is no number that the table can hold."""
    names = [records.names[index] for index in chunk.good]
    for name, row in zip(names, features, strict=True):
        if not np.abs(row).max() <= table.largest:
            raise UserError(f"a feature of {name} is beyond the range of the table's numbers; try --dtype float32")
    labels: list[Any] = []
    for index in chunk.good:
        if records.tags is not None:
            labels.append([records.classes[place] for place in np.flatnonzero(records.tags[index])])
        else:
            label = int(records.labels[index])
            labels.append(records.classes[label] if label >= 0 else None)
    grids = [(picture.shape[1] // patch, picture.shape[2] // patch) for picture in chunk.good.values()]
    table.add(part, names, labels, features, grids)


def _shown(chunks: Iterable[Chunk], total: int, batch: int, what: str) -> Iterable[Chunk]:
    """The same chunks, with a bar on a terminal."""
    to = console()
    return track(chunks, what, -(-total // batch), console=to, transient=True, disable=not to.is_terminal)


def _listed(skipped: Skipped) -> str:
    """Counts by reason, and a line for each of the first pictures."""
    lines = [f"\n  {name}: {reason}" for name, reason in list(skipped.reasons.items())[:SHOWN]]
    more = f"\n  and {len(skipped.reasons) - SHOWN} more" if len(skipped.reasons) > SHOWN else ""
    return skipped.summary() + "".join(lines) + more
