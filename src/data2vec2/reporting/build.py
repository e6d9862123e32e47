"""A run folder -> report.html; several -> one page that shows them side by side.

The report is written at every end of a run, so any file may be missing or broken. Every part of the page is read from
one file; what can't be read becomes a sentence on the page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jinja2
import numpy as np
from markupsafe import Markup

from data2vec2.errors import UserError
from data2vec2.modalities import spec_of
from data2vec2.modalities.tools import tools_of
from data2vec2.reporting import charts, curves, scores
from data2vec2.training.run import OTHER_SCORES, SCORES, write_text
from data2vec2.version import __version__

OWN = "own"
"""Where templates of one modality's package are found."""
LISTED = 50
"""Samples of the account that are named on the page."""
ACCOUNTED = {"can't be used": "bad", "left out": "left_out", "mended": "mended"}
"""What can become of a sample, and its key in data.json."""


@dataclass(frozen=True)
class Section:
    """A part of the page: its content, or why there is none."""

    content: Any = None
    problem: str = ""
    missing: bool = False
    """There is no such file."""


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write `run`/report.html (or `out`), a page that needs no other file and no network, and return its path.

    `UserError` only if there is no such folder or the page can't be written; an earlier report is then untouched.
    """
    if not run.is_dir():
        raise UserError(f"{run} is not a folder; give the folder of a run")
    config = read_part(read_config, run / "config.yaml", "the recipe and its settings are unknown")
    scored = read_part(scores.read_scores, run / SCORES, "the model has not been scored")
    kind = _kind(run, config.content)
    tuned = scored.content and scored.content["kind"] in scores.TUNED
    finetuning = bool(tuned or (config.content and config.content["finetuning"]))
    unit = unit_of(kind, finetuning)
    mistakes = partial(charts.read_mistakes, classes=scored.content["classes"] if scored.content else [])
    return write_page(
        "run.html.j2",
        out or run / "report.html",
        finetuning=finetuning,
        unit=unit,
        config=config,
        scores=scored,
        other_scores=read_part(scores.read_others, run / OTHER_SCORES, "no other data were scored"),
        environment=read_part(read_environment, run / "environment.json", "machine and versions are unknown"),
        status=read_part(read_status, run / "status.json", "it is unknown how the run ended"),
        masks=read_part(partial(_drawn, "masks", kind), run / "masks.npz", "no sample was kept"),
        gallery=read_part(partial(_drawn, "gallery", kind), run / "gallery.npz", "evaluate writes it"),
        mistakes=read_part(mistakes, run / "mistakes.npz", "no mistake was kept"),
        transcripts=read_part(scores.read_transcripts, run / "transcripts.jsonl", "nothing was transcribed"),
        curves=read_part(partial(curves.read_curves, unit=unit), run / "metrics.jsonl", "no figures were recorded"),
        account=read_part(read_account, run / "data.json", "it is unknown what became of the data"),
    )


def _kind(run: Path, config: dict[str, Any] | None) -> str:
    """The modality, as masks or gallery say, else the configuration; "" where none does."""
    for name in ("masks.npz", "gallery.npz"):
        with suppress(Exception), np.load(run / name, allow_pickle=False) as arrays:
            return str(arrays["kind"])
    return config["kind"] if config else ""


def unit_of(kind: str, finetuning: bool) -> str:
    """What a run's batch sizes count; "samples" where its modality is unknown."""
    with suppress(ValueError):
        words = spec_of(kind).words
        return (finetuning and words.finetune_unit) or words.unit
    return "samples"


def write_inspection(found: Any, preview: Mapping[str, Any], out: Path) -> Path:
    """Write the page of an inspection, with what the first samples look like to the model."""
    content = found.to_dict()
    account, shown = account_of(content["account"]), _draw("masks", found.kind, preview)
    return write_page("inspection.html.j2", out, found=content, account=account, shown=shown)


def _drawn(part: Literal["masks", "gallery"], kind: str, path: Path) -> Markup:
    """A part of the page as the modality's template draws it; `ValueError` for an unknown modality."""
    with np.load(path, allow_pickle=False) as file:
        return _draw(part, kind, dict(file))


def _draw(part: Literal["masks", "gallery"], kind: str, arrays: Mapping[str, Any]) -> Markup:
    if not kind:
        raise ValueError("neither it nor config.yaml says which modality it is of")
    spec = spec_of(kind)
    show = tools_of(spec.name).show
    package, name = show.template
    macro = getattr(_environment(package).get_template(f"{OWN}/{name}").module, part)
    drawn: Markup = macro(getattr(show, part)(arrays), spec.words)
    return drawn


def read_part(read: Callable[[Path], Any], path: Path, if_missing: str) -> Section:
    """What `read` makes of a file, or a sentence on why there is nothing."""
    try:
        return Section(content=read(path))
    except FileNotFoundError:
        return Section(problem=f"{path.name} is missing: {if_missing}.", missing=True)
    except Exception as error:  # whatever stands in a broken file, the rest of the page must be written
        return Section(problem=f"{path.name} can't be shown ({type(error).__name__}: {error}).")


def write_page(template: str, target: Path, **shown: Any) -> Path:
    """Fill a template in and write the page; `UserError` if it can't be written."""
    page = _environment().get_template(template).render(**shown, version=__version__)
    # a file name on disk may hold bytes that are not text; they are shown as \udcff
    write_text(target, page, errors="backslashreplace")
    return target


def _environment(package: str = "data2vec2.modalities") -> jinja2.Environment:
    """Our templates, those for any modality, and as `OWN`/... those of one modality's package."""
    packages = (__package__, "data2vec2.modalities")
    own = jinja2.PrefixLoader({OWN: jinja2.PackageLoader(package)})
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([*map(jinja2.PackageLoader, packages), own]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(picture=charts.data_uri, sound=charts.clip, drawn_map=charts.draw_map)
    environment.filters.update(duration=_duration, count=lambda number: f"{number:,}")
    environment.filters.update(sentence=lambda text: text[:1].upper() + text[1:])
    return environment


def _duration(seconds: float) -> str:
    """Seconds as people say them: `48 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def read_config(path: Path) -> dict[str, Any]:
    """Find the recipe, the modality and whether it is a fine-tuning run, and keep the file as it stands."""
    values = scores.read_mapping(path)
    model = values.get("model")
    groups = (model.get("modality") if isinstance(model, dict) else None, values.get("data"), values.get("task"))
    return {
        "recipe": str(values.get("recipe", "unknown recipe")),
        "finetuning": bool({"task", "augment", "masks", "from_scratch"} & values.keys()),
        "kind": next((str(group["kind"]) for group in groups if isinstance(group, dict) and "kind" in group), ""),
        "values": values,
        "yaml": path.read_text("utf-8"),
    }


def read_environment(path: Path) -> dict[str, str]:
    """Every value as text; a list (a command) is joined by spaces."""
    shown = scores.read_mapping(path)
    for key, value in shown.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {inner}" for name, inner in value.items())
        shown[key] = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return shown


def read_status(path: Path) -> dict[str, Any]:
    """State and message as text; step and updates as numbers or None."""
    status = scores.read_mapping(path)
    numbers = {key: int(status[key]) if charts.is_number(status.get(key)) else None for key in ("step", "updates")}
    return {"state": str(status.get("state", "unknown")), "message": str(status.get("message") or ""), **numbers}


def read_account(path: Path) -> dict[str, Any]:
    """What became of the samples: numbers and reasons by part, remarks, and the first samples with their reasons."""
    return account_of(scores.read_mapping(path))


def account_of(account: Mapping[str, Any]) -> dict[str, Any]:
    """An account as `Account.to_dict` gives it, for the page."""
    parts, reasons, samples = [], [], list[tuple[str, str]]()
    for name, part in account["parts"].items():
        asked = Counter(part["left_out_as_asked"])
        numbers = [part["found"], part["used"], *(len(part[key]) for key in ACCOUNTED.values())]
        numbers[3] += asked.total()
        parts.append((name, [f"{number:,}" for number in numbers]))
        counted = {what: Counter(part[key].values()) for what, key in ACCOUNTED.items()}
        counted["left out"] += asked
        reasons += [
            (f"{name}: {what}", f"{why} ({n:,})") for what, of in counted.items() for why, n in of.most_common()
        ]
        samples += [(str(one), str(why)) for key in ACCOUNTED.values() for one, why in part[key].items()]
    reasons += [("no samples", f"{why} ({n:,})") for why, n in Counter(account["no_samples"].values()).most_common()]
    remarks = [str(one) for one in (*account["choices"], *account["remarks"])]
    columns = ["found", "used", *ACCOUNTED]
    return {"columns": columns, "parts": parts, "reasons": reasons, "remarks": remarks, "samples": samples[:LISTED]}


def write_comparison(runs: Sequence[Path], out: Path) -> Path:
    """Write a page on two or more runs: where their configurations differ, their scores, their curves over each other.

    `UserError` for what is no folder, and if the page can't be written.
    """
    for run in runs:
        if not run.is_dir():
            raise UserError(f"{run} is not a folder; give the folders of runs")
    named, problems = dict(zip(_names(runs), runs, strict=True)), list[str]()

    def read_all(read: Any, file: str, if_missing: str) -> dict[str, Any]:
        parts = {name: read_part(read, run / file, if_missing) for name, run in named.items()}
        problems.extend(f"{name}: {part.problem}" for name, part in parts.items() if part.problem)
        return {name: part.content for name, part in parts.items()}

    configs = read_all(read_config, "config.yaml", "its settings are unknown")
    statuses = read_all(read_status, "status.json", "it is unknown how the run ended")
    environments = read_all(read_environment, "environment.json", "machine and versions are unknown")
    measures = {}
    for name, run in named.items():
        own = read_part(scores.read_measures, run / SCORES, "the model has not been scored")
        other = read_part(scores.read_other_measures, run / OTHER_SCORES, "")
        shown = [other] if own.missing and not other.missing else [own, *([] if other.missing else [other])]
        problems += [f"{name}: {part.problem}" for part in shown if part.problem]
        measures[name] = {key: value for part in shown for key, value in (part.content or {}).items()}
    figures = read_all(curves.read_rows, "metrics.jsonl", "no figures recorded")
    rows = {name: found or [] for name, found in figures.items()}
    facts = []
    for name, run in named.items():
        step, seconds = curves.reached(rows[name])
        facts.append(
            {
                "name": name,
                "path": str(run),
                "recipe": (configs[name] or {}).get("recipe", "unknown"),
                "data": (environments[name] or {}).get("data", "unknown"),
                "state": (statuses[name] or {}).get("state", "unknown"),
                "step": step,
                "seconds": seconds,
            }
        )
    units = {unit_of(found["kind"], found["finetuning"]) for found in configs.values() if found}
    return write_page(
        "compare.html.j2",
        out,
        runs=facts,
        names=list(named),
        differences=_differences(configs),
        scores=_side_by_side(measures),
        charts_shown=curves.compare_curves(rows, units.pop() if len(units) == 1 else "samples"),
        problems=problems,
    )


def _names(runs: Sequence[Path]) -> list[str]:
    """A name for every run: its folder's, or the path where two folders are called the same."""
    short = [run.resolve().name for run in runs]
    names = [name if short.count(name) == 1 else str(run) for name, run in zip(short, runs, strict=True)]
    if len(set(names)) < len(names):
        raise UserError(f"the same run is named twice: {', '.join(map(str, runs))}")
    return names


def _differences(configs: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """(setting, its value in each run), where runs differ; a run without configuration is left blank."""
    flat = {name: _flat(config["values"], "") if config else None for name, config in configs.items()}
    keys = dict.fromkeys(key for values in flat.values() if values for key in values)
    rows = [(key, ["" if values is None else values.get(key, "not set") for values in flat.values()]) for key in keys]
    return [(key, cells) for key, cells in rows if len(set(cells) - {""}) > 1]


def _flat(tree: Mapping[str, Any], prefix: str) -> dict[str, str]:
    """Nested settings as dotted names, values as text."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = "none" if value is None else str(value)
    return flat


def _side_by_side(measures: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, bool]]]]:
    """(score, [(value as text, whether it is the best of the row)])."""
    rows = []
    for key in dict.fromkeys(key for found in measures.values() if found for key in found):
        values = [(found or {}).get(key) for found in measures.values()]
        known = [value for value in values if charts.is_number(value)]
        better = min if key in scores.RECOGNIZER.values() else max
        best = better(known) if len(set(known)) > 1 else None  # where all are the same, none is the best
        share = key.split(": ")[0] in scores.SHARES.values()
        rows.append((key, [(charts.said(value, share), best is not None and value == best) for value in values]))
    return rows
