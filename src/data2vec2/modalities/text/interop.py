"""Models of text as other programs see them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from data2vec2.config import ArchitectureConfig, ModalityConfig
from data2vec2.modalities.info import ModelInfo
from data2vec2.modalities.interop import Inputs, Interop, Portable, Usage
from data2vec2.modalities.text.config import TextConfig, TextDataConfig
from data2vec2.modalities.text.tokenizer import TOKENIZER_FILES, export_tokenizer


class PortableText(Portable):
    """Takes `input_ids`."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Of texts; tokens with the id of padding are padding too."""
        assert isinstance(self.modality, TextConfig)
        pad_id = self.modality.pad_id
        ids_BT = input_ids.masked_fill(attention_mask == 0, pad_id)
        return self.run(ids_BT, (ids_BT != pad_id).sum(1))


class TextInterop(Interop):
    """Texts."""

    portable = PortableText
    files = TOKENIZER_FILES
    older = frozenset({"token_scale"})

    def write(self, info: ModelInfo, folder: Path) -> None:
        """The tokenizer, so that Transformers makes of texts what fine-tuning makes of them."""
        assert isinstance(info.model.modality, TextConfig) and isinstance(info.data, TextDataConfig)
        export_tokenizer(Path(str(info.data.tokenizer)), folder, info.model.modality.max_tokens)

    def read(self, modality: ModalityConfig, folder: Path) -> TextDataConfig:
        """With the tokenizer in the folder."""
        return TextDataConfig(tokenizer=str(folder.absolute()))

    def named(self, inputs: Tensor, lengths_B: Tensor | None = None) -> Inputs:
        """`input_ids`, in the types that Transformers' tokenizers give."""
        return {"input_ids": inputs, "attention_mask": self.mask(inputs, lengths_B).long()}

    def example(self, model: ArchitectureConfig) -> Tensor:
        """Two texts."""
        modality = model.modality
        assert isinstance(modality, TextConfig)
        return torch.full((2, min(9, modality.max_tokens)), modality.eos_id)

    def describe(self, modality: TextConfig) -> str:
        """Tokens and vocabulary."""
        return f"up to {modality.max_tokens} tokens of a vocabulary of {modality.vocab_size:,}"

    def usage(self, modality: TextConfig) -> Usage:
        """With the tokenizer."""
        return Usage(
            processor="AutoTokenizer",
            call="texts, padding=True, truncation=True",
            several="texts, truncation=True, padding=True",
            note="`pooler_output` is the mean over the real tokens; `last_hidden_state` has one vector for each token.",
            pipeline="text",
        )
