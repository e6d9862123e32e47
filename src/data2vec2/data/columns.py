"""Which columns of a table are its pictures or recordings, its labels and its transcripts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from data2vec2.data.content import PICTURES, Content
from data2vec2.data.labels import COLUMNS as LABEL_COLUMNS
from data2vec2.errors import UserError


@dataclass(frozen=True)
class Columns:
    """The column of samples (bytes, or a struct with a field `bytes`) and those of labels and transcripts, if any."""

    sample: str
    leaf: str
    """The column that holds the bytes, as Parquet calls it: "image" or "image.bytes"."""
    label: str | None
    classes: tuple[str, ...] | None
    """Names of the classes that whole numbers stand for, where the table gives them."""
    text: str | None = None


def choose_columns(schema: pa.Schema, where: str, content: Content = PICTURES) -> Columns:
    """Find samples, labels and transcripts by Hugging Face's description of the columns, then by name, then by type.

    Raises `UserError` that lists the columns if no column can be of samples, or several can.
    """
    features = _features(schema)
    able = [field.name for field in schema if _leaf(field) is not None]
    described = [name for name in able if features.get(name, {}).get("_type") == content.feature]
    known = [name for name in content.columns if name in able]
    sample = next(iter(described or known or (able if len(able) == 1 else [])), None)
    if sample is None:
        listing = ", ".join(f"{field.name} ({field.type})" for field in schema) or "no columns"
        raise UserError(
            f"{where} has no column of {content.many} under a known name; it has {listing}. They are encoded files as "
            f"bytes, or structs with a field bytes, in a column called {', '.join(content.columns)}"
        )
    named = {name: classes for name, feature in features.items() if (classes := _class_names(feature))}
    labels = [name for name in (*LABEL_COLUMNS, *named) if name in schema.names and _is_label(schema.field(name).type)]
    label = next(iter(labels), None)
    texts = [name for name in content.texts if name in schema.names and _is_string(schema.field(name).type)]
    classes = named.get(label) if label else None
    return Columns(sample, str(_leaf(schema.field(sample))), label, classes, next(iter(texts), None))


def class_names(schema: pa.Schema, column: str) -> tuple[str, ...] | None:
    """Names of the classes that a column's whole numbers stand for, where Hugging Face's description has them."""
    return _class_names(_features(schema).get(column))


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
    """Where the bytes of a column of samples are; None if it is of another type."""
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
    return _is_string(kind) or bool(pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
