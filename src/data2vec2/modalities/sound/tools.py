"""Sounds at work, and their models as other programs see them; what is not here is as of recordings.

Shapes: `N` sounds shown, `M` masks, `K` kept patches, `F` frames, `E` mel bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data2vec2.config.model import ArchitectureConfig
from data2vec2.config.run import RunConfig
from data2vec2.data.reader import Reader, Windowed
from data2vec2.evaluation.features import TokenProbe
from data2vec2.method.encoder import Encoder
from data2vec2.modalities.audio.finetune import AudioClassifyJob
from data2vec2.modalities.audio.tools import AudioFeed, AudioInterop, AudioTools
from data2vec2.modalities.data import ModelInfo, narrow
from data2vec2.modalities.interop import PROCESSOR, Usage
from data2vec2.modalities.sound import SPEC
from data2vec2.modalities.sound.config import SoundConfig
from data2vec2.modalities.sound.model import SoundModality, SpectrogramStem
from data2vec2.modalities.sound.show import SoundShow
from data2vec2.modalities.tools import EmbedOptions, Row, Tools


class SoundInterop(AudioInterop):
    """Sounds."""

    heads = {"classifier": "ForAudioClassification"}  # noqa: RUF012
    files = (PROCESSOR,)
    classes_task = "audio-classification"

    def describe(self, modality: SoundConfig) -> str:  # type: ignore[override]
        """Rate and spectrogram."""
        spectrogram = f"{modality.num_mels} mel bins, patches of {modality.patch_size}"
        return f"waveforms of {modality.sample_rate:,} Hz, one channel ({spectrogram})"

    def usage(self, modality: SoundConfig) -> Usage:  # type: ignore[override]
        """With the feature extractor."""
        found = super().usage(modality)  # type: ignore[arg-type]
        note = (
            "`pooler_output` is the mean over patches; `last_hidden_state` starts with the CLS token, then has "
            f"{modality.bands} patches, from low to high, of each {1000 * modality.hop // modality.sample_rate} ms."
        )
        return replace(found, note=note)


class SoundFeed(AudioFeed):
    """Whole sounds, also by their CLS token."""

    cls_token = True

    def __init__(self, tools: Tools, info: ModelInfo, options: EmbedOptions | None = None) -> None:
        super().__init__(tools, info, options)
        self.about = {**self.about, "bands": narrow(info.model.modality, SoundConfig).bands} if options else {}

    def features(self, encoder: Encoder, samples: Sequence[Any], device: torch.device) -> list[Row]:
        """As of recordings; of one above a minute the mean of its windows' CLS tokens."""
        if self.options is None or self.options.pool != "cls":
            return super().features(encoder, samples, device)

        def several(inputs: Tensor, lengths_B: Tensor | None) -> Sequence[Row]:
            return list(encoder(inputs, lengths_B=lengths_B).first().float().cpu().numpy())

        def one(windows: Windowed) -> Row:
            rows = [several(torch.from_numpy(wave)[None].to(device), None)[0] for wave, _ in windows]
            return np.mean(rows, axis=0, dtype=np.float32)  # type: ignore[no-any-return]

        return self.run(samples, several, one, device)


class SoundTools(AudioTools):
    """Sounds of any length."""

    spec = SPEC
    jobs = {"classify": AudioClassifyJob}  # noqa: RUF012
    feed = SoundFeed
    interop = SoundInterop()
    show = SoundShow()

    def build(self, model: ArchitectureConfig) -> SoundModality:
        """Spectrograms, patches, positions and the CLS token."""
        return SoundModality.of(model)

    def token_probe(self, data: str, train: Reader, test: Reader) -> TokenProbe:
        """Phones are for speech."""
        return Tools.token_probe(self, data, train, test)

    def preview(self, reader: Any, samples: NDArray[np.int64], config: RunConfig) -> dict[str, Any]:
        """As of recordings, but spectrograms NFE that the model sees, and the `grid` of their patches."""
        found = super().preview(reader, samples, config)
        modality = narrow(config.model.modality, SoundConfig)
        grid = modality.grid_of(found["waveforms"].shape[1])
        stem = SpectrogramStem(modality, 1)
        spectra = stem.filled(stem.spectra(torch.from_numpy(found["waveforms"].astype(np.float32))))
        shown = spectra[:, : grid[0] * modality.patch_size].numpy().astype(np.float16)
        return {**found, "spectra": shown, "grid": np.array(grid), "num_tokens": int(np.prod(grid))}
