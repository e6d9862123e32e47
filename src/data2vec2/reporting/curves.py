"""The figures of `metrics.jsonl` as charts: of one run, or of several over each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from data2vec2.evaluation.dense import MEASURES
from data2vec2.reporting.charts import Line, Plot, Points, draw, in_words, is_number, said
from data2vec2.reporting.scores import CLASSIFIER, NUMBERS, PROBES, read_lines
from data2vec2.training.progress import floors

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Spec(Plot):
    """What one chart shows."""

    series: Mapping[str, str] = field(default_factory=dict)
    """Key in `metrics.jsonl` -> name in the legend."""
    note: str = ""


SPECS = (
    Spec(
        "Loss",
        "loss",
        series={"loss": "training", "regression": "masked tokens", "cls": "CLS token", "val_loss": "validation"},
    ),
    Spec(
        "Validation scores",
        "score (%)",
        series={f"val_{key}": name for key, name in (PROBES | MEASURES | CLASSIFIER | NUMBERS).items()},
        note="On samples held out from training.",
        percent=True,
    ),
    Spec(
        "Squared error",
        "mean squared error",
        series={"val_mse": "validation"},
        note="In the units of the data, on samples held out from training.",
        from_zero=True,
    ),
    Spec(
        "Error rates",
        "error rate (%)",
        series={"val_wer": "words", "val_cer": "characters"},
        note="Edits divided by the length of the transcripts, on recordings held out from training; lower is better.",
        percent=True,
        from_zero=True,
    ),
    Spec(
        "Standard deviations",
        "standard deviation",
        series={"target_std": "targets", "prediction_std": "predictions"},
        note="Near zero: the output is the same for every sample (collapse).",
        from_zero=True,
    ),
    Spec(
        "Unexplained targets",
        "share of the targets' variance",
        series={"unexplained": "not predicted"},
        note="Near zero: the targets have become trivial to predict (collapse).",
        from_zero=True,
    ),
    Spec(
        "Effective ranks",
        "effective rank (dimensions)",
        series={"rank_stem": "stem", "rank_encoder": "encoder", "rank_target": "targets"},
        note="How many dimensions the features use; a fall towards one is a collapse.",
        from_zero=True,
    ),
    Spec("Learning rate", "learning rate", series={"lr": "learning rate"}),
    Spec(
        "EMA decay",
        "EMA decay",
        series={"ema_decay": "EMA decay"},
        note="The share of the teacher that each update keeps.",
    ),
    Spec("Gradient norm", "gradient norm", series={"grad_norm": "gradient norm"}),
    Spec("Throughput", "{one} per second", series={"samples_per_s": "{one} per second"}, from_zero=True),
    Spec("Throughput in units", "{unit} per second", series={"units_per_s": "{unit} per second"}, from_zero=True),
)
NOTES = {
    "regression": "May rise while the model learns, because its targets, the teacher's features, change with it; "
    "scores and ranks say more.",
    "val_loss": "A rising validation loss means overfitting; the model with the best validation score is kept.",
}
"""What a chart with this key says."""


@dataclass(frozen=True)
class Chart:
    """One chart, drawn over steps and over time (None where no line has a time)."""

    title: str
    note: str
    text: str
    """What it shows, in words."""
    by_step: Markup
    by_time: Markup | None


@dataclass(frozen=True)
class Curves:
    """All curves of a run, and how far it came."""

    step: int
    seconds: float | None
    samples: int | None
    charts: list[Chart]


class Series(NamedTuple):
    """The values of one key, with steps and seconds (NaN where unknown), and how many values can't be drawn."""

    steps: Points
    seconds: Points
    values: Points
    left_out: int


def read_rows(path: Path) -> Rows:
    """Return the lines of a `metrics.jsonl` that have a step; steps that a resumed run wrote again replace the old.

    OSError if it can't be read.
    """
    rows: Rows = []
    for row in read_lines(path):
        if is_number(row.get("step")):
            while rows and rows[-1]["step"] > row["step"]:
                rows.pop()
            rows.append(row)
    return rows


def read_curves(path: Path, unit: str = "samples") -> Curves:
    """Every numeric key of a `metrics.jsonl`, in known charts or in one of its own. OSError if it can't be read.

    `unit` is what batch sizes count.
    """
    rows = read_rows(path)
    seen = [row.get("units", row.get("samples")) for row in rows]
    samples = next((int(count) for count in reversed(seen) if is_number(count)), None)
    first: dict[str, float] = {}
    for row in reversed(rows):
        first.update((key, value) for key, value in row.items() if is_number(value))
    known, charts = floors(first), []
    for spec in specs_of(rows, unit):
        lines = {name: _series(rows, key) for key, name in spec.series.items()}
        lowest = {name: known[key] for key, name in spec.series.items() if key in known}
        charts.append(_chart(spec, lines, lowest))
    return Curves(*reached(rows), samples, charts)


def compare_curves(runs: Mapping[str, Rows], unit: str) -> list[Chart]:
    """One chart for every numeric key that a run has: a line for each run. Keys of `runs` are the runs' names."""
    charts, same = [], floors({})
    for spec in specs_of((row for rows in runs.values() for row in rows), unit):
        for key, name in spec.series.items():
            lines = {run: _series(rows, key) for run, rows in runs.items()}
            title = spec.title if name in spec.y_label else f"{spec.title}: {name}"
            lowest = {name: same[key]} if key in same else {}
            charts.append(_chart(replace(spec, title=title), lines, lowest))
    return charts


def reached(rows: Rows) -> tuple[int, float | None]:
    """The last update that a run wrote down (0 for none), and its seconds of training until then, if known."""
    seconds = [row["elapsed_s"] for row in rows if is_number(row.get("elapsed_s"))]
    return int(max((row["step"] for row in rows), default=0)), max(seconds, default=None)


def specs_of(rows: Iterable[dict[str, Any]], unit: str) -> list[Spec]:
    """Known charts that have at least one key here, with these keys; then one chart for every other numeric key."""
    found = dict.fromkeys(
        key for row in rows for key, value in row.items() if is_number(value) or isinstance(value, float)
    )
    one = "samples" if "units_per_s" in found else unit  # of older runs samples_per_s counts units
    known = {"step", "elapsed_s", "samples", "units", "val_knn_error"}.union(*(spec.series for spec in SPECS))
    specs = []
    for spec in SPECS:
        series = {key: name.format(unit=unit, one=one) for key, name in spec.series.items() if key in found}
        if series:
            note = next((NOTES[key] for key in series if key in NOTES), spec.note)
            label = spec.y_label.format(unit=unit, one=one)
            specs.append(replace(spec, y_label=label, series=series, note=note))
    return specs + [Spec(key, key, series={key: key}) for key in found if key not in known]


def _series(rows: Rows, key: str) -> Series:
    points, left_out = [], 0
    for row in rows:
        value, second = row.get(key), row.get("elapsed_s")
        if is_number(value):
            points.append((row["step"], second if is_number(second) else np.nan, value))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            left_out += 1
    steps, seconds, values = np.array(points, dtype=np.float64).reshape(-1, 3).T
    return Series(steps, seconds, values, left_out)


def _chart(spec: Spec, lines: Mapping[str, Series], floors: Mapping[str, float]) -> Chart:
    """A chart of named lines; `floors` are the alarm's thresholds, by what they are for."""
    notes = [spec.note] if spec.note else []
    if floors:
        heights = {name: said(floor, True) if spec.percent else f"{floor:.2g}" for name, floor in floors.items()}
        found = list(dict.fromkeys(heights.values()))
        if len(found) > 1:
            found = [f"{name} {height}" for name, height in heights.items()]
        notes.append(f"Dotted: the collapse alarm's threshold ({', '.join(found)}).")
    if left_out := sum(series.left_out for series in lines.values()):
        notes.append(f"Left out, because not finite or beyond 1e30: {left_out}.")
    plot = replace(spec, limits=tuple(floors.values()))
    by_step = [Line(name, series.steps, series.values) for name, series in lines.items()]
    times, by_time = [series.seconds for series in lines.values() if np.isfinite(series.seconds).any()], None
    if times:
        end = max(map(np.nanmax, times))
        size, unit = (3600, "h") if end > 3 * 3600 else (60, "min") if end > 3 * 60 else (1, "s")
        over_time = [Line(name, series.seconds / size, series.values) for name, series in lines.items()]
        by_time = draw(replace(plot, x_label=f"wall-clock time ({unit})", whole=False), over_time)
    return Chart(spec.title, " ".join(notes), in_words(by_step, spec.percent), draw(plot, by_step), by_time)
