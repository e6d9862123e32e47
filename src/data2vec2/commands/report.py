"""report RUN [RUN ...]."""

from __future__ import annotations

from pathlib import Path

from data2vec2.errors import UserError
from data2vec2.reporting import write_comparison, write_report
from data2vec2.training.run import CONFIG

COMPARISON = "comparison.html"


def report(*runs: str | Path, out: str | Path | None = None, overwrite: bool = False) -> Path:
    """Write the page of a run again, or one that compares several; returns the page's path.

    `out` is the file to write; without it, one run's page is report.html in its folder, and a comparison is
    comparison.html in the current folder. A run's own report.html is always written anew, any other existing file only
    with `overwrite`. Raises `UserError` for a folder that holds no run, or if the page can't be written; `ValueError`
    without a run.
    """
    if not runs:
        raise ValueError("name at least one run folder")
    folders = [Path(run) for run in runs]
    for folder in folders:
        if not (folder / CONFIG).is_file():
            raise UserError(f"{folder} holds no run (no {CONFIG}); give the folder that pretrain or finetune wrote")
    own = folders[0] / "report.html" if len(folders) == 1 else None
    target = Path(out) if out else own or Path(COMPARISON)
    if target.is_file() and target != own and not overwrite:
        raise UserError(f"{target} exists; --overwrite replaces it")
    return write_report(folders[0], target) if own else write_comparison(folders, target)
