"""The scores of what a fine-tuned model says of whole samples: classes or numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from data2vec2.commands.options import OF_FEATURES, OF_RECOGNISERS, Evaluate, refuse
from data2vec2.commands.runner import named_columns, say_account, say_skipped, where_is
from data2vec2.commands.transcribe import at_most, scored_part
from data2vec2.data.account import PartAccount
from data2vec2.data.records import Records, among, labelled_records
from data2vec2.errors import UserError
from data2vec2.interop.folder import export_of, load_classifier
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.jobs import FinetuneData, Job
from data2vec2.modalities.tools import tools_of
from data2vec2.training.device import choose_device
from data2vec2.training.progress import console


def evaluate_classifier(given: Evaluate) -> dict[str, Any]:
    """Scores of what a fine-tuned model says of whole samples, their classes or numbers, as in scores.json.

    On `test`, or DATA's own test or validation part, or all of DATA. `UserError` for classes that the model has not.
    """
    model, info = load_classifier(export_of(Path(given.model), Path(given.data)))
    refuse(given, OF_FEATURES, f"is for the features of an encoder, and {given.model} is a {info.what}")
    refuse(given, OF_RECOGNISERS, f"needs a speech recogniser (finetune ctc), and {given.model} is a {info.what}")
    tools, job, say = tools_of(info.kind), _job(info), console().print
    columns = named_columns(tools, given, info.columns)
    where = given.test or given.data
    parts = tools.open_labelled(where, columns, job.labels)
    part, records = scored_part(parts, "named test" if given.test else "whole")
    say_account(parts.account, say)
    records = at_most(given.max_samples, labelled_records(records))
    if not len(records):
        raise UserError(f"{where} has no labels to evaluate with; {tools.label_hint('--label-column')}")
    say(f"evaluating on {len(records):,} {tools.words.many} ({part} part): {where}")
    scores, skipped = own_scores(given, info, model, records)
    counts = say_skipped(skipped, tools.words.many, say)
    return {"data": where_is(where), "part": part, **scores, "skipped": counts}


def own_scores(given: Evaluate, info: ModelInfo, model: Any, records: Records) -> tuple[dict[str, Any], PartAccount]:
    """A model's scores on labelled records, and the account of those; `UserError` for other classes."""
    job, device, where = _job(info), choose_device(given.device), given.test or given.data
    if not info.regression:
        if info.multi_label != (records.tags is not None):
            theirs, ours = (
                "several labels" if one else "one label" for one in (not info.multi_label, info.multi_label)
            )
            raise UserError(f"samples of {where} have {theirs} each, and {given.model} gives them {ours}")
        records, _ = among(records, replace(records, classes=info.classes), str(where), str(given.model))
    reader = job.reader(records, info, given.seed)
    data = FinetuneData(train=reader, val=None, test=reader, description="", outputs=len(info.classes))
    account = data.account.part("test")
    account.found = len(records)
    scores = job.score(model.to(device), info, data, "test", device).scores
    del scores["labels"]  # nothing was learned
    return scores, account


def _job(info: ModelInfo) -> Job:
    tools = tools_of(info.kind)
    return tools.jobs["regress" if info.regression else "classify"](tools)
