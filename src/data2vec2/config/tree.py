"""Configurations to and from plain nested dictionaries (what YAML and JSON hold)."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """Nested dictionary of a configuration; tuples become lists."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return [plain(item) for item in value] if isinstance(value, tuple) else value

    result: dict[str, Any] = plain(config)
    return result


def from_dict(kind: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Build dataclass `kind` from a nested dictionary.

    Raises `ValueError` for a key that does not exist (with the nearest one that does) and for a value of another type.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where or 'configuration'} is {values!r}; it must be a group of fields")
    hints = typing.get_type_hints(kind)
    arguments = {}
    for key, value in values.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(hints)}"
            raise ValueError(f"unknown key {path!r}{hint}")
        arguments[key] = _convert(hints[key], value, path)
    return kind(**arguments)


def updated(tree: Any, values: Any) -> Any:
    """A nested dictionary with what another says in its place: groups are merged, all else is replaced."""
    if not isinstance(tree, Mapping) or not isinstance(values, Mapping):
        return values
    return {**tree, **{key: updated(tree.get(key), value) for key, value in values.items()}}


def _of_kind(options: Sequence[Any], value: Any, path: str) -> Any:
    """The dataclass among `options` whose default `kind` is the value's; the first if it names none."""
    kinds: dict[str, Any] = {option.kind: option for option in options}
    kind = value.get("kind", next(iter(kinds))) if isinstance(value, Mapping) else next(iter(kinds))
    if kind not in kinds:
        raise ValueError(f"{path}.kind is {kind!r}; it must be one of {', '.join(kinds)}")
    return kinds[kind]


def _convert(hint: Any, value: Any, path: str) -> Any:
    """`value` as type `hint`.

    That is a dataclass, several told apart by `kind`, a Literal, tuple[X, ...], X | None, or a plain type.
    """
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, path)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in options:
            return None
        kinds = [option for option in options if option is not type(None)]
        return _convert(kinds[0] if len(kinds) == 1 else _of_kind(kinds, value, path), value, path)
    if origin is typing.Literal:
        if value in options:
            return value
        raise ValueError(f"{path} is {value!r}; it must be one of {', '.join(map(str, options))}")
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(options[0], item, path) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    name = hint.__name__ if isinstance(hint, type) else str(hint)
    raise ValueError(f"{path} is {value!r}; it must be of type {name}")
