"""What a page shows: plots as SVG elements, pictures, sounds, the map of samples, and the worst mistakes.

Figures are made without pyplot and under matplotlib's own defaults, so they neither see nor change the caller's
settings. Text and grid take their colours from the page, so they are legible on light and on dark ground.

Shapes: `S` samples, `H` and `W` pixels, `C` channels.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, TypeGuard

import matplotlib
import numpy as np
import soundfile
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray
from PIL import Image

from data2vec2.files import read_arrays
from data2vec2.modalities.show import class_name

Points = NDArray[np.float64]
TEXT, GRID = "#010203", "#040506"  # stand-ins, replaced by colours of the page
COLOURS = ("#2b83c6", "#dd6a1f", "#0d9c75", "#b565a7", "#a68300", "#7d868f")
"""Mid-tones, at least 3:1 against both grounds; after Okabe and Ito, for colour-blind people."""
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
"""Lines differ in these too, not in colour alone."""
ROUND_STEPS = (1, 2, 2.5, 5, 10)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value from a JSON file can be drawn: a finite number of sane size, and no boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def said(value: Any, share: bool) -> str:
    """A value as people read it: 84.4 %, 0.1234, or n/a."""
    if not is_number(value):
        return "n/a"
    return f"{100 * value:.1f} %" if share else f"{value:.4g}"


@dataclass(frozen=True)
class Line:
    """A line of a plot."""

    name: str
    x: Points
    y: Points
    low: Points | None = None
    """Lower end of an interval around `y`; `high` is the upper one."""
    high: Points | None = None


@dataclass(frozen=True)
class Plot:
    """What a plot says beside its lines."""

    title: str
    y_label: str
    x_label: str = "step (updates)"
    whole: bool = True
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
        "font.size": 10,
        "lines.linewidth": 1.4,
        "lines.scale_dashes": True,
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), TEXT),
        **dict.fromkeys(("axes.edgecolor", "grid.color"), GRID),
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(style)
        named = len(lines) > 1 or not all(line.name in plot.y_label for line in lines)
        # Cut, because long names of runs would push the plot aside; three beside each other where they are short.
        names = [line.name if len(line.name) <= 21 else line.name[:20] + "…" for line in lines]
        columns = 3 if max(map(len, names), default=0) <= 12 else 2
        legend_rows = -(-len(lines) // columns) if named else 0
        height = 2.45 + 0.2 * max(0, legend_rows - 1)
        above, below = 0.12 + 0.2 * legend_rows, 0.46  # inches; set, because finding them draws everything twice
        figure = Figure(figsize=(4.6, height))
        axes = figure.add_axes((0.16, below / height, 0.81, 1 - (above + below) / height))
        few = max((len(line.x) for line in lines), default=0) <= 30
        for line, colour, dashes in zip(lines, cycle(COLOURS), cycle(DASHES), strict=False):
            marker = "o" if few or len(line.x) == 1 else ""
            axes.plot(*_thin(line.x, line.y), color=colour, linestyle=dashes, marker=marker, markersize=3)
            if line.low is not None and line.high is not None:
                axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.18, linewidth=0)
        for height in plot.limits:
            axes.axhline(height, color=TEXT, linestyle=(0, (1, 2)), linewidth=1)
        _set_axes(axes, plot, max((x for line in lines for x in line.x.tolist() if x > 0), default=1))
        if legend_rows:
            handles = axes.lines[: len(lines)]
            place: dict[str, Any] = {"loc": "upper right", "borderpad": 0, "borderaxespad": 0.2}
            figure.legend(handles, names, ncols=columns, frameon=False, **place)
        buffer = io.StringIO()
        unsaid = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=unsaid)
    # An element of a page: no prologue, no ids that other figures have too, no style, which would hold for all of it.
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", buffer.getvalue()[buffer.getvalue().index("<svg") :])
    svg = re.sub(r"<style.*?</style>", "", svg, count=1, flags=re.DOTALL)
    return Markup(svg.replace(TEXT, "currentColor").replace(GRID, "var(--line)"))


def in_words(lines: Sequence[Line], percent: bool = False) -> str:
    """What a plot shows, for those who can't see it: first and last value of each line."""
    ends = [(line.name, *(said(float(line.y[end]), percent) for end in (0, -1))) for line in lines if len(line.y)]
    return "; ".join(f"{name} from {first} to {last}" for name, first, last in ends)


def _set_axes(axes: Axes, plot: Plot, x_end: float) -> None:
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)
    axes.yaxis.set_label_coords(-0.155, 0.5)
    axes.grid(linewidth=0.6)
    axes.tick_params(length=0)
    axes.spines[["top", "right"]].set_visible(False)
    if plot.x_ticks is not None:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(list(plot.x_ticks)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(0, x_end * 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=ROUND_STEPS, integer=plot.whole))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND_STEPS))
    if plot.from_zero:
        axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter("{x:,.0f}" if plot.whole else "{x:g}")
    axes.yaxis.set_major_formatter(lambda y, _: _plain(100 * y if plot.percent else y))


def _plain(value: float) -> str:
    """Six digits, without an exponent where few zeros do."""
    return np.format_float_positional(value, 6, fractional=False, trim="-") if abs(value) > 1e-6 else f"{value:.6g}"


def _thin(x: Points, y: Points, bins: int = 400) -> tuple[Points, Points]:
    """Keep the lowest and the highest point of each of `bins` parts: a long run looks the same but stays small."""
    if len(y) <= 2 * bins:
        return x, y
    parts = np.array_split(np.arange(len(y)), bins)
    keep = sorted({int(part[pick(y[part])]) for part in parts for pick in (np.argmin, np.argmax)})
    return x[keep], y[keep]


Pixels = NDArray[np.uint8]
MISTAKES_SHOWN = 24
MAP_SIDE = 600
"""Side of the map of samples, in its own units."""
MAP_COLOURS = {
    "round": ("#0088ff", "#00aa66", "#ff1144", "#7700ff", "#ff00aa"),
    "square": ("#ee7700", "#0099bb", "#666622", "#994466", "#8833bb"),
}
"""By the shape of dots (SVG's names of line caps): far apart for people with red-green blindness too. Other classes are
grey."""
CLOSE = 40
"""Dots so near to each other, in units of the map, are of one cluster."""
SMALL = 64
"""Up to this side a picture is a PNG, pixel for pixel; larger ones are WebP, which is some 20 times smaller."""
LOUDEST = 0.9
"""The highest peak of a clip, of 1."""
MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


def read_mistakes(path: Path, classes: list[str]) -> list[dict[str, Any]]:
    """The worst mistakes of a classifier, worst first, from a `mistakes.npz`.

    The file holds `truth` and `predicted` (classes, or numbers), of classes `probability`, `names`, and of pictures
    `pictures` (NHWC uint8), of text `texts`.
    """
    arrays = read_arrays(path)
    nothing = [None] * len(arrays["names"])  # recordings have no picture, numbers no probability
    columns = [arrays[key] for key in ("truth", "predicted", "names")]
    columns += [arrays.get(key, nothing) for key in ("pictures", "texts", "probability")]
    rows = zip(*(column[:MISTAKES_SHOWN] for column in columns), strict=True)
    return [
        {
            "picture": None if picture is None else data_uri(picture),
            "truth": class_name(truth, classes),
            "predicted": class_name(predicted, classes),
            "probability": "" if probability is None else f"{100 * float(probability):.0f} %",
            "name": str(name),
            "words": None if text is None else str(text),
        }
        for truth, predicted, name, picture, text, probability in rows
    ]


def data_uri(picture: Pixels, seen: NDArray[np.bool_] | None = None, *, hidden: int = 0, exact: bool = False) -> str:
    """A picture `HW` or `HWC` as the source of an `img` element; see-through where `seen` is false.

    `seen` may be smaller than the picture, whose right and lower border then stays; `hidden` is how much is left of
    the rest, of 255. `exact`: pixel for pixel, however large.
    """
    if picture.dtype != np.uint8:
        raise ValueError(f"a picture of {picture.dtype}")
    if picture.ndim == 3 and picture.shape[2] != 3:
        picture = picture[:, :, 0]  # what can't be shown in colour is shown by its first channel
    image = Image.fromarray(picture)
    if seen is not None:
        alpha = np.full(picture.shape[:2], 255, dtype=np.uint8)
        alpha[: seen.shape[0], : seen.shape[1]] = np.where(seen, 255, hidden)
        image.putalpha(Image.fromarray(alpha))
    buffer = io.BytesIO()
    kind = "png" if exact or max(image.size) <= SMALL else "webp"
    image.save(buffer, format=kind, **({"optimize": True} if kind == "png" else {"quality": 80}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def clip(wave_S: NDArray[np.floating[Any]], sample_rate: int) -> str:
    """A waveform as the source of an `audio` element: MP3, which all browsers play, or WAV at rates that it lacks."""
    wave = wave_S.astype(np.float32)
    if wave.ndim != 1 or not len(wave) or not np.isfinite(wave).all():
        raise ValueError(f"a clip of shape {wave.shape}, or not finite")
    wave *= LOUDEST / max(float(np.abs(wave).max()), 1e-9)
    buffer = io.BytesIO()
    kind, level = ("mpeg", 0.9) if sample_rate in MP3_RATES else ("wav", None)  # of compression: some 4 kB a second
    soundfile.write(buffer, wave, sample_rate, format="MP3" if level else "WAV", compression_level=level)
    return f"data:audio/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def draw_map(points_S2: NDArray[np.float32], labels_S: NDArray[np.int64], classes: list[str]) -> tuple[Markup, Any]:
    """Samples as dots: an SVG element with one path a class, and the legend [(class, colour, shape, samples)].

    A dot is a stroke of no length, with the cap that makes its shape. A class's name stands where most of it is, so
    that nobody needs to know a colour.
    """
    if points_S2.shape != (len(labels_S), 2) or not np.isfinite(points_S2).all():
        raise ValueError(f"a map of {points_S2.shape} for {len(labels_S)} labels, or not finite")
    low, high = points_S2.min(axis=0), points_S2.max(axis=0)
    points = 20 + (points_S2 - low) / np.maximum(high - low, 1e-9) * (MAP_SIDE - 40)
    values, counts = np.unique(labels_S, return_counts=True)
    ordered = sorted(zip(counts.tolist(), values.tolist(), strict=True), key=lambda pair: (pair[1] < 0, -pair[0]))
    styles = [(colour, shape) for shape, colours in MAP_COLOURS.items() for colour in colours]
    dots, names, legend, taken = [], [], [], list[tuple[float, float, float]]()
    for number, (count, label) in enumerate(ordered):
        own = label >= 0 and number < len(styles)
        colour, shape = styles[number] if own else (COLOURS[5], "round")
        place = points[labels_S == label]
        path = "".join(f"M{x:.0f} {y:.0f}h0" for x, y in place)
        dots.append(f'<path d="{path}" stroke="{colour}" stroke-linecap="{shape}"/>')
        if own:
            name = class_name(label, classes)
            x, y, half = _label_place(place, len(name), taken)
            taken.append((x, y, half))
            names.append(f'<text x="{x:.0f}" y="{y:.0f}">{escape(name)}</text>')
            legend.append((name, colour, shape, count))
    if rest := sum(count for count, label in ordered) - sum(count for *_, count in legend):
        legend.append(("others" if legend else "no label", COLOURS[5], "round", rest))
    body = "".join(dots[::-1]) + "".join(names)  # the grey ones below
    return Markup(f'<svg viewBox="0 0 {MAP_SIDE} {MAP_SIDE}" class="map">{body}</svg>'), legend  # escaped above


def _label_place(
    place_S2: NDArray[Any], letters: int, taken: Sequence[tuple[float, float, float]]
) -> tuple[float, float, float]:
    """Middle of the largest cluster, moved to where the text fits and covers no other; and half of the text's width."""
    close_SS = np.linalg.norm(place_S2[:, None] - place_S2, axis=2) < CLOSE
    x, y = place_S2[close_SS[close_SS.sum(axis=1).argmax()]].mean(axis=0).tolist()
    half = min(4.6 * letters + 4, MAP_SIDE / 2)
    x = min(max(x, half), MAP_SIDE - half)
    lines = sorted(np.arange(12, MAP_SIDE - 10, 4.0).tolist(), key=lambda line: abs(line - y))
    free = (line for line in lines if all(abs(line - b) >= 18 or abs(x - a) >= half + c for a, b, c in taken))
    return x, next(free, y), half
