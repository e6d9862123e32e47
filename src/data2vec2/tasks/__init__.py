"""What the loop trains, and what all tasks share: where a run is, and its batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.utils.data import Dataset

from data2vec2.data.account import Account, Bad
from data2vec2.data.batch import Batch, iterate
from data2vec2.data.reader import Reader
from data2vec2.evaluation.features import Normalise
from data2vec2.training.parallel import ALONE, World
from data2vec2.training.run import ACCOUNT, RunFolder
from data2vec2.training.task import Task


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """Where a task runs, and where it tells what it finds."""

    run: RunFolder
    device: torch.device
    account: Account = field(default_factory=Account)
    """What becomes of the samples; stands in RUN/data.json."""
    unit: str = "samples"
    """What `train.batch_size` counts."""
    many: str = "samples"
    """What samples are called."""
    workers: int = 0
    """Processes that read batches."""
    world: World = ALONE
    log: Callable[[str], None] = lambda _: None


class ReadingTask(Task):
    """What all tasks share: a model, its batches, and the count of what could not be read."""

    def __init__(
        self, model: nn.Module, batches: Dataset[Batch], val: Reader | None, normalise: Normalise, context: RunContext
    ) -> None:
        """`val` is never trained on."""
        self.model, self.dataset, self.val, self.normalise, self.context = model, batches, val, normalise, context
        self.unit, self.many = context.unit, context.many
        self._bad: list[Bad] = []
        self._piped = False

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Batches of the given steps; notes what could not be read."""
        pin_memory = self.context.device.type == "cuda"
        for batch in iterate(self.dataset, start, stop, workers=self.context.workers, pin_memory=pin_memory):
            self._bad += batch.bad
            if batch.piped and not self._piped:
                self._piped = True
                self.context.log(
                    f"data: a batch of {batch.nbytes / 2**20:,.1f} MiB goes through a pipe, which takes longer, for "
                    "/dev/shm has little room; more helps (docker run --shm-size=2g)"
                )
            yield batch

    @property
    def scoring(self) -> World:
        """Who shares the work of scoring: of a sharded model each process calls all parts, so each does all of it."""
        return ALONE if self.context.world.sharded else self.context.world

    def names(self, step: int) -> list[str]:
        """The samples of a global batch."""
        return [self.dataset.reader.name(sample) for sample in self.dataset.order(step).samples_B.tolist()]

    def figures(self, step: int) -> dict[str, float]:
        """Nothing yet; counts the bad samples of all processes."""
        context = self.context
        bad = context.world.collect([(item.name, item.reason) for item in self._bad])
        self._bad.clear()
        self.note("train", (Bad(name, reason) for part in bad for name, reason in part))
        return {}

    def note(self, part: str, bad: Iterable[Bad]) -> None:
        """Add what could not be read to the account of a part; `UserError` if it is too much."""
        account = self.context.account
        if account.part(part).add(bad) and not self.context.world.rank:
            self.context.run.note_json(ACCOUNT, account.to_dict())
