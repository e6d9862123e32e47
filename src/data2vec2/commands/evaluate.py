"""evaluate MODEL DATA."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from data2vec2.commands.data import held_out
from data2vec2.config import DataConfig
from data2vec2.data.image import ImageReader
from data2vec2.data.records import Records, open_data
from data2vec2.errors import UserError
from data2vec2.evaluation.features import Normalise, labelled
from data2vec2.evaluation.scores import Scores, score
from data2vec2.interop.export import ExportInfo, load_encoder
from data2vec2.modalities import build_modality
from data2vec2.models import Encoder
from data2vec2.report import write_report
from data2vec2.training.device import choose_device
from data2vec2.training.progress import console
from data2vec2.training.run import CONFIG, SPLIT, RunFolder

VAL_FRACTION = 0.2
MIN_HELD_OUT = 100
"""So many samples must a run have held out of DATA to be scored on them; below, a fifth of DATA is split off."""


def evaluate(
    model: str | Path,
    data: str | Path,
    *,
    test: str | Path | None = None,
    max_samples: int = 10_000,
    seed: int = 0,
    device: str = "auto",
) -> Scores:
    """Accuracy of kNN and linear probe on frozen, mean-pooled features, beside three baselines.

    `model` is a run folder or an exported model. Probes learn from the labels of DATA's training part and are scored on
    `test`, or DATA's own test or validation part, or what the run held out of DATA, or a fifth split off by `seed`. At
    most `max_samples` of each part are used, evenly spread. A run folder gets the scores as scores.json and in its
    report.

    Raises `UserError` if model or data can't be used, or there are no labels.
    """
    if max_samples < 2:
        raise ValueError(f"--max-samples is {max_samples}; it must be at least 2")
    if seed < 0:
        raise ValueError(f"--seed is {seed}; it must be 0 or more")
    model, say = Path(model), console().print
    is_run = (model / CONFIG).is_file()
    if is_run and not (model / "exported").is_dir():
        raise UserError(f"the run in {model} has not finished, so there is no model yet; go on with pretrain --resume")
    encoder, info = load_encoder(model / "exported" if is_run else model)
    torch_device = choose_device(device)
    train, held, part = _parts(Path(data), Path(test) if test else None, seed, model if is_run else None)
    readers = _reader(train, info, seed), _reader(held, info, seed)
    train_samples, test_samples = (labelled(records.labels, max_samples) for records in (train, held))
    if not len(train_samples) or not len(test_samples) or len(train.classes) < 2:
        raise UserError(
            f"{data} has no labels to evaluate with; put the pictures of each class into a folder of its own, "
            "or give arrays with labels"
        )
    say(f"evaluating on {len(test_samples):,} pictures ({part} part), with the labels of {len(train_samples):,}")
    torch.manual_seed(seed)
    untrained = Encoder(info.model.encoder, build_modality(info.model)).to(torch_device).eval()
    scores = score(
        encoder.to(torch_device),
        untrained,
        (readers[0], train_samples),
        (readers[1], test_samples),
        Normalise(info.mean, info.std, torch_device),
        torch_device,
        part,
        say,
    )
    if is_run:
        RunFolder(model).write_json("scores.json", scores.to_dict())
        write_report(model)
    return scores


def format_scores(scores: Scores) -> str:
    """The table of scores as plain text, accuracies in percent."""
    width = max(len(row.features) for row in scores.rows)
    lines = [f"{'features':<{width}}    kNN  linear"]
    lines += [f"{row.features:<{width}}  {100 * row.knn:5.1f}  {100 * row.linear:6.1f}" for row in scores.rows]
    return "\n".join(lines)


def _parts(data: Path, test: Path | None, seed: int, run: Path | None) -> tuple[Records, Records, str]:
    """Records to learn from, records to score on, and which part those are."""
    parts = open_data(data)
    if test is not None:
        held = open_data(test)
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
        raise UserError(f"{data} has {len(train)} pictures, too few to split; name others with --test")
    return train, split, "split-off"


def _reader(records: Records, info: ExportInfo, seed: int) -> ImageReader:
    """A reader that crops and sizes pictures as the model was trained to see them."""
    return ImageReader(records, info.model.modality, DataConfig(eval_crop=info.eval_crop), seed)
