"""Fields of a configuration as flags of a command line: `--section.field value`. Needs no torch."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TypeVar

import tyro

from data2vec2.config.run import FinetuneConfig, RunConfig
from data2vec2.errors import UsageError
from data2vec2.modalities import kinds

C = TypeVar("C", RunConfig, FinetuneConfig)
FLAT = (tyro.conf.AvoidSubcommands,)
OWN = ("optim", "data", "train")
"""Sections of fine-tuning that are not the task's; the task's own stand without its name."""


def split(words: Sequence[str], config: type[RunConfig | FinetuneConfig]) -> tuple[list[str], list[str]]:
    """The words that set fields of a configuration of any modality, and all others.

    `UsageError` for a field that does not exist, with the nearest one.
    """
    known, flags, others, rest = dict(_flags(config, "")), list[str](), list[str](), deque(words)
    while rest:
        word = rest.popleft()
        name, _, value = word.partition("=")
        if not name.startswith("--") or "." not in name:
            others.append(word)
            continue
        key = name.replace("_", "-")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise UsageError(f"unknown flag {name}" + (f"; did you mean {near[0]}?" if near else ""))
        flags += [key, value] if value else [key]
        wanted = 0 if value else known[key]
        while rest and wanted and not rest[0].startswith("--"):
            flags.append(rest.popleft())
            wanted -= 1
    return flags, others


def applied(config: C, flags: Sequence[str]) -> C:
    """The configuration with what the words set; a value that can't be ends the program as a usage error."""
    if not flags:
        return config
    named = [_full(word, config) if word.startswith("--") else word for word in flags]
    prog = f"data2vec2 pretrain {config.recipe}" if isinstance(config, RunConfig) else "data2vec2 finetune"
    return tyro.cli(type(config), default=config, args=named, prog=prog, config=FLAT)


def print_help(config: RunConfig | FinetuneConfig) -> None:
    """Print what the fields mean and which values they have now."""
    parts = {**(vars(config.task) if isinstance(config, FinetuneConfig) else {}), **vars(config)}
    sections = {name: part for name, part in parts.items() if dataclasses.is_dataclass(part) and name != "task"}
    kind = dataclasses.make_dataclass("Fields", [(name, type(part)) for name, part in sections.items()])
    with suppress(SystemExit):
        tyro.cli(kind, default=kind(**sections), args=["--help"], prog="data2vec2 ...", config=FLAT)


def _full(flag: str, config: RunConfig | FinetuneConfig) -> str:
    """The flag as the configuration's fields nest."""
    own = isinstance(config, RunConfig) or flag.removeprefix("--").split(".")[0] in OWN
    return flag if own else f"--task.{flag.removeprefix('--')}"


def _flags(cls: type, prefix: str) -> Iterator[tuple[str, int]]:
    """Every flag, and how many words follow it: 0 or 1, or -1 for any number."""
    for option in kinds().get(cls, {"": cls}).values():
        hints = typing.get_type_hints(option)
        for field in dataclasses.fields(option):
            name, hint = field.name.replace("_", "-"), hints[field.name]
            if dataclasses.is_dataclass(hint):
                yield from _flags(typing.cast(type, hint), prefix if name == "task" else f"{prefix}{name}.")
            elif hint is bool:
                yield from ((f"--{prefix}{name}", 0), (f"--{prefix}no-{name}", 0))
            else:
                yield f"--{prefix}{name}", -1 if "tuple" in str(hint) else 1
