"""Series at work: what the commands ask of a modality."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from data2vec2.config.model import ArchitectureConfig
from data2vec2.config.run import DataConfig, RunConfig
from data2vec2.data.reader import Reader
from data2vec2.data.records import Records
from data2vec2.modalities.data import Largest, Log, Survey
from data2vec2.modalities.tools import Tools
from data2vec2_sensors import SPEC
from data2vec2_sensors.config import SensorConfig, SensorDataConfig
from data2vec2_sensors.model import SensorModality
from data2vec2_sensors.reader import SERIES, SensorReader


class SensorTools(Tools):
    """Series of any length; a file is a sample."""

    spec = SPEC
    content = SERIES

    def build(self, model: ArchitectureConfig) -> SensorModality:
        """The stem, and positions from neighbours."""
        return SensorModality(_modality(model), model.encoder.embed_dim, model.encoder.num_heads)

    def largest(self, model: ArchitectureConfig, data: DataConfig) -> Largest:
        """A crop."""
        assert isinstance(data, SensorDataConfig)
        modality, steps = _modality(model), data.crop_steps
        return Largest(torch.zeros(1, steps, modality.num_channels or 1), (modality.num_tokens(steps),), 1.0)

    def reader(self, records: Records, model: ArchitectureConfig, data: DataConfig, seed: int) -> SensorReader:
        """Crops to train on, whole series for all else."""
        assert isinstance(data, SensorDataConfig)
        return SensorReader(records, _modality(model), data, seed)

    def fitted(self, config: RunConfig, recipe: RunConfig, data: Sequence[str], say: Log) -> RunConfig:
        """As many channels as most series (of the first data set) have, unless their number is given."""
        if _modality(config.model).num_channels is not None:
            return config
        records = self.open(data[0], config, say).train
        some, _ = self.reader(records, config.model, config.data, config.train.seed).looked_at(100)
        counts = Counter(series_SC.shape[1] for series_SC in some)
        channels = max(counts, key=counts.__getitem__, default=1)
        say(f"model: {channels} channels, as most of the series have")
        return _with(config, num_channels=channels)

    def look(self, reader: Reader, config: RunConfig, say: Log) -> tuple[RunConfig, Survey]:
        """Mean and deviation of each channel over the training data, unless they are given."""
        good, bad = reader.looked_at()
        if good and _modality(config.model).mean is None:
            values = np.concatenate(good).astype(np.float64)
            mean, std = values.mean(axis=0), values.std(axis=0)
            std[std <= 1e-9 * np.abs(mean)] = 1.0  # a channel that never changes
            say(f"data: each channel is normalised with its mean and deviation in {len(good):,} series")
            config = _with(config, mean=tuple(mean.tolist()), std=tuple(std.tolist()))
        return config, Survey(len(good) + len(bad), tuple(bad))


def _modality(model: ArchitectureConfig) -> SensorConfig:
    assert isinstance(model.modality, SensorConfig)
    return model.modality


def _with(config: RunConfig, **found: object) -> RunConfig:
    """The configuration with what was found of the data in its modality."""
    modality = replace(_modality(config.model), **found)  # type: ignore[arg-type]
    return replace(config, model=replace(config.model, modality=modality))
