"""The text files of a run folder as what the page's template shows."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from data2vec2.reporting.curves import is_number

LISTED = 50
"""Skipped files that are named on the page."""


def read_mapping(path: Path) -> dict[str, Any]:
    """A JSON or YAML file that holds named values; ValueError for anything else."""
    text = path.read_text("utf-8")
    value = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"expected named values, found {type(value).__name__}")
    return value


def read_config(path: Path) -> dict[str, Any]:
    """Find the name of the recipe and whether it is a fine-tuning run, and keep the file as it stands."""
    values = read_mapping(path)
    recipe = str(values.get("recipe", "unknown recipe"))
    marks, text = {"sample_rate:": "audio", "vocab_size:": "text", "label_column:": "text"}, path.read_text("utf-8")
    kind = next((kind for mark, kind in marks.items() if mark in text), "image")
    return {
        "recipe": recipe,
        "finetuning": bool({"augment", "masks", "from_scratch"} & values.keys()),
        "kind": kind,
        "text": text,
    }


def read_environment(path: Path) -> dict[str, str]:
    """Every value as text; a list (a command) is joined by spaces."""
    shown = {}
    for key, value in read_mapping(path).items():
        if isinstance(value, list):
            shown[key] = " ".join(map(str, value))
        elif isinstance(value, dict):
            shown[key] = ", ".join(f"{name} {inner}" for name, inner in value.items())
        else:
            shown[key] = str(value)
    return shown


def read_status(path: Path) -> dict[str, Any]:
    """State and message as text; step and updates as numbers or None."""
    status = read_mapping(path)
    numbers = {key: int(status[key]) if is_number(status.get(key)) else None for key in ("step", "updates")}
    return {"state": str(status.get("state", "unknown")), "message": str(status.get("message") or ""), **numbers}


def read_skipped(path: Path) -> dict[str, Any]:
    """How many files were skipped for each reason, most frequent first, and the first of them."""
    items = []
    for line in path.read_text("utf-8", errors="replace").split("\n"):
        try:
            item = json.loads(line)
        except ValueError:  # the empty end, or a line that was cut short
            continue
        if isinstance(item, dict):
            items.append((str(item.get("name", "?")), str(item.get("reason", "no reason given"))))
    return {
        "total": len(items),
        "reasons": Counter(reason for _, reason in items).most_common(),
        "first": items[:LISTED],
    }
