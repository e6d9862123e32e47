"""embed MODEL DATA --out F.parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track
from torch import Tensor

from data2vec2.commands.embed_audio import Recordings
from data2vec2.commands.embed_text import Sentences
from data2vec2.commands.files import listed_files, opener
from data2vec2.data.content import PICTURES, Content
from data2vec2.data.image import ImageReader
from data2vec2.data.records import Parts, Records
from data2vec2.data.sentences import SENTENCES
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
    """Samples in the table."""
    dim: int
    """Width of a feature vector."""
    skipped: dict[str, str]
    """Samples that could not be read, and why; they are not in the table."""
    kind: Literal["image", "audio", "text"]
    """What samples are."""


class Way(Protocol):
    """What `embed` must know of a modality."""

    content: Content
    batch: int
    """Samples at once, unless another number is asked for."""
    columns: list[pa.Field]
    """Of the table, beside those that all have."""
    about: dict[str, Any]
    """What the table says of its features."""

    def read_of(self, records: Records) -> Callable[[int], Any]:
        """What makes a sample's input of its index, or raises `BadSample`."""

    def encode(self, samples: Sequence[Any]) -> list[NDArray[np.float32]]:
        """Features of each."""

    def cells(self, records: Records, chunk: Chunk, rows: Sequence[NDArray[np.float32]]) -> dict[str, list[Any]]:
        """Values of `columns`, of the samples of a chunk that could be read and their features."""


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
    batch: int | None = None,
    dtype: Literal["float32", "float16"] = "float32",
    device: str = "auto",
    overwrite: bool = False,
    text_columns: Sequence[str] = (),
    label_column: str | None = None,
) -> Embedded:
    """Write the features of all pictures, recordings or texts of DATA to the Parquet file `out` (see interop/table.py).

    `model` is a run folder or an exported model; `data` a data set, or files and folders of them (which then have no
    labels). `layer` is the block whose output is taken, from 1 (none: the last), or 0 for the stem's tokens. `pool`:
    the mean over patches or tokens, none of it (a vector for each), or the CLS token of pictures. `batch` samples go
    through the model at once (none: 64 pictures, 8 recordings, 32 texts).

    Pictures are cut to the central square that evaluation sees, at `size` pixels (none: the model's own) with
    interpolated positions. With `keep_aspect` nothing is cut: the shorter side becomes `size`, the longer follows, both
    rounded to whole patches.

    Recordings are encoded whole, those above a minute in windows of a minute that overlap; `size` and `keep_aspect` are
    for pictures. Texts are those of a table (`text_columns` and `label_column` as in `evaluate`) or the lines of a .txt
    file, up to the model's length.

    Raises `UserError` (model, data or file can't be used, or no sample can be read) or `ValueError` (an option).
    """
    out, say = Path(out), console().print
    check_out(out, overwrite)
    encoder, info = load_encoder(export_of(Path(model)))
    kind = info.model.modality.kind
    layer = _checked(info, layer, pool, batch)
    opened = opener(kind, text_columns, label_column)
    torch_device = choose_device(device)
    encoder.blocks = encoder.blocks[:layer]
    way = _way(encoder.to(torch_device), info, layer, pool, torch_device, size, keep_aspect)
    batch, many = batch or way.batch, way.content.many
    parts = _parts(data, part, way.content, opened, say)
    dim, skipped = info.model.encoder.embed_dim, Skipped(sum(map(len, parts.values())), max_bad=1)
    tagged = any(records.tags is not None for records in parts.values())
    about = {"model": str(model), "layer": layer, "pool": pool, **way.about, "dim": dim, "versions": _versions()}
    with (
        written_whole(out, overwrite) as file,
        FeatureTable(file, dim, dtype, dense=pool == "none", tagged=tagged, about=about, more=way.columns) as table,
    ):
        for name, records in parts.items():
            chunks = stream(records, way.read_of(records), batch)
            for chunk in _shown(chunks, len(records), batch, f"encoding {name}"):
                skipped.add(chunk.bad.values())
                if chunk.good:
                    rows = way.encode(list(chunk.good.values()))
                    _add(table, name, records, chunk, rows, way.cells(records, chunk, rows))
        if not table.num_rows:
            raise UserError(f"none of {skipped.total} {many} can be used: {_listed(skipped) or 'there are none'}")
    if skipped.reasons:
        say(f"{len(skipped.reasons)} of {skipped.total} {many} are left out: {_listed(skipped)}")
    return Embedded(out, table.num_rows, dim, skipped.reasons, kind)


def _way(
    encoder: Encoder,
    info: ExportInfo,
    layer: int,
    pool: str,
    device: torch.device,
    size: int | None,
    keep_aspect: bool,
) -> Way:
    """That of the model's modality; `ValueError` for options that are for another."""
    kind = info.model.modality.kind
    if kind == "image":
        return Pictures(encoder, info, layer, pool, device, size, keep_aspect)
    if pool == "cls":
        raise ValueError(f"--pool cls is for models of pictures; one of {kind} has no CLS token, so use mean or none")
    if size is not None or keep_aspect:
        option = "--size" if size is not None else "--keep-aspect"
        raise ValueError(f"{option} is for models of pictures, and this is one of {kind}; leave it out")
    return (Sentences if kind == "text" else Recordings)(encoder, info, layer, pool, device)


class Pictures:
    """The central square that evaluation sees at some size, or whole pictures."""

    content = PICTURES
    batch = 64

    def __init__(
        self,
        encoder: Encoder,
        info: ExportInfo,
        layer: int,
        pool: str,
        device: torch.device,
        size: int | None,
        keep_aspect: bool,
    ) -> None:
        """`ValueError` for a size that is no multiple of the model's patches."""
        (self.modality, self.data), patch = info.image, info.image[0].patch_size
        self.size = self.modality.image_size if size is None else size
        if self.size < patch or self.size % patch:
            raise ValueError(f"--size is {size}; it must be a multiple of the model's patch size ({patch})")
        self.encoder, self.layer, self.pool, self.device = encoder, layer, pool, device
        self.keep_aspect, self.normalise = keep_aspect, image_normalise(info, device)
        self.columns = [pa.field("grid", pa.list_(pa.int32(), 2), nullable=False)] if pool == "none" else []
        self.about = {"size": self.size, "keep_aspect": keep_aspect, "patch_size": patch}

    def read_of(self, records: Records) -> Callable[[int], Image.Image]:
        """What reads a picture as the model's input: the central square as in evaluation, or the whole."""
        size, modality = self.size, self.modality
        if not self.keep_aspect:
            return ImageReader(records, replace(modality, image_size=size), self.data, seed=0).central_square
        return lambda index: whole_picture(records.read(index), size, modality.patch_size, modality.channels)

    def encode(self, pictures: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Features `D` of each picture, or `TD` for pool none."""
        return encode_all(pictures, self._features, self.normalise, self.device)

    def cells(self, records: Records, chunk: Chunk, rows: Sequence[NDArray[np.float32]]) -> dict[str, list[Any]]:
        """Rows and columns of each picture's patches."""
        patch = self.modality.patch_size
        grids = [(picture.shape[1] // patch, picture.shape[2] // patch) for picture in chunk.good.values()]
        return {"grid": grids} if self.pool == "none" else {}

    def _features(self, inputs: Tensor) -> Tensor:
        """Features `BD` (`BTD` for pool none) of normalised pictures."""
        encoded = self.encoder(inputs)
        patches_BTD: Tensor = encoded.features_NTD if self.layer else encoded.tokens.tokens_BTD
        if self.pool == "cls":
            return encoded.x_NLD[:, 0]  # type: ignore[no-any-return]
        return patches_BTD if self.pool == "none" else patches_BTD.mean(dim=1)


def image_normalise(info: ExportInfo, device: torch.device) -> Normalise:
    """What makes the input of a model of pictures; `UserError` for another model."""
    data = info.image[1]
    assert data.mean is not None and data.std is not None
    return Normalise(data.mean, data.std, device)


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


def _checked(info: ExportInfo, layer: int | None, pool: Pool, batch: int | None) -> int:
    """The layer's number; `ValueError` for options that don't fit the model."""
    encoder = info.model.encoder
    depth = encoder.prenet_depth + encoder.depth
    layer = depth if layer is None else layer
    if not 0 <= layer <= depth:
        raise ValueError(f"--layer is {layer}; it must be 1 to {depth} for a block of this model, or 0 for its stem")
    if pool not in get_args(Pool):
        raise ValueError(f"--pool is {pool!r}; it must be one of {', '.join(get_args(Pool))}")
    if layer == 0 and pool == "cls":
        raise ValueError("--layer 0 has patches only; --pool cls needs a block, so give a layer from 1 on")
    if batch is not None and batch < 1:
        raise ValueError(f"--batch is {batch}; it must be at least 1")
    return layer


def _versions() -> dict[str, str]:
    return {"data2vec2": __version__, "torch": torch.__version__, "pyarrow": pa.__version__}


def _parts(
    data: Paths, part: PartName, content: Content, opened: Callable[[Path], Parts], say: Callable[[str], None]
) -> dict[str, Records]:
    """The records to encode, by part."""
    paths = [data] if isinstance(data, str | Path) else list(data)
    if not paths:
        raise ValueError("there is no DATA; name a data set or files")
    if content is SENTENCES and len(paths) > 1:
        raise ValueError(f"there are {len(paths)} DATA; name one table of texts, or a folder of them")
    if content is not SENTENCES and (len(paths) > 1 or Path(paths[0]).suffix.lower() in content.extensions):
        found = {"train": listed_files(paths, content)}
        say(f"data: {len(found['train']):,} {content.many}")
    else:
        parts = opened(Path(paths[0]))
        say(f"data: {paths[0]}: {parts.description}")
        found = {name: records for name in ("train", "val", "test") if (records := getattr(parts, name)) is not None}
    if part != "all" and part not in found:
        raise UserError(f"the data have no {part} part; there is {', '.join(found)}")
    return found if part == "all" else {part: found[part]}


def _add(
    table: FeatureTable,
    part: str,
    records: Records,
    chunk: Chunk,
    features: list[NDArray[np.float32]],
    cells: dict[str, list[Any]],
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
    table.add(part, names, labels, features, cells)


def _shown(chunks: Iterable[Chunk], total: int, batch: int, what: str) -> Iterable[Chunk]:
    """The same chunks, with a bar on a terminal."""
    to = console()
    return track(chunks, what, -(-total // batch), console=to, transient=True, disable=not to.is_terminal)


def _listed(skipped: Skipped) -> str:
    """Counts by reason, and a line for each of the first samples."""
    lines = [f"\n  {name}: {reason}" for name, reason in list(skipped.reasons.items())[:SHOWN]]
    more = f"\n  and {len(skipped.reasons) - SHOWN} more" if len(skipped.reasons) > SHOWN else ""
    return skipped.summary() + "".join(lines) + more
