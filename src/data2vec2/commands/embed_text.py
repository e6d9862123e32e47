"""What `embed` does with texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from data2vec2.config import TextConfig, TextDataConfig
from data2vec2.data.records import Records
from data2vec2.data.sentences import SENTENCES, SentenceReader, padded
from data2vec2.data.stream import Chunk
from data2vec2.errors import UserError
from data2vec2.evaluation.features import token_features
from data2vec2.interop.export import ExportInfo
from data2vec2.models import Encoder

OFFSETS = pa.list_(pa.list_(pa.int32(), 2))
"""Of each token, first character and the one behind the last."""


class Sentences:
    """Texts up to the model's length, filled up to the longest of those that go through the model together."""

    content = SENTENCES
    batch = 32

    def __init__(self, encoder: Encoder, info: ExportInfo, layer: int, pool: str, device: torch.device) -> None:
        assert isinstance(info.model.modality, TextConfig) and isinstance(info.data, TextDataConfig)
        self.modality, self.tokenizer = info.model.modality, Path(str(info.data.tokenizer))
        self.encoder, self.layer, self.pool, self.device = encoder, layer, pool, device
        tokens = [pa.field("tokens", pa.list_(pa.string())), pa.field("offsets", OFFSETS)] if pool == "none" else []
        self.columns = [pa.field("texts", pa.list_(pa.string())), *tokens]
        self.about = {"max_tokens": self.modality.max_tokens}

    def read_of(self, records: Records) -> Callable[[int], NDArray[np.int64]]:
        """What makes the ids of the tokens of a text, or of a pair."""
        self.reader = SentenceReader(records, self.modality, self.tokenizer, seed=0)
        return self.reader.whole

    @torch.inference_mode()
    def encode(self, rows: Sequence[NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        """Features `TD` of each text, or their mean `D`; `UserError` if a GPU's memory does not suffice."""
        lengths = [len(row) for row in rows]
        ids_BT = padded(rows, self.modality.pad_id)
        moved, lengths_B = (torch.as_tensor(values, device=self.device) for values in (ids_BT, lengths))
        try:
            features = token_features(self.encoder, moved, lengths_B, stem=self.layer == 0)
        except torch.OutOfMemoryError as error:
            what = f"{len(rows)} texts of up to {max(lengths)} tokens at once"
            raise UserError(f"out of memory on {self.device} with {what}; give a smaller --batch") from error
        return features if self.pool == "none" else [row_TD.mean(axis=0) for row_TD in features]

    def cells(self, records: Records, chunk: Chunk, rows: Sequence[NDArray[np.float32]]) -> dict[str, list[Any]]:
        """Texts; their tokens as the vocabulary has them, and where these begin and end in their text."""
        found: dict[str, list[Any]] = {"texts": [list(self.reader.texts.rows[index]) for index in chunk.good]}
        if self.pool == "none":
            encodings = [self.reader.encoding(index) for index in chunk.good]
            found |= {"tokens": [one.tokens for one in encodings], "offsets": [one.offsets for one in encodings]}
        return found
