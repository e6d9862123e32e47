"""Recordings at work, and their models as other programs see them.

Shapes: `B` recordings, `S` samples, `T` tokens, `E` mel bins, `N` recordings shown, `M` masks, `K` kept tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from data2vec2.config.model import ArchitectureConfig, ModalityConfig
from data2vec2.config.run import DataConfig, RunConfig
from data2vec2.data.letters import TOKENIZER, VOCAB
from data2vec2.data.records import Parts, Records
from data2vec2.errors import UsageError, UserError
from data2vec2.evaluation.features import Inputs, LabelledFeatures, Note, TokenProbe, features_of
from data2vec2.evaluation.scores import Samples
from data2vec2.method.encoder import Encoder, Modality
from data2vec2.modalities import spec_of
from data2vec2.modalities.audio import SPEC
from data2vec2.modalities.audio.config import AudioConfig, AudioDataConfig, WaveformConfig
from data2vec2.modalities.audio.finetune import AudioClassifyJob, CtcJob
from data2vec2.modalities.audio.frames import FramesJob
from data2vec2.modalities.audio.manifests import MANIFESTS
from data2vec2.modalities.audio.model import AudioModality
from data2vec2.modalities.audio.phones import PhoneProbe, log_mel, mels_of, phones_beside
from data2vec2.modalities.audio.reader import RECORDINGS, AudioReader, survey_audio
from data2vec2.modalities.audio.show import AudioShow, write_audio_gallery
from data2vec2.modalities.audio.speech import remarks_on
from data2vec2.modalities.audio.waveform import sound_facts
from data2vec2.modalities.data import Columns, Largest, Log, ModelInfo, Survey, narrow
from data2vec2.modalities.interop import PROCESSOR, Interop, Usage
from data2vec2.modalities.tools import EmbedOptions, Feed, Row, Tools


class AudioInterop(Interop):
    """Recordings."""

    heads = {  # noqa: RUF012
        "classifier": "ForAudioClassification",
        "recogniser": "ForCTC",
        "token classifier": "ForAudioFrameClassification",
    }
    files: ClassVar[tuple[str, ...]] = (PROCESSOR, VOCAB, TOKENIZER)

    def to_processor(self, info: ModelInfo) -> dict[str, Any]:
        """Transformers' own feature extractor."""
        return {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "feature_size": 1,
            "sampling_rate": _modality(info.model).sample_rate,
            "padding_value": 0.0,
            "padding_side": "right",
            "do_normalize": _modality(info.model).unit_variance,
            "return_attention_mask": True,
        }

    def from_processor(self, modality: ModalityConfig, processor: Mapping[str, Any]) -> AudioDataConfig:
        """What evaluation accepts: any length that makes a token."""
        assert isinstance(modality, WaveformConfig)
        if (rate := processor.get("sampling_rate")) != modality.sample_rate:
            raise UsageError(f"sampling_rate is {rate}, and the model's is {modality.sample_rate}")
        found = spec_of(modality.kind).data(min_seconds=modality.receptive_field / modality.sample_rate)  # type: ignore[call-arg]
        return narrow(found, AudioDataConfig)

    def example(self, model: ArchitectureConfig) -> Tensor:
        """Two recordings of some tokens."""
        modality = _modality(model)
        return torch.zeros(2, modality.receptive_field + 20 * modality.hop + 7)

    def describe(self, modality: AudioConfig) -> str:
        """Rate and stem."""
        return f"waveforms of {modality.sample_rate:,} Hz, one channel ({modality.stem} stem)"

    def usage(self, modality: AudioConfig) -> Usage:
        """With the feature extractor."""
        rate, extra = modality.sample_rate, getattr(modality, "num_extra_tokens", 0)
        first = f"starts with the {extra} extra tokens, then" if extra else "has"
        return Usage(
            processor="AutoFeatureExtractor",
            call=f"waveform, sampling_rate={rate}",
            several=f"waveforms, sampling_rate={rate}, padding=True",
            note=f"`pooler_output` is the mean over time; `last_hidden_state` {first} one vector for each 20 ms.",
            pipeline=f'{{"raw": waveform, "sampling_rate": {rate}}}',
        )


LONGEST_S = 20  # of a recording that an export is compared with PyTorch on
SHOWN_S = 5.0  # of a recording in a report


class AudioFeed(Feed):
    """Whole recordings: those of up to a minute filled up to the longest of some, longer ones in windows."""

    batch = 8

    def __init__(self, tools: Tools, info: ModelInfo, options: EmbedOptions | None = None) -> None:
        super().__init__(tools, info, options)
        if options:
            tokens = [pa.field("num_tokens", pa.int32(), nullable=False)] if options.pool == "none" else []
            self.columns = [pa.field("transcript", pa.string()), *tokens]
            modality, rate = _modality(info.model), _modality(info.model).sample_rate
            times_s = {"hop_s": modality.hop / rate, "first_centre_s": modality.receptive_field / 2 / rate}
            self.about = {"sample_rate": rate, **times_s}

    def groups(
        self, samples: Sequence[NDArray[Any]]
    ) -> Iterator[tuple[list[int], NDArray[Any], NDArray[np.int64] | None]]:
        """In `predict` one after another: their lengths differ."""
        alone = (([place], wave[None], None) for place, wave in enumerate(samples))
        return super().groups(samples) if self.options else alone

    def cells(self, records: Records, good: Mapping[int, Any], rows: Sequence[Row]) -> dict[str, list[Any]]:
        """Transcripts, and how many tokens each recording has."""
        texts = records.texts
        found: dict[str, list[Any]] = {"transcript": [texts[index] if texts else None for index in good]}
        return found | ({"num_tokens": [len(row) for row in rows]} if len(self.columns) > 1 else {})


class AudioTools(Tools):
    """Recordings of any length."""

    spec = SPEC
    content = RECORDINGS
    own_format = MANIFESTS
    jobs = {"classify": AudioClassifyJob, "ctc": CtcJob, "frames": FramesJob}  # noqa: RUF012
    feed = AudioFeed
    interop = AudioInterop()
    show = AudioShow()

    def build(self, model: ArchitectureConfig) -> Modality:
        """Stem, positions and ALiBi."""
        return AudioModality.of(model)

    def largest(self, model: ArchitectureConfig, data: DataConfig) -> Largest:
        """As much as a training batch ever holds of a recording."""
        assert isinstance(data, AudioDataConfig)
        modality, seconds = _modality(model), data.max_seconds
        samples = int(seconds * modality.sample_rate)
        return Largest(torch.zeros(1, samples), modality.grid_of(samples), seconds)

    def quick(self, reader: Any) -> tuple[NDArray[np.int64], int | None]:
        """The shorter half, so that nobody waits for hours of audio."""
        lengths_N, config = reader.pieces.lengths_N, reader.config
        places = np.argsort(lengths_N, kind="stable")[np.count_nonzero(lengths_N < config.receptive_field) :]
        places = places[: (len(places) + 1) // 2] if len(places) else np.arange(len(lengths_N))
        return places, LONGEST_S * config.sample_rate

    def reader(self, records: Records, model: ArchitectureConfig, data: DataConfig, seed: int) -> AudioReader:
        """Pieces for training, whole recordings for evaluation."""
        assert isinstance(data, AudioDataConfig)
        return AudioReader(records, _modality(model), data, seed)

    def look(self, reader: Any, config: RunConfig, say: Log) -> tuple[RunConfig, Survey]:
        """How much there is; nothing is normalised by the data."""
        found = survey_audio(reader, say)
        say(f"data: {found.hours:.2f} hours; recordings of {found.shortest_s:.1f} to {found.longest_s:.1f} s")
        if found.left_out:
            shortest = f"shorter than {reader.data.min_seconds:g} s (--data.min-seconds)"
            say(f"data: {len(found.left_out):,} of {found.checked:,} recordings are left out, being {shortest}")
        return config, found

    def raw_features(self, train: Samples, test: Samples, note: Note) -> tuple[LabelledFeatures, LabelledFeatures]:
        """Mean and deviation of each log-mel bin over a recording."""
        assert isinstance(train[0], AudioReader)
        rate = train[0].rate

        def statistics(batch: Inputs) -> NDArray[np.float32]:
            mels = [mel_TE.reshape(2 * len(mel_TE), -1) for mel_TE in mels_of(batch, rate)]
            return np.stack([np.concatenate([mel_FE.mean(0), mel_FE.std(0)]) for mel_FE in mels])

        return features_of(statistics, *train, note), features_of(statistics, *test, note)

    def token_probe(self, data: str, train: Any, test: Any) -> TokenProbe:
        """Phones, by the alignments of DATA/phones.csv."""
        path, alignments = Path(data) / "phones.csv", phones_beside(data)
        if not path.is_file():
            raise UserError(f"--probes phones needs {path} (columns file_name and phones); leave it out")
        for reader in (train, test):
            names = reader.records.names
            if alignments.keys().isdisjoint(names):
                raise UserError(f"{path} has no row for any of {len(names):,} recordings, such as {names[0]}")
        return PhoneProbe(train, test, alignments)

    def inspected(self, path: str, config: RunConfig, columns: Columns, say: Log) -> tuple[RunConfig, Parts]:
        """With remarks on transcripts."""
        config, parts = super().inspected(path, config, columns, say)
        for key, records in (("train", parts.train), ("val", parts.val), ("test", parts.test)):
            parts.account.remarks += remarks_on(key, records) if records else []
        return config, parts

    def facts(self, records: Records, index: int) -> Mapping[str, float | str]:
        """Length, rate, channels and coding."""
        with records.open(index) as file:
            return sound_facts(file)

    def preview(self, reader: Any, samples: NDArray[np.int64], config: RunConfig) -> dict[str, Any]:
        """Log-mel frames `NT2E` of the beginning of recordings, kept tokens `NMK`, waveforms `NS` to listen to.

        Equally many recordings as there are `samples`, but the first long ones: the shortest decides how much is shown.
        """
        limit = int(SHOWN_S * reader.rate)
        longest = np.argsort(-np.minimum(reader.pieces.lengths_N, limit), kind="stable")[: len(samples)]
        batch = reader.eval_batch(longest)
        waveforms = batch.inputs[:, : min(int(batch.lengths_B.min()), limit)]
        grid = reader.grid(waveforms)
        return {
            "kind": self.spec.name,
            "waveforms": waveforms.astype(np.float16),
            "spectra": log_mel(waveforms, reader.rate),
            "keep_ids": self.keep_ids(config, grid, batch.indices_B),
            "num_tokens": math.prod(grid),
            "sample_rate": reader.rate,
            "names": np.array([reader.records.names[sample] for sample in batch.indices_B.tolist()], dtype=np.str_),
        }

    def check_beside(self, data: str) -> None:
        """`UserError` for alignments of phones that can't be."""
        phones_beside(data)

    def write_gallery(
        self, run: Path, encoder: Encoder, samples: Samples, info: ModelInfo, device: torch.device, data: str
    ) -> None:
        """Spectrograms with colours of tokens (and what phones are said), neighbours, and a map."""
        write_audio_gallery(run, encoder, samples, phones_beside(data), device)


def _modality(model: ArchitectureConfig) -> WaveformConfig:
    assert isinstance(model.modality, WaveformConfig)
    return model.modality
