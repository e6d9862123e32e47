"""What the loop trains, and how it ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from data2vec2.training import optim
from data2vec2.training.progress import html_table


@dataclass(frozen=True)
class Sums:
    """A micro-batch's loss, summed over `count` equal parts (student rows, samples)."""

    loss: Tensor
    count: int


class Task(ABC):
    """What the loop trains."""

    model: nn.Module
    """Everything that is trained or saved."""
    dataset: Any = None
    """All global batches (`data.batch.Batches`)."""
    ema: optim.Ema | None = None
    """The teacher's average; none in fine-tuning."""
    monitor: str | None = None
    """The score (the higher the better) whose best model is kept too."""
    scores_untrained: ClassVar[bool] = False
    """Whether the untrained model is scored, against which later scores are held."""
    unit: str = "samples"
    """What `train.batch_size` counts: "pictures", "seconds of audio"."""
    many: str = "samples"
    """What samples are called."""
    bars: Mapping[str, tuple[float, float]] = {}
    """95 % intervals of the scores of the last evaluation, of those that have one."""
    lighter: ClassVar[str]
    """What to try where even one sample is too much for the memory."""

    @abstractmethod
    def batches(self, start: int, stop: int) -> Iterable[Any]:
        """Global batches of the given steps, or this process's part of them (`data.batch.Batch`)."""

    def names(self, step: int) -> list[str]:
        """The samples of a global batch."""
        return []

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> Sums:
        """The loss of a micro-batch; never waits for the device."""

    @abstractmethod
    def figures(self, step: int) -> dict[str, float]:
        """What else to log, from the last micro-batch; called by all processes at log points only, so it may wait."""

    @abstractmethod
    def evaluate(self, step: int) -> dict[str, float]:
        """Scores on the validation part."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    state: str
    """finished, interrupted, diverged, collapsed; planned (a dry run) or helped (a process that is not the first)."""
    step: int
    message: str = ""
    plan: Any = None
    """Of a dry run, what the run would take."""
    run: Path | None = None
    """The run folder."""
    scores: Mapping[str, Any] = field(default_factory=dict)
    """Of a fine-tuned model on the test part, as in scores.json; else those of the last evaluation."""

    @property
    def model(self) -> Path | None:
        """The exported model."""
        return self.run / "exported" if self.run and self.state == "finished" else None

    @property
    def report(self) -> Path | None:
        """The page of the run."""
        return self.run / "report.html" if self.run else None

    def _repr_html_(self) -> str:
        numbers = {name: value for name, value in self.scores.items() if isinstance(value, int | float)}
        paths = {"model": self.model, "report": self.report}
        shown = {"state": self.state, "update": self.step, "message": self.message, **paths, **numbers}
        return html_table([(name, value) for name, value in shown.items() if value not in ("", None)])
