"""Configurations to and from plain nested dictionaries (what YAML and JSON hold), and one way to refuse a value."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from data2vec2.errors import UsageError


def require(ok: bool, field: str, value: object, expected: str) -> None:
    """Raise `UsageError` naming the field, the value found and what it must be, unless `ok`."""
    if not ok:
        raise UsageError(f"{field} is {_shown(value)}; it must be {expected}")


def flag_of(field: str) -> str:
    """The flag that sets a field such as `task.model.pooling`; those of a task stand without its name."""
    return f"--{field.removeprefix('task.').replace('_', '-')}"


def require_finite(config: Any, where: str = "") -> None:
    """Raise `UsageError` for a number that is infinite or none, in a configuration or its parts."""
    for field in dataclasses.fields(config):
        value, path = getattr(config, field.name), f"{where}{field.name}"
        if dataclasses.is_dataclass(value):
            require_finite(value, f"{path}.")
        for number in value if isinstance(value, tuple) else (value,):
            require(not isinstance(number, float) or math.isfinite(number), path, value, "finite")


def _shown(value: object) -> str:
    """A value in a message, as far as it is short."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no numbers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


T = TypeVar("T")
SHOWN = 300
"""Characters of a value in a message, at most."""


def to_dict(config: Any) -> dict[str, Any]:
    """Nested dictionary of a configuration; tuples become lists."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return to_dict(value)
        return [plain(item) for item in value] if isinstance(value, tuple) else value

    return {field.name: plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


_EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")
"""Numbers such as 1e-3, which YAML (1.1) takes for words unless they have a point and a sign."""
Kinds = Mapping[type, Mapping[str, type]]
"""Base class of a part that differs by modality -> its class for each `kind`."""


def from_dict(cls: type[T], values: Any, where: str = "", *, kinds: Kinds = types.MappingProxyType({})) -> T:
    """Build dataclass `cls` from a nested dictionary; fields of a class in `kinds` become the one that `kind` names.

    Raises `UsageError` for a key that does not exist (with the nearest one that does), for one that is missing and has
    no default, and for a value of another type.
    """
    if not isinstance(values, Mapping):
        raise UsageError(f"{where or 'configuration'} is {_shown(values)}; it must be a group of fields")
    if options := kinds.get(cls):
        kind = values.get("kind", next(iter(options)))
        if not isinstance(kind, str) or kind not in options:
            raise UsageError(f"{where}.kind is {_shown(kind)}; it must be one of {', '.join(options)}")
        cls = options[kind]
    hints = typing.get_type_hints(cls)
    arguments = {}
    for key, value in values.items():
        path = f"{where}.{key}" if where else str(key)
        if not isinstance(key, str) or key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(hints)}"
            raise UsageError(f"unknown key {_shown(path)}{hint}")
        arguments[key] = _convert(hints[key], value, path, kinds)
    for field in dataclasses.fields(typing.cast(Any, cls)):
        if field.name not in arguments and field.default is field.default_factory is dataclasses.MISSING:
            raise UsageError(f"{f'{where}.' if where else ''}{field.name} is missing; give it a value")
    return cls(**arguments)


def updated(tree: Any, values: Any) -> Any:
    """A nested dictionary with what another says in its place: groups are merged, all else is replaced."""
    if not isinstance(tree, Mapping) or not isinstance(values, Mapping):
        return values
    return {**tree, **{key: updated(tree.get(key), value) for key, value in values.items()}}


def _convert(hint: Any, value: Any, path: str, kinds: Kinds) -> Any:
    """`value` as type `hint`: a dataclass, a Literal, tuple[X, ...], X | None, or a plain type."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(value, int) and abs(value) >= 1 << 63:
        raise UsageError(f"{path} is {_shown(value)}; it must be below 2**63")
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, path, kinds=kinds)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in options:
            return None
        (inner,) = (option for option in options if option is not type(None))
        return _convert(inner, value, path, kinds)
    if origin is typing.Literal:
        if value in options:
            return value
        raise UsageError(f"{path} is {_shown(value)}; it must be one of {', '.join(map(str, options))}")
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(options[0], item, path, kinds) for item in value)
    if hint in (int, float) and isinstance(value, str) and _EXPONENT.fullmatch(value):
        value = int(number) if hint is int and (number := float(value)).is_integer() else float(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    name = hint.__name__ if isinstance(hint, type) else str(hint)
    raise UsageError(f"{path} is {_shown(value)}; it must be of type {name}")
