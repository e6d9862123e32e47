"""Reading the original's `.pt` files without running what a stranger may have put into them, and writing them."""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data2vec2.errors import UserError
from data2vec2.interop.table import written_whole

DICTIONARY = "fairseq.data.dictionary.Dictionary"
"""The class of the vocabulary in files that were fine-tuned for speech; only its list of symbols is looked at."""

_SCALAR = np.float64(0).__reduce__()[0]
# What a file may hold beside tensors and plain containers.
_ALLOWED: list[Any] = [
    argparse.Namespace,
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *{type(np.dtype(code)) for code in "?bhilqefd"},
]


class StandIn:
    """What is read in place of an object of another program: its state, and nothing that could act."""

    of: str
    """The object's class."""

    def __new__(cls, *arguments: Any) -> StandIn:
        """Keep what the object would have been made of."""
        made = super().__new__(cls)
        made.state = {"arguments": list(arguments)} if arguments else {}
        return made

    def __init__(self, *arguments: Any) -> None:
        self.state: dict[str, Any]

    def __setstate__(self, state: Any) -> None:
        self.state |= state if isinstance(state, dict) else {"state": state}


def read_checkpoint(path: Path, allow: Sequence[str] = ()) -> dict[str, Any]:
    """The content of an original `.pt` file: tensors, plain values, and a `StandIn` for each object of `allow`.

    `UserError` if it can't be read, is not a dictionary, or holds objects of other classes.
    """
    if not path.is_file():
        raise UserError(f"{path} is {'a folder' if path.is_dir() else 'not there'}; give a .pt file of the original")
    if _start(path).lstrip()[:1] == b"<":
        raise UserError(f"{path} is a web page and no checkpoint: its download went wrong; fetch it again")
    stand_ins = [(type(name.rpartition(".")[2], (StandIn,), {"of": name}), name) for name in (DICTIONARY, *allow)]
    try:
        with torch.serialization.safe_globals([*_ALLOWED, *stand_ins]):
            # Mapped into memory, so that the optimiser's part of the file is not read.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # whatever a damaged or hostile file makes of the reader
        raise UserError(_reason(path, str(error) or type(error).__name__)) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not the dictionary of a checkpoint")
    return content


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file as the original's tools read it, whole or not at all; `UserError` if that can't be."""
    with written_whole(path, overwrite=False) as file:
        torch.save(dict(content), file)


def to_json(value: Any) -> Any:
    """Nested plain values as JSON has them, from which `from_json` makes the same; objects as their state."""
    if isinstance(value, argparse.Namespace):
        return {"<type>": "Namespace", "value": to_json(vars(value))}
    if isinstance(value, StandIn):
        return {"<type>": value.of, "value": to_json(value.state)}
    if isinstance(value, tuple):
        return {"<type>": "tuple", "value": to_json(list(value))}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: to_json(item) for key, item in value.items()}
        return {"<type>": "items", "value": [to_json([key, item]) for key, item in value.items()]}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def from_json(value: Any) -> Any:
    """Undo `to_json`."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind, content = value.get("<type>"), value.get("value")
    if kind == "Namespace":
        return argparse.Namespace(**from_json(content))
    if kind == "tuple":
        return tuple(from_json(content))
    if kind == "items":
        return dict(from_json(content))
    return {key: from_json(item) for key, item in value.items()}


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64)


def _reason(path: Path, message: str) -> str:
    """Why a file was not read, in the user's words."""
    named = re.search(r"GLOBAL (\S+) (?:was not an allowed|whose module)", message)
    if named is None:
        return f"{path} can't be read as a checkpoint; it may be damaged or cut short ({message.splitlines()[0]})"
    if "is blocked" in message:
        return f"{path} calls {named[1]}: it is a program in disguise and is not read"
    name = named[1] if "." in named[1] else f"builtins.{named[1]}"  # as PyTorch's message shortens it
    return (
        f"{path} can't be read as a checkpoint: it holds an object of {name}, and files are read only if they hold "
        "tensors and plain values, because others could run a program; data2vec2 convert --allow "
        f"{name} reads its state as plain values, and runs nothing of it"
    )
