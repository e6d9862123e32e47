"""Reports in a real browser: no script in a name, a label, a text or a file of a run is ever run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.integration.browser import Browser
from tests.integration.helpers import FINETUNED, PRETRAINED, run_here, words

MARKUP = (
    "<script>hit()</script>",
    "<img src=x onerror=hit()>",
    '" onmouseover="hit()" autofocus onfocus="hit()" x="',
    "' onmouseover='hit()' x='",
    "'><svg onload=hit()>",
    "<iframe srcdoc='<script>parent.hit()</script>'>",
    "<a href=javascript:hit()>x</a>",
    "{{ 7*7 }}{% for x in y %}",
    "<!--<script>hit()//-->",
    "</title></style></script><script>hit()</script>",
)
FIXED = {"kind", "part", "state", "data_path", "model", "device", "precision"}
"""Keys whose values say how a file is read."""
TOUCH = """
for (const one of document.querySelectorAll('*')) {
    for (const name of ['mouseover', 'focus', 'click', 'toggle']) one.dispatchEvent(new Event(name));
    if (one.tagName == 'A' && one.protocol == 'javascript:') one.click();
}
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as opened:
        hits = "window.hits = 0; window.hit = () => { window.hits += 1 }"
        opened.do("Page.addScriptToEvaluateOnNewDocument", source=hits)
        yield opened


def hits(browser: Browser, page: Path) -> int:
    """How many scripts ran when everything on a page was touched; nothing may be fetched from elsewhere either."""
    browser.requests.clear()
    browser.open(page.resolve().as_uri())
    browser.value(TOUCH)
    browser.value("new Promise(done => setTimeout(done, 300))")
    elsewhere = [url for url in browser.requests if not url.startswith(("data:", page.resolve().as_uri()))]
    found = int(browser.value("window.hits"))
    assert found or not elsewhere, elsewhere
    return found


@pytest.mark.parametrize("markup", [text for text in MARKUP if "hit" in text and not text.startswith("<!--")])
def test_what_is_not_escaped_is_run(tmp_path: Path, browser: Browser, markup: str) -> None:
    """So that the tests below could fail."""
    quote = markup[0] if markup[0] in "\"'" else '"'
    shown = f"<p title={quote}{markup}{quote}>x</p>" if markup[0] in "\"'" else markup
    (tmp_path / "page.html").write_text(f"<!DOCTYPE html><meta charset=utf-8><title>x</title>{shown}")
    assert hits(browser, tmp_path / "page.html")


def marked(value: Any, counter: Iterator[int], names: bool = False) -> Any:
    """The same with markup behind every text, and behind keys that are names of samples."""

    def text(value: str) -> str:
        return value + MARKUP[next(counter) % len(MARKUP)]

    if isinstance(value, dict):
        inside = {"bad", "left_out", "mended", "no_samples", "skipped"}
        return {
            text(key) if names else key: inner if key in FIXED else marked(inner, counter, key in inside)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [marked(one, counter) for one in value]
    return text(value) if isinstance(value, str) else value


def mark_run(run: Path) -> None:
    """Put markup into every text of every file of a run that its page shows."""
    counter = iter(range(10**9))
    for path in run.glob("*.json"):
        path.write_text(json.dumps(marked(json.loads(path.read_text()), counter)))
    config = run / "config.yaml"
    config.write_text(yaml.safe_dump(marked(yaml.safe_load(config.read_text()), counter)))
    for path in run.glob("*.npz"):
        with np.load(path) as file:
            arrays = dict(file)
        for name, array in arrays.items():
            if array.dtype.kind == "U" and name not in FIXED:
                arrays[name] = np.array(marked(array.tolist(), counter))
        np.savez(path, **arrays)
    said = [{"name": text, "reference": f"a {text} b", "hypothesis": text[::-1] + text, "update": 1} for text in MARKUP]
    (run / "transcripts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in said))
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 12, **{f"figure {text}": 1.0 for text in MARKUP}}) + "\n")


def assert_harmless(browser: Browser, page: Path) -> None:
    text = page.read_text()
    for escaped in ("&lt;script&gt;hit()", "&lt;img src=x onerror=hit()&gt;", "onmouseover=&#34;"):
        assert escaped in text
    assert hits(browser, page) == 0
    assert browser.value("document.querySelectorAll('script, iframe').length") == 0


@pytest.mark.parametrize("name", [pytest.param("pretrained", marks=pytest.mark.fault), "tuned"])
def test_a_run_full_of_markup(
    tmp_path: Path, browser: Browser, name: str, small: Path, request: pytest.FixtureRequest
) -> None:
    run, other = tmp_path / "run", tmp_path / MARKUP[1]
    shutil.copytree(request.getfixturevalue(name), run)
    if name == "pretrained":
        assert run_here(["evaluate", run, small, "--max-samples", 60]) == 0
    mark_run(run)
    shutil.copytree(run, other)
    assert run_here(["report", run]) == 0
    assert_harmless(browser, run / "report.html")
    assert "can&#39;t be shown" not in (run / "report.html").read_text()
    assert run_here(["report", run, other, "--out", tmp_path / "both.html"]) == 0
    assert_harmless(browser, tmp_path / "both.html")


@pytest.mark.fault
def test_pictures_of_hostile_names(tmp_path: Path, browser: Browser) -> None:
    """Folders, and so classes, and files; through pre-training, evaluation, fine-tuning and inspection."""
    data, rng = tmp_path / "data", np.random.default_rng(0)
    for part in ("train", "test"):
        for markup in (text for text in MARKUP if "/" not in text):
            folder = data / part / markup
            folder.mkdir(parents=True)
            for number in range(6):
                pixels = rng.integers(0, 255, (28, 28), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}{markup}.png")
            (folder / f"bad{markup}.png").write_bytes(b"junk")
    run, tuned, flags = tmp_path / "run", tmp_path / "tuned", ["--data.max-bad", "0.5"]
    assert run_here(["pretrain", "image_tiny", data, "--out", run, *PRETRAINED, *flags]) == 0
    assert run_here(["evaluate", run, data]) == 0
    assert run_here(["finetune", "classify", run, data, "--out", tuned, *FINETUNED, *flags]) == 0
    assert run_here(["inspect", data, "--out", tmp_path / "inspection.html"]) in (0, 2)
    for page in (run / "report.html", tuned / "report.html", tmp_path / "inspection.html"):
        assert "&lt;img src=x onerror=hit()&gt;" in page.read_text()
        assert hits(browser, page) == 0


@pytest.mark.fault
def test_texts_of_markup(tmp_path: Path, browser: Browser) -> None:
    """Tokens, texts and their neighbours."""
    texts = tmp_path / "texts.jsonl"
    rows = [{"text": f"{text} number {n}", "label": text} for n in range(60) for text in MARKUP]
    texts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = words("--train.updates 2 --train.batch-size 4 --train.processes 1 --train.device cpu")
    assert run_here(["pretrain", "text_tiny", texts, "--out", tmp_path / "run", *flags]) == 0
    assert run_here(["evaluate", tmp_path / "run", texts, "--max-samples", 100]) == 0
    page = tmp_path / "run" / "report.html"
    assert "&lt;" in page.read_text()
    assert hits(browser, page) == 0
