"""report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(kw_only=True)
class Report:
    """Write the page of a run again, or one page that compares several runs."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Run folders: one for its own page, several for a comparison."""
    out: Path | None = None
    """File to write; none: RUN/report.html, for several runs comparison.html in this folder."""
    overwrite: bool = False
    """Replace an existing file. RUN/report.html is replaced without it."""


def run_report(rest: list[str]) -> int:
    """Parse and run `report`; returns the exit code."""
    args = tyro.cli(Report, args=rest, prog="data2vec2 report")
    from data2vec2.commands.report import report

    print(report(*args.runs, out=args.out, overwrite=args.overwrite))
    return 0
