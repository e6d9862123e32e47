"""report RUN [RUN ...]."""

from __future__ import annotations

from pathlib import Path

from data2vec2.commands.options import Report, paths_of
from data2vec2.errors import UserError
from data2vec2.reporting.build import write_report
from data2vec2.reporting.comparison import write_comparison
from data2vec2.training.run import CONFIG

COMPARISON = "comparison.html"


def report(given: Report) -> Path:
    """Write the page of a run again, or one that compares several; returns the page's path."""
    folders, overwrite = paths_of(given.runs, "is no RUN; name at least one run folder"), given.overwrite
    for folder in folders:
        if not (folder / CONFIG).is_file():
            raise UserError(f"{folder} holds no run (no {CONFIG}); give the folder that pretrain or finetune wrote")
    own = folders[0] / "report.html" if len(folders) == 1 else None
    target = Path(given.out) if given.out else own or Path(COMPARISON)
    if target.is_file() and target != own and not overwrite:
        raise UserError(f"{target} exists; --overwrite replaces it")
    return write_report(folders[0], target) if own else write_comparison(folders, target)
