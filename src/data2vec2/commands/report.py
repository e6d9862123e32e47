"""report RUN [RUN ...]."""

from __future__ import annotations

from pathlib import Path

from data2vec2.errors import UserError
from data2vec2.reporting import write_comparison, write_report
from data2vec2.training.run import CONFIG

COMPARISON = "comparison.html"


def report(*runs: str | Path, out: str | Path | None = None) -> Path:
    """Write the page of a run again, or one that compares several; returns the page's path.

    `out` is the file to write; without it, one run's page is report.html in its folder, and a comparison is
    comparison.html in the current folder. Raises `UserError` for a folder that holds no run, or if the page can't be
    written; `ValueError` without a run.
    """
    if not runs:
        raise ValueError("name at least one run folder")
    folders = [Path(run) for run in runs]
    for folder in folders:
        if not (folder / CONFIG).is_file():
            raise UserError(f"{folder} holds no run (no {CONFIG}); give the folder that pretrain or finetune wrote")
    if len(folders) == 1:
        return write_report(folders[0], Path(out) if out else None)
    return write_comparison(folders, Path(out or COMPARISON))
