"""What `finetune` must know of a task: its data, its model, and what is left behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from data2vec2.commands.kinds import Log
from data2vec2.config import AnyFinetuneConfig, ModelConfig
from data2vec2.data.reader import Reader
from data2vec2.data.skipped import Skipped
from data2vec2.interop.export import ExportInfo
from data2vec2.models import Encoder
from data2vec2.training.loop import Task
from data2vec2.training.parallel import World
from data2vec2.training.run import RunFolder

AnyConfig = AnyFinetuneConfig


class Data(Protocol):
    """Opened and split data."""

    @property
    def train(self) -> Reader:
        """What is trained on."""

    @property
    def val(self) -> Reader | None:
        """What chooses the best model."""

    @property
    def description(self) -> str:
        """One line for the user."""

    @property
    def outputs(self) -> int:
        """Numbers that the model's head gives."""


class Job(Protocol):
    """One task on one modality."""

    unit: str
    """What a batch counts."""
    outputs: str
    """What the head tells apart."""

    @property
    def recipes(self) -> Mapping[str, Callable[[], AnyConfig]]:
        """Those for this job; the first is the default."""

    def completed(self, config: AnyConfig, info: ExportInfo) -> tuple[AnyConfig, ModelConfig]:
        """The configuration with what it leaves to the model, and the encoder's shape."""

    def open(self, config: AnyConfig, shape: ModelConfig, path: Path, val: Path | None) -> Data:
        """Open a data set and split it; `UserError` if it can't be learned from."""

    def look(self, data: Any, config: AnyConfig, log: Log) -> Skipped:
        """Say what there is; note what can't be used (`UserError` if too much of it)."""

    def in_memory(self, data: Any, config: AnyConfig) -> bool:
        """Whether reading is so quick that it needs no processes of its own."""

    def model(self, config: AnyConfig, encoder: Encoder, data: Any) -> nn.Module:
        """The encoder with a head."""

    def one(self, config: AnyConfig, shape: ModelConfig, model: Any) -> tuple[Callable[[], torch.Tensor], float]:
        """The loss of one sample of the largest size, and what that counts in a batch size."""

    def task(
        self,
        model: Any,
        config: AnyConfig,
        data: Any,
        device: torch.device,
        skipped: Skipped,
        run: RunFolder,
        world: World,
        log: Log,
    ) -> Task:
        """What the loop trains."""

    def show_first(self, config: AnyConfig, shape: ModelConfig, data: Any, say: Log) -> None:
        """Print the first batch's shapes."""

    def finish(self, run: RunFolder, config: AnyConfig, shape: ModelConfig, model: Any, data: Any, log: Log) -> None:
        """Export the best model and score it."""
