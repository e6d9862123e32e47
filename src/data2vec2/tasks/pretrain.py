"""Pre-training: the data2vec 2.0 objective, its collapse figures and a kNN score as it trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from data2vec2.config import RunConfig
from data2vec2.data.loader import MaskedBatch, MaskedBatches, iterate
from data2vec2.data.reader import Bad, Reader
from data2vec2.data.skipped import Skipped
from data2vec2.evaluation.features import encode, labelled
from data2vec2.evaluation.probes import knn_accuracy
from data2vec2.evaluation.rank import effective_rank, mean_std
from data2vec2.models import Data2Vec2, Pretrained
from data2vec2.training.ema import Ema
from data2vec2.training.loop import Sums
from data2vec2.training.parallel import ALONE, World

MONITOR_TRAIN, MONITOR_VAL = 2_000, 1_000


class PretrainTask:
    """Student, teacher and decoder on samples of any modality."""

    monitor = None

    def __init__(
        self,
        model: Data2Vec2,
        config: RunConfig,
        train: Reader,
        val: Reader | None,
        normalise: Callable[[Tensor], Tensor],
        device: torch.device,
        skipped: Skipped,
        skipped_path: Path,
        world: World = ALONE,
    ) -> None:
        """`val` (never trained on) is for the kNN score, which needs labels in both parts."""
        self.model = model
        self.config, self.train, self.val, self.normalise, self.device = config, train, val, normalise, device
        self.skipped, self.skipped_path, self.world = skipped, skipped_path, world
        ema = config.ema
        self.ema = Ema(model.teacher, model.student, start=ema.start, end=ema.end, anneal_updates=ema.anneal_updates)
        order = train.order(config.train.batch_size)
        self.dataset = MaskedBatches(train, order, config.model.masks, world.rank, world.size)
        self._bad: list[Bad] = []
        self._last: dict[str, Tensor] = {}

    def batches(self, start: int, stop: int) -> Iterator[MaskedBatch]:
        """Batches of the given steps; notes what could not be read."""
        workers = self.config.data.workers or 0
        for batch in iterate(self.dataset, start, stop, workers=workers, pin_memory=self.device.type == "cuda"):
            self._bad += batch.bad
            yield batch

    def loss(self, model: nn.Module, batch: MaskedBatch) -> Sums:
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
        bad = self.world.collect(f"bad-{step}", [(item.name, item.reason) for item in self._bad])
        self._bad.clear()
        if self.skipped.add(Bad(name, reason) for part in bad for name, reason in part):
            self.skipped.write(self.skipped_path)
        if self.world.rank:
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
        """KNN accuracy, with its standard error, of the student's mean-pooled features on the validation part.

        Nothing without labels.
        """
        if self.val is None:
            return {}
        train = labelled(self.train.records.labels, MONITOR_TRAIN)
        val = labelled(self.val.records.labels, MONITOR_VAL)
        if not len(train) or not len(val) or len(np.unique(self.train.records.labels[train])) < 2:
            return {}
        student = self.model.student
        known = encode(student, self.train, train, self.normalise, self.device)
        asked = encode(student, self.val, val, self.normalise, self.device)
        accuracy = knn_accuracy(known, asked)
        return {"val_knn": accuracy, "val_knn_error": math.sqrt(accuracy * (1 - accuracy) / len(asked.y))}
