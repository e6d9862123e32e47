"""What `embed` does with recordings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from data2vec2.config import AudioConfig, AudioDataConfig
from data2vec2.data.audio import AudioReader
from data2vec2.data.content import RECORDINGS
from data2vec2.data.records import Records
from data2vec2.data.stream import Chunk
from data2vec2.data.windows import Windows
from data2vec2.errors import UserError
from data2vec2.evaluation.features import mean_features, token_features, window_features
from data2vec2.interop.export import ExportInfo
from data2vec2.models import Encoder


class Recordings:
    """Whole recordings: those of up to a minute filled up to the longest of some, longer ones in windows."""

    content = RECORDINGS
    batch = 8

    def __init__(self, encoder: Encoder, info: ExportInfo, layer: int, pool: str, device: torch.device) -> None:
        assert isinstance(info.model.modality, AudioConfig) and isinstance(info.data, AudioDataConfig)
        self.modality, self.data = info.model.modality, info.data
        self.encoder, self.layer, self.pool, self.device = encoder, layer, pool, device
        tokens = [pa.field("num_tokens", pa.int32(), nullable=False)] if pool == "none" else []
        self.columns = [pa.field("transcript", pa.string()), *tokens]
        rate = self.modality.sample_rate
        self.about = {
            "sample_rate": rate,
            "hop_s": self.modality.hop / rate,
            "first_centre_s": self.modality.receptive_field / 2 / rate,
        }

    def read_of(self, records: Records) -> Callable[[int], NDArray[np.float32] | Windows]:
        """What reads a recording as the model's input."""
        return AudioReader(records, self.modality, self.data, seed=0).entire

    def encode(self, samples: Sequence[NDArray[np.float32] | Windows]) -> list[NDArray[np.float32]]:
        """Features `TD` of each recording, or their mean `D`; `UserError` if a GPU's memory does not suffice."""
        waves = [sample for sample in samples if not isinstance(sample, Windows)]
        rows = iter(self._together(waves) if waves else [])
        return [self._long(sample) if isinstance(sample, Windows) else next(rows) for sample in samples]

    @torch.inference_mode()
    def _together(self, waves: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Of recordings of up to a minute."""
        lengths = [len(wave) for wave in waves]
        inputs = np.zeros((len(waves), max(lengths)), dtype=np.float32)
        for row, wave in zip(inputs, waves, strict=True):
            row[: len(wave)] = wave
        moved, lengths_B = (torch.as_tensor(values, device=self.device) for values in (inputs, lengths))
        try:
            rows = token_features(self.encoder, moved, lengths_B, stem=self.layer == 0)
        except torch.OutOfMemoryError as error:
            what = f"{len(waves)} recordings of up to {max(lengths) / self.modality.sample_rate:.0f} s at once"
            raise UserError(f"out of memory on {self.device} with {what}; give a smaller --batch") from error
        return rows if self.pool == "none" else [row_TD.mean(axis=0) for row_TD in rows]

    @torch.inference_mode()
    def _long(self, windows: Windows) -> NDArray[np.float32]:
        """Of a longer one."""
        rows = window_features(self.encoder, windows, self.device, stem=self.layer == 0)
        if self.pool == "none":
            return np.concatenate(list(rows))
        return mean_features(rows)

    def cells(self, records: Records, chunk: Chunk, rows: Sequence[NDArray[np.float32]]) -> dict[str, list[Any]]:
        """Transcripts, and how many tokens each recording has."""
        texts = records.texts
        found: dict[str, list[Any]] = {"transcript": [texts[index] if texts else None for index in chunk.good]}
        return found | ({"num_tokens": [len(row) for row in rows]} if self.pool == "none" else {})
