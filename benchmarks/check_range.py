"""The range of versions that pyproject.toml promises: `make wheels` and `make lower-bound`.

Without an argument pip is asked for the newest wheel of every dependency that fits this machine and each Python of the
range, and a Markdown table says so; exit 1 if a required dependency has none. No wheel is downloaded.
`--lower-bounds` prints the oldest version that each dependency is promised to work with, as constraints for pip.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def requirements() -> dict[str, list[str]]:
    """What pyproject.toml asks for: the hard dependencies under "", those of each extra for users under its name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = {name: asked for name, asked in project["optional-dependencies"].items() if name != "dev"}
    return {"": project["dependencies"], **extras}


def newest(requirement: Requirement, python: str) -> str:
    """The version of the newest wheel for a Python; "none" if there is none, "" if it is not asked for there."""
    if requirement.marker and not requirement.marker.evaluate({"python_version": python}):
        return ""
    from packaging.version import Version  # comes with matplotlib

    pip = [sys.executable, "-m", "pip", "index", "versions", requirement.name, "--python-version", python, "-vv"]
    answer = subprocess.run(pip, capture_output=True, text=True)
    if answer.returncode and "No matching distribution" not in answer.stderr:
        raise SystemExit(answer.stderr)
    links = re.findall(r"Found link (\S+?)(?:#\S*)? .*, version: (\S+)$", answer.stdout, flags=re.MULTILINE)
    versions = {Version(version) for link, version in links if link.endswith(".whl")}
    return str(max(requirement.specifier.filter(versions), default="none"))


def table() -> int:
    """Print which wheels there are; returns the exit code."""
    from packaging.requirements import Requirement

    print(f"Newest wheels on {datetime.date.today()} for {platform.system()} {platform.machine()}:\n")
    print(f"| dependency | extra | oldest | {' | '.join(PYTHONS)} |\n|{'---|' * (3 + len(PYTHONS))}")
    lacking = []
    for extra, asked in requirements().items():
        for one in map(Requirement, asked):
            versions = [newest(one, python) for python in PYTHONS]
            oldest = next(each.version for each in one.specifier if each.operator == ">=")
            print(f"| {one.name} | {extra} | {oldest} | {' | '.join(versions)} |")
            if not extra and "none" in versions:
                lacking.append(one.name)
    print(
        f"\n{', '.join(lacking)}: no wheel" if lacking else "\nEvery required dependency has a wheel for every Python."
    )
    return int(bool(lacking))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lower-bounds", action="store_true", help="print constraints for pip instead")
    if not parser.parse_args().lower_bounds:
        sys.exit(table())
    print("\n".join(text.replace(">=", "==", 1) for asked in requirements().values() for text in asked))
