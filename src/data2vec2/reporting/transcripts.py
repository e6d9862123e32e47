"""Transcripts of a run that writes down speech, with their errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data2vec2.evaluation.error_rate import align_texts
from data2vec2.reporting.curves import is_number

SHOWN = 30
"""Transcripts on the page, at most: the first ones of the file."""


def read_transcripts(path: Path) -> dict[str, Any]:
    """The last transcripts of a `transcripts.jsonl`: for each its name and the edits of its words.

    Its lines are objects of `name`, `reference`, `hypothesis` and `update`; others, and lines that were cut short, are
    left out. ValueError if none is left.
    """
    rows = [row for row in map(_row, path.read_text("utf-8", errors="replace").split("\n")) if row]
    if not rows:
        raise ValueError("it holds no transcripts")
    update = rows[-1]["update"]
    last = {row["name"]: row for row in rows if row["update"] == update}
    texts = []
    for row in list(last.values())[:SHOWN]:
        edits = align_texts(row["reference"], row["hypothesis"], "word")
        wrong = sum(edit.op != "equal" for edit in edits)
        texts.append({"name": row["name"], "edits": edits, "wrong": wrong, "words": len(row["reference"].split())})
    return {"update": int(update), "count": len(last), "texts": texts}


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or not is_number(row.get("update")):
        return None
    return row if all(isinstance(row.get(key), str) for key in ("name", "reference", "hypothesis")) else None
