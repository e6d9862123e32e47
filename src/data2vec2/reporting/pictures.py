"""The pictures of a report: masks, PCA colours, nearest neighbours, mistakes, and the map of samples.

Shapes: `N` pictures, `H` and `W` pixels, `C` channels, `M` masks, `K` kept patches.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import Image

from data2vec2.reporting.charts import COLOURS

Pixels = NDArray[np.uint8]

MASKS_SHOWN = 8
"""Masks shown of each picture."""
MISTAKES_SHOWN = 24
MAP_SIDE = 600
"""Side of the map of samples, in its own units."""
SHAPES = ("round", "square", "butt")
"""Of the dots on the map: circles, squares, dashes; by SVG's names of line caps."""
NAMED = 5 * len(SHAPES)
"""Classes with a colour and a shape of their own on the map: the most frequent ones."""
SMALL = 64
"""Up to this side a picture is a PNG, pixel for pixel; larger ones are WebP, which is some 20 times smaller."""


def read_masks(path: Path) -> dict[str, Any]:
    """Pictures with their masked versions, from a `masks.npz`: for each a list of data URIs, the whole one first.

    The file holds `images` (NHWC uint8), `keep_ids` (NMK) and `patch_size`; or of one picture `image` (HWC or HW) and
    `keep_ids` (MK). Whatever doesn't fit together raises ValueError, KeyError or IndexError.
    """
    with np.load(path, allow_pickle=False) as arrays:
        keep_ids_NMK, size = arrays["keep_ids"], int(arrays["patch_size"])
        if "images" in arrays:
            images_NHWC = arrays["images"]
        else:
            images_NHWC, keep_ids_NMK = arrays["image"][None], keep_ids_NMK[None]
    rows, columns = images_NHWC.shape[1] // size, images_NHWC.shape[2] // size
    strips = []
    for image, keep_ids_MK in zip(images_NHWC, keep_ids_NMK, strict=True):
        strip = [data_uri(image)]
        for ids in keep_ids_MK[:MASKS_SHOWN]:
            seen = np.zeros(rows * columns, dtype=bool)
            seen[ids] = True
            strip.append(data_uri(image, seen.reshape(rows, columns).repeat(size, axis=0).repeat(size, axis=1)))
        strips.append(strip)
    _, num_masks, kept = keep_ids_NMK.shape
    return {"kind": "image", "strips": strips, "masks": num_masks, "kept": kept, "patches": rows * columns}


def read_gallery(path: Path) -> dict[str, Any]:
    """Pictures with PCA colours and nearest neighbours, and the map of samples (`evaluation/gallery.py`)."""
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    classes = [str(name) for name in arrays["classes"]]
    shown = []
    for place, picture in enumerate(arrays["pictures"]):
        label = int(arrays["labels"][place])
        near = zip(
            arrays["neighbours"][place],
            arrays["neighbour_labels"][place].tolist(),
            arrays["neighbour_cosines"][place].tolist(),
            strict=True,
        )
        shown.append(
            {
                "picture": data_uri(picture),
                "colours": data_uri(arrays["colours"][place]),
                "label": class_name(label, classes),
                "neighbours": [
                    {
                        "picture": data_uri(other),
                        "label": class_name(its, classes),
                        "same": its == label,
                        "cosine": cosine,
                    }
                    for other, its, cosine in near
                ],
            }
        )
    labels = arrays["map_labels"]
    svg, legend = draw_map(arrays["map"], labels, classes)
    drawn = {"map": svg, "legend": legend, "method": str(arrays["map_method"]), "count": len(labels)}
    return {"kind": "image", "pictures": shown, **drawn}


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
            "text": None if text is None else str(text),
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


def class_name(label: Any, classes: list[str]) -> str:
    """The name of a class, from its index or as it is; "" for none. A number with four digits."""
    if isinstance(label, int | np.integer):
        return classes[label] if 0 <= label < len(classes) else ""
    return f"{label:.4g}" if isinstance(label, float | np.floating) else str(label)


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
