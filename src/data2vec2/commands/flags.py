"""Fields of a configuration as flags of a command line: `--section.field value`. Needs no torch."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from typing import TypeVar

import tyro

from data2vec2.commands.hints import near
from data2vec2.commands.options import WHOLE_NUMBERS
from data2vec2.config.run import FinetuneConfig, RunConfig
from data2vec2.errors import UsageError
from data2vec2.modalities import get_recipe, kinds

C = TypeVar("C", RunConfig, FinetuneConfig)
FLAT = (tyro.conf.AvoidSubcommands,)
OWN = ("optim", "data", "train")
"""Sections of fine-tuning that are not the task's; the task's own stand without its name."""


def split(
    words: Sequence[str], config: type[RunConfig | FinetuneConfig], own: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """The words that set fields of a configuration of any modality, and all others, with the verb's `own` flags.

    `UsageError` for a field, or with `own` another flag, that does not exist, with the nearest one.
    """
    known, flags, others, rest = dict(_flags(config, "")), list[str](), list[str](), deque(words)
    while rest:
        word = rest.popleft()
        name, _, value = word.partition("=")
        key = name.replace("_", "-")
        hint = near(key, (*known, *own)) if (own or "." in name) and key not in (*known, *own) else ""
        if not name.startswith("--") or ("." not in name and not hint):
            others.append(word)
            continue
        if key not in known:
            raise UsageError(f"unknown flag {name}{hint}")
        flags += [key, value] if value else [key]
        wanted = 0 if value else known[key]
        while rest and wanted and not rest[0].startswith("--"):
            flags.append(rest.popleft())
            wanted -= 1
    return flags, others


TERNARY = {"--train.compile": ("--train.compile", "True"), "--train.no-compile": ("--train.compile", "False")}
"""Switches of fields that may also be none, for which tyro wants a value."""


def own_flags(kind: type) -> list[str]:
    """The flags of a verb's options."""
    found = []
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        marks = getattr(hint, "__metadata__", ())
        if name != "_" and not {tyro.conf.Positional, tyro.conf.Suppress}.intersection(marks):
            flag = next((mark.name for mark in marks if getattr(mark, "name", None)), name).replace("_", "-")
            found += [f"--{flag}", f"--no-{flag}"] if hint is bool else [f"--{flag}"]
    return found


def all_flags(config: type[RunConfig | FinetuneConfig]) -> list[str]:
    """Every flag that sets a field of a configuration of some modality."""
    return list(dict(_flags(config, "")))


def fields_of(flags: Sequence[str]) -> frozenset[str]:
    """The fields that words set, as in `train.save_every`; those of a task stand without its name."""
    names = (word[2:].partition("=")[0].replace("-", "_") for word in flags if word.startswith("--"))
    return frozenset(re.sub(r"(^|\.)no_", r"\1", name) for name in names)


def applied(config: C, flags: Sequence[str]) -> C:
    """The configuration with what the words set; a value that can't be ends the program as a usage error.

    A number of updates among them is the run's length, whatever the configuration says of passes or hours. `UsageError`
    for a field of the objective, also of the configuration itself, that nothing would be done with.
    """
    if not flags:
        _check_objective(config)
        return config
    valued = (other for word in flags for other in TERNARY.get(word, (word,)))
    named = [_full(word, config) if word.startswith("--") else word for word in valued]
    prog = f"data2vec2 pretrain {config.recipe}" if isinstance(config, RunConfig) else "data2vec2 finetune"
    found: C = tyro.cli(type(config), default=config, args=named, prog=prog, config=FLAT, registry=WHOLE_NUMBERS)
    _check_objective(found)
    given = fields_of(flags)
    if "train.updates" not in given:
        return found
    for name in ("epochs", "hours"):
        if getattr(found.train, name) and f"train.{name}" in given:
            raise UsageError(f"--train.updates and --train.{name} both say how long the run is; give one of them")
    return dataclasses.replace(found, train=dataclasses.replace(found.train, epochs=None, hours=None))


def _check_objective(config: RunConfig | FinetuneConfig) -> None:
    """`UsageError` for a field of pre-training that differs from its recipe's, and has no use in such a model."""
    if not isinstance(config, RunConfig):
        return
    own, usual = config.model, get_recipe(config.recipe).model
    if own.masks.adjust != usual.masks.adjust and own.masks.block_length == 1:
        raise UsageError("--model.masks.adjust is for blocks of tokens, and --model.masks.block-length is 1")
    if own.loss.cls_loss_weight != usual.loss.cls_loss_weight and not own.modality.summarised:
        raise UsageError("--model.loss.cls-loss-weight needs a model with CLS or extra tokens, and this has none")


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
            elif not prefix:
                continue  # the verb's own, or no flag
            elif hint in (bool, bool | None):
                yield from ((f"--{prefix}{name}", 0), (f"--{prefix}no-{name}", 0))
            else:
                yield f"--{prefix}{name}", -1 if "tuple" in str(hint) else 1
