"""A run folder -> report.html.

The report is written at every end of a run, so any file may be missing or broken. Every part of the page is read from
one file; what can't be read becomes a sentence on the page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from data2vec2.errors import UserError
from data2vec2.reporting.curves import read_curves
from data2vec2.reporting.parts import read_config, read_environment, read_skipped, read_status
from data2vec2.reporting.pictures import read_gallery, read_masks, read_mistakes
from data2vec2.reporting.scores import read_scores
from data2vec2.reporting.sounds import read_sound_gallery, read_sound_masks
from data2vec2.reporting.texts import read_text_gallery, read_text_masks
from data2vec2.reporting.transcripts import read_transcripts
from data2vec2.training.run import write_text
from data2vec2.version import __version__


@dataclass(frozen=True)
class Part:
    """A part of the page: its content, or why there is none."""

    content: Any = None
    problem: str = ""
    missing: bool = False
    """There is no such file."""


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write `run`/report.html (or `out`), a page that needs no other file and no network, and return its path.

    What is missing or broken in the folder is said on the page. Raises `UserError` only if there is no such folder or
    the page can't be written; a report that stood there before is then untouched.
    """
    if not run.is_dir():
        raise UserError(f"{run} is not a folder; give the folder of a run")
    parts = {
        "config": read_part(read_config, run / "config.yaml", "the recipe and its settings are unknown"),
        "environment": read_part(read_environment, run / "environment.json", "machine and versions are unknown"),
        "status": read_part(read_status, run / "status.json", "it is unknown how the run ended"),
        "scores": read_part(read_scores, run / "scores.json", "the model has not been scored"),
        "masks": read_part(_masks, run / "masks.npz", "no sample was kept"),
        "gallery": read_part(_gallery, run / "gallery.npz", "evaluate writes it"),
        "transcripts": read_part(read_transcripts, run / "transcripts.jsonl", "nothing was transcribed"),
        "curves": read_part(read_curves, run / "metrics.jsonl", "no figures were recorded"),
        "skipped": read_part(read_skipped, run / "skipped.jsonl", "no skipped file was recorded"),
    }
    config, scores = parts["config"].content, parts["scores"].content
    classes = scores["classes"] if scores else []
    mistakes = read_part(partial(read_mistakes, classes=classes), run / "mistakes.npz", "no mistake was kept")
    finetuning = bool((config and config["finetuning"]) or (scores and scores["kind"] in ("classify", "regress")))
    kinds = [part.content["kind"] for name in ("masks", "gallery", "config") if (part := parts[name]).content]
    more = {"mistakes": mistakes, "finetuning": finetuning, "kind": kinds[0] if kinds else "image"}
    return write_page("run.html.j2", out or run / "report.html", **parts, **more)


def _masks(path: Path) -> dict[str, Any]:
    """Masks of pictures, recordings or texts, whichever the file holds."""
    if _holds(path, "spectra"):
        return read_sound_masks(path)
    return read_text_masks(path) if _holds(path, "tokens") else read_masks(path)


def _gallery(path: Path) -> dict[str, Any]:
    """A gallery of pictures, recordings or texts, whichever the file holds."""
    if _holds(path, "spectra"):
        return read_sound_gallery(path)
    return read_text_gallery(path) if _holds(path, "texts") else read_gallery(path)


def _holds(path: Path, name: str) -> bool:
    """Whether an `.npz` file has an array of that name."""
    with np.load(path, allow_pickle=False) as arrays:
        return name in arrays


def read_part(read: Callable[[Path], Any], path: Path, if_missing: str) -> Part:
    """What `read` makes of a file, or a sentence on why there is nothing."""
    try:
        return Part(content=read(path))
    except FileNotFoundError:
        return Part(problem=f"{path.name} is missing: {if_missing}.", missing=True)
    except Exception as error:  # whatever stands in a broken file, the rest of the page must be written
        return Part(problem=f"{path.name} can't be shown ({type(error).__name__}: {error}).")


def write_page(template: str, target: Path, **shown: Any) -> Path:
    """Fill a template in and write the page; `UserError` if it can't be written."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=lambda number: f"{number:,}", duration=_duration, sentence=_sentence)
    page = environment.get_template(template).render(**shown, version=__version__)
    try:
        # a file name on disk may hold bytes that are not text; they are shown as \udcff
        write_text(target, page, errors="backslashreplace")
    except OSError as error:
        raise UserError(f"can't write {target}: {error.strerror}") from error
    return target


def _sentence(text: str) -> str:
    """The text with a capital first letter, the others as they are."""
    return text[:1].upper() + text[1:]


def _duration(seconds: float) -> str:
    """Seconds as people say them: `48 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"
