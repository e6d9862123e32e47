"""What features know of texts: nearest neighbours and a map.

Shapes: `Q` texts shown, `K` neighbours of each, `S` samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data2vec2.evaluation.probes import Part
from data2vec2.evaluation.similarity import FILE, map_of, nearest, shown_samples, write_arrays

TEXTS = 8
NEIGHBOURS = 4
CHARACTERS = 240
"""So much of a text is shown."""


def write_text_gallery(run_path: Path, known: Part, texts: Sequence[str], classes: tuple[str, ...]) -> None:
    """Write `run_path`/gallery.npz, whole or not at all; with fewer than two texts there is none.

    `known` are features and labels of the `texts`. The file holds `texts` and `labels` Q, `neighbour_texts`,
    `neighbour_labels`, `neighbour_cosines` QK, and the map as for pictures. Labels are indices into `classes`, or -1.
    """
    if len(texts) < 2:
        (run_path / FILE).unlink(missing_ok=True)
        return
    shown_Q = shown_samples(known.y, TEXTS)
    near_QK, cosines_QK = nearest(known.x, shown_Q, NEIGHBOURS)
    arrays = {
        "texts": _beginnings(texts, shown_Q),
        "labels": known.y[shown_Q],
        "neighbour_texts": _beginnings(texts, near_QK),
        "neighbour_labels": known.y[near_QK],
        "neighbour_cosines": cosines_QK,
        **map_of(known.x, known.y, classes),
    }
    write_arrays(run_path, arrays)


def _beginnings(texts: Sequence[str], places: NDArray[np.int64]) -> NDArray[np.str_]:
    """The beginnings of the texts at `places`, in their arrangement; what is cut off is an ellipsis."""
    cut = [
        text if len(text) <= CHARACTERS else text[: CHARACTERS - 1] + "…"
        for text in (texts[place] for place in places.ravel().tolist())
    ]
    return np.array(cut, dtype=np.str_).reshape(places.shape)
