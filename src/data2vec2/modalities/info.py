"""What is known of a model beside its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from data2vec2.config import ArchitectureConfig, DataConfig
from data2vec2.data.letters import Letters
from data2vec2.method.heads import Pooling


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """All that a user of an encoder or of a fine-tuned model must know; an exported folder says it."""

    model: ArchitectureConfig
    """What describes the encoder."""
    data: DataConfig
    """How inputs are read and normalised."""
    classes: tuple[str, ...] = ()
    """Names of a classifier's classes, in the order of its outputs; none for an encoder without head."""
    multi_label: bool = False
    """Whether a sample can have several of the classes."""
    pooling: Pooling = "mean"
    """How a classifier's tokens become classes."""
    regression: bool = False
    """Whether the model gives a number, which `classes` names, and no class."""
    letters: Letters | None = None
    """What a recogniser writes; none for another model."""

    @property
    def kind(self) -> str:
        """The modality's name."""
        return self.model.modality.kind

    @property
    def what(self) -> Literal["encoder", "classifier", "regressor", "recogniser"]:
        """What stands on the encoder, if anything."""
        if self.letters is not None:
            return "recogniser"
        return ("regressor" if self.regression else "classifier") if self.classes else "encoder"
