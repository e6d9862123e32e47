"""Several run folders -> one page that shows them side by side."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data2vec2.errors import UserError
from data2vec2.evaluation.verdict import Gain
from data2vec2.reporting import charts, curves, scores
from data2vec2.reporting.build import (
    Section,
    read_config,
    read_environment,
    read_part,
    read_status,
    unit_of,
    write_page,
)
from data2vec2.training.run import OTHER_SCORES, SCORES


def write_comparison(runs: Sequence[Path], out: Path) -> Path:
    """Write a page on two or more runs: where their configurations differ, their scores, their curves over each other.

    `UserError` for what is no folder, and if the page can't be written.
    """
    for run in runs:
        if not run.is_dir():
            raise UserError(f"{run} is not a folder; give the folders of runs")
    named, problems = dict(zip(_names(runs), runs, strict=True)), list[Section]()

    def note(name: str, parts: Iterable[Section]) -> None:
        problems.extend(replace(part, problem=f"{name}: {part.problem}") for part in parts if part.problem)

    def read_all(read: Any, file: str, if_missing: str) -> dict[str, Any]:
        parts = {name: read_part(read, run / file, if_missing) for name, run in named.items()}
        for name, part in parts.items():
            note(name, [part])
        return {name: part.content for name, part in parts.items()}

    configs = read_all(read_config, "config.yaml", "its settings are unknown")
    statuses = read_all(read_status, "status.json", "it is unknown how the run ended")
    environments = read_all(read_environment, "environment.json", "machine and versions are unknown")
    measures, gains = {}, {}
    for name, run in named.items():
        evaluate = f"data2vec2 evaluate {shlex.quote(str(run))} DATA"
        own = read_part(scores.read_measures, run / SCORES, "the model has not been scored", evaluate)
        other = read_part(scores.read_other_measures, run / OTHER_SCORES, "")
        shown = [other] if own.missing and not other.missing else [own, *([] if other.missing else [other])]
        note(name, shown)
        gains[name] = read_part(scores.read_gains, run / SCORES, "").content or {}
        measures[name] = {key: value for part in shown for key, value in (part.content or {}).items()}
    figures = read_all(curves.read_rows, "metrics.jsonl", "no figures recorded")
    rows = {name: found or [] for name, found in figures.items()}
    facts = []
    for name, run in named.items():
        step, seconds = curves.reached(rows[name])
        facts.append(
            {
                "name": name,
                "path": str(run),
                "recipe": (configs[name] or {}).get("recipe", "unknown"),
                "data": (environments[name] or {}).get("data", "unknown"),
                "state": (statuses[name] or {}).get("state", "unknown"),
                "step": step,
                "seconds": seconds,
            }
        )
    units = {unit_of(found["kind"], found["finetuning"]) for found in configs.values() if found}
    return write_page(
        "compare.html.j2",
        out,
        runs=facts,
        names=list(named),
        differences=_differences(configs),
        scores=_side_by_side(measures),
        gains=_gains_side_by_side(gains),
        charts_shown=curves.compare_curves(rows, units.pop() if len(units) == 1 else "samples"),
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
            flat[f"{prefix}{key}"] = "none" if value is None else f"{value:.6g}" if type(value) is float else str(value)
    return flat


def _side_by_side(measures: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, bool]]]]:
    """(score, [(value as text, whether it is the best of the row)])."""
    rows = []
    for key in dict.fromkeys(key for found in measures.values() if found for key in found):
        cells: list[tuple[Any, Any]] = [(found or {}).get(key, (None, None)) for found in measures.values()]
        known = [value for value, _ in cells if charts.is_number(value)]
        better = min if key in scores.RECOGNIZER.values() else max
        best = better(known) if len(set(known)) > 1 else None  # where all are the same, none is the best
        share = key.split(": ")[0] in (scores.SHARES | scores.RECOGNIZER).values()
        said = [(scores.said_with_bar(value, bar, share), best is not None and value == best) for value, bar in cells]
        rows.append((key, said))
    return rows


def _gains_side_by_side(gains: Mapping[str, Mapping[str, Gain]]) -> list[tuple[str, list[tuple[str, bool]]]]:
    """(gain, [(points as text, whether it is a gain beyond chance)])."""

    def cell(one: Gain | None) -> tuple[str, bool]:
        return (one.points, bool(one.interval) and one.clear and one.value > 0) if one else ("n/a", False)

    keys = dict.fromkeys(key for found in gains.values() for key in found)
    return [(key, [cell(found.get(key)) for found in gains.values()]) for key in keys]
