"""How a pre-trained encoder is fine-tuned: what differs from pre-training, and augmentation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from data2vec2.config.check import require
from data2vec2.config.run import ImageDataConfig, OptimConfig, TrainConfig

Schedule = Literal["cosine", "tri_stage", "linear"]


@dataclass(frozen=True, kw_only=True)
class FinetuneModelConfig:
    """What changes of the pre-trained encoder; its shape stays."""

    image_size: int | None = None
    """Height and width of the input in pixels; none: as pre-trained. Positions are interpolated to another grid."""
    drop_path: float = 0.0
    """Share of samples that the last block's residual branches are left out for; rises linearly over the trunk."""

    def __post_init__(self) -> None:
        require(self.image_size is None or self.image_size >= 1, "model.image_size", self.image_size, "at least 1")
        require(0 <= self.drop_path < 1, "model.drop_path", self.drop_path, "from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentation beyond crop and mirror. All but label smoothing needs timm: pip install 'data2vec2[vision]'."""

    rand_augment: str | None = None
    """timm's policy, as in rand-m9-mstd0.5-inc1 (magnitude 9 with deviation .5, increasing); none: off."""
    erasing: float = 0.0
    """Share of pictures of which a random rectangle becomes noise."""
    mixup: float = 0.0
    """Alpha of Mixup, which blends a picture and its label with another's of the batch; 0: off."""
    cutmix: float = 0.0
    """Alpha of CutMix, which pastes a rectangle of another picture; 0: off."""
    mix_share: float = 1.0
    """Share of batches with Mixup or CutMix."""
    cutmix_share: float = 0.5
    """Share of these with CutMix, where both are on."""
    label_smoothing: float = 0.0
    """Share of a label that is spread evenly over all classes (of several labels: moved towards one half)."""

    def __post_init__(self) -> None:
        for name in ("erasing", "mix_share", "cutmix_share"):
            require(0 <= getattr(self, name) <= 1, f"augment.{name}", getattr(self, name), "from 0 to 1")
        for name in ("mixup", "cutmix"):
            require(getattr(self, name) >= 0, f"augment.{name}", getattr(self, name), "0 or more")
        require(0 <= self.label_smoothing < 1, "augment.label_smoothing", self.label_smoothing, "from 0 to below 1")

    @property
    def mixes(self) -> bool:
        """Whether pictures of a batch are mixed."""
        return bool(self.mixup or self.cutmix)


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
class FinetuneDataConfig(ImageDataConfig):
    """How samples are read, and how many labels are used. Without mean and std, the model's own are."""

    labels_per_class: int | None = None
    """Training samples of each class, drawn by train.seed; none: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        least_one = self.labels_per_class is None or self.labels_per_class >= 1
        require(least_one, "data.labels_per_class", self.labels_per_class, "at least 1, or none")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """A complete fine-tuning run: what a recipe returns and what `config.yaml` of a run folder holds."""

    recipe: str = "image_finetune_base"
    """The recipe this started from."""
    from_scratch: bool = False
    """Random initialisation instead of the model's weights."""
    weights: str | None = None
    """SHA-256 of the model's weights; filled in when the run starts, and checked when it is resumed."""
    model: FinetuneModelConfig = field(default_factory=FinetuneModelConfig)
    """What changes of the encoder."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Augmentation."""
    optim: FinetuneOptimConfig = field(default_factory=FinetuneOptimConfig)
    """The optimiser."""
    data: FinetuneDataConfig = field(default_factory=FinetuneDataConfig)
    """Reading samples."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The loop."""

    def __post_init__(self) -> None:
        pairs = 2 * (self.train.processes or 1)
        fits = not self.augment.mixes or self.train.batch_size % pairs == 0
        expected = f"a multiple of {pairs}, because pictures are mixed in pairs (augment.mixup, augment.cutmix)"
        require(fits, "train.batch_size", self.train.batch_size, expected)
