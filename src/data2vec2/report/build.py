"""A run folder -> report.html.

The report is written at every end of a run, so any file may be missing or broken. Every part of the page is read from
one file; what can't be read becomes a sentence on the page.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import yaml

from data2vec2.errors import UserError
from data2vec2.report.figures import is_number, read_curves, read_masks
from data2vec2.version import __version__

COLUMNS = {"knn": "k-NN accuracy", "linear": "linear probe accuracy"}
LISTED = 50
"""Skipped files that are named on the page."""


@dataclass(frozen=True)
class Part:
    """A part of the page: its content, or why there is none."""

    content: Any = None
    problem: str = ""


def write_report(run: Path) -> Path:
    """Write `run`/report.html, a page that needs no other file and no network, and return its path.

    What is missing or broken in the folder is said on the page. Raises `UserError` only if there is no such folder or
    the page can't be written; a report that stood there before is then untouched.
    """
    if not run.is_dir():
        raise UserError(f"{run} is not a folder; give the folder of a run")
    page = _render(run)
    target, draft = run / "report.html", run / "report.html.tmp"
    try:
        # a file name on disk may hold bytes that are not text; they are shown as \udcff
        draft.write_text(page, encoding="utf-8", errors="backslashreplace")
        draft.replace(target)
    except OSError as error:
        raise UserError(f"can't write {target}: {error.strerror}") from error
    return target


def _render(run: Path) -> str:
    parts = {
        "config": _part(_config, run / "config.yaml", "the recipe and its settings are unknown"),
        "environment": _part(_environment, run / "environment.json", "machine and versions are unknown"),
        "status": _part(_status, run / "status.json", "it is unknown how the run ended"),
        "scores": _part(_scores, run / "scores.json", "the model has not been scored"),
        "masks": _part(read_masks, run / "masks.npz", "no picture was kept"),
        "curves": _part(read_curves, run / "metrics.jsonl", "no figures were recorded"),
        "skipped": _part(_skipped, run / "skipped.jsonl", "no skipped file was recorded"),
    }
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"count": lambda number: f"{number:,}", "duration": _duration}
    template = environment.from_string(files(__package__).joinpath("template.html.j2").read_text("utf-8"))
    return template.render(**parts, version=__version__)


def _part(read: Callable[[Path], Any], path: Path, if_missing: str) -> Part:
    try:
        return Part(content=read(path))
    except FileNotFoundError:
        return Part(problem=f"{path.name} is missing: {if_missing}.")
    except Exception as error:  # whatever stands in a broken file, the rest of the page must be written
        return Part(problem=f"{path.name} can't be shown ({type(error).__name__}: {error}).")


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected named values, found {type(value).__name__}")
    return value


def _config(path: Path) -> dict[str, str]:
    """Find the name of the recipe, and keep the file as it stands."""
    text = path.read_text("utf-8")
    return {"recipe": str(_mapping(yaml.safe_load(text)).get("recipe", "unknown recipe")), "text": text}


def _environment(path: Path) -> dict[str, str]:
    """Every value as text; a list (a command) is joined by spaces."""
    shown = {}
    for key, value in _mapping(json.loads(path.read_text("utf-8"))).items():
        if isinstance(value, list):
            shown[key] = " ".join(map(str, value))
        elif isinstance(value, dict):
            shown[key] = ", ".join(f"{name} {inner}" for name, inner in value.items())
        else:
            shown[key] = str(value)
    return shown


def _status(path: Path) -> dict[str, Any]:
    """State and message as text; step and updates as numbers or None."""
    status = _mapping(json.loads(path.read_text("utf-8")))
    numbers = {key: int(status[key]) if is_number(status.get(key)) else None for key in ("step", "updates")}
    return {"state": str(status.get("state", "unknown")), "message": str(status.get("message") or ""), **numbers}


def _scores(path: Path) -> dict[str, Any]:
    """Columns, and rows of (features, [(value as text, whether it is the best of its column)])."""
    scores = _mapping(json.loads(path.read_text("utf-8")))
    rows = scores["rows"]
    keys = list(dict.fromkeys(key for row in rows for key in row if key != "features"))
    best = {key: max((row[key] for row in rows if is_number(row.get(key))), default=None) for key in keys}

    def cell(key: str, value: Any) -> tuple[str, bool]:
        if not is_number(value):
            return "n/a", False
        return f"{100 * value:.1f} %" if key in COLUMNS else f"{value:.4g}", value == best[key]

    return {
        "columns": [COLUMNS.get(key, key) for key in keys],
        "rows": [(row.get("features", "?"), [cell(key, row.get(key)) for key in keys]) for row in rows],
        "part": scores.get("part"),
        "train_samples": _count(scores.get("train_samples")),
        "test_samples": _count(scores.get("test_samples")),
        "classes": [str(name) for name in scores.get("classes") or []],
        "note": scores.get("note"),
    }


def _skipped(path: Path) -> dict[str, Any]:
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


def _count(value: Any) -> str:
    return f"{value:,.0f}" if is_number(value) else "an unknown number of"


def _duration(seconds: float) -> str:
    """Seconds as people say them: `48 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"
