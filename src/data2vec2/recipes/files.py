"""Configurations in YAML files: what a file leaves out is as in the recipe that it names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from data2vec2.config import to_dict, updated
from data2vec2.errors import UserError


def is_file_name(name: str) -> bool:
    """Whether a user means a file, not a recipe."""
    return name.endswith((".yaml", ".yml"))


def read_values(path: str | Path, recipe: Callable[[str], Any]) -> Any:
    """What a file says, over the values of its recipe if it names one; `recipe` gives the configuration of a name.

    Raises `UserError` for a file that can't be read, and what `recipe` raises for a name that it doesn't know.
    """
    try:
        values = yaml.safe_load(Path(path).read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} can't be read: {error}") from error
    name = values.get("recipe") if isinstance(values, Mapping) else None
    return updated(to_dict(recipe(name)), values) if isinstance(name, str) else values
