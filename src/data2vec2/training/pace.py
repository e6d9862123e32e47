"""How fast a run goes: samples and seconds since the last line of metrics, time left, and waiting for data."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch

from data2vec2.config.run import TrainConfig
from data2vec2.training import device as devices

_LATE = 0.2
"""Share of the time spent waiting for data from which on the user should know."""


@dataclass
class Pace:
    """Clock and counters of a run; rates count training alone."""

    train: TrainConfig
    unit: str
    """What a batch size counts."""
    many: str
    """What samples are called."""
    per_epoch: float
    """Updates of a pass over the data; 0 where there are no passes."""
    samples: int = 0
    """Of all updates so far, over all processes."""
    earlier_s: float = 0.0
    """Seconds of the parts of a resumed run before this one."""
    units_apart: bool = False
    """Whether a batch size counts something else than samples."""
    rates: dict[str, float] = field(default_factory=dict)
    """Of the updates before the last line, and the share of their time that was spent waiting for data."""

    def __post_init__(self) -> None:
        self.started = self.then = time.perf_counter()
        self.since, self.counted, self.step_s, self.wait_s = 0, self.samples, 0.0, 0.0

    def resume(self, step: int, samples: int, elapsed_s: float) -> None:
        """Go on behind an update."""
        self.since, self.samples, self.counted, self.earlier_s = step, samples, samples, elapsed_s
        self.then = time.perf_counter()

    def count(self, batch: Any, processes: int) -> None:
        """An update's part of one of so many processes."""
        self.samples += round(len(batch) * processes / batch.weight)
        self.units_apart = self.units_apart or batch.size != 1

    def leave_out(self, seconds: float) -> None:
        """Don't count so many of the last seconds."""
        self.then += seconds

    def line(self, step: int) -> str:
        """Measure the rates since the last line; returns what to say of waiting for data, if much was waited."""
        now, updates = time.perf_counter(), step - self.since
        seconds = max(now - self.then, 1e-9)
        # Before the first line the readers were being started; and who trains for seconds needs no advice.
        waited, late = self.wait_s / seconds, self.rates and self.wait_s > max(1, _LATE * seconds)
        said = f"{waited:.0%} of the time since update {self.since} was spent waiting for data" if late else ""
        self.rates = {
            "samples_per_s": (self.samples - self.counted) / seconds,
            "waited_for_data": round(waited, 4),
            **({"units_per_s": updates * self.train.batch_size / seconds} if self.units_apart else {}),
        }
        self.since, self.counted, self.then, self.wait_s = step, self.samples, now, 0.0
        self.step_s = seconds / updates
        return said

    def note(self, step: int, loss: float, device: torch.device) -> str:
        """The last line in words."""
        said = f"{self.rates['samples_per_s']:,.0f} {self.many if self.units_apart else self.unit} a second"
        if self.units_apart:
            said += f" ({self.rates['units_per_s']:,.0f} {self.unit})"
        passes, planned = (n / (self.per_epoch or 1) for n in (step, self.train.updates))
        memory, use = devices.peak_memory(device), devices.gpu_use(device)
        notes = [f"loss {loss:.4f}", said, *([f"pass {passes:.1f} of {planned:.1f}"] if self.per_epoch else [])]
        notes += [f"{memory / 2**30:.1f} GiB"] if memory else []
        return "  ".join([*notes, *([f"GPU {use} %"] if use is not None else [])])

    def left(self, step: int) -> timedelta:
        """How long the remaining updates take at the rate of the last ones."""
        return timedelta(seconds=round((self.train.updates - step) * self.step_s))

    @property
    def elapsed_s(self) -> float:
        """Seconds of training, earlier parts of a resumed run counted in."""
        return self.earlier_s + time.perf_counter() - self.started
