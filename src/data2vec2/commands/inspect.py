"""inspect DATA."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from data2vec2.commands.estimate import format_length
from data2vec2.commands.options import Inspect
from data2vec2.commands.runner import named_columns
from data2vec2.commands.training import quiet
from data2vec2.config.run import RunConfig, bounded_updates
from data2vec2.data import folder
from data2vec2.data.account import Account
from data2vec2.data.labels import some
from data2vec2.data.letters import normalise
from data2vec2.data.lines import LINES
from data2vec2.data.reader import Reader, stream
from data2vec2.data.reading import wording
from data2vec2.data.records import Parts, Records
from data2vec2.data.source import extension_of
from data2vec2.errors import UsageError, UserError
from data2vec2.files import whole_file
from data2vec2.interop.table import check_out
from data2vec2.modalities import get_recipe, specs
from data2vec2.modalities.tools import Tools, tools_of
from data2vec2.reporting.build import write_inspection
from data2vec2.training.progress import console, shows_bars

SHOWN = 10
"""Samples that are shown as the model sees them."""
_AT_ONCE = 64
_PARTS = ("train", "val", "test")
_TITLES = ("found", "used", "can't be used", "left out", "repaired")


@dataclass
class Inspection:
    """What a data set holds, by part where it differs."""

    data: str
    kind: str
    """The modality."""
    description: str
    account: Account
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    """How many samples each class has."""
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of each fact of samples the least, median and largest number, or how often each value is there."""
    duplicates: list[list[str]] = field(default_factory=list)
    """Samples of the same content, each with its part before it, where they are in different parts."""
    repeated: int = 0
    """Samples whose content another sample of their part has, too."""
    files: dict[str, list[str]] = field(default_factory=dict)
    """Tables and files of text by their encoding and line ends."""
    transcripts: dict[str, str] = field(default_factory=dict)
    """Those of the first training samples, as they are learned, by name."""
    advice: list[str] = field(default_factory=list)
    """How long each recipe trains on the data."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "account": self.account.to_dict()}


def inspect(given: Inspect) -> Inspection:
    """Read all samples of DATA once and say what is there; with `out`, write it as a page or as JSON."""
    out = Path(given.out) if given.out else None
    if out:
        check_out(out, given.overwrite, "data.html or data.json")
        if out.suffix.lower() not in (".html", ".json"):
            raise UsageError(f"--out is {out}; its name must end in .html or .json")
    say, path = console().print, str(given.data)
    tools, config, parts = _opened(path, given)
    parts.account.parts = {part: parts.account.parts[part] for part in _PARTS if part in parts.account.parts}
    readers = _readers(tools, config, parts)
    found = Inspection(str(given.data), tools.spec.name, parts.description, parts.account)
    contents: dict[bytes, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for part, reader in readers.items():
        _look(found, part, reader, tools, contents)
    twice = [names for same in contents.values() for names in same.values() if len(names) > 1]
    found.repeated = sum(map(len, twice)) - len(twice)
    for same in contents.values():
        if len(same) > 1:
            found.duplicates.append([f"{part}: {name}" for part in same for name in same[part]])
    for what, count, groups in (
        ("duplicates across parts", len(found.duplicates), found.duplicates),
        ("duplicates within a part", found.repeated, twice),
    ):
        if groups:
            found.account.remarks.append(f"{what}: {count:,} ({some(groups[0], 3)})")
    found.files = _files(Path(path), found.account, given.encoding)
    texts = zip(parts.train.names, parts.train.texts or (), strict=False)
    found.transcripts = {name: normalise(text or "") for name, text in islice(texts, SHOWN)}
    learned = readers["train"]
    try:
        learned = tools.reader(tools.open(path, config, quiet).train, config.model, config.data, config.train.seed)
        config, survey = tools.look(learned, config, quiet)
        found.account.part("train").leave_out(survey.left_out)
        found.account.remarks += survey.remarks
        found.advice = _advice(tools, learned)
    except UserError as error:
        found.account.remarks.append(f"{config.recipe} can't be pre-trained on it: {error}")
    if out and out.suffix.lower() == ".html":
        shown = np.arange(min(SHOWN, len(learned.records)))
        write_inspection(found, tools.preview(learned, shown, config), out)
    elif out:
        with whole_file(out, exclusive=not given.overwrite) as file:
            file.write(json.dumps(found.to_dict(), indent=1).encode("utf-8", "surrogateescape"))
    if out:
        say(f"inspection: {out}")
    return found


def _opened(path: str, given: Inspect) -> tuple[Tools, RunConfig, Parts]:
    """The modality that was named, or the first that finds samples; `UserError` if none does."""
    kind = given.kind
    if kind is not None and kind not in specs():
        raise UsageError(f"--as {kind} is not a modality; there are {', '.join(specs())}")
    reasons: dict[str, str] = {}
    named = given.text_columns or given.label_column or given.encoding
    able = [name for name in specs() if not named or tools_of(name).words.columns]
    for name in [kind] if kind else able:
        tools = tools_of(name)
        columns = named_columns(tools, given)
        recipe = get_recipe(tools.spec.demo.recipe if tools.spec.demo else next(iter(tools.spec.recipes)))
        try:
            return tools, *tools.inspected(path, recipe, columns, quiet)
        except UserError as error:
            reasons[name] = str(error)
    if len(set(reasons.values())) == 1:
        raise UserError(next(iter(reasons.values())))
    raise UserError(f"{path} can't be read as data:" + "".join(f"\n  as {n}: {why}" for n, why in reasons.items()))


def _readers(tools: Tools, config: RunConfig, parts: Parts) -> dict[str, Reader]:
    """Readers of the parts."""
    records: Mapping[str, Records | None] = {"train": parts.train, "val": parts.val, "test": parts.test}
    return {
        part: tools.reader(one, config.model, config.data, config.train.seed) for part, one in records.items() if one
    }


def _look(found: Inspection, part: str, reader: Reader, tools: Tools, contents: Any) -> None:
    """Read a part's samples: their facts and content, and which can't be used."""
    records, account, facts = reader.records, found.account.part(part), defaultdict(list)

    def read(place: int) -> tuple[bytes, Mapping[str, float | str]]:
        reader.whole(place)
        raw, of_sample = records.read(place), tools.facts(records, place)
        return hashlib.sha256(raw if isinstance(raw, bytes) else np.ascontiguousarray(raw).data).digest(), of_sample

    chunks, to = stream(records, read, _AT_ONCE), console()
    total = -(-len(records) // _AT_ONCE)
    good: list[int] = []
    for chunk in track(chunks, f"reading {part}", total, console=to, transient=True, disable=not shows_bars(to)):
        account.add(chunk.bad.values())
        good += chunk.good
        for place, (content, of_sample) in chunk.good.items():
            contents[content][part].append(records.names[place])
            for name, value in of_sample.items():
                facts[name].append(value)
    account.mend(reader.mends())
    found.facts[part] = {name: _spread(values) for name, values in facts.items()}
    if records.classes:
        found.classes[part] = _counts(records.select(good))


def _spread(values: list[Any]) -> dict[str, float | int]:
    """Least, median and largest of numbers; how often there is each of other values."""
    if isinstance(values[0], str):
        return dict(Counter(values).most_common())
    return {"least": min(values), "median": float(np.median(values)), "largest": max(values)}


def _counts(records: Records) -> dict[str, int]:
    """Samples of each class."""
    if records.tags is not None:
        counts_C = records.tags.sum(axis=0)
    else:
        counts_C = np.bincount(records.labels[records.labels >= 0], minlength=len(records.classes))
    return dict(zip(records.classes, counts_C.tolist(), strict=True))


def _files(path: Path, account: Account, encoding: str | None) -> dict[str, list[str]]:
    """Tables and files of text that were read, by their encoding and line ends."""
    files = folder.scan(path) if path.is_dir() else {extension_of(path.name): [path.name]} if path.is_file() else {}
    names = [name for extension in LINES for name in files.get(extension, ()) if name not in account.beside]
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        found[wording(path / name if path.is_dir() else path, encoding)].append(name)
    return dict(found)


def _advice(tools: Tools, reader: Reader) -> list[str]:
    """How long each recipe trains on the training part where no length is given."""
    lines, words, few = list[str](), tools.words, False
    for name in tools.spec.recipes:
        recipe = get_recipe(name)
        made_for, per_epoch = recipe.train.updates, max(reader.amount(), 1e-9) / recipe.train.batch_size
        train = replace(recipe.train, updates=bounded_updates(recipe, per_epoch))
        passes = train.updates / per_epoch
        line = f"{name}: {format_length(reader.num_trained, words.many, passes, train, words.unit)}"
        lines.append(line + (f", of {made_for:,} that it was made for" if train.updates < made_for else ""))
        few = few or 10 * train.updates < made_for
    if few:
        lines.append("cut to less than a tenth, a recipe may do worse than a smaller one; --init-from MODEL may help")
    return lines


def format_inspection(found: Inspection) -> str:
    """An inspection as plain text."""
    lines = [f"{found.data}: {found.description}", "", f"{'part':<6}" + "".join(f"{title:>15}" for title in _TITLES)]
    for name, part in found.account.parts.items():
        out = len(part.left_out) + part.asked.total()
        numbers = (part.found, part.used, len(part.bad), out, len(part.mended))
        lines.append(f"{name:<6}" + "".join(f"{number:>15,}" for number in numbers))
    for name, facts in found.facts.items():
        lines += ["", *(f"{name} {fact}: {_told(values)}" for fact, values in facts.items())]
    lines += ["", *(f"files in {one}: {some(names)}" for one, names in found.files.items())] if found.files else []
    for name, counts in found.classes.items():
        lines += ["", f"{name} classes: {_told(counts)}"]
    if found.transcripts:
        lines += [
            "",
            "normalised transcripts:",
            *(f"  {one}: {text}" for one, text in found.transcripts.items()),
        ]
    for title, remarks in (("remarks", found.account.lines()), ("recipes", found.advice)):
        lines += ["", f"{title}:", *(f"  {line}" for line in remarks or ["none"])]
    return "\n".join(lines)


def _told(values: Mapping[str, float]) -> str:
    """Numbers by name, in a line."""
    if "least" in values:
        return ", ".join(f"{name} {value:,.4g}" for name, value in values.items())
    return ", ".join(f"{name} ({count:,})" for name, count in values.items())
