"""The report of a run folder: what is there is shown, what isn't is said, and nothing stops it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from data2vec2.data.account import Account, PartAccount
from data2vec2.errors import UserError
from data2vec2.reporting.build import write_report
from tests.unit.reporting.pages import FILES, HOSTILE, Page, fill, fill_finetuned, gallery, read_page


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a folder that has everything."""
    run = fill(tmp_path_factory.mktemp("run"))
    path = write_report(run)
    assert path == run / "report.html"
    assert {child.name for child in run.iterdir()} == {*FILES, "report.html"}
    return path.read_text("utf-8")


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a fine-tuning run."""
    return write_report(fill_finetuned(tmp_path_factory.mktemp("run"))).read_text("utf-8")


def test_every_part_is_there(full: str) -> None:
    page = Page(full)
    assert page.errors == []
    assert page.headings == [
        "Pre-training on 2,939 pictures",
        *("Scores", "With few labels", "kNN accuracy"),
        *("Masks", "Patch features", "Nearest neighbours", "Map of samples"),
        "Curves",
        *("Loss", "Validation scores", "Standard deviations", "Effective ranks", "Learning rate", "EMA decay"),
        *("Gradient norm", "temperature"),
        *("Data", "Configuration", "Environment"),
    ]
    for text in ("bundled pictures", "run again with --resume", "60 of 3,000", "1,920", "k = 20", "lr: 0.005", "cpu"):
        assert text in page.text
    for text in ("a b", "cat, dog", "3 truncated", "one of 2 masks", "2 of 6", "≠ dog", "40 samples", "t-SNE"):
        assert text in page.text
    assert 'class="missing"' not in full
    assert page.text.count("step (updates)") == page.text.count("wall-clock time (s)") == 8


def test_a_fine_tuning_run_has_its_own_parts(finetuned: str) -> None:
    page = Page(finetuned)
    assert page.errors == []
    for heading in ("Scores", "Confusion matrix", "Most confused", "Worst mistakes", "Validation scores"):
        assert heading in page.headings
    assert not {"Masks", "Patch features", "Nearest neighbours"} & set(page.headings)
    for text in ("Accuracy ", "200 samples", "400 labels", "the model of update 50", "taken for class "):
        assert text in page.text
    assert page.tags.count("img") == 24
    for name in ("status.json", "environment.json", "data.json"):
        assert f"{name} is missing" in page.text


@pytest.mark.parametrize("kind", ["full", "finetuned"])
def test_every_picture_and_figure_has_a_text(kind: str, request: pytest.FixtureRequest) -> None:
    page = Page(request.getfixturevalue(kind))
    assert "img" in page.tags
    assert "svg" in page.tags
    assert page.unnamed == []


def test_figures_say_their_values(full: str) -> None:
    labels = [value for name, value in Page(full).attributes if name == "aria-label"]
    assert any("training from 1.5 to 1" in label for label in labels)
    assert any("data2vec2 from 50.0 % to 70.0 %" in label for label in labels)


def test_the_best_of_each_column_is_bold(full: str) -> None:
    assert Page(full).bold[:3] == ["80.0 %", "70.0 %", "75.0 %"]  # of the first row two, of the second one


def test_nothing_is_fetched_or_run(full: str, finetuned: str) -> None:
    for html in (full, finetuned):
        page = Page(html)
        assert not {"script", "link", "iframe"} & set(page.tags)
        links = [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "srcset", "data")]
        assert links
        assert all(re.match(r"#|data:image/(png|webp);base64,", link) for link in links)
        assert "@import" not in html
        assert all(link.startswith("#") for link in re.findall(r"url\((.*?)\)", html))
        assert html.count("<style") == 1, "a figure's style would hold for the whole page"


def test_ids_are_unique_and_references_resolve(full: str) -> None:
    ids = [value for name, value in Page(full).attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#(.*?)\)", full)) <= set(ids)


def test_names_are_shown_as_text(full: str, tmp_path: Path) -> None:
    assert HOSTILE in Page(full).text
    (tmp_path / "config.yaml").write_text(json.dumps({"recipe": HOSTILE}))
    (tmp_path / "environment.json").write_text(json.dumps({HOSTILE: HOSTILE, "data": HOSTILE}))
    (tmp_path / "status.json").write_text(json.dumps({"state": f'"{HOSTILE}', "message": HOSTILE}))
    curve = {"features": HOSTILE, "probe": HOSTILE, "labels": [1], "mean": [0.1], "low": [0], "high": [1]}
    rows = [{"features": HOSTILE, HOSTILE: 1}]
    (tmp_path / "scores.json").write_text(json.dumps({"rows": rows, "note": HOSTILE, "curves": [curve]}))
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "elapsed_s": 1, HOSTILE: 2, "$x^{": 3}))
    np.savez(tmp_path / "gallery.npz", **gallery(np.random.default_rng(0), classes=(HOSTILE, f'"{HOSTILE}')))
    page = read_page(write_report(tmp_path))
    assert page.errors == []
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) >= 24


def test_names_of_classes_and_mistakes_are_shown_as_text(tmp_path: Path) -> None:
    scores = json.loads((fill_finetuned(tmp_path) / "scores.json").read_text())
    scores["classes"][0] = scores["per_class"][0]["name"] = HOSTILE
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    with np.load(tmp_path / "mistakes.npz") as arrays:
        mistakes = dict(arrays)
    mistakes["names"] = np.array([f'"{HOSTILE}'] * len(mistakes["names"]))
    mistakes["truth"][0] = 0
    np.savez(tmp_path / "mistakes.npz", **mistakes)
    page = read_page(write_report(tmp_path))
    assert page.errors == []
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) >= 4


def test_what_became_of_the_data_is_counted_and_the_first_samples_are_listed(full: str) -> None:
    text = Page(full).text
    assert re.search(r"train\s*3,000\s*2,939\s*61\s*0\s*0\b", text)
    assert re.search(r"empty \(60\)\s*train: can't be used\s*truncated \(1\)", text)
    assert "2 rows without text." in text
    assert "48.png" in text
    assert "49.png" not in text


def test_an_empty_folder_is_reported(tmp_path: Path) -> None:
    page = read_page(write_report(tmp_path))
    assert page.errors == []
    for name in FILES:
        assert f"{name} is missing" in page.text


def test_the_verdict_comes_first_and_scores_have_error_bars(full: str, tmp_path: Path) -> None:
    said = "behind raw pixels by 4.0 points: train longer or on more data"
    assert said in full
    assert full.index(said) < full.index("<h2>")
    run = fill(tmp_path)
    scores = json.loads((run / "scores.json").read_text())
    scores["intervals"] = [{"knn": [0.78, 0.82]}, {"knn": [0.68, 0.72]}, {}]
    (run / "scores.json").write_text(json.dumps(scores))
    html = write_report(run).read_text("utf-8")
    assert "80.0 % ±2.0" in Page(html).bold
    assert "+10.0 points over raw pixels, ±2.8" in html
    assert "--to: 0.8000; --low: 0.7800; --high: 0.8200" in html


def test_what_is_missing_names_the_command_that_makes_it(tmp_path: Path) -> None:
    run = tmp_path / "a run"
    run.mkdir()
    fill(run)
    (run / "environment.json").write_text(json.dumps({"data_path": "/some/pictures"}))
    for name in ("scores.json", "gallery.npz"):
        (run / name).unlink()
    text = read_page(write_report(run)).text
    assert text.count(f"data2vec2 evaluate '{run}' /some/pictures makes it.") == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"[1, 2",
        b"[[]]",
        b'"text"',
        b"null",
        b'{"rows": 3}',
        b'{"kind": "classify", "classes": 3}',
    ],
)
def test_broken_files_are_said_and_stop_nothing(tmp_path: Path, content: bytes) -> None:
    for name in (*FILES, "mistakes.npz"):
        (tmp_path / name).write_bytes(content)
    page = read_page(write_report(tmp_path))
    assert page.errors == []
    for name in ("scores.json", "masks.npz", "gallery.npz", "mistakes.npz"):
        assert f"{name} can't be shown" in page.text
    assert "metrics.jsonl holds no figures" in page.text


def test_arrays_that_do_not_fit_together_are_said(tmp_path: Path) -> None:
    arrays = gallery(np.random.default_rng(0))
    for key, wrong in (("map", arrays["map"][:3]), ("map", arrays["map"] * np.nan), ("colours", arrays["map"])):
        np.savez(tmp_path / "gallery.npz", **(arrays | {key: wrong}))
        assert "gallery.npz can't be shown" in read_page(write_report(tmp_path)).text, key


def test_a_file_name_that_is_not_text_is_shown(tmp_path: Path) -> None:
    account = Account(parts={"train": PartAccount(1, bad={"caf\udce9.jpg": "empty"})})
    (tmp_path / "data.json").write_text(json.dumps(account.to_dict()))
    assert r"caf\udce9.jpg" in write_report(tmp_path).read_text("utf-8")


def test_an_old_report_is_replaced_and_a_failed_write_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    assert "old" not in read_page(write_report(tmp_path)).text.split()
    (tmp_path / "report.html").unlink()
    (tmp_path / "report.html").mkdir()
    with pytest.raises(UserError, match=r"can't write .*report\.html"):
        write_report(tmp_path)
    assert [child.name for child in tmp_path.iterdir()] == ["report.html"], "no draft is left"
    with pytest.raises(UserError, match="is not a folder"):
        write_report(tmp_path / "nowhere")


def test_a_report_can_be_written_elsewhere(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    assert write_report(run, tmp_path / "page.html") == tmp_path / "page.html"
    assert not list(run.iterdir())
