"""What templates draw with: pictures, sounds and the map of samples; and the worst mistakes.

Shapes: `S` samples, `H` and `W` pixels, `C` channels.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import Image

from data2vec2.modalities.show import class_name
from data2vec2.reporting.charts import COLOURS

Pixels = NDArray[np.uint8]
MISTAKES_SHOWN = 24
MAP_SIDE = 600
"""Side of the map of samples, in its own units."""
SHAPES = ("round", "square", "butt")
"""Of the dots on the map: circles, squares, dashes; by SVG's names of line caps."""
NAMED = 5 * len(SHAPES)
"""Classes with a colour and a shape of their own on the map: the most frequent ones."""
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
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    keys, optional = ("truth", "predicted", "names"), ("pictures", "texts", "probability")
    nothing = [None] * len(arrays["names"])  # recordings have no picture, numbers no probability
    columns = [*(arrays[key] for key in keys), *(arrays.get(key, nothing) for key in optional)]
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
    if picture.ndim == 3 and picture.shape[2] not in (1, 3):
        picture = picture[:, :, :1]  # what can't be shown in colour is shown by its first channel
    if picture.ndim == 3 and picture.shape[2] == 1:
        picture = picture[:, :, 0]
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
    if sample_rate in MP3_RATES:
        kind, level = "mpeg", 0.9  # of compression: some 4 kB a second
        soundfile.write(buffer, wave, sample_rate, format="MP3", subtype="MPEG_LAYER_III", compression_level=level)
    else:
        kind = "wav"
        soundfile.write(buffer, wave, sample_rate, format="WAV", subtype="PCM_16")
    return f"data:audio/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def draw_map(points_S2: NDArray[np.float32], labels_S: NDArray[np.int64], classes: list[str]) -> tuple[Markup, Any]:
    """Samples as dots: an SVG element with one path a class, and the legend [(class, colour, shape, samples)].

    A dot is a stroke of no length (a dash: of some), with the cap that makes its shape. The classes' names stand at
    their middles, so that nobody needs to know a colour.
    """
    if points_S2.shape != (len(labels_S), 2) or not np.isfinite(points_S2).all():
        raise ValueError(f"a map of {points_S2.shape} for {len(labels_S)} labels, or not finite")
    low, high = points_S2.min(axis=0), points_S2.max(axis=0)
    points = 20 + (points_S2 - low) / np.maximum(high - low, 1e-9) * (MAP_SIDE - 40)
    values, counts = np.unique(labels_S, return_counts=True)
    ordered = sorted(zip(counts.tolist(), values.tolist(), strict=True), key=lambda pair: (pair[1] < 0, -pair[0]))
    dots, names, legend = [], [], []
    for number, (count, label) in enumerate(ordered):
        own = label >= 0 and number < NAMED
        colour, shape = (COLOURS[number % 5], SHAPES[number // 5]) if own else (COLOURS[5], SHAPES[0])
        place = points[labels_S == label]
        line = "m-4 0h8" if shape == "butt" else "h0"
        path = "".join(f"M{x:.0f} {y:.0f}{line}" for x, y in place)
        dots.append(f'<path d="{path}" stroke="{colour}" stroke-linecap="{shape}"/>')
        if own:
            x, y = np.median(place, axis=0)
            names.append(f'<text x="{x:.0f}" y="{y:.0f}">{escape(class_name(label, classes))}</text>')
            legend.append((class_name(label, classes), colour, shape, count))
    if rest := sum(count for count, label in ordered) - sum(count for *_, count in legend):
        legend.append(("others" if legend else "no label", COLOURS[5], SHAPES[0], rest))
    body = "".join(dots) + "".join(names)
    return Markup(f'<svg viewBox="0 0 {MAP_SIDE} {MAP_SIDE}" class="map">{body}</svg>'), legend  # escaped above
