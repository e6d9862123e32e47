"""Run folders with everything in them, and pages taken apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from sklearn.neighbors import KNeighborsClassifier

from data2vec2.data.account import Account, PartAccount
from data2vec2.modalities.image import fashion_mnist

HOSTILE = "<script>alert(1)</script>.jpg"
FILES = [
    "config.yaml",
    "environment.json",
    "status.json",
    "scores.json",
    "masks.npz",
    "gallery.npz",
    "metrics.jsonl",
    "data.json",
]
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Elements, attributes and text of a page; `errors` names tags that don't close where they should."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.unnamed: list[str] = []
        self.headings: list[str] = []
        self.bold: list[str] = []
        self.errors: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        self.errors += [f"<{tag}> is not closed" for tag in self.open]

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        named = dict(attrs)
        if (tag == "img" and not named.get("alt")) or (named.get("role") == "img" and not named.get("aria-label")):
            self.unnamed.append(f"{tag} {named}")

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.errors.append(f"</{tag}> closes nothing")

    def handle_data(self, data):
        self.text += data
        inside = self.open[-1] if self.open else ""
        if inside in ("h1", "h2", "h3"):
            self.headings.append(data)
        if inside == "strong":
            self.bold.append(data)


def changed(source: Path, target: Path, change: Callable[[dict[str, np.ndarray]], object]) -> dict[str, np.ndarray]:
    """Write the arrays of an `.npz` file as another after a change; returns them."""
    with np.load(source) as file:
        arrays = dict(file)
    change(arrays)
    np.savez(target, **arrays)
    return arrays


def read_page(path: Path) -> Page:
    return Page(path.read_text("utf-8"))


def write_lines(path: Path, lines: list[dict]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def fill(run: Path) -> Path:
    """Write every file that pre-training and evaluation leave."""
    (run / "config.yaml").write_text("recipe: image_tiny\noptim:\n  lr: 0.005\n")
    environment = {
        "data": "bundled pictures",
        "device": "cpu",
        "cores": 2,
        "precision": "float32",
        "command": ["a", "b"],
    }
    (run / "environment.json").write_text(json.dumps(environment))
    status = {"state": "interrupted", "step": 60, "updates": 3000, "message": "run again with --resume"}
    (run / "status.json").write_text(json.dumps(status))
    rows = [
        {"features": "data2vec2 (this run)", "knn": 0.8, "linear": 0.71, "attentive": 0.7},
        {"features": "raw pixels", "knn": 0.7, "linear": 0.75, "attentive": None},
        {"features": "majority class", "knn": 0.1, "linear": None, "attentive": None},
    ]
    scores = {
        "kind": "probes",
        "part": "test",
        "train_samples": 10000,
        "test_samples": 2000,
        "classes": ["cat", "dog"],
        "rows": rows,
        "curves": [low_label_curve("data2vec2", "knn"), low_label_curve("raw pixels", "knn")],
        "skipped": {"truncated": 3},
        "note": "k = 20",
    }
    (run / "scores.json").write_text(json.dumps(scores))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 100, (2, 8, 12, 3), dtype=np.uint8)
    keep_ids = np.array([[[0, 1], [4, 5]], [[1, 2], [3, 4]]])
    np.savez(run / "masks.npz", kind="image", images=images, keep_ids=keep_ids, patch_size=4)
    np.savez(run / "gallery.npz", **gallery(rng))
    lines = [
        {"step": 20, "elapsed_s": 1.9, "samples": 640, "loss": 1.5, "lr": 0.001, "grad_norm": 2, "ema_decay": 0.99},
        {"step": 40, "elapsed_s": 3.9, "samples": 1280, "loss": 1.25, "regression": 1, "cls": 0.5, "rank_encoder": 7},
        {"step": 40, "elapsed_s": 4.2, "val_knn": 0.6},
        {"step": 60, "elapsed_s": 5.9, "samples": 1920, "loss": 1.0, "target_std": 0.4, "temperature": 36.6},
    ]
    write_lines(run / "metrics.jsonl", lines)
    bad = {HOSTILE: "truncated"} | {f"{place}.png": "empty" for place in range(60)}
    account = Account(parts={"train": PartAccount(3_000, bad=bad)}, remarks=["2 rows without text"])
    (run / "data.json").write_text(json.dumps(account.to_dict()))
    return run


def low_label_curve(features: str, probe: str) -> dict:
    columns = {"labels": [10, 100], "mean": [0.5, 0.7], "low": [0.4, 0.65], "high": [0.6, 0.75]}
    return {"features": features, "probe": probe, **columns}


def gallery(rng: np.random.Generator, classes: tuple[str, ...] = ("cat", "dog")) -> dict:
    """Two pictures with three neighbours, and a map of 40 samples of which one has no label."""
    labels = np.arange(40) % 2
    labels[0] = -1
    return {
        "kind": np.array("image"),
        "pictures": rng.integers(0, 255, (2, 8, 12, 1), dtype=np.uint8),
        "labels": np.array([0, 1]),
        "colours": rng.integers(0, 255, (2, 2, 3, 3), dtype=np.uint8),
        "neighbours": rng.integers(0, 255, (2, 3, 8, 12, 1), dtype=np.uint8),
        "neighbour_labels": np.array([[0, 0, 1], [1, 1, 1]]),
        "neighbour_cosines": np.full((2, 3), 0.9),
        "map": rng.normal(size=(40, 2)).astype(np.float32),
        "map_labels": labels,
        "map_method": "t-SNE",
        "classes": np.array(classes),
    }


def fill_finetuned(run: Path) -> Path:
    """Write what fine-tuning leaves, with scores and mistakes of a k-NN classifier of bundled pictures."""
    with np.load(fashion_mnist()) as arrays:
        train, test = arrays["x_train"][:400], arrays["x_test"][:200]
        train_y, test_y = arrays["y_train"][:400], arrays["y_test"][:200]
    model = KNeighborsClassifier(10).fit(train.reshape(400, -1) / 255, train_y)
    shares = model.predict_proba(test.reshape(200, -1) / 255)
    said, sure = shares.argmax(1), shares.max(1)
    names = [f"class {label}" for label in range(10)]
    columns = zip(*precision_recall_fscore_support(test_y, said, labels=range(10), zero_division=0.0), strict=True)
    keys = ("precision", "recall", "f1", "count")
    scores = {
        "kind": "classify",
        "part": "test",
        "samples": 200,
        "labels": 400,
        "update": 50,
        "from_scratch": False,
        "classes": names,
        "accuracy": float((said == test_y).mean()),
        "confusion": confusion_matrix(test_y, said, labels=range(10)).tolist(),
        "per_class": [
            {"name": name, **dict(zip(keys, map(float, values), strict=True))}
            for name, values in zip(names, columns, strict=True)
        ],
    }
    (run / "scores.json").write_text(json.dumps(scores))
    worst = np.argsort(np.where(said == test_y, 0, -sure))[: min(30, int((said != test_y).sum()))]
    np.savez(
        run / "mistakes.npz",
        pictures=test[worst][..., None],
        truth=test_y[worst].astype(np.int64),
        predicted=said[worst],
        probability=sure[worst],
        names=np.array([f"x_test[{place}]" for place in worst]),
    )
    (run / "config.yaml").write_text("recipe: image_finetune_tiny\naugment:\n  mixup: 0.0\n")
    write_lines(run / "metrics.jsonl", [{"step": 50, "elapsed_s": 1, "loss": 1.0, "val_accuracy": 0.6, "val_loss": 2}])
    return run


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)
