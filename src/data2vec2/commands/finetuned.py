"""What a fine-tuning run leaves behind: scores, mistakes and the exported model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data2vec2.commands.kinds import KINDS, AnyData, Log
from data2vec2.commands.labelled import LabelledData
from data2vec2.config import AnyFinetuneConfig, ModelConfig, TextDataConfig, TextFinetuneConfig
from data2vec2.data.reader import Reader
from data2vec2.data.sentence_batches import NumberTargets
from data2vec2.evaluation.classification import details, headline, mistakes, predict
from data2vec2.evaluation.regression import correlations, predict_numbers, worst_numbers
from data2vec2.interop.card import classifier_card
from data2vec2.interop.export import ExportInfo, export_classifier
from data2vec2.models import Classifier
from data2vec2.training.best import Best
from data2vec2.training.run import RunFolder

NUMBER = "value"
"""What the output of a model that gives numbers is called."""
Scored = Callable[[Reader, torch.device], tuple[dict[str, Any], dict[str, NDArray[Any]]]]
"""Scores of a part, and the arrays of mistakes.npz."""


def write_result(
    run: RunFolder, config: AnyFinetuneConfig, shape: ModelConfig, model: Classifier, data: LabelledData, log: Log
) -> None:
    """Export the best model on the validation part (without one the last) as RUN/exported and score it once.

    It is scored on the test part, or where there is none on the validation part: RUN/scores.json and RUN/mistakes.npz.
    """
    info = ExportInfo(
        model=shape,
        data=_read_as(config),
        classes=data.classes,
        multi_label=data.multi_label,
        pooling=model.pooling,
    )

    def scored(reader: Reader, device: torch.device) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        normalise = KINDS[shape.modality.kind].normalise(info.data, device)
        found = predict(model, reader, normalise, device)
        scores = {"kind": "classify", "samples": len(found.samples_N), "classes": list(data.classes)}
        return {**scores, **headline(found), **details(found, data.classes)}, mistakes(found, reader)

    _load_best(run, model)
    _finish(run, config, info, model, data, scored, "map" if data.multi_label else "accuracy", log)


def write_numbers(
    run: RunFolder, config: AnyFinetuneConfig, shape: ModelConfig, model: Classifier, data: LabelledData, log: Log
) -> None:
    """The same for a model that gives numbers, whose export gives them as they stand in the data.

    Beside its error stands that of always answering the training part's mean.
    """
    mean, deviation = NumberTargets(data.train.records).scale
    info = ExportInfo(model=shape, data=_read_as(config), classes=(NUMBER,), pooling=model.pooling, regression=True)

    def scored(reader: Reader, device: torch.device) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        found = predict_numbers(model, reader, device)
        of_mean = float(np.square(found.truth_N - mean).mean())
        scores = {"kind": "regress", "samples": len(found.samples_N), **correlations(found), "mse_of_mean": of_mean}
        return scores, worst_numbers(found, reader)

    _load_best(run, model)
    model.rescale(mean, deviation)
    _finish(run, config, info, model, data, scored, "pearson", log)


def _read_as(config: AnyFinetuneConfig) -> AnyData:
    """How the exported model's inputs are read."""
    return TextDataConfig(tokenizer=config.tokenizer) if isinstance(config, TextFinetuneConfig) else config.data


def _load_best(run: RunFolder, model: Classifier) -> None:
    """Put the best weights, if some were kept, into the model, which is then in eval mode."""
    if best := Best(run.path).load():
        model.load_state_dict(best.groups["model"])
    model.eval()


def _finish(
    run: RunFolder,
    config: AnyFinetuneConfig,
    info: ExportInfo,
    model: Classifier,
    data: LabelledData,
    scored: Scored,
    main: str,
    log: Log,
) -> None:
    """Score, and export."""
    best = Best(run.path).load()
    step = best.step if best else config.train.updates
    part, reader = ("test", data.test) if data.test else ("validation", data.val)
    scores: dict[str, Any] = {}
    if reader:
        found, wrong = scored(reader, next(model.parameters()).device)
        temporary = run.path / ".mistakes.tmp.npz"
        np.savez_compressed(temporary, allow_pickle=False, **wrong)
        temporary.replace(run.path / "mistakes.npz")
        scores = {"part": part, **found}
        more = {"update": step, "from_scratch": config.from_scratch, "labels": len(data.train.records)}
        run.write_json("scores.json", {**scores, **more})
        plural = KINDS[info.model.modality.kind].plural
        log(f"{part} {main} {scores[main]:.4f} ({scores['samples']:,} {plural}), with the model of update {step}")
    export_classifier(model, info, run.path / "exported", classifier_card(config, info, data.description, scores))
