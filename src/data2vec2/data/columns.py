"""Which columns of a table are its pictures and its labels."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from data2vec2.data.labels import COLUMNS as LABEL_COLUMNS
from data2vec2.errors import UserError

PICTURE_COLUMNS = ("image", "img", "picture", "photo", "image_bytes", "jpg", "jpeg", "png", "webp", "content", "bytes")
"""Names under which tables keep pictures; the first that is there is taken."""


@dataclass(frozen=True)
class Columns:
    """The column of pictures (bytes, or a struct with a field `bytes`) and that of labels, if there is one."""

    picture: str
    leaf: str
    """The column that holds the bytes, as Parquet calls it: "image" or "image.bytes"."""
    label: str | None
    classes: tuple[str, ...] | None
    """Names of the classes that whole numbers stand for, where the table gives them."""


def choose_columns(schema: pa.Schema, where: str) -> Columns:
    """Find pictures and labels by Hugging Face's description of the columns, then by name, then by type.

    Raises `UserError` that lists the columns if no column can be of pictures, or several can.
    """
    features = _features(schema)
    able = [field.name for field in schema if _leaf(field) is not None]
    described = [name for name in able if features.get(name, {}).get("_type") == "Image"]
    known = [name for name in PICTURE_COLUMNS if name in able]
    picture = next(iter(described or known or (able if len(able) == 1 else [])), None)
    if picture is None:
        listing = ", ".join(f"{field.name} ({field.type})" for field in schema) or "no columns"
        raise UserError(
            f"{where} has no column of pictures under a known name; it has {listing}. Pictures are encoded files as "
            f"bytes, or structs with a field bytes, in a column called {', '.join(PICTURE_COLUMNS)}"
        )
    named = {name: classes for name, feature in features.items() if (classes := _class_names(feature))}
    labels = [name for name in (*LABEL_COLUMNS, *named) if name in schema.names and _is_label(schema.field(name).type)]
    label = next(iter(labels), None)
    return Columns(picture, str(_leaf(schema.field(picture))), label, named.get(label) if label else None)


def _features(schema: pa.Schema) -> dict[str, Any]:
    """Hugging Face's description of each column; empty where there is none."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {name: value if isinstance(value, dict) else {"feature": value} for name, value in features.items()}


def _class_names(feature: Any) -> tuple[str, ...] | None:
    """Names in the description of a column of class labels, or of lists of them."""
    while isinstance(feature, list | dict):
        if isinstance(feature, list):
            feature = feature[0] if feature else None
        elif "names" in feature:
            return tuple(map(str, feature["names"]))
        else:
            feature = feature.get("feature")
    return None


def _leaf(field: pa.Field) -> str | None:
    """Where the bytes of a column of pictures are; None if it is of another type."""
    if _is_bytes(field.type):
        return str(field.name)
    if pa.types.is_struct(field.type) and any(one.name == "bytes" and _is_bytes(one.type) for one in field.type):
        return f"{field.name}.bytes"
    return None


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_label(kind: pa.DataType) -> bool:
    """Whether values are whole numbers, strings, or lists of these."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _is_label(kind.value_type) and not pa.types.is_list(kind.value_type)
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string, pa.types.is_boolean)
    return any(test(kind) for test in tests)
