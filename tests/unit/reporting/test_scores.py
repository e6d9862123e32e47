"""Scores of a run as the page shows them."""

import json
from pathlib import Path

import pytest

from data2vec2.reporting.scores import MATRIX, read_measures, read_scores
from tests.unit.reporting.pages import fill_finetuned, low_label_curve


def written(path: Path, scores: dict) -> Path:
    (path / "scores.json").write_text(json.dumps(scores))
    return path / "scores.json"


def test_what_is_no_score_is_never_the_best(tmp_path: Path) -> None:
    rows = [{"features": "a", "knn": None, "linear": True}, {"features": "b", "knn": None, "linear": "0.9"}]
    shown = read_scores(written(tmp_path, {"rows": rows}))
    assert shown["rows"] == [("a", [("n/a", False, None, None)] * 2), ("b", [("n/a", False, None, None)] * 2)]


def test_low_label_curves_are_drawn_for_each_probe(tmp_path: Path) -> None:
    curves = [low_label_curve(name, probe) for name in ("data2vec2", "raw pixels") for probe in ("knn", "linear")]
    curves[2] |= {"labels": [100, 500], "low": [None, None], "high": [None, None]}
    knn, linear = read_scores(written(tmp_path, {"rows": [], "curves": curves}))["curves"]
    assert (knn["title"], linear["title"]) == ("kNN accuracy", "linear probe accuracy")
    assert knn["columns"] == ["10", "100", "500"]
    assert knn["rows"] == [("data2vec2", ["50.0 %", "70.0 %", "n/a"]), ("raw pixels", ["n/a", "50.0 %", "70.0 %"])]
    assert linear["columns"] == ["10", "100"]
    for text in ("data2vec2", "raw pixels", ">10<", ">500<"):
        assert text in knn["svg"]


@pytest.mark.parametrize(("draws", "bands"), [(1, False), (3, True)])
def test_one_draw_of_labels_has_no_band(tmp_path: Path, draws: int, bands: bool) -> None:
    curve = low_label_curve("data2vec2", "knn") | {"draws": draws}
    assert read_scores(written(tmp_path, {"rows": [], "curves": [curve]}))["bands"] == bands


def test_a_classifiers_figures(tmp_path: Path) -> None:
    path = fill_finetuned(tmp_path) / "scores.json"
    scores, shown = json.loads(path.read_text()), read_scores(path)
    assert shown["headline"] == [("accuracy", f"{100 * scores['accuracy']:.1f} %")]
    assert [[number for number, _ in cells] for _, cells in shown["matrix"]] == scores["confusion"]
    assert all(sum(share for _, share in cells) == pytest.approx(1) for _, cells in shown["matrix"])
    worst_first = sorted(scores["per_class"], key=lambda row: row["f1"])
    assert [name for name, _ in shown["rows"]] == [row["name"] for row in worst_first]
    truth, taken, times, _ = shown["confused"][0]
    wrong = [(number, t, p) for t, row in enumerate(scores["confusion"]) for p, number in enumerate(row) if t != p]
    assert times == max(number for number, *_ in wrong)
    assert scores["confusion"][scores["classes"].index(truth)][scores["classes"].index(taken)] == times
    assert read_measures(path) == {"accuracy": (scores["accuracy"], None)}


def test_of_many_classes_only_the_worst_pairs_are_shown(tmp_path: Path) -> None:
    count = MATRIX + 1
    confusion = [[10 if truth == taken else 0 for taken in range(count)] for truth in range(count)]
    confusion[3][5] = 4
    classes = [f"c{place}" for place in range(count)]
    shown = read_scores(written(tmp_path, {"kind": "classify", "classes": classes, "confusion": confusion}))
    assert shown["matrix"] is None
    assert shown["confused"] == [("c3", "c5", 4, "28.6 %")]


def test_a_confusion_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, {"kind": "classify", "classes": ["a", "b", "c"], "confusion": [[1, 0], [0, 1]]})
    with pytest.raises(ValueError, match="for 3 classes"):
        read_scores(path)


def test_several_labels_have_average_precisions_and_no_matrix(tmp_path: Path) -> None:
    rows = [
        {"name": "a", "precision": 0.5, "recall": 0.5, "f1": 0.5, "count": 3, "ap": 0.9},
        {"name": "b", "precision": 0.9, "recall": 0.9, "f1": 0.9, "count": 2, "ap": 0.4},
        {"name": "c", "precision": 0.0, "recall": 0.0, "f1": 0.0, "count": 0, "ap": None},
    ]
    path = written(tmp_path, {"kind": "classify", "classes": ["a", "b", "c"], "map": 0.65, "per_class": rows})
    shown = read_scores(path)
    assert shown["headline"] == [("mean average precision", "65.0 %")]
    assert shown["columns"] == ["average precision", "precision", "recall", "F1", "samples"]
    assert [(name, cells[0]) for name, cells in shown["rows"]] == [("b", "40.0 %"), ("a", "90.0 %"), ("c", "n/a")]
    assert shown["matrix"] is None
    assert read_measures(path) == {"mean average precision": (0.65, None)}
