"""What the rest of the package may know of a modality before any data or network is touched; needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Literal

from data2vec2.config.model import ModalityConfig
from data2vec2.config.run import DataConfig, FinetuneConfig, FinetuneDataConfig, RunConfig, TaskConfig


@dataclass(frozen=True, kw_only=True)
class Words:
    """How a modality is spoken of."""

    one: str
    """A sample: "picture"."""
    many: str
    """Samples: "pictures"."""
    unit: str
    """What `train.batch_size` counts in pre-training: "pictures", "seconds of audio"."""
    finetune_unit: str = ""
    """And in fine-tuning; "": the same."""
    token: str = "token"
    """What a token of a sample is called: "patch"."""
    largest: str
    """A sample of the largest size: "a picture", "the longest piece"."""
    raw: str = "input statistics"
    """The baseline that probes have without a model: "raw pixels"."""
    verb: str = "predict PATH FILES"
    """What a user asks a fine-tuned model with, after "data2vec2"."""
    columns: bool = False
    """Whether data are tables whose columns a user may have to name."""


@dataclass
class EmbedOptions:
    """Which features of a model `embed` takes."""

    _: KW_ONLY
    layer: int | None = None
    """Block whose output is used, from 1; 0: the stem's tokens; default: the last block."""
    pool: Literal["mean", "none", "cls"] = "mean"
    """mean over patches or tokens; none: a vector for each; cls: the CLS token of pictures and sounds."""
    size: int | None = None
    """Pictures: side of the model's input in pixels, a multiple of the patch size; default: the model's own."""
    keep_aspect: bool = False
    """Pictures: don't crop; scale the shorter side to the size and keep the aspect ratio, in whole patches."""
    batch: int | None = None
    """Batch size; default: 64 pictures, 8 recordings or 32 texts."""


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What `data2vec2 demo` learns from, in minutes, on a CPU."""

    recipe: str
    data: Callable[[], Path]
    about: str
    """What the data are, for the user."""
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `evaluate`."""
    check: Callable[[], Path] | None = None
    """Bundled samples that an export is checked with; none: `data`."""
    longer: tuple[str, Callable[[], Path]] | None = None
    """How long a bundled model of the same recipe was trained, and where it is: it is scored beside the demo's."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One modality. A package announces its own by an entry point of the group `data2vec2.modalities`."""

    name: str
    """The `kind` of its configurations."""
    words: Words
    config: type[ModalityConfig]
    """What inputs are and how they become tokens."""
    data: type[DataConfig]
    """How samples are read in pre-training."""
    finetune_data: type[FinetuneDataConfig]
    """And in fine-tuning."""
    task: type[TaskConfig] = TaskConfig
    """What fine-tuning changes."""
    recipes: Mapping[str, Callable[[], RunConfig]]
    """Recipes of pre-training."""
    finetune: Mapping[str, Mapping[str, Callable[[], FinetuneConfig]]]
    """Tasks of fine-tuning with their recipes, of which the first is the default."""
    probes: tuple[str, ...] = ("knn", "linear")
    """What `evaluate` can ask of its features."""
    demo: Demo | None = None
    tools: str
    """What works with data and networks, as "package.module:Class" of a class of `tools.Tools`."""
    transformers: str = ""
    """Module whose import registers the modality's classes with Transformers' Auto classes."""
