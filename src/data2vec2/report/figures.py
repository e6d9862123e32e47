"""The figures of a report: curves of `metrics.jsonl` as SVG, the masks of one picture as PNG.

Figures are made without pyplot and under matplotlib's own defaults, so they neither see nor change the caller's
settings. Text and grid take their colours from the page, so they are legible on light and on dark ground.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from PIL import Image

Points = NDArray[np.float64]

TEXT, GRID = "#010203", "#040506"  # stand-ins, replaced by colours of the page
COLOURS = ("#2b83c6", "#dd6a1f", "#0d9c75")  # mid-tones, at least 3:1 against both grounds
MASKED_GREY = 128
ROUND_STEPS = (1, 2, 2.5, 5, 10)


class Spec(NamedTuple):
    """What one chart shows."""

    title: str
    unit: str
    """Label of the y axis."""
    series: dict[str, str]
    """Key in `metrics.jsonl` -> name in the legend."""
    note: str = ""
    percent: bool = False
    """Values are shares from 0 to 1."""
    from_zero: bool = False
    """The y axis begins at 0, because it matters how far from 0 the values are."""


SPECS = (
    Spec("Loss", "loss", {"loss": "total", "regression": "masked patches", "cls": "CLS token"}),
    Spec(
        "Validation accuracy",
        "accuracy (%)",
        {"val_knn": "k-NN", "val_linear": "linear probe"},
        "On samples held out from training.",
        percent=True,
    ),
    Spec("Learning rate", "learning rate", {"lr": "learning rate"}),
    Spec("EMA decay", "EMA decay", {"ema_decay": "EMA decay"}, "The share of the teacher that an update keeps."),
    Spec(
        "Standard deviations",
        "standard deviation",
        {"target_std": "targets", "prediction_std": "predictions"},
        "Near zero: the model says the same of every sample (collapse).",
        from_zero=True,
    ),
    Spec(
        "Effective ranks",
        "effective rank (dimensions)",
        {"rank_stem": "stem", "rank_encoder": "encoder", "rank_target": "targets"},
        "How many dimensions the features really use; a fall towards one is a collapse.",
        from_zero=True,
    ),
    Spec("Gradient norm", "gradient norm", {"grad_norm": "gradient norm"}),
    Spec("Throughput", "samples per second", {"samples_per_s": "samples per second"}, from_zero=True),
)


@dataclass(frozen=True)
class Chart:
    """One chart, drawn over steps and over time (None where no line has a time)."""

    title: str
    note: str
    by_step: Markup
    by_time: Markup | None


@dataclass(frozen=True)
class Curves:
    """All curves of a run, and how far it came."""

    step: int = 0
    seconds: float | None = None
    samples: int | None = None
    charts: list[Chart] = field(default_factory=list)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value from a JSON file can be drawn: a finite number of sane size, and no boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def read_curves(path: Path) -> Curves:
    """Every numeric key of a `metrics.jsonl`, in known charts or in one of its own. OSError if it can't be read."""
    rows = _rows(path)
    if not rows:
        return Curves()
    seconds = [row["elapsed_s"] for row in rows if is_number(row.get("elapsed_s"))]
    samples = [row["samples"] for row in rows if is_number(row.get("samples"))]
    last_step, last_second = max(row["step"] for row in rows), max(seconds, default=None)
    charts = [_chart(spec, rows, last_step, last_second) for spec in _specs_of(rows)]
    return Curves(int(last_step), last_second, int(samples[-1]) if samples else None, charts)


def _chart(spec: Spec, rows: list[dict[str, Any]], last_step: float, last_second: float | None) -> Chart:
    lines, left_out = _lines(rows, spec.series)
    note = spec.note
    if left_out:
        note = f"{note} Values left out because they are not finite or beyond 1e30: {left_out}.".strip()
    steps = {name: (step, value) for name, (step, _, value) in lines.items()}
    by_step = _draw(spec, steps, "step (updates)", last_step, whole=True)
    if last_second is None:
        return Chart(spec.title, note, by_step, None)
    size, unit = (3600, "h") if last_second > 3 * 3600 else (60, "min") if last_second > 3 * 60 else (1, "s")
    times = {name: (second / size, value) for name, (_, second, value) in lines.items()}
    by_time = _draw(spec, times, f"wall-clock time ({unit})", last_second / size, whole=False)
    return Chart(spec.title, note, by_step, by_time)


def _rows(path: Path) -> list[dict[str, Any]]:
    """Return the lines that have a step.

    A line that was cut short is left out. Steps that a resumed run wrote again replace the old ones.
    """
    rows: list[dict[str, Any]] = []
    for line in path.read_text("utf-8", errors="replace").split("\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and is_number(row.get("step")):
            while rows and rows[-1]["step"] > row["step"]:
                rows.pop()
            rows.append(row)
    return rows


def _specs_of(rows: list[dict[str, Any]]) -> Iterator[Spec]:
    """Yield the known charts that have at least one key here, then one chart for every other numeric key."""
    found = dict.fromkeys(
        key for row in rows for key, value in row.items() if is_number(value) or isinstance(value, float)
    )
    known = {"step", "elapsed_s", "samples"}.union(*(spec.series for spec in SPECS))
    for spec in SPECS:
        series = {key: name for key, name in spec.series.items() if key in found}
        if series:
            yield spec._replace(series=series)
    for key in found:
        if key not in known:
            yield Spec(key, key, {key: key})


def _lines(rows: list[dict[str, Any]], series: dict[str, str]) -> tuple[dict[str, tuple[Points, Points, Points]], int]:
    """Name -> (steps, seconds or NaN, values), and how many values can't be drawn."""
    lines, left_out = {}, 0
    for key, name in series.items():
        points = []
        for row in rows:
            value, second = row.get(key), row.get("elapsed_s")
            if is_number(value):
                points.append((row["step"], second if is_number(second) else np.nan, value))
            elif isinstance(value, int | float) and not isinstance(value, bool):
                left_out += 1
        steps, seconds, values = np.array(points, dtype=np.float64).reshape(-1, 3).T
        lines[name] = (steps, seconds, values)
    return lines, left_out


def _thin(x: Points, y: Points, bins: int = 400) -> tuple[Points, Points]:
    """Keep the lowest and the highest point of each of `bins` parts: a long run looks the same but stays small."""
    if len(y) <= 2 * bins:
        return x, y
    parts = np.array_split(np.arange(len(y)), bins)
    keep = sorted({int(part[pick(y[part])]) for part in parts for pick in (np.argmin, np.argmax)})
    return x[keep], y[keep]


def _draw(spec: Spec, lines: dict[str, tuple[Points, Points]], x_label: str, x_end: float, *, whole: bool) -> Markup:
    """One plot as an SVG element; `whole`: x counts things."""
    style: dict[Any, Any] = {
        "svg.fonttype": "none",  # text stays text, in the page's font
        "svg.hashsalt": spec.title + x_label,  # ids differ between the figures of a page
        "text.parse_math": False,
        "font.size": 9,
        "lines.linewidth": 1.4,
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), TEXT),
        **dict.fromkeys(("axes.edgecolor", "grid.color"), GRID),
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(style)
        figure = Figure(figsize=(4.6, 2.4), layout="constrained")
        axes = figure.subplots()
        for (name, (x, y)), colour in zip(lines.items(), COLOURS, strict=False):
            axes.plot(*_thin(x, y), color=colour, label=name, marker="o" if len(x) <= 30 else "", markersize=3)
        axes.set_xlim(0, (x_end or 1) * 1.02)
        axes.set_xlabel(x_label)
        axes.set_ylabel(spec.unit)
        axes.grid(linewidth=0.6)
        axes.tick_params(length=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=ROUND_STEPS, integer=whole))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND_STEPS))
        if spec.from_zero:
            axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter("{x:,.0f}" if whole else "{x:g}")
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol="") if spec.percent else "{x:.6g}")
        if len(lines) > 1:
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False, borderaxespad=0)
        buffer = io.StringIO()
        unsaid = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=unsaid)
    return _inline(buffer.getvalue())


def _inline(svg: str) -> Markup:
    """Make an SVG file an element of a page: no prologue, no ids that other figures have too, the page's colours."""
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg[svg.index("<svg") :])
    return Markup(svg.replace(TEXT, "currentColor").replace(GRID, "var(--line)"))


def read_masks(path: Path) -> list[tuple[str, str]]:
    """(caption, PNG as a data URI) of the picture and of its M masked versions, from a `masks.npz`.

    The file holds `image` (H,W,C or H,W uint8), `keep_ids` (M,K) and `patch_size`. Whatever doesn't fit together
    raises ValueError, KeyError or IndexError.
    """
    with np.load(path, allow_pickle=False) as arrays:
        image, keep_ids, size = arrays["image"], arrays["keep_ids"], int(arrays["patch_size"])
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    rows, columns = image.shape[0] // size, image.shape[1] // size
    pictures = [("the picture", _png(image))]
    for number, ids in enumerate(keep_ids, start=1):
        masked = np.ones(rows * columns, dtype=bool)
        masked[ids] = False
        hidden = image.copy()
        pixels = masked.reshape(rows, columns).repeat(size, axis=0).repeat(size, axis=1)
        hidden[: rows * size, : columns * size][pixels] = MASKED_GREY
        pictures.append((f"mask {number}: sees {len(ids)} of {rows * columns} patches", _png(hidden)))
    return pictures


def _png(image: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
