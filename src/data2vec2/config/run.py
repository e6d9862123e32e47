"""How it is trained: optimiser, EMA, data and the loop."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from data2vec2.config.check import require
from data2vec2.config.model import ModelConfig


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
    """How samples of any modality are read."""

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


@dataclass(frozen=True, kw_only=True)
class ImageDataConfig(DataConfig):
    """How pictures are read."""

    kind: Literal["image"] = "image"
    """Which modality this is for."""
    min_crop: float = 0.2
    """Smallest area of a random crop, as a share of the picture."""
    flip: bool = True
    """Mirror half of the pictures."""
    eval_crop: float = 0.875
    """Side of the central square that is used outside training, as a share of the shorter side."""
    mean: tuple[float, ...] | None = None
    """Mean of each channel, in units of 0 to 1; none: computed from the training part."""
    std: tuple[float, ...] | None = None
    """Standard deviation of each channel; none: computed from the training part."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.min_crop <= 1, "data.min_crop", self.min_crop, "above 0, up to 1")
        require(0 < self.eval_crop <= 1, "data.eval_crop", self.eval_crop, "above 0, up to 1")
        require((self.mean is None) == (self.std is None), "data.std", self.std, "given together with data.mean")
        require(self.std is None or min(self.std) > 0, "data.std", self.std, "above 0")


@dataclass(frozen=True, kw_only=True)
class AudioDataConfig(DataConfig):
    """How recordings are read."""

    kind: Literal["audio"] = "audio"
    """Which modality this is for."""
    min_seconds: float = 2.0
    """Shorter recordings are left out."""
    max_seconds: float = 20.0
    """Longer recordings are cut at random to this length, and very long ones into several pieces."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.min_seconds < math.inf, "data.min_seconds", self.min_seconds, "above 0")
        fits = self.min_seconds <= self.max_seconds < math.inf
        require(fits, "data.max_seconds", self.max_seconds, f"at least data.min_seconds ({self.min_seconds})")


@dataclass(frozen=True, kw_only=True)
class TextDataConfig(DataConfig):
    """How text is read."""

    kind: Literal["text"] = "text"
    """Which modality this is for."""
    tokenizer: str | None = None
    """A folder with a tokenizer, or its tokenizer.json; none: one is made from the training data."""
    text_column: str = "text"
    """Column of tables, or key of .jsonl files, that holds the text."""
    unit: Literal["line", "document", "file"] = "line"
    """What the end-of-text token stands behind: each line of text; each document, which an empty line (in tables a row)
    ends; or each file (in tables a row)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.text_column), "data.text_column", self.text_column, "a name")


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

    recipe: str = "image_base"
    """The recipe this started from."""
    init_from: str | None = None
    """Weights to start from: a run, an exported model, or a .pt checkpoint of the original; none: random ones."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Shape and objective of the model."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimiser."""
    ema: EmaConfig = field(default_factory=EmaConfig)
    """The teacher's average."""
    data: ImageDataConfig | AudioDataConfig | TextDataConfig = field(default_factory=ImageDataConfig)
    """Reading samples."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The loop."""

    def __post_init__(self) -> None:
        expected = f"{self.model.modality.kind!r}, as model.modality.kind"
        require(self.data.kind == self.model.modality.kind, "data.kind", self.data.kind, expected)
        if isinstance(self.data, AudioDataConfig):
            longest = math.ceil(self.data.max_seconds) * (self.train.processes or 1)
            expected = f"at least {longest} seconds, so that every process has a recording of data.max_seconds"
            require(self.train.batch_size >= longest, "train.batch_size", self.train.batch_size, expected)
