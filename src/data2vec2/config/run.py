"""How a model is pre-trained and fine-tuned: optimiser, EMA, data, the loop and the task."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, ClassVar, Literal, TypeVar

from data2vec2.config.model import ModelConfig
from data2vec2.config.tree import require, require_finite


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Adam with decoupled weight decay; cosine to zero after a linear warm-up."""

    lr: float = 1e-3
    """Peak learning rate at a global batch of `lr_batch` samples."""
    lr_rule: Literal["none", "linear", "sqrt"] = "none"
    """How the learning rate scales with the global batch: not at all, linearly, or with its square root."""
    lr_batch: int = 256
    """The global batch that `lr` was tuned for; used only by `lr_rule` linear and sqrt."""
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
    """Also decay biases, norms and other 1-D tensors, as in every released model."""
    clip_norm: float | None = 4.0
    """Maximum gradient norm; none: no clipping."""

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
    """Updates over which the decay moves linearly from `start` to `end`."""

    def __post_init__(self) -> None:
        require(0 <= self.start <= 1, "ema.start", self.start, "from 0 to 1")
        require(0 <= self.end <= 1, "ema.end", self.end, "from 0 to 1")
        require(self.anneal_updates >= 0, "ema.anneal_updates", self.anneal_updates, "0 or more")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How samples are read; every modality adds its own fields."""

    learned: ClassVar[tuple[str, ...]] = ()
    """Fields that a model that goes on from weights has from these."""
    kind: str
    """The modality."""
    val_fraction: float = 0.05
    """Fraction held out for validation if the data have no validation part; at most 2,000 samples."""
    max_bad: float = 0.05
    """Largest fraction of unusable files; above it, the run stops."""
    weights: tuple[float, ...] = ()
    """Shares of several DATA in training, one for each; none: by their sizes. Pictures, recordings or blocks of text
    are counted. A pass over the data has every sample at least once."""
    workers: int | None = None
    """Reader processes for each process that trains; none: by a measurement, enough to read twice as fast as the model
    learns; 0 for arrays in memory."""

    def __post_init__(self) -> None:
        require(0 <= self.val_fraction < 1, "data.val_fraction", self.val_fraction, "from 0 to below 1")
        require(0 <= self.max_bad <= 1, "data.max_bad", self.max_bad, "from 0 to 1")
        require(all(0 < one < math.inf for one in self.weights), "data.weights", self.weights, "above 0 and finite")
        require(self.workers is None or self.workers >= 0, "data.workers", self.workers, "0 or more")

    def check(self, train: TrainConfig) -> None:
        """Raise `UsageError` for a batch that these samples don't fit into."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The training loop."""

    updates: int = 375_300
    """Optimiser steps; default: the recipe's, limited to 120 passes over the data (fine-tuning: 400) or 1,000 updates,
    whichever is more. Warm-up and EMA are shortened with the run; a short pre-training is logged, scored and saved more
    often, about 16, 4 and 4 times."""
    epochs: float | None = None
    """Length in passes over the data; sets the updates when a run starts."""
    hours: float | None = None
    """Length in hours of training on this machine, from a few measured updates; sets the updates when a run starts."""
    batch_size: int = 256
    """Global batch in samples, each with `num_masks` student rows; for audio: in seconds; for fine-tuning on text: in
    tokens, including padding."""
    micro_batch: int | None = None
    """Samples (seconds, tokens) that a process passes through the model at once; none: as many as fit in memory."""
    processes: int | None = None
    """Processes on this machine that share every batch; none: one per GPU, or one. Ignored under torchrun."""
    shard: bool = False
    """Spread parameters and optimiser state over the processes, for models that one device can't hold; pre-training."""
    seed: int = 0
    """Seed of initialisation, order, crops, masks, noise and the validation split."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    threads: int | None = None
    """CPU threads per process; none: the cores divided by the processes."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of matrix products; auto: bfloat16 if a short measurement shows that it is faster."""
    compile: bool | None = None
    """Compile the model's blocks: a minute or more at the start, then faster steps; none: on CUDA with Triton."""
    checkpoint_activations: bool = False
    """Keep only the inputs of the student's Transformer blocks and recompute the rest in the backward pass: far less
    memory, somewhat longer updates, the same numbers."""
    log_every: int = 50
    """Updates between log lines."""
    eval_every: int = 5_000
    """Updates between validation scores; 0: never."""
    save_every: int = 2_500
    """Updates between checkpoints; one is always written at the end."""
    stall_minutes: float = 30.0
    """Minutes that a process may wait for data, or not be heard of, before the run ends."""
    keep: int = 2
    """Newest checkpoints to keep."""
    keep_every: int | None = None
    """Checkpoints of updates that this divides are kept as well."""
    keep_best: bool = False
    """Keep the model with the best validation score in RUN/best and export that one; fine-tuning always does."""

    def __post_init__(self) -> None:
        for name in ("updates", "batch_size", "log_every", "save_every", "keep"):
            require(getattr(self, name) >= 1, f"train.{name}", getattr(self, name), "at least 1")
        require(self.stall_minutes > 0, "train.stall_minutes", self.stall_minutes, "above 0")
        every = self.keep_every
        require(every is None or every >= 1, "train.keep_every", every, "at least 1, or none")
        for name in ("epochs", "hours"):
            value = getattr(self, name)
            require(value is None or 0 < value < math.inf, f"train.{name}", value, "above 0 and finite, or none")
        require(not (self.epochs and self.hours), "train.hours", self.hours, "none where train.epochs is given")
        require(self.eval_every >= 0, "train.eval_every", self.eval_every, "0 or more")
        require(self.seed >= 0, "train.seed", self.seed, "0 or more")
        require(self.threads is None or self.threads >= 1, "train.threads", self.threads, "at least 1, or none")
        for name in ("processes", "micro_batch"):
            number, most = getattr(self, name), f"from 1 to train.batch_size ({self.batch_size})"
            require(number is None or 1 <= number <= self.batch_size, f"train.{name}", number, most)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A complete pre-training run, as a recipe returns it and `config.yaml` stores it."""

    recipe: str
    """The recipe this is derived from."""
    init_from: str | None = None
    """Initial weights: a run, an exported model, a .pt checkpoint of the original, or a folder or hf:NAME of another
    family; none: random."""
    model: ModelConfig
    """Architecture and objective of the model."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimiser."""
    ema: EmaConfig = field(default_factory=EmaConfig)
    """The teacher's average."""
    data: DataConfig
    """Reading samples."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The training loop."""

    def __post_init__(self) -> None:
        require_finite(self)
        expected = f"{self.model.modality.kind!r}, as model.modality.kind"
        require(self.data.kind == self.model.modality.kind, "data.kind", self.data.kind, expected)
        self.data.check(self.train)


Schedule = Literal["cosine", "tri_stage", "linear"]


@dataclass(frozen=True, kw_only=True)
class FinetuneOptimConfig(OptimConfig):
    """The optimiser, with layer-wise learning rates, and what it starts from."""

    schedule: Schedule = "cosine"
    """Learning rate after warm-up: cosine or linear to zero; tri_stage: warm-up from 1 %, constant until half of the
    updates, then exponential decay to 5 %."""
    layer_decay: float = 1.0
    """Block i of n learns at layer_decay ** (n + 1 - i) times the rate; stem, norm and head at the full rate."""
    fresh: float | None = 0.0
    """Share of new random values in the encoder's weights at the start, 0 to 1. Above 0, MODEL's matrices are brought
    to the size of random ones, since they grow in pre-training and turn slowly then; the start is (1 - fresh) * MODEL's
    + fresh * random (Ash and Adams, NeurIPS 2020). None: for classes of samples, a half unless nearest neighbours among
    MODEL's features are right 5 points more often on the validation part than among an untrained network's; else
    0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.layer_decay <= 1, "optim.layer_decay", self.layer_decay, "above 0, up to 1")
        require(self.fresh is None or 0 <= self.fresh <= 1, "optim.fresh", self.fresh, "from 0 to 1, or none")


@dataclass(frozen=True, kw_only=True)
class FinetuneDataConfig(DataConfig):
    """How samples are read, and how many labels are used; every modality adds its own fields."""

    labels_per_class: int | None = None
    """Training samples per class, drawn by train.seed; none: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(not self.weights, "data.weights", self.weights, "empty: fine-tuning takes one DATA")
        least_one = self.labels_per_class is None or self.labels_per_class >= 1
        require(least_one, "data.labels_per_class", self.labels_per_class, "at least 1, or none")


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """How fine-tuning changes the encoder and its inputs; every modality adds its own fields."""

    kind: str
    """The modality."""

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
    """A complete fine-tuning run, as a recipe returns it and `config.yaml` stores it."""

    recipe: str
    """The recipe this is derived from."""
    from_scratch: bool = False
    """Random initialisation instead of the model's weights."""
    weights: str | None = None
    """SHA-256 of the model's weights; filled in when the run starts, and checked when it is resumed."""
    task: TaskConfig
    """Changes to the encoder and its inputs."""
    optim: FinetuneOptimConfig = field(default_factory=FinetuneOptimConfig)
    """The optimiser."""
    data: FinetuneDataConfig
    """Reading samples."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The training loop."""

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.data.kind == self.task.kind, "data.kind", self.data.kind, f"{self.task.kind!r}, as task.kind")
        self.task.check(self.train)
        self.data.check(self.train)
        require(not self.train.shard, "train.shard", self.train.shard, "off in fine-tuning")


C = TypeVar("C", RunConfig, FinetuneConfig)

MIN_UPDATES = 1_000


def bounded_updates(reference: RunConfig | FinetuneConfig, per_epoch: float) -> int:
    """How many updates a recipe makes where no length is given; `per_epoch` is how many a pass over the data has.

    Those of the recipe, which was made for some data set, but no more than 120 passes (fine-tuning: 400) or 1,000
    updates, whichever is more: beyond that, small data sets gain little from what a large one needs.
    """
    passes = 120 if isinstance(reference, RunConfig) else 400
    return min(reference.train.updates, max(MIN_UPDATES, round(passes * per_epoch)))


def fit_schedule(config: C, reference: C, given: Collection[str] = ()) -> C:
    """Shorten warm-up, and EMA or freezing, when `config` makes fewer updates than the `reference` recipe.

    A teacher that averages over 5,000 updates is still its initialisation after 2,000. So warm-up and annealing shrink
    in proportion to the run, and the averaging times 1 / (1 - decay) at the start and the end of the annealing shrink
    with them, but not below 10 updates, nor warm-up below 20 or a twentieth of the run. A shorter pre-training is
    logged, scored and saved more often, so that the alarms have enough checks and little is lost. What the user set
    (what differs from the reference, and the fields that are `given`, as `optim.warmup_updates`) is left alone.
    """
    fitted: C = _with_own(_shortened(config, reference), config, given)
    return fitted


def _shortened(config: C, reference: C) -> C:
    ratio = config.train.updates / reference.train.updates
    if ratio >= 1:
        return config

    def shorter_decay(decay: float) -> float:
        return max(min(decay, 1 - (1 - decay) / ratio), min(decay, 0.9))

    full = config.optim.warmup_updates
    warmup = max(round(full * ratio), min(full, 20, config.train.updates // 20))
    config = replace(config, optim=_unless_set(config.optim, reference.optim, warmup_updates=warmup))
    if isinstance(config, FinetuneConfig) and isinstance(reference, FinetuneConfig):
        return replace(config, task=config.task.shortened(reference.task, ratio))
    train = config.train
    often = max(100, train.updates // 4)
    every = {"log_every": max(10, train.updates // 16), "eval_every": often, "save_every": often}
    every = {name: min(getattr(train, name), most) for name, most in every.items()}
    config = replace(config, train=_unless_set(train, reference.train, **every))
    ema, anneal = config.ema, round(config.ema.anneal_updates * ratio)
    start, end = shorter_decay(ema.start), shorter_decay(ema.end)
    return replace(config, ema=_unless_set(ema, reference.ema, anneal_updates=anneal, start=start, end=end))


def _with_own(fitted: Any, own: Any, names: Collection[str], prefix: str = "") -> Any:
    """`fitted`, with the named fields of `own`; those of a task are named without it."""
    values = {}
    for part in fields(fitted):
        theirs, mine, name = getattr(fitted, part.name), getattr(own, part.name), prefix + part.name
        if is_dataclass(theirs):
            values[part.name] = _with_own(theirs, mine, names, "" if name == "task" else f"{name}.")
        elif name in names:
            values[part.name] = mine
    return replace(fitted, **values)


def _unless_set(own: Any, reference: Any, **values: Any) -> Any:
    """`own` with these values of fields, but for those in which it differs from the `reference` already."""
    left = {name: value for name, value in values.items() if getattr(own, name) == getattr(reference, name)}
    return replace(own, **left)
