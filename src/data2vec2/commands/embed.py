"""embed MODEL DATA --out F.parquet, or F.csv, F.npz, F.npy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from rich.progress import track

from data2vec2.commands.options import Embed, names_of, paths_of
from data2vec2.commands.runner import named_columns, say_account
from data2vec2.config.tree import require
from data2vec2.data.account import PartAccount
from data2vec2.data.reader import Chunk, stream
from data2vec2.data.records import Records
from data2vec2.errors import UsageError, UserError
from data2vec2.files import whole_file
from data2vec2.interop.folder import export_of, load_encoder
from data2vec2.interop.table import FeatureTable, check_out, table_kind
from data2vec2.method.encoder import Encoder
from data2vec2.modalities.data import Columns, Log, ModelInfo
from data2vec2.modalities.tools import EmbedOptions, Feed, Row, Tools, tools_of
from data2vec2.training.device import choose_device
from data2vec2.training.progress import console, shows_bars
from data2vec2.version import __version__

POOLS = ("mean", "none", "cls")
NO_DATA = "is no DATA; give a data set or files"


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
    encoder, info = load_encoder(export_of(Path(given.model), *paths_of(given.data, NO_DATA)))
    tools, torch_device = tools_of(info.kind), choose_device(given.device)
    encoder, feed = prepared(encoder, info, given)
    columns = named_columns(tools, given, info.columns)
    batch, many, layer = batch or feed.batch, tools.words.many, len(encoder.blocks)
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
            chunks, to = encoded(encoder, feed, records, batch, torch_device), console()
            shown: dict[str, Any] = {"console": to, "transient": True, "disable": not shows_bars(to)}
            for chunk, rows in track(chunks, f"encoding {name}", -(-len(records) // batch), **shown):
                skipped.add(chunk.bad.values())
                _add(table, name, records, chunk, feed, rows)
        if not table.num_rows:
            why = skipped.summary() + skipped.listed()
            raise UserError(f"none of {skipped.found} {many} can be used: {why or 'there are none'}")
    if skipped.bad:
        say(f"{len(skipped.bad)} of {skipped.found} {many} are left out: {skipped.summary()}{skipped.listed()}")
    return Embedded(out, table.num_rows, dim, skipped.bad, info.kind)


def prepared(encoder: Encoder, info: ModelInfo, given: EmbedOptions) -> tuple[Encoder, Feed]:
    """As much of an encoder as the features need, and what feeds it; `UsageError` for options that don't fit it."""
    layer, tools = _checked(info, given), tools_of(info.kind)
    return encoder.up_to(layer), tools.feed(tools, info, replace(given, layer=layer))  # feeds ask for its number


def encoded(
    encoder: Encoder, feed: Feed, records: Records, batch: int, device: torch.device
) -> Iterator[tuple[Chunk, list[Row]]]:
    """Chunks of the records in order, each with the features of those that could be read."""
    for chunk in stream(records, feed.open(records), batch):
        yield chunk, feed.features(encoder, list(chunk.good.values()), device) if chunk.good else []


def _checked(info: ModelInfo, given: EmbedOptions) -> int:
    """The layer's number; `UsageError` for options that don't fit the model."""
    encoder, pool, batch = info.model.encoder, given.pool, given.batch
    depth = encoder.prenet_depth + encoder.depth
    layer = depth if given.layer is None else given.layer
    require(0 <= layer <= depth, "--layer", layer, f"1 to {depth} for a block of this model, or 0 for its stem")
    require(pool in POOLS, "--pool", pool, f"one of {', '.join(POOLS)}")
    if layer == 0 and pool == "cls":
        raise UsageError("--layer 0 has no CLS token; with --pool cls, give --layer 1 or higher")
    require(batch is None or batch >= 1, "--batch", batch, "at least 1")
    return layer


def _parts(data: Any, part: str, tools: Tools, columns: Columns, say: Log) -> dict[str, Records]:
    """The records to encode, by part."""
    paths = names_of(data, NO_DATA)
    if len(paths) > 1 and tools.words.columns:
        raise UsageError(f"there are {len(paths)} DATA; name one table of {tools.words.many}, or a folder of them")
    if len(paths) > 1 or tools.is_sample(Path(paths[0])):
        (found_records,) = tools.listed(paths, columns)
        found = {"train": found_records}
        say(f"data: {len(found_records):,} {tools.words.many}")
    else:
        parts = tools.open_labelled(paths[0], columns, "classes")
        say(f"data: {paths[0]}: {parts.description}")
        say_account(parts.account, say)
        found = parts.each
    if part != "all" and part not in found:
        raise UserError(f"the data have no {part} part; there is {', '.join(found)}")
    return found if part == "all" else {part: found[part]}


def _add(table: FeatureTable, part: str, records: Records, chunk: Chunk, feed: Feed, rows: list[Row]) -> None:
    """Write a chunk's rows, if there are any; `UserError` if a feature is no number that the table can hold."""
    if not rows:
        return
    names = [records.names[index] for index in chunk.good]
    for name, row in zip(names, rows, strict=True):
        if not np.abs(row).max() <= table.largest:
            raise UserError(f"a feature of {name} is too large for the table's number format; try --dtype float32")
    if records.tags is not None:
        has_NC = records.tags[list(chunk.good)]
        labels: list[Any] = [[records.classes[place] for place in np.flatnonzero(has_C)] for has_C in has_NC]
    else:
        known = records.labels[list(chunk.good)].tolist()
        labels = [records.classes[label] if label >= 0 else None for label in known]
    table.add(part, names, labels, rows, feed.cells(records, chunk.good, rows))
