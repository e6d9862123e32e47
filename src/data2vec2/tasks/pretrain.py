"""Pre-training: the data2vec 2.0 objective, its collapse figures and a kNN score as it trains."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data2vec2.config.model import MaskConfig
from data2vec2.config.run import RunConfig
from data2vec2.data.batch import Batch, Batches, Step
from data2vec2.data.reader import Reader
from data2vec2.evaluation.features import Normalise, effective_rank, encode_by_each, labelled, mean_std
from data2vec2.evaluation.probes import knn_accuracy
from data2vec2.method.masking import draw_keep_ids
from data2vec2.method.pretraining import Data2Vec2, Pretrained
from data2vec2.tasks import ReadingTask, RunContext
from data2vec2.training.optim import Ema
from data2vec2.training.task import Sums

MONITOR_TRAIN, MONITOR_VAL = 2_000, 1_000
SCORE = "val_knn"


@dataclass(frozen=True)
class Masks:
    """Adds the places that the student keeps."""

    config: MaskConfig
    reader: Reader

    def __call__(self, batch: Batch, step: Step) -> Batch:
        """Draw them for the grid of tokens that this batch has."""
        grid, plan = self.reader.grid(step.read.inputs), step.plan
        keep_ids = draw_keep_ids(self.config, grid, step.seed, plan.epochs_B, plan.samples_B)
        return replace(batch, keep_ids_NK=torch.from_numpy(keep_ids))


def scored(train: Reader, val: Reader | None) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Samples of both parts for the kNN score; none where there are no labels to score by."""
    if val is None:
        return None
    known, asked = labelled(train.records.labels, MONITOR_TRAIN), labelled(val.records.labels, MONITOR_VAL)
    return (known, asked) if len(asked) and len(np.unique(train.records.labels[known])) > 1 else None


class PretrainTask(ReadingTask):
    """Student, teacher and decoder on samples of any modality."""

    model: Data2Vec2
    scores_untrained = True
    lighter = "--train.checkpoint-activations, or fewer masks (--model.masks.num-masks)"

    def __init__(
        self,
        model: Data2Vec2,
        config: RunConfig,
        train: Reader,
        val: Reader | None,
        normalise: Normalise,
        context: RunContext,
    ) -> None:
        """`val` is for the kNN score, which needs labels in both parts."""
        order, world = train.order(config.train.batch_size), context.world
        batches = Batches(train, order, [Masks(config.model.masks, train)], world.rank, world.size)
        super().__init__(model, batches, val, normalise, context)
        self.train, self.ema = train, Ema(model.teacher, model.student, **asdict(config.ema))
        self.monitor = SCORE if config.train.keep_best else None
        self._last: dict[str, Tensor] = {}

    def loss(self, model: nn.Module, batch: Batch) -> Sums:
        """The objective, summed over student rows."""
        out: Pretrained = model(self.normalise(batch.inputs), batch.keep_ids_NK)
        self._last = {  # for `figures`; nothing that would keep the graph alive
            "regression": out.regression,
            **({"cls": out.cls} if out.student.num_extra_tokens else {}),
            "target": out.targets_BTD,
            "prediction": out.predictions_NUD,
            "stem": out.student.tokens.tokens_BTD.detach(),
            "encoder": out.student.features_NTD.detach(),
        }
        return Sums(out.loss.float(), out.num_rows)

    def figures(self, step: int) -> dict[str, float]:
        """Parts of the loss, spread and effective rank, from the last micro-batch; also counts bad samples."""
        super().figures(step)
        if self.context.world.rank:
            return {}
        last = self._last
        spread = {f"{name}_std": mean_std(last[name]) for name in ("target", "prediction")}
        error = last["regression"].item() / (self.model.loss_scale * last["target"].shape[-1])  # mean square
        return {
            **{name: last[name].item() for name in ("regression", "cls") if name in last},
            **spread,
            "unexplained": error / spread["target_std"] ** 2,
            **{f"rank_{name}": effective_rank(last[name]) for name in ("stem", "encoder", "target")},
        }

    def evaluate(self, step: int) -> dict[str, float]:
        """KNN accuracy and its standard error on the validation part, by mean-pooled features; none without labels."""
        if self.val is None or not (samples := scored(self.train, self.val)):
            return {}
        student, (train, val) = self.model.student, samples
        where, world = (self.normalise, self.context.device), self.scoring
        (known,) = encode_by_each([student], self.train, train, *where, world=world)
        (asked,) = encode_by_each([student], self.val, val, *where, partial(self.note, "val"), world)
        accuracy = knn_accuracy(known, asked)
        return {SCORE: accuracy, f"{SCORE}_error": math.sqrt(accuracy * (1 - accuracy) / len(asked.y))}
