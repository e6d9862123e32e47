"""A run's `scores.json` as what the page's template shows: of frozen features, or of a fine-tuned model.

Shapes: `T` true classes, `P` predicted classes.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data2vec2.evaluation import verdict
from data2vec2.evaluation.dense import MEASURES
from data2vec2.evaluation.recognition import align_texts
from data2vec2.files import parse_json, parse_yaml
from data2vec2.reporting.charts import Line, Plot, Points, draw, in_words, is_number, said

PROBES = {key: f"{name} accuracy" for key, name in verdict.PROBES.items()}
CLASSIFIER = {
    "accuracy": "accuracy",
    "map": "mean average precision",
    "f1": "F1",
    "matthews": "Matthews' correlation",
}
NUMBERS = {"pearson": "Pearson's correlation", "spearman": "Spearman's correlation"}
RECOGNIZER = {"cer": "character error rate", "wer": "word error rate"}
"""The lower the better."""
DENSE = ("tokens", "frames", "patches", "answers")
"""Kinds of scores of classes of words, frames and pixels, and of answers."""
TUNED = {"classify": CLASSIFIER, "regress": NUMBERS, "ctc": RECOGNIZER, **dict.fromkeys(DENSE, MEASURES)}
"""Main scores of fine-tuned models, by the kind that the file names: key in the file, and what it is called."""
TEMPLATES = {"classify": "classifier", "regress": "numbers", "ctc": "recognizer", **dict.fromkeys(DENSE, "classifier")}
"""That show scores of a kind; all others are of probes."""
SHARES = (
    PROBES
    | {key: CLASSIFIER[key] for key in ("accuracy", "map")}
    | {key: MEASURES[key] for key in ("miou", "entity_f1", "word_f1", "exact_match")}
)
"""Those that are said in percent."""
EDITS = {"substitutions": "substituted", "insertions": "inserted", "deletions": "left out", "length": "of"}
EACH_CLASS = {
    **{"ap": "average precision", "precision": "precision", "recall": "recall", "f1": "F1"},
    "iou": "intersection over union",
}
Measure = tuple[float, Any]
"""A score, and its 95 % interval as it stands in the file, or None."""
MATRIX = 30
"""Up to so many classes the whole confusion matrix is shown, else only its worst pairs."""
CONFUSED = 10
"""Pairs of classes that are named as confused most often."""
MAX_TRANSCRIPTS = 30
"""Transcripts on the page, at most: the first ones of the file."""


def read_mapping(path: Path) -> dict[str, Any]:
    """A JSON or YAML file that holds named values; ValueError for anything else."""
    text = path.read_text("utf-8")
    value = parse_yaml(text) if path.suffix == ".yaml" else parse_json(text)
    if not isinstance(value, dict):
        raise ValueError(f"expected named values, found {type(value).__name__}")
    return value


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file, one a line; other lines, and those that were cut short, are left out."""
    found = []
    for line in path.read_text("utf-8", errors="replace").split("\n"):
        with suppress(ValueError):
            found.append(parse_json(line))
    return [value for value in found if isinstance(value, dict)]


def read_scores(path: Path) -> dict[str, Any]:
    """Scores of frozen features (a table, and low-label curves if there are any), or of a fine-tuned model.

    What doesn't fit together raises ValueError, KeyError, TypeError or AttributeError.
    """
    return _shown(read_mapping(path))


def read_others(path: Path) -> list[dict[str, Any]]:
    """Scores on other data than the run's own, as `read_scores` gives them."""
    return [_shown(scores) for scores in _listed(path)]


def _listed(path: Path) -> list[dict[str, Any]]:
    found = parse_json(path.read_text("utf-8"))
    if not isinstance(found, list) or not all(isinstance(scores, dict) for scores in found):
        raise ValueError("expected a list of scores")
    return found


def _shown(scores: dict[str, Any]) -> dict[str, Any]:
    kind, classes = str(scores.get("kind", "probes")), [str(name) for name in scores.get("classes") or []]
    known = {key: name for key, name in TUNED.get(kind, {}).items() if is_number(scores.get(key))}
    counted = {key: is_number(scores.get(key)) for key in ("samples", "labels", "update")}
    bars: Any = scores.get("intervals") or {}
    shown = {
        "kind": kind,
        "template": f"{TEMPLATES.get(kind, 'probes')}.html.j2",
        "part": scores.get("part"),
        "data": scores.get("data"),
        "bars": bool(bars),
        "train_samples": _count(scores.get("train_samples")),
        "test_samples": _count(scores.get("test_samples")),
        "classes": classes,
        "note": scores.get("note"),
        "skipped": [(str(reason), _count(count)) for reason, count in (scores.get("skipped") or {}).items()],
        "counts": {key: _count(scores[key]) if there else "" for key, there in counted.items()},
        "from_scratch": scores.get("from_scratch") is True,
        "verdict": [],
        "headline": [
            (name, said_with_bar(scores[key], bars.get(key), key in SHARES | RECOGNIZER)) for key, name in known.items()
        ],
    }
    if kind in DENSE:
        rivals = [("this model", scores), *((str(row["name"]), row) for row in scores.get("baselines") or [])]
        beside = [(name, [said(row.get(key), True) for key in known]) for name, row in rivals]
        shown |= {"measures": list(known.values()), "beside": beside}
    if kind in ("classify", *DENSE):
        counts_TP = np.array(scores.get("confusion") or np.zeros((0, 0)), dtype=np.int64)
        return shown | _each_class(scores.get("per_class") or []) | _confusion(counts_TP, classes)
    if kind == "regress":
        return shown | {"errors": [said(scores.get(key), False) for key in ("mse", "mse_of_mean")]}
    if kind == "ctc":
        rows = [(unit, [_count(scores[unit].get(key)) for key in EDITS]) for unit in ("characters", "words")]
        return shown | {"minutes": said(scores.get("minutes"), False), "columns": list(EDITS.values()), "rows": rows}
    curves = scores.get("curves") or []
    bands = any(curve.get("draws") != 1 for curve in curves)
    return (
        shown
        | _table(verdict.rows_of(scores))
        | {"curves": _low_label_charts(curves), "bands": bands, "verdict": verdict.verdict(scores)}
    )


def read_measures(path: Path) -> dict[str, Measure]:
    """Every score of a run with its interval, if it has one, by what it is ("linear probe accuracy: data2vec2")."""
    return _measures(read_mapping(path))


def read_other_measures(path: Path) -> dict[str, Measure]:
    """Those on other data, which the names say."""
    return {
        f"{name} ({scores.get('data', 'other data')}, {scores.get('part', '?')} part)": value
        for scores in _listed(path)
        for name, value in _measures(scores).items()
    }


def _measures(scores: dict[str, Any]) -> dict[str, Measure]:
    if names := TUNED.get(str(scores.get("kind"))):
        bars = scores.get("intervals") or {}
        return {name: (scores[key], bars.get(key)) for key, name in names.items() if is_number(scores.get(key))}
    return {
        f"{SHARES.get(key, key)}: {row.get('features', '?')}": (value, bar.get(key))
        for row, bar in verdict.rows_of(scores)
        for key, value in row.items()
        if is_number(value)
    }


def read_gains(path: Path) -> dict[str, verdict.Gain]:
    """What the model of a run is ahead of each baseline by, as in "kNN, over the same network untrained"."""
    scores = read_mapping(path)
    found = verdict.gains(scores) if scores.get("kind", "probes") == "probes" else {}
    return {f"{name}, over {one.over}": one for name, over in found.items() for one in over}


def said_with_bar(value: Any, bar: Any, share: bool) -> str:
    """A value with half of its interval, if there is one: 84.4 % ±1.6, or 0.120 ±0.064."""
    if not is_number(value) or not (ends := _interval(bar)):
        return said(value, share)
    half = (ends[1] - ends[0]) / 2
    return f"{said(value, share)} ±{100 * half:.1f}" if share else f"{value:.3f} ±{half:.3f}"


def _interval(bar: Any) -> tuple[float, float] | None:
    """An interval of a file; None for anything else."""
    return (bar[0], bar[1]) if isinstance(bar, list) and len(bar) == 2 and all(map(is_number, bar)) else None


def _table(rows: list[tuple[Any, Any]]) -> dict[str, Any]:
    """Columns, and rows of (features, [(value as text, whether it is the best of its column, value, interval)])."""
    keys = list(dict.fromkeys(key for row, _ in rows for key in row if key != "features"))
    best = {key: max((row[key] for row, _ in rows if is_number(row.get(key))), default=None) for key in keys}
    cells = [
        [
            (
                said_with_bar(value := row.get(key), bar.get(key), key in SHARES),
                is_number(value) and value == best[key],
                value if is_number(value) and key in SHARES else None,
                _interval(bar.get(key)),
            )
            for key in keys
        ]
        for row, bar in rows
    ]
    names = [str(row.get("features", "?")) for row, _ in rows]
    return {"columns": [SHARES.get(key, key) for key in keys], "rows": list(zip(names, cells, strict=True))}


def _low_label_charts(curves: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A chart for each probe: accuracy over labels per class, a line for each kind of features, with its interval."""
    charts = []
    for probe in dict.fromkeys(str(curve["probe"]) for curve in curves):
        lines = [
            Line(str(curve["features"]), *(_points(curve[key]) for key in ("labels", "mean", "low", "high")))
            for curve in curves
            if str(curve["probe"]) == probe
        ]
        title = SHARES.get(probe, probe)
        ticks = sorted({count for line in lines for count in line.x.tolist()})
        plot = Plot(title, f"{title} (%)", "labels per class", x_ticks=ticks, percent=True)
        values = [(line.name, dict(zip(line.x.tolist(), line.y.tolist(), strict=True))) for line in lines]
        charts.append(
            {
                "title": title,
                "svg": draw(plot, lines),
                "summary": in_words(lines, percent=True),
                "columns": [_count(count) for count in ticks],
                "rows": [(name, [said(known.get(count), True) for count in ticks]) for name, known in values],
            }
        )
    return charts


def _points(values: list[float | None]) -> Points:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _each_class(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Scores of each class, worst first."""
    keys = [key for key in EACH_CLASS if any(key in row for row in rows)]
    main = "ap" if "ap" in keys else "f1"
    worst_first = sorted(rows, key=lambda row: row[main] if is_number(row.get(main)) else 2)
    return {
        "columns": [*(EACH_CLASS[key] for key in keys), "samples"],
        "rows": [
            (str(row.get("name", "?")), [*(said(row.get(key), True) for key in keys), _count(row.get("count"))])
            for row in worst_first
        ],
    }


def _confusion(counts_TP: NDArray[np.int64], classes: list[str]) -> dict[str, Any]:
    """The matrix as rows of (true class, [(samples, share of the row)]), unless it is large; and its worst pairs."""
    if not len(counts_TP):
        return {"matrix": None, "confused": []}
    if counts_TP.shape != (len(classes), len(classes)):
        raise ValueError(f"confusion is {counts_TP.shape} for {len(classes)} classes")
    shares_TP = counts_TP / np.maximum(counts_TP.sum(axis=1, keepdims=True), 1)
    wrong_TP = np.where(np.eye(len(classes), dtype=bool), 0, counts_TP)
    worst = np.argsort(-wrong_TP, axis=None, kind="stable")[:CONFUSED]
    rows = zip(classes, counts_TP.tolist(), shares_TP.tolist(), strict=True)
    return {
        "matrix": [(name, list(zip(*row, strict=True))) for name, *row in rows] if len(classes) <= MATRIX else None,
        "confused": [
            (classes[truth], classes[taken], int(wrong_TP[truth, taken]), said(float(shares_TP[truth, taken]), True))
            for truth, taken in (divmod(place, len(classes)) for place in worst.tolist())
            if wrong_TP[truth, taken]
        ],
    }


def _count(value: Any) -> str:
    return f"{value:,.0f}" if is_number(value) else "an unknown number of"


def read_transcripts(path: Path) -> dict[str, Any]:
    """The last transcripts of a `transcripts.jsonl`: for each its name and the edits of its words.

    Its lines are objects of `name`, `reference`, `hypothesis` and `update`; others are left out. ValueError if none is
    left.
    """
    said_in, rows = ("name", "reference", "hypothesis"), read_lines(path)
    rows = [row for row in rows if is_number(row.get("update")) and all(isinstance(row.get(k), str) for k in said_in)]
    if not rows:
        raise ValueError("it holds no transcripts")
    update = rows[-1]["update"]
    last = {row["name"]: row for row in rows if row["update"] == update}
    texts = []
    for row in list(last.values())[:MAX_TRANSCRIPTS]:
        edits = align_texts(row["reference"], row["hypothesis"])
        wrong = sum(edit.op != "equal" for edit in edits)
        texts.append({"name": row["name"], "edits": edits, "wrong": wrong, "words": len(row["reference"].split())})
    return {"update": int(update), "count": len(last), "texts": texts}
