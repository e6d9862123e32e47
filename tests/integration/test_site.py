"""The documentation as a site: it builds, links lead somewhere, nothing is loaded from elsewhere, the search finds."""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.integration.browser import Browser
from tests.pages import PAGES, ROOT

LOADED = {
    "script": "src",
    "link": "href",
    "img": "src",
    "source": "src",
    "iframe": "src",
    "audio": "src",
    "video": "src",
}
"""What a browser loads when it opens a page."""
CSS_LOADS = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)""")
LARGEST_FIGURE = 150_000
"""Bytes."""


class Page(HTMLParser):
    """What a page of HTML links to, loads and can be linked to at, and its text outside code."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.prose = ""
        self._code = 0
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        self._code += tag in ("code", "pre", "script", "style")
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in LOADED and LOADED[tag] in values:
            self.loads.append(values[LOADED[tag]])

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag in ("code", "pre", "script", "style")

    def handle_data(self, data: str) -> None:
        self.prose += "" if self._code else data


def problems(site: Path) -> list[str]:
    """Broken links and anchors, and what is loaded from elsewhere."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        where = path.relative_to(site.resolve()).as_posix()
        for target in page.links + page.loads:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                if target in page.loads and parts.scheme != "data":
                    found.append(f"{where} loads {target}")
                continue
            base = site if parts.path.startswith("/") else path.parent  # only 404.html, which is shown anywhere
            file = (base / unquote(parts.path).lstrip("/")).resolve() if parts.path not in ("", ".") else path
            file = file / "index.html" if file.is_dir() else file
            if not file.is_file():
                found.append(f"{where}: no file for {target}")
            elif parts.fragment and unquote(parts.fragment) not in pages[file].anchors:
                found.append(f"{where}: no place for {target}")
    for path in site.rglob("*.css"):
        found += [f"{path.name} loads {url}" for url in CSS_LOADS.findall(path.read_text("utf-8"))]
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="needs pip install '.[docs]'")
    return build(ROOT / "mkdocs.yml", tmp_path_factory.mktemp("site"))


def build(config: Path, out: Path) -> Path:
    """Build the site, as `make docs` does; what MkDocs warns of is an error."""
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--config-file",
        str(config),
        "--site-dir",
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_no_link_is_broken_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    assert not problems(site)


def test_problems_are_seen(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<h1 id="top"></h1><a href="#top"></a><a href="b.html#there"></a><a href="https://example.org"></a>'
        '<a href="#no"></a><a href="b.html#no"></a><a href="c.html"></a><img src="d.png">'
        '<script src="https://example.org/x.js"></script><link href="//example.org/f.css">'
    )
    (tmp_path / "b.html").write_text('<p id="there">')
    (tmp_path / "s.css").write_text('@import "https://example.org/a.css"; p { background: url(//example.org/b.png) }')
    assert problems(tmp_path) == [
        "a.html: no place for #no",
        "a.html: no place for b.html#no",
        "a.html: no file for c.html",
        "a.html: no file for d.png",
        "a.html loads https://example.org/x.js",
        "a.html loads //example.org/f.css",
        "s.css loads https://example.org/a.css",
        "s.css loads //example.org/b.png",
    ]


def test_the_search_knows_every_page(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text("utf-8"))
    known = {entry["location"].partition("#")[0] for entry in index["docs"]}
    own = {page.removeprefix("docs/").replace(".md", ".html") for page in PAGES[1:]}
    assert len(own) >= 14
    assert own <= known
    assert {"repository/index.html", "repository/LOG.html", "repository/CONTRIBUTING.html"} <= known


def test_every_page_is_in_the_navigation(site: Path) -> None:
    links = set(Page(site / "index.html").links)
    assert {page.removeprefix("docs/").replace(".md", ".html") for page in PAGES[1:]} <= links


def test_files_outside_docs_are_shown(site: Path) -> None:
    assert "repository/LOG.html" in Page(site / "index.html").links
    step = site / "repository" / "src" / "data2vec2" / "method" / "pretraining.py.html"
    assert "repository/src/data2vec2/method/pretraining.py.html" in Page(site / "how-it-works.html").links
    assert "a student that sees parts predicts" in step.read_text("utf-8")


def test_markdown_is_understood(site: Path) -> None:
    """What GitHub reads as a list, table, link or code is none to MkDocs where a blank line is missing."""
    for path in site.rglob("*.html"):
        left = re.findall(r"\]\(|```|^\s*[-*] \w|\|\s*-{3}|\*\*\w", Page(path).prose, flags=re.MULTILINE)
        assert not left, f"{path.name} shows {left}"


@pytest.mark.parametrize("text", ["[gone](gone.md)", "[gone](../src/gone.py)", "[gone](index.md#gone)"])
def test_a_broken_link_stops_the_build(text: str, tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs pip install '.[docs]'")
    (tmp_path / "docs").mkdir()
    for name in ("hooks.py", "search_files.js", "site.css"):
        shutil.copy(ROOT / "docs" / name, tmp_path / "docs")
    (tmp_path / "docs" / "index.md").write_text(f"# Start\n\n{text}\n")
    config = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[0]
    (tmp_path / "mkdocs.yml").write_text(config)
    with pytest.raises(AssertionError, match="gone"):
        build(tmp_path / "mkdocs.yml", tmp_path / "site")


def test_figures_are_those_of_the_script(tmp_path: Path) -> None:
    generator = runpy.run_path(str(ROOT / "docs" / "make_figures.py"))
    generator["main"](tmp_path)
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == {path.name for path in (ROOT / "docs" / "figures").iterdir()}
    page = (ROOT / "docs" / "how-it-works.md").read_text("utf-8")
    for name in drawn:
        assert f"(figures/{name})" in page
        assert max((folder / name).stat().st_size for folder in (tmp_path, ROOT / "docs" / "figures")) < LARGEST_FIGURE
    for number in ("59.3", "25.7"):
        assert number in page
        assert f">{number}</text>" in (tmp_path / "step-cost.svg").read_text("utf-8")


@pytest.fixture(params=["server", "files"])
def address(site: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the site is: on a port of this machine, or its folder."""
    if request.param == "files":
        yield f"{site.as_uri()}/"
        return
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server that does not talk."""

    def log_message(self, *args: object) -> None:
        pass


def test_a_browser_finds_a_word_and_asks_nobody_else(address: str, tmp_path: Path) -> None:
    with Browser(tmp_path / "profile") as browser:
        browser.open(f"{address}how-it-works.html")
        assert browser.value("document.title") == "How it works - data2vec2"
        pictures = "[...document.querySelectorAll('article img')]"
        assert browser.value(f"{pictures}.length") == 4
        assert browser.value(f"{pictures}.every(picture => picture.naturalWidth > 100)")
        box = "document.querySelector('[data-md-component=search-query]')"
        browser.value(f"{box}.focus()")
        browser.do("Input.insertText", text="sensors")
        found = "[...document.querySelectorAll('.md-search-result__link')].map(link => link.href).join(' ')"
        typed = f"{box}.dispatchEvent(new Event('keyup'))"  # what the page listens to, once it does
        assert f"{address}own-modality.html" in browser.wait(f"{typed} && {found}")
        assert browser.value(f"{box}.value") == "sensors"
        assert {url for url in browser.requests if not url.startswith((address, "data:"))} <= {"about:blank"}
        assert any("/search/search_index.js" in url for url in browser.requests)
