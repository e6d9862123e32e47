"""Hooks of MkDocs: what the pages link to outside docs/ becomes part of the site; the search works without a server.

Links are written as they work in the repository. Every file that a page links to, and that is no page or picture of
docs/ itself, stands on the site under repository/: Markdown as a page, whose links are followed too, and code as a page
that shows it. A link to something that does not exist stays as it is, and MkDocs says so.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<=\]\()([^)#\s]+)(?=[)#])")
FENCE = re.compile(r"(^```.*?^```$)", flags=re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add a page for every file outside docs/ that a page links to, directly or through others."""
    own = {f"docs/{file.src_uri}": file.src_uri for file in files if not file.inclusion.is_excluded()}
    waiting = [path for path in own if path.endswith(".md")]
    while waiting:
        origin = waiting.pop()
        for path in _targets(origin):
            if path not in own and (ROOT / path).is_file():
                own[path] = f"repository/{path.removesuffix('.md')}.md"
                files.append(File.generated(config, own[path], content=_page(path)))
                if path.endswith(".md"):
                    waiting.append(path)
    config.extra["places"] = own
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn a page's links around to where their targets stand on the site."""
    places: dict[str, str] = config.extra["places"]
    here = page.file.src_uri
    origin = next(path for path, place in places.items() if place == here)

    def turn(link: re.Match[str]) -> str:
        place = places.get(_resolved(origin, link[1]))
        return posixpath.relpath(place, posixpath.dirname(here)) if place else link[1]

    parts = FENCE.split(markdown)
    parts[::2] = [LINK.sub(turn, part) for part in parts[::2]]
    return "".join(parts)


def on_post_build(config: Any) -> None:
    """Write the search index as a script too, which pages opened as files may load (search_files.js does the rest)."""
    index = Path(config.site_dir, "search", "search_index.json")
    index.with_suffix(".js").write_text(f"var __index = {index.read_text('utf-8')}", encoding="utf-8")


def _targets(origin: str) -> list[str]:
    """Paths in the repository that a Markdown file links to."""
    prose = FENCE.split((ROOT / origin).read_text("utf-8"))[::2]
    return [_resolved(origin, target) for part in prose for target in LINK.findall(part)]


def _resolved(origin: str, target: str) -> str:
    """A link's path from the root of the repository."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))


def _page(path: str) -> str:
    """What the site shows of a file: Markdown itself, else its text as it is, which the search leaves out."""
    text = (ROOT / path).read_text("utf-8")
    if path.endswith(".md"):
        return text
    language = "python" if path.endswith(".py") else "text"
    return f"---\nsearch:\n  exclude: true\n---\n\n# {path}\n\n````{language}\n{text.rstrip()}\n````\n"
