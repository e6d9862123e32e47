"""One plot as an SVG element of a page.

Figures are made without pyplot and under matplotlib's own defaults, so they neither see nor change the caller's
settings. Text and grid take their colours from the page, so they are legible on light and on dark ground.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

Points = NDArray[np.float64]

TEXT, GRID = "#010203", "#040506"  # stand-ins, replaced by colours of the page
COLOURS = ("#2b83c6", "#dd6a1f", "#0d9c75", "#b565a7", "#a68300", "#7d868f")
"""Mid-tones, at least 3:1 against both grounds; after Okabe and Ito, for colour-blind people."""
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
"""Lines differ in these too, not in colour alone."""
ROUND_STEPS = (1, 2, 2.5, 5, 10)
LEGEND_COLUMNS = 3


@dataclass(frozen=True)
class Line:
    """A line of a plot."""

    name: str
    x: Points
    y: Points
    low: Points | None = None
    """Lower end of an interval around `y`; `high` is the upper one."""
    high: Points | None = None


@dataclass(frozen=True, kw_only=True)
class Plot:
    """What a plot says beside its lines."""

    title: str
    y_label: str
    x_label: str
    x_end: float | None = None
    """Last x shown; none: as the lines need."""
    whole: bool = False
    """x counts things."""
    x_ticks: Sequence[float] | None = None
    """Places with a number on a logarithmic x axis; none: a linear one from zero."""
    percent: bool = False
    """Values are shares from 0 to 1."""
    from_zero: bool = False
    """The y axis begins at 0, because it matters how far from 0 the values are."""
    limits: Sequence[float] = ()
    """Heights of dotted horizontal lines."""


def draw(plot: Plot, lines: Sequence[Line]) -> Markup:
    """One plot as an SVG element."""
    style: dict[Any, Any] = {
        "svg.fonttype": "none",  # text stays text, in the page's font
        "svg.hashsalt": plot.title + plot.x_label,  # ids differ between the figures of a page
        "text.parse_math": False,
        "font.size": 9,
        "lines.linewidth": 1.4,
        "lines.scale_dashes": True,
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), TEXT),
        **dict.fromkeys(("axes.edgecolor", "grid.color"), GRID),
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(style)
        legend_rows = -(-len(lines) // LEGEND_COLUMNS) if len(lines) > 1 else 0
        figure = Figure(figsize=(4.6, 2.35 + 0.19 * max(0, legend_rows - 1)), layout="constrained")
        axes = figure.subplots()
        few = max((len(line.x) for line in lines), default=0) <= 30
        for number, line in enumerate(lines):
            _draw_line(axes, number, line, few or len(line.x) == 1)
        for height in plot.limits:
            axes.axhline(height, color=TEXT, linestyle=(0, (1, 2)), linewidth=1)
        _set_axes(axes, plot)
        if legend_rows:
            # cut, because long names of runs would push the plot aside
            names = [line.name if len(line.name) <= 24 else line.name[:23] + "…" for line in lines]
            handles = axes.lines[: len(lines)]
            figure.legend(handles, names, loc="outside upper right", ncols=LEGEND_COLUMNS, frameon=False)
        buffer = io.StringIO()
        unsaid = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=unsaid)
    return _inline(buffer.getvalue())


def in_words(lines: Sequence[Line], percent: bool = False) -> str:
    """What a plot shows, for those who can't see it: first and last value of each line."""

    def number(value: float) -> str:
        return f"{100 * value:.1f} %" if percent else f"{value:.4g}"

    said = [f"{line.name} from {number(line.y[0])} to {number(line.y[-1])}" for line in lines if len(line.y)]
    return "; ".join(said)


def _draw_line(axes: Axes, number: int, line: Line, dotted: bool) -> None:
    colour = COLOURS[number % len(COLOURS)]
    dashes = DASHES[number % len(DASHES)]
    axes.plot(*_thin(line.x, line.y), color=colour, linestyle=dashes, marker="o" if dotted else "", markersize=3)
    if line.low is not None and line.high is not None:
        axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.18, linewidth=0)


def _set_axes(axes: Axes, plot: Plot) -> None:
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)
    axes.grid(linewidth=0.6)
    axes.tick_params(length=0)
    axes.spines[["top", "right"]].set_visible(False)
    if plot.x_ticks is not None:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(list(plot.x_ticks)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(0, (plot.x_end or 1) * 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=ROUND_STEPS, integer=plot.whole))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND_STEPS))
    if plot.from_zero:
        axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter("{x:,.0f}" if plot.whole else "{x:g}")
    axes.yaxis.set_major_formatter((lambda share, _: f"{100 * share:.6g}") if plot.percent else "{x:.6g}")


def _thin(x: Points, y: Points, bins: int = 400) -> tuple[Points, Points]:
    """Keep the lowest and the highest point of each of `bins` parts: a long run looks the same but stays small."""
    if len(y) <= 2 * bins:
        return x, y
    parts = np.array_split(np.arange(len(y)), bins)
    keep = sorted({int(part[pick(y[part])]) for part in parts for pick in (np.argmin, np.argmax)})
    return x[keep], y[keep]


def _inline(svg: str) -> Markup:
    """Make an SVG file an element of a page: no prologue, no ids that other figures have too, the page's colours."""
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg[svg.index("<svg") :])
    svg = re.sub(r"<style.*?</style>", "", svg, count=1, flags=re.DOTALL)  # it would hold for the whole page
    return Markup(svg.replace(TEXT, "currentColor").replace(GRID, "var(--line)"))
