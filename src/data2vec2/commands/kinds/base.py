"""What a command must know of a modality beside its model: how its data are read, looked at, shown and named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data2vec2.config import AudioDataConfig, ImageDataConfig, ModelConfig, RunConfig, TextDataConfig
from data2vec2.data.phones import Alignment
from data2vec2.data.reader import Bad, Reader
from data2vec2.data.records import Parts, Records
from data2vec2.evaluation.features import Note
from data2vec2.evaluation.frames import PhoneProbe
from data2vec2.evaluation.probes import Part
from data2vec2.evaluation.scores import Samples
from data2vec2.interop.export import ExportInfo
from data2vec2.models import Encoder

Log = Callable[[str], None]
AnyData = ImageDataConfig | AudioDataConfig | TextDataConfig


class Look(Protocol):
    """What a look at part of the data found."""

    @property
    def checked(self) -> int:
        """Samples that were looked at."""

    @property
    def bad(self) -> tuple[Bad, ...]:
        """Those of them that can't be used."""

    @property
    def left_out(self) -> tuple[Bad, ...]:
        """Those that are not used though nothing is wrong with them."""


class Kind(Protocol):
    """One modality, as the commands see it."""

    plural: str
    """What samples are called."""
    unit: str
    """What `train.batch_size` counts."""
    largest_name: str
    """What `largest` is."""
    raw: str
    """What the baseline features of `raw_features` are called."""

    def open(self, path: Path, config: RunConfig, say: Log) -> Parts:
        """The samples of a data set; `UserError` if it holds none."""

    def adapted(self, config: RunConfig, recipe: RunConfig, path: Path, say: Log) -> RunConfig:
        """The configuration with what the data decide of the model, where the recipe's own was left."""

    def reader(self, records: Records, model: ModelConfig, data: AnyData, seed: int) -> Reader:
        """What reads records for the model."""

    def look(self, reader: Reader, config: RunConfig, say: Log) -> tuple[RunConfig, Look]:
        """Read some samples; fill in what the configuration leaves to them."""

    def largest(self, config: RunConfig) -> tuple[Tensor, tuple[int, ...], float]:
        """An input of the largest size `1 x ...`, its token grid, and what it counts in a batch size."""

    def normalise(self, data: AnyData, device: torch.device) -> Callable[[Tensor], Tensor]:
        """What makes the model's input of what was read."""

    def preview(self, reader: Reader, samples: NDArray[np.int64], config: RunConfig) -> dict[str, Any]:
        """Arrays of `masks.npz`: the samples as shown in a report, and their masks."""

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
        """Write RUN/gallery.npz: what the features know, for the report; `phones` is what recordings say, by name."""

    def phones(self, data: Path, train: Reader, test: Reader) -> PhoneProbe:
        """What the probe of phones learns from and is scored on; `UserError` where there is none."""

    def raw_features(self, train: Samples, test: Samples, note: Note) -> tuple[Part, Part]:
        """The inputs themselves as features, with labels: what a probe can do without a model."""
