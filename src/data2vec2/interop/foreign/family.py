"""What all families have in common: fields of config.json, tables of names, and what becomes of the tensors.

A table has a row for each kind of tensor: the family's name, and ours in an `Encoder`. `#` stands for a number and `*`
for the rest; the three matrices `attn.q`, `attn.k` and `attn.v` become one, `attn.qkv`.

Shapes: `D` width, `T` patches.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data2vec2.config.model import ArchitectureConfig, EncoderConfig
from data2vec2.config.run import DataConfig
from data2vec2.errors import UserError
from data2vec2.modalities.fields import build_encoder

Tensors = dict[str, Tensor]
Table = Sequence[tuple[str, str]]
NAMED = 5
"""At most so many tensors are named in an error."""


def _unchanged(tensors: Tensors, model: ArchitectureConfig) -> Tensors:
    return tensors


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """Weights of another family as an encoder of ours."""

    family: str
    """How the family is called: "wav2vec 2.0"."""
    model: ArchitectureConfig
    """The encoder's shape; all blocks are the trunk's."""
    tensors: Tensors
    """The encoder's state, in float32."""
    data: DataConfig
    """How inputs are read."""
    reading: tuple[str, ...] = ()
    """Fields of `data` that these weights need to be as they are."""
    dropped: tuple[str, ...] = ()
    """What an encoder of ours has no place for, as it is called in the file: "pooler", "lm_head"."""
    notes: tuple[str, ...] = ()
    """What was converted with a difference, or guessed, in words."""
    adapted: Callable[[Tensors, ArchitectureConfig], Tensors] = _unchanged
    """The tensors for a model that takes inputs of another size."""


class Fields:
    """config.json (or another file) of a folder, read with care; every error names file, field and value."""

    def __init__(self, values: Mapping[str, Any], path: Path) -> None:
        self.values, self.path = values, path

    def number(self, name: str, default: float | None = None, *, least: float = 1) -> float:
        """A number; `UserError` for another value, or for none without a default."""
        value = self.values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= least:
            raise UserError(f"{self.path}: {name} is {value!r:.80}; it must be a number of at least {least:g}")
        return value

    def whole(self, name: str, default: int | None = None, *, least: int = 1) -> int:
        """A whole number."""
        value = self.number(name, default, least=least)
        if value != int(value):
            raise UserError(f"{self.path}: {name} is {value!r}; it must be a whole number")
        return int(value)

    def numbers(self, name: str, default: Sequence[int]) -> tuple[int, ...]:
        """Several whole numbers."""
        values = self.values.get(name, default)
        if not isinstance(values, list | tuple) or not all(isinstance(one, int) for one in values):
            raise UserError(f"{self.path}: {name} is {values!r:.80}; it must be a list of whole numbers")
        return tuple(values)

    def side(self, name: str, default: int) -> int:
        """Height and width, which are the same: a number, or two."""
        value = self.values.get(name, default)
        sides = list(value) if isinstance(value, list | tuple) else [value]
        if not sides or any(isinstance(one, bool) or not isinstance(one, int) or one != sides[0] for one in sides):
            raise UserError(f"{self.path}: {name} is {value!r:.80}; only squares are supported here")
        return int(sides[0])

    def only(self, name: str, *supported: Any) -> Any:
        """The value, which is the first of `supported` where there is none; `UserError` for others."""
        value = self.values.get(name, supported[0])
        if value not in supported:
            these = " or ".join(json.dumps(one) for one in supported)
            raise UserError(f"{self.path}: {name} is {json.dumps(value, default=str):.80}; only {these} is supported")
        return value


def encoder_of(fields: Fields, *, hidden: int, eps: float, **more: Any) -> EncoderConfig:
    """The Transformer, by the names that most families have for its sizes; `hidden` is the MLP's width."""
    dim, heads = fields.whole("hidden_size", 768), fields.whole("num_attention_heads", 12)
    if dim % heads:
        raise UserError(f"{fields.path}: num_attention_heads is {heads}, which does not divide hidden_size ({dim})")
    if (head_dim := fields.values.get("head_dim")) not in (None, dim // heads):
        raise UserError(
            f"{fields.path}: head_dim is {head_dim!r}; only {dim // heads} (hidden_size / heads) is supported"
        )
    depth = fields.whole("num_hidden_layers", 12)
    ratio = mlp_ratio(hidden, dim)
    return EncoderConfig(
        embed_dim=dim, num_heads=heads, prenet_depth=0, depth=depth, mlp_ratio=ratio, norm_eps=eps, **more
    )


def mlp_ratio(hidden: int, dim: int) -> float:
    """The ratio that makes an MLP of so many channels, whatever rounding does."""
    return hidden / dim if int(dim * (hidden / dim)) == hidden else (hidden + 0.5) / dim


def without_prefix(tensors: Mapping[str, Tensor], prefixes: Iterable[str]) -> Tensors:
    """The tensors with what stands in a wrapping model's name for the encoder taken away."""
    pattern = re.compile("|".join(map(re.escape, prefixes)))
    return {pattern.sub("", name, count=1) if pattern.match(name) else name: one for name, one in tensors.items()}


def translated(
    tensors: Mapping[str, Tensor], table: Table, dropped: Sequence[str], path: Path
) -> tuple[Tensors, tuple[str, ...]]:
    """The tensors by our names, and what of `dropped` was there, patterns of names in which `*` stands for anything.

    `UserError` that names tensors which are neither in the table nor there.
    """
    rows = [(re.compile(_pattern(theirs)), ours) for theirs, ours in table]
    found, left, unknown = Tensors(), dict[str, None](), list[str]()
    for name, tensor in tensors.items():
        match, ours = next(((m, ours) for row, ours in rows if (m := row.fullmatch(name))), (None, ""))
        if match is not None:
            filled = ours.replace("#", match.groupdict().get("number") or "")
            found[filled.replace("*", match.groupdict().get("rest") or "")] = tensor.float()
        elif pattern := next((pattern for pattern in dropped if fnmatchcase(name, pattern)), None):
            left[pattern.removesuffix(".*")] = None
        else:
            unknown.append(name)
    if unknown:
        raise UserError(f"{path} has tensors that are not understood: {listed(unknown)}; this model is of another kind")
    return _joined(found), tuple(left)


def _pattern(name: str) -> str:
    groups = {"#": r"(?P<number>\d+)", "*": r"(?P<rest>.+)"}
    return "".join(groups.get(piece, re.escape(piece)) for piece in re.split(r"([#*])", name))


def _joined(tensors: Tensors) -> Tensors:
    """With one matrix for queries, keys and values where there are three; what is incomplete stays as it is."""
    found = dict(tensors)
    for name in [name for name in tensors if re.search(r"\.attn\.q\.\w+$", name)]:
        three = [re.sub(r"\.q\.(\w+)$", rf".{part}.\1", name) for part in "qkv"]
        if all(one in tensors for one in three):
            found[re.sub(r"\.q\.(\w+)$", r".qkv.\1", name)] = torch.cat([found.pop(one) for one in three])
    return found


def checked(foreign: Foreign, path: Path) -> Foreign:
    """The same; `UserError` for tensors that are missing, too many or of other shapes than config.json says."""
    if (depth := foreign.model.encoder.depth) > len(foreign.tensors):
        raise UserError(f"{path} has {len(foreign.tensors):,} tensors, too few for the {depth:,} blocks of config.json")
    with torch.device("meta"):  # only shapes are needed
        expected = build_encoder(foreign.model).state_dict()
    tensors = foreign.adapted(foreign.tensors, foreign.model)
    if missing := sorted(expected.keys() - tensors.keys()):
        raise UserError(f"{path} lacks what config.json describes, here called {listed(missing)}")
    if more := sorted(tensors.keys() - expected.keys()):
        raise UserError(f"{path} has more than config.json describes, here called {listed(more)}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{list(tensor.shape)}, and config.json says {list(expected[name].shape)}"
            raise UserError(f"{path}: what is here called {name} has shape {shapes}")
    return foreign


def listed(names: Sequence[str]) -> str:
    """Some of the names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
