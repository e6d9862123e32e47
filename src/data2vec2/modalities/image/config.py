"""Configuration of pictures: the model's input, how files are read, and what fine-tuning adds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from data2vec2.config.model import ModalityConfig
from data2vec2.config.run import DataConfig, FinetuneDataConfig, TaskConfig, TrainConfig
from data2vec2.config.tree import require


@dataclass(frozen=True, kw_only=True)
class ImageConfig(ModalityConfig):
    """Pictures, cut into square patches."""

    added: ClassVar = frozenset({"position_size", "positions", "num_registers"})
    """Since the first exports."""
    resizable: ClassVar = frozenset({"image_size", "position_size"})
    """Positions are interpolated."""
    kind: Literal["image"] = "image"
    """The modality."""
    image_size: int = 224
    """Height and width of the model's input in pixels; divisible by `patch_size`."""
    patch_size: int = 16
    """Height and width of a patch in pixels; one patch is one token."""
    num_channels: int | None = 3
    """3 for colour, 1 for greyscale, or another number; none: as in the training data."""
    position_size: int | None = None
    """Height and width in pixels that the positions are made for; none: `image_size`. Set it to the size of
    pre-training if fine-tuning uses larger pictures: the positions are then interpolated."""
    positions: Literal["sincos", "learned"] = "sincos"
    """sincos: fixed sines and cosines of row and column, as in the paper. learned: a vector for each patch, as in
    ViT."""
    num_registers: int = 0
    """Learned tokens beside the CLS token that stand for no patch, as in DINOv2 with registers."""

    def __post_init__(self) -> None:
        require(self.patch_size >= 1, "model.modality.patch_size", self.patch_size, "at least 1")
        for name, size in (("image_size", self.image_size), ("position_size", self.position_size)):
            is_multiple = size is None or (size >= self.patch_size and size % self.patch_size == 0)
            require(is_multiple, f"model.modality.{name}", size, f"a multiple of patch_size ({self.patch_size})")
        require(self.num_registers >= 0, "model.modality.num_registers", self.num_registers, "0 or more")
        known = self.num_channels is None or self.num_channels >= 1
        require(known, "model.modality.num_channels", self.num_channels, "at least 1, or none")

    @property
    def channels(self) -> int:
        """`num_channels`; 1 where it is left to data that have not been looked at."""
        return self.num_channels or 1

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches; T is their product."""
        side = self.image_size // self.patch_size
        return side, side

    @property
    def position_grid(self) -> tuple[int, int]:
        """Rows and columns of patches that the positions are made for."""
        side = (self.position_size or self.image_size) // self.patch_size
        return side, side


@dataclass(frozen=True, kw_only=True)
class ImageDataConfig(DataConfig):
    """How pictures are read."""

    kind: Literal["image"] = "image"
    """The modality."""
    min_crop: float = 0.2
    """Smallest area of a random crop, as a fraction of the picture."""
    flip: bool = True
    """Flip half of the pictures horizontally."""
    eval_crop: float = 0.875
    """Side of the central crop in evaluation, as a fraction of the shorter side."""
    whole: bool = False
    """See the whole picture in evaluation, stretched to a square, instead of the central crop."""
    mean: tuple[float, ...] | None = None
    """Mean of each channel, in units of 0 to 1; none: computed from the training part."""
    std: tuple[float, ...] | None = None
    """Standard deviation of each channel; none: computed from the training part."""
    levels: tuple[float, float] | None = None
    """Values of black and white in pictures of more than 8 bits; none: found in the data."""
    max_pixels: int = 100_000_000
    """Larger pictures are left out without decoding them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.min_crop <= 1, "data.min_crop", self.min_crop, "above 0, up to 1")
        require(0 < self.eval_crop <= 1, "data.eval_crop", self.eval_crop, "above 0, up to 1")
        require((self.mean is None) == (self.std is None), "data.std", self.std, "given together with data.mean")
        require(self.std is None or min(self.std) > 0, "data.std", self.std, "above 0")
        rises = self.levels is None or -math.inf < self.levels[0] < self.levels[1] < math.inf
        require(rises, "data.levels", self.levels, "a smaller and a larger number")
        require(self.max_pixels >= 1, "data.max_pixels", self.max_pixels, "at least 1")


@dataclass(frozen=True, kw_only=True)
class ImageHeadConfig:
    """Changes to the pre-trained encoder."""

    image_size: int | None = None
    """Height and width of the input in pixels; none: as pre-trained. Positions are interpolated to another grid."""
    drop_path: float = 0.0
    """Stochastic depth: fraction of samples that skip the last block; rises linearly over the blocks."""

    def __post_init__(self) -> None:
        require(self.image_size is None or self.image_size >= 1, "model.image_size", self.image_size, "at least 1")
        require(0 <= self.drop_path < 1, "model.drop_path", self.drop_path, "from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentation besides crop and flip. All but label smoothing need timm: pip install 'data2vec2[vision]'."""

    rand_augment: str | None = None
    """timm's RandAugment policy, such as rand-m9-mstd0.5-inc1; none: off."""
    erasing: float = 0.0
    """Fraction of pictures in which a random rectangle becomes noise."""
    mixup: float = 0.0
    """Alpha of Mixup, which blends two pictures and their labels; 0: off."""
    cutmix: float = 0.0
    """Alpha of CutMix, which pastes a rectangle of another picture; 0: off."""
    mix_share: float = 1.0
    """Fraction of batches with Mixup or CutMix."""
    cutmix_share: float = 0.5
    """Fraction of these with CutMix if both are on."""
    label_smoothing: float = 0.0
    """Fraction of a label that is spread evenly over all classes (for several labels: moved towards one half)."""

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
class ImageFinetuneDataConfig(ImageDataConfig, FinetuneDataConfig):
    """How pictures are read in fine-tuning. Default mean and std are the model's."""


@dataclass(frozen=True, kw_only=True)
class ImageTaskConfig(TaskConfig):
    """How fine-tuning changes an image encoder and its inputs."""

    kind: Literal["image"] = "image"
    """The modality."""
    model: ImageHeadConfig = field(default_factory=ImageHeadConfig)
    """Changes to the encoder."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Augmentation."""

    def check(self, train: TrainConfig) -> None:
        """`ValueError` for a batch whose pictures can't be mixed in pairs."""
        pairs = 2 * (train.processes or 1)
        fits = not self.augment.mixes or train.batch_size % pairs == 0
        expected = f"a multiple of {pairs}, because pictures are mixed in pairs (augment.mixup, augment.cutmix)"
        require(fits, "train.batch_size", train.batch_size, expected)
