"""The best model of a run by its validation score, kept in RUN/best beside the last checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import nn

from data2vec2.training.checkpoint import Checkpoint, list_checkpoints, load_newest, save_checkpoint


class Best:
    """RUN/best/step-N: the weights, and in their state the score.

    What lies there is all that there is to know, so a resumed run needs nothing else: an update that is made again
    gives the same score again, and the first of equal scores stays.
    """

    def __init__(self, run: Path) -> None:
        self.folder = run / "best"
        found = self.load()
        self.score: float | None = found.state["score"] if found else None

    def is_best(self, score: float) -> bool:
        """Whether a score is higher than all before; NaN never is."""
        return score > (float("-inf") if self.score is None else self.score)

    def save(self, step: int, score: float, model: nn.Module) -> None:
        """Keep this model in place of the one before."""
        kept = save_checkpoint(self.folder, step, {"model": model.state_dict()}, {"score": score}, keep=2)
        for other in list_checkpoints(self.folder):
            if (
                other != kept
            ):  # also of a later update, where a run goes on from before it with another --train.eval-every
                shutil.rmtree(other)
        self.score = score

    def load(self) -> Checkpoint | None:
        """The best model, if there is one."""
        return load_newest(self.folder)[0]
