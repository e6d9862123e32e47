"""How a model is pre-trained and fine-tuned: optimiser, EMA, data, the loop and the task."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from data2vec2.config.model import ModelConfig
from data2vec2.config.tree import require


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Adam with decoupled weight decay; cosine to zero after a linear warm-up."""

    lr: float = 1e-3
    """Peak learning rate at a global batch of `lr_batch` samples."""
    lr_rule: Literal["none", "linear", "sqrt"] = "none"
    """How the rate follows the global batch: not at all, in proportion, or with its square root."""
    lr_batch: int = 256
    """The global batch that `lr` was tuned for; only `lr_rule` linear and sqrt look at it."""
    warmup_updates: int = 50_040
    """Updates of linear warm-up from zero."""
    beta1: float = 0.9
    """Decay of Adam's first moment."""
    beta2: float = 0.95
    """Decay of Adam's second moment."""
    eps: float = 1e-8
    """Adam's epsilon."""
    weight_decay: float = 0.05
    """Decoupled weight decay."""
    decay_all: bool = False
    """Also decay biases, norms and other 1-D tensors, as every released model did."""
    clip_norm: float | None = 4.0
    """Largest norm of the whole gradient; none: no clipping."""

    def __post_init__(self) -> None:
        require(0 < self.lr < math.inf, "optim.lr", self.lr, "above 0 and finite")
        require(self.lr_batch >= 1, "optim.lr_batch", self.lr_batch, "at least 1")
        require(self.warmup_updates >= 0, "optim.warmup_updates", self.warmup_updates, "0 or more")
        for name in ("beta1", "beta2"):
            require(0 <= getattr(self, name) < 1, f"optim.{name}", getattr(self, name), "from 0 to below 1")
        require(self.eps > 0, "optim.eps", self.eps, "above 0")
        require(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, "0 or more")
        require(self.clip_norm is None or self.clip_norm > 0, "optim.clip_norm", self.clip_norm, "above 0, or none")


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """The teacher: an exponential moving average of the student."""

    start: float = 0.9998
    """Decay at the first update."""
    end: float = 0.99999
    """Decay after `anneal_updates`."""
    anneal_updates: int = 100_000
    """Updates over which the decay goes linearly from `start` to `end`."""

    def __post_init__(self) -> None:
        require(0 <= self.start <= 1, "ema.start", self.start, "from 0 to 1")
        require(0 <= self.end <= 1, "ema.end", self.end, "from 0 to 1")
        require(self.anneal_updates >= 0, "ema.anneal_updates", self.anneal_updates, "0 or more")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How samples are read; every modality adds fields of its own."""

    kind: str
    """Which modality this is for."""
    val_fraction: float = 0.05
    """Share split off for validation where the data name no validation part; at most 2,000 samples."""
    max_bad: float = 0.05
    """Largest share of files that can't be read before the run stops."""
    workers: int | None = None
    """Processes that read samples; none: chosen from the number of cores and the kind of data."""

    def __post_init__(self) -> None:
        require(0 <= self.val_fraction < 1, "data.val_fraction", self.val_fraction, "from 0 to below 1")
        require(0 <= self.max_bad <= 1, "data.max_bad", self.max_bad, "from 0 to 1")
        require(self.workers is None or self.workers >= 0, "data.workers", self.workers, "0 or more")

    def check(self, train: TrainConfig) -> None:
        """Raise `UsageError` for a batch that these samples don't fit into."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The loop."""

    updates: int = 375_300
    """Optimiser steps. Fewer than the recipe's shorten warm-up and EMA with them."""
    batch_size: int = 256
    """Samples in an optimiser step, over all processes (each has `num_masks` student rows); of audio: seconds; in
    fine-tuning on text: tokens, padding included."""
    micro_batch: int | None = None
    """Samples (seconds, tokens) that go through the model at once in each process; none: as many as fit the memory."""
    processes: int | None = None
    """Processes of this machine that share every batch; none: one for each GPU, or one. Ignored under torchrun."""
    seed: int = 0
    """Decides initialisation, order, crops, masks, noise and the validation split."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    threads: int | None = None
    """Processor threads of one operation in each process; none: the cores divided by the processes."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of matrix products; auto: bfloat16 where a short measurement shows that it is faster."""
    compile: bool = False
    """Compile the model (a minute or more at the start, faster steps after it)."""
    log_every: int = 50
    """Updates between lines of metrics."""
    eval_every: int = 5_000
    """Updates between validation scores; 0: never."""
    save_every: int = 2_500
    """Updates between checkpoints; one is always written at the end."""
    keep: int = 2
    """Checkpoints to keep."""

    def __post_init__(self) -> None:
        for name in ("updates", "batch_size", "log_every", "save_every", "keep"):
            require(getattr(self, name) >= 1, f"train.{name}", getattr(self, name), "at least 1")
        require(self.eval_every >= 0, "train.eval_every", self.eval_every, "0 or more")
        require(self.seed >= 0, "train.seed", self.seed, "0 or more")
        require(self.threads is None or self.threads >= 1, "train.threads", self.threads, "at least 1, or none")
        share, of_batch = self.batch_size, f"train.batch_size ({self.batch_size})"
        if self.processes is not None:
            divides = self.processes >= 1 and share % self.processes == 0
            require(divides, "train.processes", self.processes, f"a divisor of {of_batch}")
            share, of_batch = share // self.processes, f"{of_batch} over train.processes ({self.processes})"
        divides = self.micro_batch is None or (self.micro_batch >= 1 and share % self.micro_batch == 0)
        require(divides, "train.micro_batch", self.micro_batch, f"a divisor of {of_batch}")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A complete run: what a recipe returns and what `config.yaml` of a run folder holds."""

    recipe: str
    """The recipe this started from."""
    init_from: str | None = None
    """Weights to start from: a run, an exported model, or a .pt checkpoint of the original; none: random ones."""
    model: ModelConfig
    """Shape and objective of the model."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimiser."""
    ema: EmaConfig = field(default_factory=EmaConfig)
    """The teacher's average."""
    data: DataConfig
    """Reading samples."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The loop."""

    def __post_init__(self) -> None:
        expected = f"{self.model.modality.kind!r}, as model.modality.kind"
        require(self.data.kind == self.model.modality.kind, "data.kind", self.data.kind, expected)
        self.data.check(self.train)


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


C = TypeVar("C", RunConfig, FinetuneConfig)


def fit_schedule(config: C, reference: C) -> C:
    """Shorten warm-up, and EMA or freezing, when `config` makes fewer updates than the `reference` recipe.

    A teacher that averages over 5,000 updates is still its initialisation after 2,000. So warm-up and annealing shrink
    in proportion to the run, and the averaging times 1 / (1 - decay) at the start and the end of the annealing shrink
    with them (but not below 10 updates). What the user set (what differs from the reference) is left alone.
    """
    ratio = config.train.updates / reference.train.updates
    if ratio >= 1:
        return config

    def shorter_decay(decay: float) -> float:
        return max(min(decay, 1 - (1 - decay) / ratio), min(decay, 0.9))

    warmup = round(config.optim.warmup_updates * ratio)
    config = replace(config, optim=_unless_set(config.optim, reference.optim, warmup_updates=warmup))
    if isinstance(config, FinetuneConfig) and isinstance(reference, FinetuneConfig):
        return replace(config, task=config.task.shortened(reference.task, ratio))
    ema, anneal = config.ema, round(config.ema.anneal_updates * ratio)
    start, end = shorter_decay(ema.start), shorter_decay(ema.end)
    return replace(config, ema=_unless_set(ema, reference.ema, anneal_updates=anneal, start=start, end=end))


def _unless_set(own: Any, reference: Any, **values: Any) -> Any:
    """`own` with these values of fields, but for those in which it differs from the `reference` already."""
    left = {name: value for name, value in values.items() if getattr(own, name) == getattr(reference, name)}
    return replace(own, **left)
