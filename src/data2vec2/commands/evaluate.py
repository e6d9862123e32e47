"""evaluate MODEL DATA."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from data2vec2.commands.data import held_out
from data2vec2.commands.files import opener
from data2vec2.commands.jobs.base import AnyConfig
from data2vec2.commands.kinds import KINDS
from data2vec2.commands.low_labels import check_curves, finetune_curves, of_columns
from data2vec2.data.phones import phones_beside
from data2vec2.data.records import Parts, Records
from data2vec2.data.skipped import Skipped
from data2vec2.errors import UserError
from data2vec2.evaluation.features import labelled
from data2vec2.evaluation.low_labels import draws
from data2vec2.evaluation.scores import PROBES, Samples, Scores, score
from data2vec2.interop.export import ExportInfo, export_of, load_encoder
from data2vec2.modalities import build_modality
from data2vec2.models import Encoder
from data2vec2.recipes.finetune import finetune_config
from data2vec2.reporting import write_report
from data2vec2.training.device import choose_device
from data2vec2.training.progress import console
from data2vec2.training.run import CONFIG, SPLIT, RunFolder

VAL_FRACTION = 0.2
MIN_HELD_OUT = 100
"""So many samples must a run have held out of DATA to be scored on them; below, a fifth of DATA is split off."""
NAMED = 20
"""At most so many samples that can't be read are named."""


def evaluate(
    model: str | Path,
    data: str | Path,
    *,
    test: str | Path | None = None,
    max_samples: int = 10_000,
    probes: Sequence[str] = PROBES[:2],
    labels: Sequence[int] = (),
    seeds: int = 3,
    finetune: AnyConfig | str | None = None,
    seed: int = 0,
    device: str = "auto",
    baselines: bool = True,
    text_columns: Sequence[str] = (),
    label_column: str | None = None,
) -> Scores:
    """Accuracy of kNN, linear, attentive and phone probes on frozen features, beside three baselines.

    `model` is a run folder or an exported model. Probes learn from the labels of DATA's training part and are scored on
    `test`, or DATA's own test or validation part, or what the run held out of DATA, or a fifth split off by `seed`. At
    most `max_samples` of each part are used, evenly spread; samples that can't be read are left out and listed. Columns
    of texts are found by their usual names unless given. The attentive probe is for pictures, that of phones for speech
    with a phones.csv in DATA: columns `file_name` and `phones` ("PHONE:FRAMES ..." in frames of 10 ms).

    `labels` asks for low-label curves: kNN and linear probe with so many labels a class, drawn from those of the
    training part `seeds` times, otherwise for every `seed`. `finetune` (a recipe, the config.yaml of a fine-tuning run,
    or a configuration) adds curves of fine-tuning from the model and from scratch, on DATA's test part. Without
    `baselines`, which another evaluation may have scored already, only the model and the majority class are scored.

    The folder of a pre-training run gets the scores as scores.json, pictures of what the features know as gallery.npz,
    and both in its report. Raises `UserError` if model or data can't be used, or there are no labels.
    """
    finetune = of_columns(_checked(max_samples, probes, labels, seeds, finetune, seed), text_columns, label_column)
    model, data, say = Path(model), Path(data), console().print
    run = model if (model / CONFIG).is_file() else None
    encoder, info = load_encoder(export_of(model))
    torch_device, kind = choose_device(device), KINDS[info.model.modality.kind]
    opened = opener(info.model.modality.kind, text_columns, label_column)
    train, held, part = _parts(data, Path(test) if test else None, seed, run, opened)
    if finetune is not None:
        check_curves(finetune, info.model.modality.kind, data, part)
    used = _samples(train, info, max_samples, seed), _samples(held, info, max_samples, seed)
    phones = kind.phones(data, used[0][0], used[1][0]) if "phones" in probes else None
    shown = phones_beside(Path(test) if test else data) if run and info.model.modality.kind == "audio" else {}
    _check_labels(data, *used, labels, probes, info)
    say(f"evaluating on {len(used[1][1]):,} {kind.plural} ({part} part), with the labels of {len(used[0][1]):,}")
    torch.manual_seed(seed)
    untrained = Encoder(info.model.encoder, build_modality(info.model)).to(torch_device).eval() if baselines else None
    encoder, skipped = encoder.to(torch_device), Skipped(sum(len(samples) for _, samples in used), max_bad=1.0)
    scores = score(
        *(encoder, untrained, *used, kind.normalise(info.data, torch_device), torch_device, part),
        raw=(kind.raw, kind.raw_features),
        phones=phones,
        probes=probes,
        labels=labels,
        seeds=seeds,
        seed=seed,
        log=say,
        note=skipped.add,
    )
    scores = replace(scores, skipped=_listed(skipped, kind.plural, say))
    if finetune is not None:
        tuned = finetune_curves(model, data, finetune, labels, draws(seeds, seed), device, say)
        scores = replace(scores, curves=(*scores.curves, *tuned))
    if run and info.classes:
        say(f"{run} is a fine-tuning run, whose own scores stay in its scores.json and report")
    elif run:
        kind.write_gallery(run, encoder, *used[1], torch_device, info, shown)
        _write(run, scores)
    return scores


def _write(run: Path, scores: Scores) -> None:
    """Leave the scores in a run's folder and report."""
    RunFolder(run).write_json("scores.json", scores.to_dict())
    write_report(run)


def format_scores(scores: Scores) -> str:
    """Scores as plain text, in percent; of low-label curves the mean and half of the 95 % interval."""

    def percent(value: float | None, width: int) -> str:
        return f"{'n/a' if value is None else f'{100 * value:.1f}':>{width}}"

    width = max(len(row.features) for row in scores.rows)
    titles = {probe: "kNN" if probe == "knn" else probe for probe in PROBES}
    columns = [(probe, max(5, len(titles[probe]))) for probe in scores.probes]
    lines = ["  ".join([f"{'features':<{width}}", *(f"{titles[probe]:>{size}}" for probe, size in columns)])]
    lines += [
        "  ".join([f"{row.features:<{width}}", *(percent(getattr(row, probe), size) for probe, size in columns)])
        for row in scores.rows
    ]
    if scores.curves:
        lines += ["", "  ".join([f"{'labels a class':<{width + 10}}", *(f"{n:>12,}" for n in scores.curves[0].labels)])]
    for curve in scores.curves:
        cells = [
            f"{100 * mean:.1f}" + (f" ±{50 * (high - low):.1f}" if curve.draws > 1 else "")
            for mean, low, high in zip(curve.mean, curve.low, curve.high, strict=True)
        ]
        lines += ["  ".join([f"{curve.features:<{width}} {curve.probe:>9}", *(f"{cell:>12}" for cell in cells)])]
    return "\n".join(lines)


def _checked(
    max_samples: int,
    probes: Sequence[str],
    labels: Sequence[int],
    seeds: int,
    finetune: AnyConfig | str | None,
    seed: int,
) -> AnyConfig | None:
    """The configuration of fine-tuning, if there is one; `ValueError` for arguments that can't be."""
    if max_samples < 2:
        raise ValueError(f"--max-samples is {max_samples}; it must be at least 2")
    if not probes or set(probes) - set(PROBES):
        raise ValueError(f"--probes is {','.join(probes)!r}; it must be some of {','.join(PROBES)}")
    if any(count < 1 for count in labels) or list(labels) != sorted(set(labels)):
        raise ValueError(f"--labels is {','.join(map(str, labels))}; it must be numbers above 0, each larger")
    if seeds < 1:
        raise ValueError(f"--seeds is {seeds}; it must be at least 1")
    if finetune is not None and not labels:
        raise ValueError("--finetune adds to the low-label curves; give --labels with it, as in --labels 10,100,1000")
    if seed < 0:
        raise ValueError(f"--seed is {seed}; it must be 0 or more")
    return finetune_config(finetune) if isinstance(finetune, str) else finetune


def _listed(skipped: Skipped, plural: str, say: Callable[[str], None]) -> dict[str, int]:
    """Say what could not be read, if anything; returns how much of it, by reason."""
    if not skipped.reasons:
        return {}
    say(f"{len(skipped.reasons)} {plural} could not be read and are left out: {skipped.summary()}")
    for name, reason in list(skipped.reasons.items())[:NAMED]:
        say(f"  {name}: {reason}")
    return dict(Counter(skipped.reasons.values()).most_common())


def _check_labels(
    data: Path, train: Samples, test: Samples, labels: Sequence[int], probes: Sequence[str], info: ExportInfo
) -> None:
    """`UserError` if there are too few labels for what was asked (the probe of phones has its own)."""
    if "attentive" in probes:
        info.image  # noqa: B018  (`UserError` for another modality)
    if set(probes) == {"phones"} and not labels:
        return
    if train[0].records.tags is not None:
        many = KINDS[info.model.modality.kind].plural
        raise UserError(f"{many} of {data} can have several labels, which probes can't learn; use finetune classify")
    counts = np.bincount(train[0].records.labels[train[1]], minlength=1)
    if np.count_nonzero(counts) < 2 or not len(test[1]):
        kind = info.model.modality.kind
        hint = (
            "name their column with --label-column"
            if kind == "text"
            else f"put the {KINDS[kind].plural} of each class into a folder of its own, or give a table with labels"
        )
        raise UserError(f"{data} has no labels to evaluate with; {hint}")
    if labels and max(labels) > counts.max():
        raise UserError(
            f"--labels asks for {max(labels):,} labels a class, but no class has more than {counts.max():,} in the "
            "training part; ask for fewer, or use more of it (--max-samples)"
        )


def _parts(
    data: Path, test: Path | None, seed: int, run: Path | None, opened: Callable[[Path], Parts]
) -> tuple[Records, Records, str]:
    """Records to learn from, records to score on, and which part those are."""
    parts = opened(data)
    if test is not None:
        held = opened(test)
        records = held.test or held.val or held.train
        if records.classes != parts.train.classes:
            raise UserError(f"{data} has the classes {parts.train.classes}, but {test} has {records.classes}")
        return parts.train, records, "named test"
    if parts.test is not None:
        return parts.train, parts.test, "test"
    if parts.val is not None:
        return parts.train, parts.val, "validation"
    held_out_by_run = np.isin(parts.train.names, json.loads((run / SPLIT).read_text())["validation"] if run else [])
    if held_out_by_run.sum() >= MIN_HELD_OUT:
        train, unseen = (parts.train.select(np.flatnonzero(part)) for part in (~held_out_by_run, held_out_by_run))
        return train, unseen, "held-out"
    train, split = held_out(parts, None, VAL_FRACTION, seed)
    if split is None:
        raise UserError(f"{data} has {len(train)} samples, too few to split; name others with --test")
    return train, split, "split-off"


def _samples(records: Records, info: ExportInfo, limit: int, seed: int) -> Samples:
    """A reader of samples as the model was trained to see them, and which of them have labels."""
    return KINDS[info.model.modality.kind].reader(records, info.model, info.data, seed), labelled(records.labels, limit)
