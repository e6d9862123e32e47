"""The texts of a report: masks on tokens, and nearest neighbours.

Shapes: `N` blocks, `T` tokens, `M` masks, `K` kept tokens, `Q` texts shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from data2vec2.reporting.pictures import class_name, draw_map

MASKS_SHOWN = 3
"""Masks shown of each block."""
TOKENS_SHOWN = 96
"""Tokens shown of each block, from its beginning."""


def read_text_masks(path: Path) -> dict[str, Any]:
    """Blocks of tokens with their masks, from the `masks.npz` of a text run (`TextKind.preview`).

    Under each mask a block is a list of (token, whether the student sees it). What doesn't fit together raises
    ValueError, KeyError or IndexError.
    """
    with np.load(path, allow_pickle=False) as arrays:
        tokens_NT, keep_ids_NMK = arrays["tokens"], arrays["keep_ids"]
    blocks = []
    for tokens_T, ids_MK in zip(tokens_NT, keep_ids_NMK, strict=True):
        masked = []
        for ids_K in ids_MK[:MASKS_SHOWN]:
            seen_T = np.zeros(len(tokens_T), dtype=bool)
            seen_T[ids_K] = True
            masked.append(list(zip(tokens_T.tolist(), seen_T.tolist(), strict=True))[:TOKENS_SHOWN])
        blocks.append(masked)
    (_, num_masks, kept), num_tokens = keep_ids_NMK.shape, tokens_NT.shape[1]
    shown = {"masks": num_masks, "kept": kept, "tokens": num_tokens, "shown": min(num_tokens, TOKENS_SHOWN)}
    return {"kind": "text", "blocks": blocks, **shown}


def read_text_gallery(path: Path) -> dict[str, Any]:
    """Texts with their neighbours, and the map of samples (`evaluation/gallery_text.py`).

    What doesn't fit together raises ValueError, KeyError or IndexError.
    """
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    classes = [str(name) for name in arrays["classes"]]
    shown = []
    for place, text in enumerate(arrays["texts"]):
        own = int(arrays["labels"][place])
        near = zip(*(arrays[f"neighbour_{key}"][place] for key in ("texts", "labels", "cosines")), strict=True)
        neighbours = [
            {
                "text": str(other),
                "label": class_name(int(label), classes),
                "same": int(label) == own,
                "cosine": float(cosine),
            }
            for other, label, cosine in near
        ]
        shown.append({"text": str(text), "label": class_name(own, classes), "neighbours": neighbours})
    labels = arrays["map_labels"]
    svg, legend = draw_map(arrays["map"], labels, classes)
    drawn = {"map": svg, "legend": legend, "method": str(arrays["map_method"]), "count": len(labels)}
    return {"kind": "text", "texts": shown, **drawn}
