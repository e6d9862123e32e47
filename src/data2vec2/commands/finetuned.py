"""What a fine-tuning run leaves behind: scores, mistakes and the exported model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from data2vec2.commands.kinds import KINDS, Log
from data2vec2.commands.labelled import LabelledData
from data2vec2.config import AudioFinetuneConfig, FinetuneConfig, ModelConfig
from data2vec2.data.reader import Reader
from data2vec2.evaluation.classification import details, headline, mistakes, predict
from data2vec2.interop.card import classifier_card
from data2vec2.interop.export import ExportInfo, export_classifier
from data2vec2.models import Classifier
from data2vec2.training.best import Best
from data2vec2.training.run import RunFolder


def write_result(
    run: RunFolder,
    config: FinetuneConfig | AudioFinetuneConfig,
    shape: ModelConfig,
    model: Classifier,
    data: LabelledData,
    log: Log,
) -> None:
    """Export the best model on the validation part (without one the last) as RUN/exported and score it once.

    It is scored on the test part, or where there is none on the validation part: RUN/scores.json and RUN/mistakes.npz.
    """
    best = Best(run.path).load()
    if best:
        model.load_state_dict(best.groups["model"])
    step = best.step if best else config.train.updates
    kind = KINDS[shape.modality.kind]
    device = next(model.parameters()).device
    part, reader = ("test", data.test) if data.test else ("validation", data.val)
    scores: dict[str, Any] = {}
    if reader:
        scores = _scores(run, model.eval(), data, part, reader, kind.normalise(config.data, device), device)
        from_scratch, labels = config.from_scratch, len(data.train.records)
        run.write_json("scores.json", {**scores, "update": step, "from_scratch": from_scratch, "labels": labels})
        name = "map" if data.multi_label else "accuracy"
        log(f"{part} {name} {scores[name]:.4f} ({scores['samples']:,} {kind.plural}), with the model of update {step}")
    info = ExportInfo(
        model=shape, data=config.data, classes=data.classes, multi_label=data.multi_label, pooling=model.pooling
    )
    card = classifier_card(config, info, data.description, scores)
    export_classifier(model, info, run.path / "exported", card)


def _scores(
    run: RunFolder,
    model: Classifier,
    data: LabelledData,
    part: str,
    reader: Reader,
    normalise: Callable[[torch.Tensor], torch.Tensor],
    device: torch.device,
) -> dict[str, Any]:
    """Score a part; also writes the mistakes."""
    predictions = predict(model, reader, normalise, device)
    temporary = run.path / ".mistakes.tmp.npz"
    np.savez_compressed(temporary, allow_pickle=False, **mistakes(predictions, reader))
    temporary.replace(run.path / "mistakes.npz")
    return {
        "kind": "classify",
        "part": part,
        "samples": len(predictions.samples_N),
        "classes": list(data.classes),
        **headline(predictions),
        **details(predictions, data.classes),
    }
