"""Which device, which precision, how many samples at once."""

from __future__ import annotations

import ctypes
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.utils._triton import has_triton

from data2vec2.errors import UsageError

Precision = Literal["float32", "bfloat16"]


def choose_device(name: str, flag: str = "--device") -> torch.device:
    """The device of a name, which `flag` gave; auto: CUDA, else MPS, else CPU. `UsageError` if it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"{flag} is {name!r}, which is not available on this machine or in this build of torch"
        ) from error
    return device


@contextmanager
def computing(threads: int | None) -> Iterator[None]:
    """Compute as training does inside the block.

    An operation on the processor uses `threads` threads (none: as many as before). Freed memory stays with the process:
    the C library would give large tensors back to the system and be given new pages for the next (Linux with glibc).
    Products in float32 on CUDA may use TF32.
    """
    before, products = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(threads or before)
    torch.set_float32_matmul_precision("high")
    _set_malloc(mmaps=0, trim=2**31 - 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_float32_matmul_precision(products)
        _set_malloc(mmaps=65_536, trim=128 << 10)


def _set_malloc(mmaps: int, trim: int) -> None:
    """How many allocations may have pages of their own, and from how many free bytes on they are given back."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, mmaps)  # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h
        libc.mallopt(-1, trim)


def bfloat16_speedup(loss: Callable[[], Tensor], device: torch.device) -> float:
    """How many times faster `loss` and its backward pass are under bfloat16 autocast: medians of interleaved runs."""
    times = [(loss_seconds(loss, device, False), loss_seconds(loss, device, True))]
    if sum(times[0]) < 2:  # where all is quick, the first pair only warms up
        times = [(loss_seconds(loss, device, False), loss_seconds(loss, device, True)) for _ in range(3)]
    return statistics.median(t[0] for t in times) / statistics.median(t[1] for t in times)


def loss_seconds(loss: Callable[[], Tensor], device: torch.device, half: bool = False, backward: bool = True) -> float:
    """What `loss` and its backward pass take; `half`: under bfloat16 autocast."""
    synchronise(device)
    start = time.perf_counter()
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
        result = loss()
    if backward:
        result.float().backward()  # type: ignore[no-untyped-call]
    synchronise(device)
    return time.perf_counter() - start


def choose_precision(
    name: Literal["auto", "float32", "bfloat16"],
    loss_of: Callable[[int], Callable[[], Tensor]],
    at_once: int,
    device: torch.device,
    forward_s: float = 0.0,
) -> Precision:
    """auto: bfloat16 on CUDA that has it; on processors where it is measured to be 1.2 times faster.

    `loss_of` gives the loss of so many samples: measured are `at_once`, or fewer if these take more than a second.
    Where one sample's loss alone is known to take long in float32, `forward_s` seconds, it is only run in bfloat16.
    Casts can cost more than faster products save, and a processor without bfloat16 units can be 200 times slower.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if device.type != "cpu":
        return "float32"
    one = loss_of(1)
    if forward_s > 3:
        return "bfloat16" if forward_s / loss_seconds(one, device, True, backward=False) >= 1.2 else "float32"
    loss_seconds(one, device)
    count = min(at_once, int(1 / loss_seconds(one, device)))
    return "bfloat16" if bfloat16_speedup(loss_of(max(1, count)), device) >= 1.2 else "float32"


def can_compile(device: torch.device) -> bool:
    """Whether compiling gains and can be done: on CUDA with Triton."""
    return device.type == "cuda" and has_triton()


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
            seen[storage._cdata] = storage.nbytes()  # its address, also on the meta device, where data have none
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
    with suppress(OSError, ValueError, KeyError):  # Linux, which uses nearly all memory to keep files that were read
        known = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        limits = [int(known["MemAvailable"].split()[0]) << 10]
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):  # no control group, or no limit in it
        limits.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return min(limits)


def peak_memory(device: torch.device) -> int | None:
    """Bytes that this process has taken at most: of a GPU's memory, else of the machine's; none if it can't be told."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    with suppress(ImportError):  # on Windows
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return None


def gpu_use(device: torch.device) -> int | None:
    """Percent of the last moments in which a GPU computed; none without a GPU, or without the package nvidia-ml-py."""
    with suppress(ImportError, RuntimeError):
        return torch.cuda.utilization(device) if device.type == "cuda" else None
    return None


def fit_micro_batch(batch_size: int, bytes_per_sample: int, free: int) -> int:
    """How many samples' activations fit half of the free memory, rather a divisor of a batch; `UsageError` if none."""
    # The other half is for gradients of intermediate results, which live for a moment each.
    most = min(batch_size, int(free / 2 / bytes_per_sample))
    if most < 1:
        raise UsageError(
            f"one sample needs about {bytes_per_sample / 2**20:,.0f} MiB for the backward pass and "
            f"{free / 2**20:,.0f} MiB are free; use --train.checkpoint-activations, fewer masks "
            "(--model.masks.num-masks) or a smaller model"
        )
    return next((n for n in range(most, most // 2, -1) if batch_size % n == 0), most)


def later(tensor: torch.Tensor) -> Callable[[], list[float]]:
    """What gives a small tensor's values; on CUDA waits no longer than until the device has come to here."""
    if tensor.device.type != "cuda":
        return tensor.tolist
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    copy.copy_(tensor, non_blocking=True)
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]
    done.record()

    def values() -> list[float]:
        done.synchronize()
        return copy.tolist()

    return values
