"""The pages of the documentation, and the blocks of code in them."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of a page's fenced blocks."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / page).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def file_name(block: str) -> str | None:
    """The file that a block of Python is a part of, as its first line says: `# NAME.py`, or `# NAME.py, continued`."""
    found = re.match(r"# (\w+\.py)(, continued)?\n", block)
    return found[1] if found else None


def module_of(page: str, name: str) -> ModuleType:
    """The file `name` that a page's blocks make up, imported."""
    module = ModuleType(name.removesuffix(".py"))
    code = "\n".join(text for language, text in blocks(page) if language == "python" and file_name(text) == name)
    exec(compile(code, f"{page}: {name}", "exec"), module.__dict__)
    return module
