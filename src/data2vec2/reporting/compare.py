"""Several run folders -> one page that shows them side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data2vec2.errors import UserError
from data2vec2.reporting.build import read_config, read_environment, read_part, read_status, unit_of, write_page
from data2vec2.reporting.curves import compare_curves, is_number, last_second, last_step, read_rows
from data2vec2.reporting.scores import SHARES, read_measures, said


def write_comparison(runs: Sequence[Path], out: Path) -> Path:
    """Write a page on two or more runs: where their configurations differ, their scores, their curves over each other.

    What is missing or broken in a folder is said on the page. Raises `UserError` for what is no folder, and if the page
    can't be written.
    """
    for run in runs:
        if not run.is_dir():
            raise UserError(f"{run} is not a folder; give the folders of runs")
    names = _names(runs)
    problems: list[str] = []

    def read_all(read: Any, file: str, if_missing: str) -> dict[str, Any]:
        found = {}
        for name, run in zip(names, runs, strict=True):
            part = read_part(read, run / file, if_missing)
            found[name] = part.content
            if part.problem:
                problems.append(f"{name}: {part.problem}")
        return found

    configs = read_all(read_config, "config.yaml", "its settings are unknown")
    statuses = read_all(read_status, "status.json", "it is unknown how the run ended")
    environments = read_all(read_environment, "environment.json", "machine and versions are unknown")
    measures = read_all(read_measures, "scores.json", "the model has not been scored")
    rows = {name: found or [] for name, found in read_all(read_rows, "metrics.jsonl", "no figures recorded").items()}
    facts = [
        {
            "name": name,
            "path": str(run),
            "recipe": (configs[name] or {}).get("recipe", "unknown"),
            "data": (environments[name] or {}).get("data", "unknown"),
            "state": statuses[name]["state"] if statuses[name] else "unknown",
            "step": int(last_step(rows[name])),
            "seconds": last_second(rows[name]),
        }
        for name, run in zip(names, runs, strict=True)
    ]
    units = {unit_of(found["kind"], found["finetuning"]) for found in configs.values() if found}
    return write_page(
        "compare.html.j2",
        out,
        runs=facts,
        names=names,
        differences=_differences(configs),
        scores=_side_by_side(measures),
        charts_shown=compare_curves(rows, units.pop() if len(units) == 1 else "samples"),
        problems=problems,
    )


def _names(runs: Sequence[Path]) -> list[str]:
    """A name for every run: its folder's, or the path where two folders are called the same."""
    short = [run.resolve().name for run in runs]
    names = [name if short.count(name) == 1 else str(run) for name, run in zip(short, runs, strict=True)]
    if len(set(names)) < len(names):
        raise UserError(f"the same run is named twice: {', '.join(map(str, runs))}")
    return names


def _differences(configs: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """(setting, its value in each run), where runs differ; a run without configuration is left blank."""
    flat = {name: _flat(config["values"], "") if config else None for name, config in configs.items()}
    keys = dict.fromkeys(key for values in flat.values() if values for key in values)
    rows = [(key, ["" if values is None else values.get(key, "not set") for values in flat.values()]) for key in keys]
    return [(key, cells) for key, cells in rows if len(set(cells) - {""}) > 1]


def _flat(tree: Mapping[str, Any], prefix: str) -> dict[str, str]:
    """Nested settings as dotted names, values as text."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = "none" if value is None else str(value)
    return flat


def _side_by_side(measures: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, bool]]]]:
    """(score, [(value as text, whether it is the best of the row)])."""
    rows = []
    for key in dict.fromkeys(key for found in measures.values() if found for key in found):
        values = [(found or {}).get(key) for found in measures.values()]
        known = [value for value in values if is_number(value)]
        best = max(known) if len(set(known)) > 1 else None  # where all are the same, none is the best
        share = key.split(": ")[0] in SHARES.values()
        rows.append((key, [(said(value, share), best is not None and value == best) for value in values]))
    return rows
