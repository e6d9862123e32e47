"""embed MODEL DATA --out F.parquet, or F.csv, F.npz, F.npy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import torch
from rich.progress import track

from data2vec2.commands.evaluate import named_columns
from data2vec2.commands.options import Embed, paths_of
from data2vec2.commands.runner import say_account
from data2vec2.config.tree import require
from data2vec2.data.account import PartAccount
from data2vec2.data.reader import Chunk, stream
from data2vec2.data.records import Records
from data2vec2.errors import UsageError, UserError
from data2vec2.files import whole_file
from data2vec2.interop.folder import export_of, load_encoder
from data2vec2.interop.table import FeatureTable, check_out, table_kind
from data2vec2.modalities.data import Columns, Log, ModelInfo
from data2vec2.modalities.tools import EmbedOptions, Feed, Row, Tools, tools_of
from data2vec2.training.device import choose_device
from data2vec2.training.progress import console
from data2vec2.version import __version__

Pool = Literal["mean", "none", "cls"]


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
    kind: str
    """The modality."""


def embed(given: Embed) -> Embedded:
    """Write the features of all samples of DATA to a file of the kind that its name says; returns what was written."""
    out, say, pool, batch, overwrite = Path(given.out), console().print, given.pool, given.batch, given.overwrite
    kind = table_kind(out, dense=pool == "none")
    check_out(out, overwrite)
    encoder, info = load_encoder(export_of(Path(given.model)))
    tools, torch_device = tools_of(info.kind), choose_device(given.device)
    layer = _checked(info, given.layer, pool, batch)
    columns = named_columns(tools, given.text_columns, given.label_column, given.encoding)
    encoder.blocks = encoder.blocks[:layer]
    feed = tools.feed(tools, info, EmbedOptions(layer=layer, pool=pool, size=given.size, keep_aspect=given.keep_aspect))
    batch, many = batch or feed.batch, tools.words.many
    parts = _parts(given.data, given.part, tools, columns, say)
    dim, skipped = info.model.encoder.embed_dim, PartAccount(sum(map(len, parts.values())), max_bad=1)
    tagged = any(records.tags is not None for records in parts.values())
    versions = {"data2vec2": __version__, "torch": torch.__version__, "pyarrow": pa.__version__}
    about = {"model": str(given.model), "layer": layer, "pool": pool, **feed.about, "dim": dim, "versions": versions}
    kept: dict[str, Any] = {"dense": pool == "none", "tagged": tagged, "about": about, "more": feed.columns}
    kept["kind"] = kind
    encoder.to(torch_device)
    with (
        whole_file(out, exclusive=not overwrite) as file,
        FeatureTable(file, dim, given.dtype, **kept) as table,
    ):
        for name, records in parts.items():
            chunks, to = stream(records, feed.open(records), batch), console()
            shown: dict[str, Any] = {"console": to, "transient": True, "disable": not to.is_terminal}
            for chunk in track(chunks, f"encoding {name}", -(-len(records) // batch), **shown):
                skipped.add(chunk.bad.values())
                if chunk.good:
                    rows = feed.features(encoder, list(chunk.good.values()), torch_device)
                    _add(table, name, records, chunk, feed, rows)
        if not table.num_rows:
            why = skipped.summary() + skipped.listed()
            raise UserError(f"none of {skipped.found} {many} can be used: {why or 'there are none'}")
    if skipped.bad:
        say(f"{len(skipped.bad)} of {skipped.found} {many} are left out: {skipped.summary()}{skipped.listed()}")
    return Embedded(out, table.num_rows, dim, skipped.bad, info.kind)


def _checked(info: ModelInfo, layer: int | None, pool: Pool, batch: int | None) -> int:
    """The layer's number; `UsageError` for options that don't fit the model."""
    encoder = info.model.encoder
    depth = encoder.prenet_depth + encoder.depth
    layer = depth if layer is None else layer
    require(0 <= layer <= depth, "--layer", layer, f"1 to {depth} for a block of this model, or 0 for its stem")
    require(pool in get_args(Pool), "--pool", pool, f"one of {', '.join(get_args(Pool))}")
    if layer == 0 and pool == "cls":
        raise UsageError("--layer 0 has patches only; --pool cls needs a block, so give a layer from 1 on")
    require(batch is None or batch >= 1, "--batch", batch, "at least 1")
    return layer


def _parts(data: Any, part: str, tools: Tools, columns: Columns, say: Log) -> dict[str, Records]:
    """The records to encode, by part."""
    paths = paths_of(data, "is no DATA; name a data set or files")
    if len(paths) > 1 and tools.words.columns:
        raise UsageError(f"there are {len(paths)} DATA; name one table of {tools.words.many}, or a folder of them")
    if len(paths) > 1 or tools.is_sample(Path(paths[0])):
        (found_records,) = tools.listed(paths, columns)
        found = {"train": found_records}
        say(f"data: {len(found_records):,} {tools.words.many}")
    else:
        parts = tools.open_labelled(Path(paths[0]), columns, "classes")
        say(f"data: {paths[0]}: {parts.description}")
        say_account(parts.account, say)
        found = {name: records for name in ("train", "val", "test") if (records := getattr(parts, name)) is not None}
    if part != "all" and part not in found:
        raise UserError(f"the data have no {part} part; there is {', '.join(found)}")
    return found if part == "all" else {part: found[part]}


def _add(table: FeatureTable, part: str, records: Records, chunk: Chunk, feed: Feed, rows: list[Row]) -> None:
    """Write a chunk's rows; `UserError` if a feature is no number that the table can hold."""
    names = [records.names[index] for index in chunk.good]
    for name, row in zip(names, rows, strict=True):
        if not np.abs(row).max() <= table.largest:
            raise UserError(f"a feature of {name} is beyond the range of the table's numbers; try --dtype float32")
    if records.tags is not None:
        has_NC = records.tags[list(chunk.good)]
        labels: list[Any] = [[records.classes[place] for place in np.flatnonzero(has_C)] for has_C in has_NC]
    else:
        known = records.labels[list(chunk.good)].tolist()
        labels = [records.classes[label] if label >= 0 else None for label in known]
    table.add(part, names, labels, rows, feed.cells(records, chunk.good, rows))
