"""What fine-tuning tasks share: batches from a data set, and the count of what could not be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from data2vec2.data.loader import iterate
from data2vec2.data.reader import Bad
from data2vec2.data.skipped import Skipped
from data2vec2.training.parallel import World


class Reading:
    """Reads the batches of a task, in `workers` processes."""

    def __init__(
        self,
        dataset: Dataset[Any],
        workers: int,
        device: torch.device,
        skipped: Skipped,
        skipped_path: Path,
        world: World,
    ) -> None:
        """What can't be read is added to `skipped` and listed in `skipped_path`."""
        self.dataset, self.workers, self.device = dataset, workers, device
        self.skipped, self.skipped_path, self.world = skipped, skipped_path, world
        self._bad: list[Bad] = []

    def batches(self, start: int, stop: int) -> Iterator[Any]:
        """Batches of the given steps; notes what could not be read."""
        pin_memory = self.device.type == "cuda"
        for batch in iterate(self.dataset, start, stop, workers=self.workers, pin_memory=pin_memory):
            self._bad += batch.bad
            yield batch

    def count(self, step: int) -> None:
        """Count the bad samples of all processes."""
        bad = self.world.collect(f"bad-{step}", [(item.name, item.reason) for item in self._bad])
        self._bad.clear()
        if self.skipped.add(Bad(name, reason) for part in bad for name, reason in part):
            self.skipped.write(self.skipped_path)
