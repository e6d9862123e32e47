"""Several runs on one page."""

import json
import re
import shutil
from pathlib import Path

import pytest

from data2vec2.errors import UserError
from data2vec2.reporting.comparison import write_comparison
from tests.unit.reporting.pages import HOSTILE, fill, fill_finetuned, read_page, write_lines


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two complete runs that differ in one setting and one score."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    fill(first)
    write_lines(first / "metrics.jsonl", [{"step": 1, "elapsed_s": 1, "loss": 1.5, "target_std": 0.9}])
    shutil.copytree(first, second)
    (second / "config.yaml").write_text("recipe: image_tiny\noptim:\n  lr: 0.001\nextra: 3\n")
    scores = json.loads((second / "scores.json").read_text())
    scores["rows"][0]["knn"] = 0.9
    (second / "scores.json").write_text(json.dumps(scores))
    return [first, second]


def test_what_differs_is_shown_and_nothing_else(runs: list[Path], tmp_path: Path) -> None:
    page = read_page(write_comparison(runs, tmp_path / "page.html"))
    assert page.errors == page.unnamed == []
    assert "optim.lr" in page.text
    assert re.search(r"optim\.lr\s*0\.005\s*0\.001", page.text)
    assert re.search(r"extra\s*not set\s*3", page.text)
    assert not re.search(r"^recipe\s+image_tiny\s+image_tiny", page.text, re.MULTILINE)
    assert page.bold == ["90.0 %"], "of equal scores none is the best"
    assert re.search(r"kNN accuracy: data2vec2 \(this run\)\s*80\.0 %\s*90\.0 %", page.text)


def test_gains_stand_beside_each_other_with_their_errors(runs: list[Path], tmp_path: Path) -> None:
    for run, bars in zip(runs, ([0.78, 0.82], [0.5, 1.0]), strict=True):
        scores = json.loads((run / "scores.json").read_text())
        scores["rows"][1]["features"] = "random initialisation"
        scores["intervals"] = [{"knn": bars}, {"knn": [0.68, 0.72]}, {}]
        (run / "scores.json").write_text(json.dumps(scores))
    page = read_page(write_comparison(runs, tmp_path / "page.html"))
    assert re.search(r"kNN, over the same network untrained\s*\+10\.0 ±2\.8\s*\+20\.0 ±25\.1", page.text)
    assert "+10.0 ±2.8" in page.bold and "+20.0 ±25.1" not in page.bold, "it may be chance"


def test_curves_lie_over_each_other(runs: list[Path], tmp_path: Path) -> None:
    write_lines(runs[1] / "metrics.jsonl", [{"step": 90, "elapsed_s": 7, "loss": 3, "target_std": 0.5, "only_here": 1}])
    page = read_page(write_comparison(runs, tmp_path / "page.html"))
    for heading in ("Loss: training", "Standard deviations: targets", "only_here"):
        assert heading in page.headings
    assert "alarm's threshold (0.1)" in page.text
    labels = [value for name, value in page.attributes if name == "aria-label"]
    assert any("first from 1.5 to 1.5; second from 3 to 3" in label for label in labels)


def test_of_error_rates_the_lowest_is_best(runs: list[Path], tmp_path: Path) -> None:
    for run, rate in zip(runs, (0.25, 0.5), strict=True):
        (run / "scores.json").write_text(json.dumps({"kind": "ctc", "wer": rate, "cer": 0.125}))
    assert read_page(write_comparison(runs, tmp_path / "page.html")).bold == ["25.0 %"]


def test_runs_of_every_kind_and_state(runs: list[Path], tmp_path: Path) -> None:
    empty, tuned, broken = (tmp_path / name for name in ("empty", "tuned", HOSTILE.replace("/", "")))
    for folder in (empty, tuned, broken):
        folder.mkdir()
    fill_finetuned(tuned)
    for name in ("config.yaml", "scores.json", "status.json", "environment.json", "metrics.jsonl"):
        (broken / name).write_bytes(b"\xff[")
    page = read_page(write_comparison([*runs, empty, tuned, broken], tmp_path / "page.html"))
    assert page.errors == []
    assert "script" not in page.tags
    assert "empty: config.yaml is missing" in page.text
    assert f"{broken.name}: scores.json can't be shown" in page.text
    assert re.search(r"accuracy\s*n/a\s*n/a\s*n/a\s*\d", page.text)


def test_runs_of_the_same_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    folders = [tmp_path / parent / "run" for parent in ("a", "b")]
    for folder in folders:
        folder.mkdir(parents=True)
    text = read_page(write_comparison(folders, tmp_path / "page.html")).text
    assert all(str(folder) in text for folder in folders)
    with pytest.raises(UserError, match="the same run is named twice"):
        write_comparison([folders[0], folders[0]], tmp_path / "page.html")
    with pytest.raises(UserError, match="is not a folder"):
        write_comparison([folders[0], tmp_path / "nowhere"], tmp_path / "page.html")
