"""A run folder -> report.html.

The report is written at every end of a run, so any file may be missing or broken. Every part of the page is read from
one file; what can't be read becomes a sentence on the page.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jinja2
from markupsafe import Markup

from data2vec2.errors import UserError
from data2vec2.files import read_arrays
from data2vec2.modalities import spec_of
from data2vec2.modalities.tools import tools_of
from data2vec2.reporting import baselines, charts, curves, scores
from data2vec2.training.run import OTHER_SCORES, SCORES, write_text
from data2vec2.version import __version__

OWN = "own"
"""Where templates of one modality's package are found."""
LISTED = 50
"""Samples of the account that are named on the page."""
ACCOUNTED = {"can't be used": "bad", "left out": "left_out", "repaired": "mended"}
"""What can become of a sample, and its key in data.json."""


@dataclass(frozen=True)
class Section:
    """A part of the page: its content, or why there is none."""

    content: Any = None
    problem: str = ""
    missing: bool = False
    """There is no such file."""
    command: str = ""
    """What makes it, if it can be made of what is there."""


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write `run`/report.html (or `out`), a page that needs no other file and no network, and return its path.

    `UserError` only if there is no such folder or the page can't be written; an earlier report is then untouched.
    """
    if not run.is_dir():
        raise UserError(f"{run} is not a folder; give the folder of a run")
    config = read_part(read_config, run / "config.yaml", "the recipe and its settings are unknown")
    environment = read_part(read_environment, run / "environment.json", "machine and versions are unknown")
    asked = (environment.content or {}).get
    finetuned = bool(config.content and config.content["finetuning"])
    evaluate = "" if finetuned else f"data2vec2 evaluate {shlex.join((str(run), asked('data_path', 'DATA')))}"
    unscored = "it is written when fine-tuning ends" if finetuned else "the model has not been scored"
    scored = read_part(scores.read_scores, run / SCORES, unscored, evaluate)
    kind = _kind(run, config.content)
    tuned = scored.content and scored.content["kind"] in scores.TUNED
    finetuning = bool(tuned or finetuned)
    unit = unit_of(kind, finetuning)
    mistakes = partial(charts.read_mistakes, classes=scored.content["classes"] if scored.content else [])
    account = read_part(
        lambda path: account_of(scores.read_mapping(path)), run / "data.json", "it is unknown what became of the data"
    )
    return write_page(
        "run.html.j2",
        out or run / "report.html",
        title=_title(kind, finetuning, account.content),
        many=_many(kind),
        finetuning=finetuning,
        unit=unit,
        config=config,
        scores=scored,
        rivals=baselines.rivals(run) if tuned else None,
        other_scores=read_part(scores.read_others, run / OTHER_SCORES, "no other data were scored"),
        environment=environment,
        status=read_part(read_status, run / "status.json", "it is unknown how the run ended"),
        masks=read_part(lambda path: _draw("masks", kind, read_arrays(path)), run / "masks.npz", "no sample was kept"),
        gallery=read_part(
            lambda path: _draw("gallery", kind, read_arrays(path)), run / "gallery.npz", "evaluate writes it", evaluate
        ),
        mistakes=read_part(mistakes, run / "mistakes.npz", "it is written when fine-tuning ends"),
        transcripts=read_part(scores.read_transcripts, run / "transcripts.jsonl", "nothing was transcribed"),
        curves=read_part(partial(curves.read_curves, unit=unit), run / "metrics.jsonl", "no figures were recorded"),
        account=account,
    )


def _many(kind: str) -> str:
    """What samples of a modality are called."""
    with suppress(ValueError):
        return spec_of(kind).words.many
    return "samples"


def _title(kind: str, finetuning: bool, account: dict[str, Any] | None) -> str:
    """What the run did, as in "Pre-training on 9,500 pictures"."""
    used = dict(account["parts"]).get("train", ["", ""])[1] if account else ""
    return f"{'Fine-tuning' if finetuning else 'Pre-training'} on {used} {_many(kind)}".replace("  ", " ")


def _kind(run: Path, config: dict[str, Any] | None) -> str:
    """The modality, as masks or gallery say, else the configuration; "" where none does."""
    for name in ("masks.npz", "gallery.npz"):
        with suppress(Exception):
            return str(read_arrays(run / name)["kind"])
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


def _draw(part: Literal["masks", "gallery"], kind: str, arrays: Mapping[str, Any]) -> Markup:
    """A part of the page as the modality's template draws it; `ValueError` for an unknown modality."""
    if not kind:
        raise ValueError("neither it nor config.yaml says which modality it is of")
    spec = spec_of(kind)
    show = tools_of(spec.name).show
    package, name = show.template
    macro = getattr(_environment(package).get_template(f"{OWN}/{name}").module, part)
    drawn: Markup = macro(getattr(show, part)(arrays), spec.words)
    return drawn


def read_part(read: Callable[[Path], Any], path: Path, if_missing: str, command: str = "") -> Section:
    """What `read` makes of a file, or a sentence on why there is nothing."""
    try:
        return Section(content=read(path))
    except FileNotFoundError:
        return Section(problem=f"{path.name} is missing: {if_missing}.", missing=True, command=command)
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
    environment.filters.update(sentence=_sentence)
    return environment


def _sentence(text: str) -> str:
    """With a capital at the beginning, but for words like kNN."""
    return text if text[1:2].isupper() else text[:1].upper() + text[1:]


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


def account_of(account: Mapping[str, Any]) -> dict[str, Any]:
    """What became of the samples: numbers and reasons by part, remarks, and the first samples with their reasons."""
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
