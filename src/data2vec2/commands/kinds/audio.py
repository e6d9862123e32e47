"""Recordings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data2vec2.commands.kinds.base import AnyData, Log
from data2vec2.config import AudioConfig, AudioDataConfig, ModelConfig, RunConfig
from data2vec2.data.audio import AudioReader, AudioSurvey, survey_audio
from data2vec2.data.phones import Alignment, phones_beside
from data2vec2.data.reader import Reader
from data2vec2.data.records import Parts, Records, open_data
from data2vec2.errors import UserError
from data2vec2.evaluation.features import Note
from data2vec2.evaluation.frames import PhoneProbe
from data2vec2.evaluation.gallery_audio import write_audio_gallery
from data2vec2.evaluation.mel import log_mel, mel_statistics
from data2vec2.evaluation.probes import Part
from data2vec2.evaluation.scores import Samples
from data2vec2.interop.export import ExportInfo
from data2vec2.masking import draw_keep_ids
from data2vec2.models import Encoder

SHOWN_SECONDS = 5.0
"""So much of a recording is shown in a report, at most."""


class AudioKind:
    """Recordings of any length."""

    plural = "recordings"
    unit = "seconds of audio"
    largest_name = "the longest piece"
    raw = "log-mel statistics"

    def open(self, path: Path, config: RunConfig, say: Log) -> Parts:
        """Recordings."""
        return open_data(path, "audio")

    def adapted(self, config: RunConfig, recipe: RunConfig, path: Path, say: Log) -> RunConfig:
        """Nothing to adapt: every file is converted to what the model wants."""
        return config

    def reader(self, records: Records, model: ModelConfig, data: AnyData, seed: int) -> AudioReader:
        """Pieces for training, whole recordings for evaluation."""
        assert isinstance(data, AudioDataConfig)
        return AudioReader(records, _modality(model), data, seed)

    def look(self, reader: Reader, config: RunConfig, say: Log) -> tuple[RunConfig, AudioSurvey]:
        """How much there is; nothing is normalised by the data."""
        assert isinstance(reader, AudioReader)
        found = survey_audio(reader)
        say(f"data: {found.hours:.2f} hours; recordings of {found.shortest_s:.1f} to {found.longest_s:.1f} s")
        if found.left_out:
            shortest = f"shorter than {reader.data.min_seconds:g} s (--data.min-seconds)"
            say(f"data: {len(found.left_out):,} of {found.checked:,} recordings are left out, being {shortest}")
        return config, found

    def largest(self, config: RunConfig) -> tuple[Tensor, tuple[int, ...], float]:
        """As much as a training batch ever holds of a recording."""
        assert isinstance(config.data, AudioDataConfig)
        modality, seconds = _modality(config.model), config.data.max_seconds
        samples = int(seconds * modality.sample_rate)
        return torch.zeros(1, samples), (modality.num_tokens(samples),), seconds

    def normalise(self, data: AnyData, device: torch.device) -> Callable[[Tensor], Tensor]:
        """Nothing: the reader has normalised each recording by itself."""
        return lambda waveforms_BS: waveforms_BS

    def preview(self, reader: Reader, samples: NDArray[np.int64], config: RunConfig) -> dict[str, Any]:
        """Log-mel frames `NT2E` of the beginning of recordings, kept tokens `NMK`, waveforms `NS` to listen to.

        Equally many recordings as there are `samples`, but the first long ones: the shortest decides how much is shown.
        """
        assert isinstance(reader, AudioReader)
        modality, masks = _modality(config.model), config.model.masks
        limit = int(SHOWN_SECONDS * modality.sample_rate)
        longest = np.argsort(-np.minimum(reader.pieces.lengths_N, limit), kind="stable")[: len(samples)]
        batch = reader.eval_batch(longest)
        samples = batch.indices_B
        lengths = batch.lengths_B if batch.lengths_B is not None else np.full(len(samples), batch.inputs.shape[1])
        waveforms = batch.inputs[:, : min(int(lengths.min()), limit)]
        length = waveforms.shape[1]
        tokens = (modality.num_tokens(length),)
        keep_ids = draw_keep_ids(masks, tokens, config.train.seed, np.zeros_like(samples), samples)
        return {
            "waveforms": waveforms.astype(np.float16),
            "spectra": log_mel(waveforms, modality.sample_rate),
            "keep_ids": keep_ids.reshape(len(samples), masks.num_masks, -1),
            "num_tokens": tokens[0],
            "sample_rate": modality.sample_rate,
            "names": np.array([reader.records.names[sample] for sample in samples.tolist()], dtype=np.str_),
        }

    def write_gallery(
        self,
        run: Path,
        encoder: Encoder,
        reader: Reader,
        samples: NDArray[np.int64],
        device: torch.device,
        info: ExportInfo,
        phones: dict[str, Alignment],
    ) -> None:
        """Spectrograms with colours of tokens (and what phones are said), neighbours, and a map."""
        assert isinstance(reader, AudioReader)
        samples = samples if len(samples) else np.arange(len(reader.records))
        write_audio_gallery(run, encoder, reader, samples, phones, device)

    def phones(self, data: Path, train: Reader, test: Reader) -> PhoneProbe:
        """Alignments of DATA/phones.csv."""
        assert isinstance(train, AudioReader) and isinstance(test, AudioReader)
        path, alignments = data / "phones.csv", phones_beside(data)
        if not path.is_file():
            raise UserError(f"--probes phones needs {path} (columns file_name and phones); leave it out")
        for reader in (train, test):
            names = reader.records.names
            if alignments.keys().isdisjoint(names):
                raise UserError(f"{path} has no row for any of {len(names):,} recordings, such as {names[0]}")
        return PhoneProbe(train, test, alignments)

    def raw_features(self, train: Samples, test: Samples, note: Note) -> tuple[Part, Part]:
        """Mean and deviation of each log-mel bin over a recording."""
        assert isinstance(train[0], AudioReader)
        rate = train[0].config.sample_rate
        return mel_statistics(*train, rate, note), mel_statistics(*test, rate, note)


def _modality(model: ModelConfig) -> AudioConfig:
    assert isinstance(model.modality, AudioConfig)
    return model.modality
