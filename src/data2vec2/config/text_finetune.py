"""How a pre-trained encoder of text is fine-tuned: to tell classes apart, or to give a number."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from data2vec2.config.check import require
from data2vec2.config.finetune import FinetuneOptimConfig
from data2vec2.config.run import DataConfig, TrainConfig


@dataclass(frozen=True, kw_only=True)
class TextFinetuneModelConfig:
    """What changes of the pre-trained encoder; its shape stays."""

    dropout: float = 0.1
    """Dropout of the embeddings, after the attention projections and after the MLPs."""
    attention_dropout: float = 0.1
    """Dropout of the attention weights."""
    pooling: Literal["first", "mean"] = "first"
    """What the head sees: the first token, through a layer with tanh, as for GLUE; or the mean over tokens, normed."""

    def __post_init__(self) -> None:
        for name in ("dropout", "attention_dropout"):
            require(0 <= getattr(self, name) < 1, f"model.{name}", getattr(self, name), "from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class TextFinetuneDataConfig(DataConfig):
    """Which columns of a table are read, and how many labels are used."""

    kind: Literal["text"] = "text"
    """Which modality this is for."""
    text_columns: tuple[str, ...] = ()
    """The column of texts, or the two that the model reads as a pair; none: found by their usual names."""
    label_column: str | None = None
    """The column of labels, or of numbers; none: found by its usual names."""
    labels_per_class: int | None = None
    """Of classes, training samples of each, drawn by train.seed; none: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.text_columns) <= 2, "data.text_columns", self.text_columns, "one column, or two")
        least_one = self.labels_per_class is None or self.labels_per_class >= 1
        require(least_one, "data.labels_per_class", self.labels_per_class, "at least 1, or none")


@dataclass(frozen=True, kw_only=True)
class TextFinetuneConfig:
    """A complete fine-tuning run on text: what a recipe returns and what `config.yaml` of a run folder holds."""

    recipe: str = "glue"
    """The recipe this started from."""
    from_scratch: bool = False
    """Random initialisation instead of the model's weights."""
    weights: str | None = None
    """SHA-256 of the model's weights; filled in when the run starts, and checked when it is resumed."""
    tokenizer: str | None = None
    """Folder of the model's tokenizer; filled in when the run starts."""
    model: TextFinetuneModelConfig = field(default_factory=TextFinetuneModelConfig)
    """What changes of the encoder."""
    optim: FinetuneOptimConfig = field(default_factory=FinetuneOptimConfig)
    """The optimiser."""
    data: TextFinetuneDataConfig = field(default_factory=TextFinetuneDataConfig)
    """Reading tables."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The loop; a batch counts tokens, padding included."""
