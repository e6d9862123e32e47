"""`report` on folders that the commands themselves have written."""

import shutil
from pathlib import Path

import pytest

from data2vec2.api import report
from data2vec2.errors import UserError
from tests.integration.browser import Browser
from tests.integration.helpers import SMALL, run_here, words
from tests.unit.reporting.pages import read_page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, pretrained: Path, tuned: Path, small: Path) -> Path:
    """Two pre-training runs, a (which is scored) and b, and c, which is fine-tuned."""
    path = tmp_path_factory.mktemp("runs")
    shutil.copy(small, path / "data.npz")
    shutil.copytree(pretrained, path / "a")
    shutil.copytree(tuned, path / "c")
    assert run_here(["evaluate", path / "a", small]) == 0
    flags = [*SMALL, *words("--train.updates 4 --train.log-every 1 --train.eval-every 2 --optim.lr 0.002")]
    assert run_here(["pretrain", "image_tiny", small, "--out", path / "b", *flags]) == 0
    return path


def test_the_report_of_a_scored_run_has_everything(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page_path = folder / "a" / "report.html"
    before = read_page(page_path)
    page_path.unlink()
    assert run_here(["report", folder / "a"]) == 0
    assert capsys.readouterr().out.strip() == str(page_path)
    page = read_page(page_path)
    assert page.text == before.text, "evaluate has written the same"
    assert page.errors == page.unnamed == []
    for heading in ("Scores", "Masks", "Patch features", "Nearest neighbours", "Map of samples", "Effective ranks"):
        assert heading in page.headings
    assert "can't be shown" not in page.text
    assert page_path.stat().st_size < 1_000_000


def test_the_report_of_a_fine_tuning_run_has_everything(folder: Path) -> None:
    page = read_page(report(folder / "c"))
    assert page.errors == page.unnamed == []
    for heading in ("Scores", "Confusion matrix", "Worst mistakes", "Validation scores"):
        assert heading in page.headings
    assert "Masks" not in page.headings
    assert "can't be shown" not in page.text


def test_several_runs_are_compared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "page.html"
    assert run_here(["report", folder / "a", folder / "b", folder / "c", "--out", out]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    page = read_page(out)
    assert page.errors == page.unnamed == []
    assert page.headings[0] == "3 runs compared"
    assert "optim.lr" in page.text
    assert "linear probe accuracy: data2vec2" in page.text
    assert "b: scores.json is missing: the model has not been scored. data2vec2 evaluate" in page.text


def test_on_a_telephone_nothing_is_cut_or_wrapped_and_wide_tables_show_that_they_scroll(
    folder: Path, tmp_path: Path
) -> None:
    pages = [report(folder / "a"), report(folder / "c"), report([folder / "a", folder / "b"], out=tmp_path / "page")]
    pages[2] = pages[2].rename(tmp_path / "page.html")
    tops = "[...document.querySelectorAll('.strip')].map(row => new Set([...row.children].map(e => e.offsetTop)).size)"
    with Browser(tmp_path / "profile") as browser:
        browser.do("Emulation.setDeviceMetricsOverride", width=400, height=900, deviceScaleFactor=1, mobile=False)
        for page in pages:
            browser.open(page.as_uri())
            assert browser.value("document.documentElement.scrollWidth") <= 400, page
            strips = browser.value(f"{tops}.filter(rows => rows)")
            assert set(strips) == ({1} if page == pages[0] else set())
        wide = "[...document.querySelectorAll('.scroll')].find(e => e.scrollWidth > e.clientWidth)"
        assert "local, local, scroll, scroll" in browser.value(f"getComputedStyle({wide}).backgroundAttachment")
        browser.open(pages[0].as_uri())
        inside = "(e => e.x >= -1 && e.x + e.width <= 601)(name.getBBox())"
        assert browser.value(f"[...document.querySelectorAll('.map text')].map(name => {inside})") == [True] * 10


def test_a_comparison_goes_to_the_current_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert report([folder / "a", folder / "b"]) == Path("comparison.html")
    page = tmp_path / "comparison.html"
    page.write_text("precious")
    with pytest.raises(UserError, match="exists; --overwrite replaces it"):
        report([folder / "a", folder / "b"])
    assert page.read_text() == "precious"
    assert run_here(["report", folder / "a", folder / "b", "--overwrite"]) == 0
    assert "2 runs compared" in page.read_text("utf-8")
    with pytest.raises(UserError, match="exists"):
        report(folder / "a", out=page)
    own = folder / "a" / "report.html"
    assert report(folder / "a", out=own) == own, "it is a run's own, so it may be written anew"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "name at least one run folder"),
        (["{data}"], 1, "holds no run"),
        (["{run}", "{folder}"], 1, "holds no run"),
        (["{run}", "{run}"], 1, "named twice"),
        (["{run}", "--out", "{folder}"], 1, "can't write"),
        (["{run}", "--out", "{folder}/nowhere/page.html"], 1, "can't write"),
    ],
)
def test_mistakes_are_said(
    folder: Path, arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"data": folder / "data.npz", "run": folder / "a", "folder": folder}
    assert run_here(["report", *(argument.format(**places) for argument in arguments)]) == code
    assert message in capsys.readouterr().err
