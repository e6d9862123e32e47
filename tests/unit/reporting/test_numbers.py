"""Pages of runs that were fine-tuned on text: numbers, and mistakes as texts, whatever stands in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from data2vec2.config.tree import to_dict
from data2vec2.modalities.text.recipes import text_finetune_tiny
from data2vec2.reporting.build import write_report
from data2vec2.reporting.scores import read_measures
from tests.unit.reporting.pages import HOSTILE, Page, read_page

NUMBERS = {"kind": "regress", "part": "test", "samples": 2, "pearson": 0.5, "spearman": 0.25, "mse": 3.0}
CLASSES = {"kind": "classify", "part": "test", "samples": 2, "classes": [HOSTILE, "b"], "accuracy": 0.5, "f1": 0.25}


def page_of(run: Path, scores: dict[str, Any], count: int = 2, **mistakes: Any) -> Page:
    (run / "config.yaml").write_text(yaml.safe_dump(to_dict(text_finetune_tiny())))
    (run / "scores.json").write_text(json.dumps(scores))
    np.savez(run / "mistakes.npz", names=np.array([HOSTILE, "a.csv[1]"])[:count], **mistakes)
    return read_page(write_report(run))


def test_numbers_and_what_they_were_taken_for(tmp_path: Path) -> None:
    numbers = {"truth": np.array([1.0, 12.5]), "predicted": np.array([100.123456, 13.0])}
    scores = {**NUMBERS, "mse_of_mean": 4.0}
    page = page_of(tmp_path, scores, texts=np.array([HOSTILE, "plain\nlines"]), **numbers)
    assert page.errors == []
    assert "can't be shown" not in page.text
    for said in ("Pearson's correlation 0.5", "mean squared error 3", "has 4", "taken for 100.1", "12.5,", HOSTILE):
        assert said in page.text
    assert "script" not in page.tags
    assert read_measures(tmp_path / "scores.json") == {
        "Pearson's correlation": (0.5, None),
        "Spearman's correlation": (0.25, None),
    }


@pytest.mark.parametrize("count", [2, 0])
def test_classes_of_texts(tmp_path: Path, count: int) -> None:
    arrays = {"truth": np.array([0, 1]), "predicted": np.array([1, 0]), "probability": np.array([0.9, 0.8])}
    shown = {key: value[:count] for key, value in {**arrays, "texts": np.array([HOSTILE, "b"])}.items()}
    page = page_of(tmp_path, CLASSES, count, **shown)
    assert page.errors == []
    assert "can't be shown" not in page.text and "script" not in page.tags
    assert "F1 0.25" in page.text
    assert ("taken for b" in page.text and "90 %" in page.text) == bool(count)
