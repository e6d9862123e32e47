"""The range of versions that pyproject.toml promises: `make wheels` and `make lower-bound`.

Without an argument PyPI is asked for the newest wheel of every dependency that fits this machine and each Python of the
range, and a Markdown table says so; exit 1 if a hard dependency has none. No wheel is downloaded.
`--lower-bounds` prints the oldest version that each dependency is promised to work with, as constraints for pip.
"""

from __future__ import annotations

import datetime
import json
import platform
import sys
import tomllib
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from packaging.tags import Tag

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def requirements() -> dict[str, list[str]]:
    """What pyproject.toml asks for: the hard dependencies under "", those of each extra for users under its name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = {name: asked for name, asked in project["optional-dependencies"].items() if name != "dev"}
    return {"": project["dependencies"], **extras}


def files_of(name: str) -> list[dict[str, Any]]:
    """What PyPI has of a distribution: filename, requires-python and yanked of each file."""
    asked = urllib.request.Request(
        f"https://pypi.org/simple/{name.lower()}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"}
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        files: list[dict[str, Any]] = json.load(answer)["files"]
    return files


def tags_of(python: str) -> set[Tag]:
    """The wheels that this machine's builds of a Python take."""
    from packaging.tags import compatible_tags, cpython_tags, platform_tags

    version, platforms = tuple(map(int, python.split("."))), list(platform_tags())
    interpreter = f"cp{python.replace('.', '')}"
    abis = [interpreter]
    return {*cpython_tags(version, abis, platforms), *compatible_tags(version, interpreter, platforms)}


def newest(requirement: Requirement, files: list[dict[str, Any]], python: str) -> str:
    """The version of the newest wheel for a Python; "none" if there is none, "" if it is not asked for there."""
    from packaging.specifiers import SpecifierSet
    from packaging.utils import parse_wheel_filename

    if requirement.marker and not requirement.marker.evaluate({"python_version": python}):
        return ""
    tags, found = tags_of(python), set()
    for file in files:
        if not file["filename"].endswith(".whl") or file.get("yanked"):
            continue
        _, version, _, fits = parse_wheel_filename(file["filename"])
        runs_on = SpecifierSet(file.get("requires-python") or "")
        good = not version.is_prerelease and version in requirement.specifier and f"{python}.9" in runs_on
        if good and tags & fits:
            found.add(version)
    return str(max(found, default="none"))


def table() -> int:
    """Print which wheels there are; returns the exit code."""
    from packaging.requirements import Requirement  # comes with matplotlib

    print(f"Newest wheels on {datetime.date.today()} for {platform.system()} {platform.machine()}:\n")
    print(f"| dependency | extra | oldest | {' | '.join(PYTHONS)} |\n|{'---|' * (3 + len(PYTHONS))}")
    lacking = []
    for extra, asked in requirements().items():
        for one in map(Requirement, asked):
            files = files_of(one.name)
            versions = [newest(one, files, python) for python in PYTHONS]
            print(f"| {one.name} | {extra} | {str(one.specifier).removeprefix('>=')} | {' | '.join(versions)} |")
            if not extra and "none" in versions:
                lacking.append(one.name)
    print(f"\n{', '.join(lacking)}: no wheel" if lacking else "\nEvery hard dependency has a wheel for every Python.")
    return int(bool(lacking))


if __name__ == "__main__":
    if sys.argv[1:] == ["--lower-bounds"]:
        print("\n".join(text.replace(">=", "==", 1) for asked in requirements().values() for text in asked))
    elif sys.argv[1:]:
        sys.exit(f"{__doc__}\nunknown: {' '.join(sys.argv[1:])}")
    else:
        sys.exit(table())
