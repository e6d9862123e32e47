"""The teacher's exponential moving average."""

from __future__ import annotations

import torch
from torch import nn


class Ema:
    """Moves a teacher's float32 parameters towards a student's after every optimiser step."""

    def __init__(
        self, teacher: nn.Module, student: nn.Module, *, start: float, end: float, anneal_updates: int
    ) -> None:
        """The teacher's parameters are matched to the student's by name; `ValueError` if one has no match."""
        source = dict(student.named_parameters())
        missing = [name for name, _ in teacher.named_parameters() if name not in source]
        if missing:
            raise ValueError(f"the student has no parameters {missing}")
        self._teacher = [parameter.data for parameter in teacher.parameters()]
        self._student = [source[name].data for name, _ in teacher.named_parameters()]
        if any(tensor.dtype != torch.float32 for tensor in self._teacher):
            raise ValueError("the teacher must be kept in float32")
        self.start, self.end, self.anneal_updates = start, end, anneal_updates

    def decay(self, update: int) -> float:
        """Decay of update number `update` (1 after the first optimiser step): linear from start to end."""
        if update >= self.anneal_updates:
            return self.end
        return self.start + (self.end - self.start) * update / self.anneal_updates

    @torch.no_grad()
    def update(self, update: int) -> None:
        """`teacher = d * teacher + (1 - d) * student`, all tensors in one call."""
        torch._foreach_lerp_(self._teacher, self._student, 1 - self.decay(update))
