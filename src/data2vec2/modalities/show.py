"""What a report shows of a modality: samples with their masks, and what features know of samples.

`Tools.preview` and `Tools.write_gallery` write arrays; a `Show` makes of them what the modality's template draws. The
base serves any modality. Shapes: `N` samples, `M` masks, `K` kept tokens, `T` tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
"""Content of an `.npz` file."""
INK = (43, 131, 198)
"""Colour of a token whose input can't be shown."""


class Show:
    """Content of a run's masks.npz and gallery.npz as plain data.

    What is missing or doesn't fit together raises KeyError, ValueError or IndexError, here or when it is drawn. A
    template defines two Jinja macros, `masks(content, words)` and `gallery(content, words)`, of what the methods return
    and the modality's `Words`. It may import `macros.html.j2` (`section`, `map_of_samples`), and use the filters
    `picture` (of pixels), `sound` (of a waveform), `sentence` and `count`.
    """

    template: ClassVar[tuple[str, str]] = ("data2vec2.modalities", "sequence.html.j2")
    """A package, and a file in its folder `templates`."""
    masks_shown: ClassVar[int] = 3
    """Masks shown of each sample, at most."""
    sample: ClassVar[Mapping[str, str]] = {"name": "names"}
    """What is shown of a sample, and the array in gallery.npz that holds it, by sample."""
    neighbour: ClassVar[Mapping[str, str]] = {"name": "neighbour_names"}
    """The same of a neighbour, by sample and neighbour."""

    def masks(self, arrays: Arrays) -> dict[str, Any]:
        """Samples, each with a strip of its tokens and, by mask, which of them the student sees."""
        seen_NMT, counts = self.seen(arrays["keep_ids"], int(arrays["num_tokens"]))
        ink = np.full((1, counts["tokens"], 3), INK, dtype=np.uint8)
        strips = [strip_of(values_TC) for values_TC in arrays.get("values", ())] or [ink] * len(seen_NMT)
        seen_NMCT = np.broadcast_to(seen_NMT[:, :, None], (*seen_NMT.shape[:2], len(strips[0]), counts["tokens"]))
        samples = zip(arrays["names"].tolist(), strips, seen_NMCT, strict=True)
        return {"samples": [{"name": n, "strip": strip, "seen": seen} for n, strip, seen in samples], **counts}

    def seen(self, keep_ids_NMK: NDArray[np.int64], num_tokens: int) -> tuple[NDArray[np.bool_], dict[str, int]]:
        """True at the tokens that the student sees under the masks shown, `NMT`; numbers of masks and tokens."""
        N, M, K = keep_ids_NMK.shape
        shown_NMK = keep_ids_NMK[:, : self.masks_shown]
        seen_NMT = np.zeros((N, shown_NMK.shape[1], num_tokens), dtype=np.bool_)
        np.put_along_axis(seen_NMT, shown_NMK, True, axis=2)
        return seen_NMT, {"masks": M, "kept": K, "tokens": num_tokens}

    def gallery(self, arrays: Arrays) -> dict[str, Any]:
        """Samples with their neighbours, and places of more samples on a map."""
        classes = arrays["classes"].tolist()
        samples = _rows({"label": arrays["labels"], **{key: arrays[name] for key, name in self.sample.items()}})
        for place, sample in enumerate(samples):
            columns = {"label": "neighbour_labels", "cosine": "neighbour_cosines", **self.neighbour}
            sample["neighbours"] = _rows({key: arrays[name][place] for key, name in columns.items()})
            for near in sample["neighbours"]:
                near |= {"label": class_name(near["label"], classes), "same": bool(near["label"] == sample["label"])}
            sample["label"] = class_name(sample["label"], classes)
        return {
            "samples": samples,
            "classes": classes,
            "labelled": bool((arrays["map_labels"] >= 0).any()),
            "map": arrays["map"],
            "map_labels": arrays["map_labels"],
            "method": str(arrays["map_method"]),
        }


def strip_of(values_TC: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Values as a picture: a column a token, a row a channel, each from its smallest value (dark) to its largest."""
    low_C, high_C = values_TC.min(axis=0), values_TC.max(axis=0)
    shares_TC = (values_TC - low_C) / np.maximum(high_C - low_C, 1e-9)
    pixels: NDArray[np.uint8] = np.rint(colormaps["magma"](shares_TC.T)[..., :3] * 255).astype(np.uint8)
    return pixels


def class_name(label: Any, classes: list[str]) -> str:
    """The name of a class, from its index or as it is; "" for none. A number with four digits."""
    if isinstance(label, int | np.integer):
        return classes[label] if 0 <= label < len(classes) else ""
    return f"{label:.4g}" if isinstance(label, float | np.floating) else str(label)


def _rows(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
