"""How a pre-trained encoder is fine-tuned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from data2vec2.config.run import DataConfig, OptimConfig, TrainConfig
from data2vec2.config.tree import require

Schedule = Literal["cosine", "tri_stage", "linear"]


@dataclass(frozen=True, kw_only=True)
class FinetuneOptimConfig(OptimConfig):
    """The optimiser, with rates that fall from the last block to the first."""

    schedule: Schedule = "cosine"
    """The rate after warm-up: cosine or linear to zero; tri_stage: held to half of the updates, then exponentially down
    to 5 %, with a warm-up from 1 %."""
    layer_decay: float = 1.0
    """Block i of n learns at layer_decay ** (n + 1 - i) of the rate; stem, norm and head at the full one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.layer_decay <= 1, "optim.layer_decay", self.layer_decay, "above 0, up to 1")


@dataclass(frozen=True, kw_only=True)
class FinetuneDataConfig(DataConfig):
    """How samples are read, and how many labels are used; every modality adds the fields of its own data."""

    labels_per_class: int | None = None
    """Of classes, training samples of each, drawn by train.seed; none: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        least_one = self.labels_per_class is None or self.labels_per_class >= 1
        require(least_one, "data.labels_per_class", self.labels_per_class, "at least 1, or none")


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """What fine-tuning changes of the encoder, and does to its inputs; every modality adds fields of its own."""

    kind: str
    """Which modality this is for."""

    def check(self, train: TrainConfig) -> None:
        """Raise `UsageError` for a batch that does not suit."""

    def shortened(self, reference: TaskConfig, ratio: float) -> TaskConfig:
        """The same for a run that is `ratio` as long as the recipe's, whose own this `reference` is."""
        return self

    @property
    def remark(self) -> str:
        """What the plan says of it, if anything."""
        return ""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """A complete fine-tuning run: what a recipe returns and what `config.yaml` of a run folder holds."""

    recipe: str
    """The recipe this started from."""
    from_scratch: bool = False
    """Random initialisation instead of the model's weights."""
    weights: str | None = None
    """SHA-256 of the model's weights; filled in when the run starts, and checked when it is resumed."""
    task: TaskConfig
    """What changes of the encoder and its inputs."""
    optim: FinetuneOptimConfig = field(default_factory=FinetuneOptimConfig)
    """The optimiser."""
    data: FinetuneDataConfig
    """Reading samples."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The loop."""

    def __post_init__(self) -> None:
        require(self.data.kind == self.task.kind, "data.kind", self.data.kind, f"{self.task.kind!r}, as task.kind")
        self.task.check(self.train)
        self.data.check(self.train)
