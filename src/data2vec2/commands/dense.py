"""The scores of a model that tells the class of each word, frame or pixel, or answers questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data2vec2.commands.options import OF_FEATURES, OF_RECOGNISERS, Evaluate, refuse
from data2vec2.commands.runner import named_columns, say_account, say_skipped, where_is
from data2vec2.commands.transcribe import at_most, scored_part
from data2vec2.data.account import PartAccount
from data2vec2.evaluation.dense import MEASURES
from data2vec2.interop.folder import export_of, load_model
from data2vec2.modalities.dense import dense_job
from data2vec2.modalities.tools import tools_of
from data2vec2.training.device import choose_device
from data2vec2.training.progress import console


def evaluate_dense(given: Evaluate) -> dict[str, Any]:
    """Scores of a model of classes of words, frames or pixels, or of answers, beside baselines, as in scores.json.

    On `test`, or DATA's own test or validation part, or all of DATA, which then leaves nothing for baselines.
    """
    model, info = load_model(export_of(Path(given.model), Path(given.data)))
    refuse(given, OF_FEATURES, f"is for the features of an encoder, and {given.model} is a {info.what}")
    refuse(given, OF_RECOGNISERS, f"needs a speech recogniser (finetune ctc), and {given.model} is a {info.what}")
    device, tools, say = choose_device(given.device), tools_of(info.kind), console().print
    job, columns = dense_job(tools, info), named_columns(tools, given, info.columns)
    parts = job.open_marked(str(given.data), columns, info.data)
    others = parts if given.test is None else job.open_marked(str(given.test), columns, info.data)
    part, records = scored_part(others, "named test" if given.test else "whole")
    where, learned = given.test or given.data, parts.train if records is not parts.train else None
    train, asked = (
        job.reader(job.named(at_most(given.max_samples, one), info.classes), info, given.seed) if one else None
        for one in (learned, records)
    )
    assert asked is not None
    say_account(others.account, say)
    say(f"evaluating on {len(asked.records):,} {tools.words.many} ({part} part): {where}")
    skipped = PartAccount(len(asked.records), max_bad=1.0)
    scored = job.examined(model.to(device), info, train if given.baselines else None, asked, device, skipped.add)
    counts = say_skipped(skipped, tools.words.many, say)
    return {"data": where_is(where), "part": part, **scored.scores, "skipped": counts}


def format_dense(scores: Mapping[str, Any]) -> str:
    """Scores in percent with half of their 95 % intervals, and those of baselines."""
    names = [name for name in MEASURES if name in scores]
    half = {name: 50 * (high - low) for name, (low, high) in scores["intervals"].items()}
    rows = [["", *(MEASURES[name] for name in names)]]
    rows.append(["this model", *(f"{100 * scores[name]:.1f}±{half[name]:.1f}" for name in names)])
    rows += [[row["name"], *(f"{100 * row[name]:.1f}" for name in names)] for row in scores["baselines"]]
    return table_of(rows, 5)


def table_of(rows: Sequence[Sequence[str]], least: int) -> str:
    """Rows as lines: the first column to the left, all others, at least so wide, to the right."""
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    forms = [f"<{first}", *(f">{max(least, width)}" for width in others)]
    return "\n".join("  ".join(format(*cell) for cell in zip(row, forms, strict=True)) for row in rows)
