"""evaluate MODEL DATA."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from data2vec2.commands.classified import evaluate_classifier, own_scores
from data2vec2.commands.dense import evaluate_dense, format_dense, table_of
from data2vec2.commands.finetune import finetune
from data2vec2.commands.options import OF_RECOGNISERS, Evaluate, Finetune, refuse
from data2vec2.commands.runner import named_columns, say_account, say_skipped, where_is
from data2vec2.commands.transcribe import evaluate_recognizer, format_error_rates, scored_part
from data2vec2.config.run import FinetuneConfig
from data2vec2.config.tree import require
from data2vec2.data.account import PartAccount
from data2vec2.data.hub import PREFIX as HUB
from data2vec2.data.labels import ONE_CLASS
from data2vec2.data.records import Parts, Records, among, held_out
from data2vec2.errors import UsageError, UserError
from data2vec2.evaluation.features import labelled
from data2vec2.evaluation.probes import Curve, draws, low_label_curve
from data2vec2.evaluation.scores import MODEL, PROBES, RANDOM, Samples, Scores, score
from data2vec2.evaluation.verdict import verdict
from data2vec2.files import masked, parse_json, read_json
from data2vec2.interop.folder import export_of, load_classifier, load_encoder, read_export
from data2vec2.interop.foreign import fetched, is_foreign, load_foreign
from data2vec2.method.encoder import Encoder
from data2vec2.modalities import finetune_config
from data2vec2.modalities.data import Columns, Log, ModelInfo
from data2vec2.modalities.fields import build_encoder
from data2vec2.modalities.jobs import said
from data2vec2.modalities.tools import Tools, tools_of
from data2vec2.reporting.build import write_report
from data2vec2.reporting.scores import read_mapping
from data2vec2.training.device import choose_device
from data2vec2.training.progress import console
from data2vec2.training.run import CONFIG, OTHER_SCORES, SCORES, SPLIT, RunFolder

VAL_FRACTION = 0.2
MIN_HELD_OUT = 100
"""So many samples must a run of pre-training have held out of DATA to be scored on them; below, a fifth of DATA is
split off. One of fine-tuning has learned the labels of all others, so any number does."""


def evaluate_any(given: Evaluate) -> tuple[Scores | dict[str, Any], str]:
    """Scores of probes, or of a model that writes, or gives numbers or several labels, its own; and as plain text."""
    info, _ = read_export(export_of(Path(given.model), Path(given.data)))
    if info.letters is not None:
        rates = evaluate_recognizer(given)
        return rates, format_error_rates(rates)
    if info.dense:
        found = evaluate_dense(given)
        return found, format_dense(found)
    if info.regression or info.multi_label:
        found = evaluate_classifier(given)
        main = "pearson" if info.regression else "map"
        return found, found.get("note") or said(main, found)
    scores = evaluate(given)
    return scores, format_scores(scores)


def evaluate(given: Evaluate) -> Scores:
    """Accuracy of probes on frozen features, beside three baselines; of a classifier's own answers too."""
    require(given.max_samples >= 2, "--max-samples", given.max_samples, "at least 2")
    refuse(given, OF_RECOGNISERS, f"needs a speech recogniser (finetune ctc), and {given.model} is none")
    tuning = finetune_config(given.finetune) if isinstance(given.finetune, str) else given.finetune
    model, data, say = Path(given.model), str(given.data), console().print
    test, seed, probes, labels = str(given.test) if given.test else None, given.seed, given.probes, given.labels
    run = model if (model / CONFIG).is_file() else None
    encoder, info = load_encoder(export_of(model, Path(data)))
    torch_device, tools = choose_device(given.device), tools_of(info.kind)
    columns = named_columns(tools, given, info.columns)
    train, held, part, remarks = _parts(given, run, tools, columns, 1 if info.classes else MIN_HELD_OUT)
    if info.classes and part == "split-off":
        say(f"{model} is fine-tuned: if it learned labels of {data}, scores are too good; give other data with --test")
    if tuning is not None:
        tuning = _checked_tuning(tuning, tools, columns, data, part)
        if (count := int((held.labels >= 0).sum())) > given.max_samples:
            curves = f"curves of --finetune are scored on all {count:,} samples of the test part"
            raise UsageError(f"{curves}, others on --max-samples {given.max_samples:,}; give at least as many")
    many = tools.words.many
    learned, asked = _samples(given, tools, info, train, held)
    phones = tools.token_probe(data, learned[0], asked[0]) if "phones" in probes else None
    if run:
        tools.check_beside(test or data)
    _check_labels(given, learned, asked, tools, remarks)
    before = _before(given.before, data, info) if given.before else None
    scored_on = f"{len(asked[1]):,} {many} ({part} part), with the labels of {len(learned[1]):,}"
    say(f"evaluating on {scored_on}: {test or data}")
    torch.manual_seed(seed)
    untrained = build_encoder(info.model).to(torch_device).eval() if given.baselines else None
    encoder, skipped = encoder.to(torch_device), PartAccount(len(learned[1]) + len(asked[1]), max_bad=1.0)

    def scored(model: Encoder, other: Encoder | None, info: ModelInfo, train: Samples, test: Samples) -> Scores:
        how: dict[str, Any] = {"phones": phones, "probes": probes, "labels": labels, "seeds": given.seeds, "seed": seed}
        raw, normalise = (tools.words.raw, tools.raw_features), tools.normalise(info.data, torch_device)
        how |= {"raw": raw, "log": say, "note": skipped.add}
        return score(model, other, train, test, normalise, torch_device, part, **how)

    scores = scored(encoder, untrained, info, learned, asked)
    if before:
        say(f"and {given.before}, the model before")
        learned, asked = _samples(given, tools, before[1], train, held)
        phones = tools.token_probe(data, learned[0], asked[0]) if phones else None
        scores = scores.beside(scored(before[0].to(torch_device), None, before[1], learned, asked))
    scores = replace(scores, data=where_is(test or data), skipped=say_skipped(skipped, many, say))
    say("± is half of a 95 % interval: over test samples for scores, over draws of labels for curves")
    if tuning is not None:
        for name in (MODEL, RANDOM) if given.baselines else (MODEL,):
            train_config = replace(tuning.train, device=given.device)
            config = replace(tuning, from_scratch=False, train=train_config)
            tuned = finetune_curve(name, model, data, config, labels, draws(given.seeds, seed), say)
            scores = replace(scores, curves=(*scores.curves, tuned))
    if info.classes and set(held.classes) <= set(info.classes):
        classifier, _ = load_classifier(export_of(model, Path(data)))
        answers, _ = own_scores(given, info, classifier, asked[0].records.select(asked[1]))  # what is left out was said
        scores = replace(scores, own=answers)
    elif info.classes:
        say(f"{test or data} has other classes than {model} learned, so only its features are scored")
    if run and info.classes:
        say(f"{run} is a fine-tuning run; its scores.json and report keep its own scores")
    elif run:
        own = test is None and _read(run / "environment.json").get("data_path") == scores.data
        if keep_scores(RunFolder(run), scores.to_dict(), own):
            tools.write_gallery(run, encoder, asked, info, torch_device, test or data)
        else:
            say(f"{run} keeps its {SCORES} of other data or another part; the new scores are in {OTHER_SCORES}")
        write_report(run)
    return scores


def _samples(given: Evaluate, tools: Tools, info: ModelInfo, *parts: Records) -> tuple[Samples, Samples]:
    """What a model learns from and is scored on, read as it was trained."""
    train, held = (
        (tools.reader(part, info.model, info.data, given.seed), labelled(part.labels, given.max_samples))
        for part in parts
    )
    return train, held


def _before(path: Path | str, data: Path | str, info: ModelInfo) -> tuple[Encoder, ModelInfo]:
    """The encoder of --before, which may be of another family; `UserError` for one of another modality."""
    folder = fetched(str(path)) if str(path).startswith(HUB) else Path(path)
    if is_foreign(folder):
        encoder, before = load_foreign(folder, info.data)
    else:
        encoder, before = load_encoder(export_of(folder, Path(data)))
    if before.kind != info.kind:
        raise UserError(f"--before {path} is a model of {before.kind}, and MODEL one of {info.kind}")
    return encoder, before


def keep_scores(run: RunFolder, scores: dict[str, Any], own: bool) -> bool:
    """Whether scores become RUN/scores.json: those of the run's own data do, or the first, or of the same part again.

    All others, and what own ones push out, stand in RUN/other_scores.json, one of each part of each data set.
    """
    known, others = _read(run.path / SCORES), list[Any]()
    with suppress(OSError, ValueError):
        others = parse_json((run.path / OTHER_SCORES).read_text("utf-8"))
    others = [one for one in others if isinstance(one, dict)] if isinstance(others, list) else []

    def same(other: dict[str, Any]) -> bool:
        return all(other.get(key) == scores[key] for key in ("data", "part"))

    first = own or not known or same(known)
    pushed_out = [known] if first and "data" in known and not same(known) else []
    kept = [*(one for one in others if not same(one)), *(pushed_out if first else [scores])]
    if kept or others:
        run.write_json(OTHER_SCORES, kept)
    if first:
        run.write_json(SCORES, scores)
    return first


def _read(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing if there is no such file, or a broken one."""
    with suppress(OSError, ValueError):
        return read_mapping(path)
    return {}


def format_scores(scores: Scores) -> str:
    """Scores as plain text, in percent, with half of their 95 % intervals, and what they say in words.

    Of low-label curves the mean over draws.
    """

    def percent(value: float | None, bar: tuple[float, float] | None = None) -> str:
        half = "" if bar is None else f"±{50 * (bar[1] - bar[0]):.1f}"
        return "n/a" if value is None else f"{100 * value:.1f}{half}"

    titles = ["features", *("kNN" if probe == "knn" else probe for probe in scores.probes)]
    bars = scores.intervals or ({},) * len(scores.rows)
    rows = [
        [row.features, *(percent(getattr(row, probe), bar.get(probe)) for probe in scores.probes)]
        for row, bar in zip(scores.rows, bars, strict=True)
    ]
    shown, width = table_of([titles, *rows], 5), max(len(row.features) for row in scores.rows)
    curves = [["labels per class", *(f"{count:,}" for curve in scores.curves[:1] for count in curve.labels)]]
    for curve in scores.curves:
        points = zip(curve.mean, curve.low, curve.high, strict=True)
        half = " ±{:.1f}" if curve.draws > 1 else ""
        cells = [percent(mean) + half.format(50 * (high - low)) for mean, low, high in points]
        curves.append([f"{curve.features:<{width}} {curve.probe:>9}", *cells])
    own = f"its own answers: {said('accuracy', scores.own)}\n\n" if "accuracy" in scores.own else ""
    words = "\n".join(["", *verdict(scores.to_dict())])
    return f"{own}{shown}{words}" + (f"\n\n{table_of(curves, 12)}" if scores.curves else "")


def _checked_tuning(config: FinetuneConfig, tools: Tools, columns: Columns, data: str, part: str) -> FinetuneConfig:
    """With the columns that were named; refuses a recipe for anything else, and all but DATA's own test part."""
    recipes = tools.spec.finetune.get("classify", {})
    if config.recipe not in recipes:
        known = ", ".join(recipes) or "none"
        raise UsageError(f"--finetune {config.recipe} is not for classes of {tools.spec.name}; there are {known}")
    if part == "named test":
        raise UsageError(f"--finetune scores on the test part of DATA itself; leave --test out, or put it into {data}")
    if part != "test":
        raise UserError(f"--finetune needs a test part, and {data} has none; leave --finetune out")
    return replace(config, data=tools.with_columns(config.data, columns)) if columns else config


def _check_labels(given: Evaluate, train: Samples, test: Samples, tools: Tools, remarks: Sequence[str]) -> None:
    """`UserError` if there are too few labels for what was asked (the probe of phones has its own)."""
    data, labels, probes = str(given.data), given.labels, given.probes
    if others := [probe for probe in probes if probe not in tools.spec.probes]:
        known = ",".join(tools.spec.probes)
        wrong = UserError if others[0] in PROBES else UsageError
        raise wrong(f"--probes {others[0]} is not for {tools.words.many}; there are {known}")
    if set(probes) == {"phones"} and not labels:
        return
    if train[0].records.tags is not None:
        many = tools.words.many
        raise UserError(f"{many} of {data} can have several labels, which probes do not support; use finetune classify")
    counts = np.bincount(train[0].records.labels[train[1]], minlength=1)
    if np.count_nonzero(counts) < 2 and (told := [one for one in remarks if ONE_CLASS in one]):
        raise UserError(f"{data} has no classes to tell apart: {told[0]}")
    if np.count_nonzero(counts) < 2 or not len(test[1]):
        raise UserError(f"{data} has no labels to evaluate with; {tools.label_hint('--label-column')}")
    if len(only := np.unique(test[0].records.labels[test[1]])) == 1:
        name = test[0].records.classes[int(only[0])]
        where, many = given.test or data, tools.words.many
        raise UserError(
            f"all {len(test[1]):,} {many} of {where} to score on are of one class ({name}), so accuracy is "
            "meaningless; give other data with --test"
        )
    if labels and max(labels) > counts.max():
        raise UserError(
            f"--labels asks for {max(labels):,} labels per class, but no class has more than {counts.max():,} in the "
            "training part; ask for fewer, or raise --max-samples"
        )


def _parts(
    given: Evaluate, run: Path | None, tools: Tools, columns: Columns, least: int
) -> tuple[Records, Records, str, Sequence[str]]:
    """Records to learn from, records to score on, which part those are, and what is odd about DATA."""
    data, test = str(given.data), str(given.test) if given.test else None
    parts, say = tools.open_labelled(data, columns, "classes"), console().print
    say(f"data: {data}: {parts.description}")
    say_account(parts.account, say)
    if test is not None:
        of_test = tools.open_labelled(test, columns, "classes")
        say(f"data: {test}: {of_test.description}")
        say_account(of_test.account, say)
        _, records = scored_part(of_test)
        found, lacking = among(records, parts.train, test, data)
        for remark in lacking:
            say(f"data: {remark}")
        records = replace(found, levels=parts.train.levels or records.levels)
        return parts.train, records, "named test", parts.account.remarks
    train, held, part = learned_and_scored(parts, given.seed, run, data, least)
    if held is None:
        raise UserError(f"{data} has {len(train)} samples, too few to split; give test data with --test")
    return train, held, part, parts.account.remarks


def learned_and_scored(
    parts: Parts, seed: int, run: Path | None, data: str = "", least: int = MIN_HELD_OUT
) -> tuple[Records, Records | None, str]:
    """Records to learn from, others to score on, and which part those are; none where there are too few to split.

    What `run` held out is scored if these are at `least` so many.
    """
    part, held = scored_part(parts)
    if held is not parts.train:
        return parts.train, held, part
    kept = np.isin(list(held.names), _held_by(run, data) if run else [])
    if kept.sum() >= least:
        return held.select(np.flatnonzero(~kept)), held.select(np.flatnonzero(kept)), "held-out"
    return *held_out(parts, None, VAL_FRACTION, seed), "split-off"


def _held_by(run: Path, data: str) -> list[str]:
    """Samples of DATA that a run held out; of several data sets, the name of each stands before its samples."""
    names = read_json(run / SPLIT).get("validation")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{run / SPLIT} does not say which samples were held out; evaluate RUN/exported instead")
    if "data_paths" not in _read(run / "environment.json"):
        return names
    first = f"{masked(data)}/"
    return [name.removeprefix(first) for name in names if name.startswith(first)]


def finetune_curve(
    name: str, model: Path, data: str, config: FinetuneConfig, labels: Sequence[int], seeds: Sequence[int], log: Log
) -> Curve:
    """Accuracy on DATA's test part after fine-tuning with few labels per class.

    From the weights of `model`, or for the `name` of a random initialisation from its shape alone. The last model is
    scored, and nothing is held out to choose the best or the start by: that would need more labels. Seeds decide which
    are drawn, as for probes, initialisation and order.
    """

    def accuracy(count: int, seed: int) -> float:
        log(f"fine-tuning from {name}: {count} labels per class, seed {seed}")
        train = replace(config.train, seed=seed, eval_every=0)
        data_config = replace(config.data, labels_per_class=count, val_fraction=0.0)
        optim = replace(config.optim, fresh=config.optim.fresh or 0.0)
        limited = replace(config, train=train, data=data_config, optim=optim)
        with TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            outcome = finetune(Finetune(model, data, run, config=limited, from_scratch=name == RANDOM))
            if outcome.state == "interrupted":
                raise KeyboardInterrupt
            if outcome.state != "finished":
                raise UserError(f"fine-tuning with {count} labels per class {outcome.state}: {outcome.message}")
            return float(read_json(run / SCORES)["accuracy"])

    return low_label_curve(name, "finetune", labels, seeds, accuracy)
