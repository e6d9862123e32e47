"""TensorBoard beside metrics.jsonl, where it is installed (`pip install 'data2vec2[track]'`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Tracker:
    """Writes scalars to a folder of TensorBoard events, or does nothing without the extra."""

    def __init__(self, folder: Path) -> None:
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._writer = SummaryWriter(folder)

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        """One scalar a figure."""
        if self._writer:
            for name, value in figures.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close."""
        if self._writer:
            self._writer.close()
