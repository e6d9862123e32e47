"""How models of a modality meet other programs: files beside the weights, names of inputs, and words for model cards.

The base is for sequences of any kind, whose padding an `attention_mask` tells. Shapes: `B` samples, `L` their length.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from data2vec2.config.model import ArchitectureConfig, ModalityConfig
from data2vec2.config.run import DataConfig
from data2vec2.config.tree import from_dict
from data2vec2.errors import UserError
from data2vec2.files import read_json
from data2vec2.method.encoder import Encoded, Encoder
from data2vec2.method.heads import AnswerFinder, Classifier, Recognized, SpeechRecognizer, TokenClassifier
from data2vec2.modalities import spec_of
from data2vec2.modalities.data import ModelInfo

AnyModel = Encoder | Classifier | SpeechRecognizer | TokenClassifier
Inputs = dict[str, Tensor]
PROCESSOR, TOGETHER = "preprocessor_config.json", "processor_config.json"
"""What makes inputs: a file of its own, or (as Transformers saves it with a tokenizer) a part of another."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """How a reader of a model card calls a model with Transformers."""

    processor: str
    """Class that makes the inputs."""
    call: str
    """Its arguments."""
    several: str
    """And those for a batch."""
    note: str
    """What the outputs mean."""
    pipeline: str
    """What a pipeline takes."""


class Portable(nn.Module):
    """A model whose inputs have Transformers' names and whose outputs are a tuple of tensors, in eval mode."""

    def __init__(self, model: AnyModel, modality: ModalityConfig) -> None:
        super().__init__()
        self.model, self.modality = model, modality

    def forward(self, input_values: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Of samples filled up behind."""
        return self.run(input_values, attention_mask.sum(1))

    def run(self, inputs: Tensor, lengths_B: Tensor | None) -> tuple[Tensor, ...]:
        """Of an encoder every token's vector and their mean, of a model with a head its logits (or number).

        Those of where answers start and of where they end are apart.
        """
        found: Encoded | Recognized | Tensor = self.model(inputs, lengths_B=lengths_B)
        if isinstance(found, Encoded):
            return found.x_NLD, found.pooled()
        if isinstance(self.model, AnswerFinder) and isinstance(found, Tensor):
            return found[..., 0], found[..., 1]
        return (found.logits_BTV if isinstance(found, Recognized) else found,)


class Interop:
    """One modality as others see it."""

    portable: ClassVar[type[Portable]] = Portable
    heads: ClassVar[Mapping[str, str]] = {"classifier": "ForSequenceClassification"}
    """What the name of a model with such a head ends in, after the modality's."""
    features_task: ClassVar[str] = "feature-extraction"
    """The pipeline that gives features, as hubs name it."""
    classes_task: ClassVar[str] = ""
    """And the one that gives classes; "": the modality's name, and "-classification"."""
    dense_task: ClassVar[str] = ""
    """What a pipeline of Transformers is asked for with a classifier of tokens; "": there is none."""
    fixed_size: ClassVar[bool] = False
    """Whether all inputs have the model's own size."""
    files: ClassVar[tuple[str, ...]] = (PROCESSOR,)
    """What makes inputs of samples; the first must be there."""
    licence: ClassVar[tuple[str, str]] = ("mit", "MIT")
    """Of the authors' own models of this modality: as a hub has it, and in words."""

    def to_processor(self, info: ModelInfo) -> dict[str, Any]:
        """Content of preprocessor_config.json: how a modality reads data; `ValueError` where something is missing."""
        return {"kind": info.kind} | {name: getattr(info.data, name) for name in self._reading(info.kind)}

    def from_processor(self, modality: ModalityConfig, processor: Mapping[str, Any]) -> DataConfig:
        """Undo `to_processor`, as far as it says something; `ValueError` for what is missing or can't be."""
        own = self._reading(modality.kind)
        return from_dict(spec_of(modality.kind).data, {name: processor[name] for name in own if name in processor})

    def _reading(self, kind: str) -> list[str]:
        common = {field.name for field in fields(DataConfig)}
        return [field.name for field in fields(spec_of(kind).data) if field.name not in common]

    def write(self, info: ModelInfo, folder: Path) -> None:
        """Write the files that make inputs."""
        (folder / PROCESSOR).write_text(json.dumps(self.to_processor(info), indent=2) + "\n", encoding="utf-8")

    def read(self, modality: ModalityConfig, folder: Path) -> DataConfig:
        """How inputs are read, from what `write` wrote; raises `UserError`."""
        path = folder / (PROCESSOR if (folder / PROCESSOR).is_file() else TOGETHER)
        values = read_json(path)
        try:
            own = values if path.name == PROCESSOR else dict(values.get("feature_extractor") or {})
            return self.from_processor(modality, own)
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} can't be used: {error}") from error

    def named(self, inputs: Tensor, lengths_B: Tensor | None = None) -> Inputs:
        """What a program takes for normalised inputs, of which the first `lengths_B` of each are real where given."""
        return {"input_values": inputs, "attention_mask": self.mask(inputs, lengths_B).int()}

    def mask(self, inputs: Tensor, lengths_B: Tensor | None) -> Tensor:
        """True at what is real, `BL`."""
        real_B = torch.full(inputs.shape[:1], inputs.shape[1]) if lengths_B is None else lengths_B
        return torch.arange(inputs.shape[1]) < real_B[:, None]

    def example(self, model: ArchitectureConfig) -> Tensor | None:
        """Inputs to trace, without axes of 0 or 1, which would stay fixed; none: two samples of the largest size."""
        return None

    def describe(self, modality: Any) -> str:
        """What the model takes, for its card."""
        return spec_of(modality.kind).words.many

    def usage(self, modality: Any) -> Usage | None:
        """How it is called with Transformers; none where no processor of its own makes inputs."""
        return None
