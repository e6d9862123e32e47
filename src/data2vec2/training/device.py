"""Which device, which precision, how many samples at once."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from data2vec2.errors import UsageError

Precision = Literal["float32", "bfloat16"]


def choose_device(name: str) -> torch.device:
    """The device of a name; auto: CUDA, else MPS, else CPU. `UsageError` if it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"train.device is {name!r}, which this machine or this build of torch has not") from error
    return device


@contextmanager
def cpu_threads(number: int | None) -> Iterator[None]:
    """Let an operation on the processor use `number` threads (none: as many as before) inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def bfloat16_speedup(loss: Callable[[], Tensor], device: torch.device) -> float:
    """How many times faster `loss` and its backward pass are under bfloat16 autocast: medians of interleaved runs."""

    def seconds(enabled: bool) -> float:
        synchronise(device)
        start = time.perf_counter()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled):
            result = loss()
        result.float().backward()  # type: ignore[no-untyped-call]
        synchronise(device)
        return time.perf_counter() - start

    times = [(seconds(False), seconds(True)) for _ in range(4)][1:]  # the first pair warms up
    return statistics.median(t[0] for t in times) / statistics.median(t[1] for t in times)


def choose_precision(
    name: Literal["auto", "float32", "bfloat16"], loss: Callable[[], Tensor], device: torch.device
) -> Precision:
    """auto: bfloat16 only where a step of the model itself is measured to be 1.2 times faster with it.

    Casts can cost more than faster products save, and a processor without bfloat16 units can be 200 times slower.
    """
    if name != "auto":
        return name
    return "bfloat16" if device.type != "mps" and bfloat16_speedup(loss, device) >= 1.2 else "float32"


def synchronise(device: torch.device) -> None:
    """Wait for a device's queue."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def activation_bytes(forward: Callable[[], Tensor]) -> int:
    """Bytes that autograd keeps for the backward pass of `forward`, parameters not counted."""
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        owner = tensor if tensor._base is None else tensor._base  # a linear layer keeps a view of its weight
        if not (owner.is_leaf and owner.requires_grad):
            storage = tensor.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(seen.values())


def free_memory(device: torch.device) -> int:
    """Bytes that a run may still take on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    limits = [4 << 30]  # where nothing can be read
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        limits = [os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):  # no control group, or no limit in it
        limits.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return min(limits)


def fit_micro_batch(batch_size: int, bytes_per_sample: int, free: int) -> int:
    """The largest divisor of a batch whose activations fit half of the free memory; `UsageError` if none do."""
    # The other half is for gradients of intermediate results, which live for a moment each.
    fitting = [n for n in range(1, batch_size + 1) if batch_size % n == 0 and n * bytes_per_sample <= free / 2]
    if not fitting:
        raise UsageError(
            f"one sample needs about {bytes_per_sample / 2**20:,.0f} MiB for the backward pass and "
            f"{free / 2**20:,.0f} MiB are free; use fewer masks (model.masks.num_masks) or a smaller model"
        )
    return fitting[-1]
