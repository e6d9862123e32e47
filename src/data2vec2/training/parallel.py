"""Several processes on one global batch (data parallel), through torch.distributed.

Process 0 is the run: it decides, scores and writes. The others are helpers, which it may end at any time: they compute
the gradients of their slice of every batch. They are started here (`recruit`, on this machine) or by `torchrun` (on any
number of machines), and read the job from process 0's key-value store.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from io import BytesIO
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from data2vec2.errors import UserError
from data2vec2.files import parse_json
from data2vec2.training.watch import Watch

TIMEOUT = timedelta(days=1)
"""How long a process waits for others; one that stalls is found earlier (`watch`)."""
JOB = "job"


@dataclass(frozen=True)
class World:
    """Which of the processes that share a run this is."""

    rank: int = 0
    size: int = 1
    sharded: bool = False
    """Whether each has a part of the model (`method/sharding.py`), so that all must call the same parts of it."""
    watch: Watch | None = None
    """Tells the others what this process does."""

    def at(self, doing: str) -> None:
        """Tell the others that this process begins to do something else."""
        if self.watch:
            self.watch.at(doing)

    def leaving(self, why: str) -> None:
        """Let the others hear why this process is about to leave them."""
        if self.watch:
            self.watch.word = why

    def collect(self, value: Any) -> list[Any]:
        """Every process's `value` (JSON), in order; all get it, and all must call this."""
        return [parse_json(part) for part in self._gather(json.dumps(value).encode())] if self.size > 1 else [value]

    def collect_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> list[Mapping[str, NDArray[Any]]]:
        """Every process's arrays, in order; all get them, and all must call this."""
        if self.size == 1:
            return [arrays]
        file = BytesIO()
        np.savez(file, allow_pickle=False, **arrays)
        return [dict(np.load(BytesIO(part), allow_pickle=False)) for part in self._gather(file.getvalue())]

    def _gather(self, value: bytes) -> list[bytes]:
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(value)]))
        longest = max(int(length) for length in lengths)
        parts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
        own = torch.frombuffer(bytearray(value.ljust(longest, b"\0")), dtype=torch.uint8)
        dist.all_gather(parts, own)
        return [part[: int(length)].numpy().tobytes() for part, length in zip(parts, lengths, strict=True)]

    def wait(self) -> None:
        """Until all processes have come to here."""
        if self.size > 1:
            dist.barrier()

    def average(self, tensor: torch.Tensor) -> None:
        """Replace a tensor by its mean over all processes."""
        if self.size > 1:
            dist.all_reduce(tensor)
            tensor /= self.size

    def wrap(self, model: nn.Module, skips_parts: bool = False) -> nn.Module:
        """The model, which averages gradients over processes; `skips_parts`: a pass may leave out trained parts."""
        if self.size == 1 or self.sharded:
            return model
        # A patch stem's gradient has one channel in another memory order than its bucket; that costs nothing here.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the option's new name is not in torch 2.9
            return DistributedDataParallel(
                model, broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=skips_parts
            )


ALONE = World()


@contextmanager
def without_averaging(model: nn.Module) -> Iterator[None]:
    """A block in which a wrapped model only adds to its gradients: all micro-batches but a batch's last."""
    if isinstance(model, DistributedDataParallel):
        with model.no_sync():
            yield
        return
    switches = [getattr(part, "set_requires_gradient_sync", None) for part in model.children()]  # of sharded parts
    for switch in filter(None, switches):
        switch(False)
    yield
    for switch in filter(None, switches):
        switch(True)


# Importing the class of sharded tensors takes a second, so they are known by what they have.
def whole(tensor: Any) -> Any:
    """All of a tensor; of a sharded one each process must ask."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def local(tensor: Any) -> Any:
    """The part of a tensor that is here."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def spread_as(tensor: torch.Tensor, like: Any) -> torch.Tensor:
    """A whole tensor, sharded as another is."""
    if not hasattr(like, "device_mesh"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def is_helper() -> bool:
    """Whether whoever started this process wants it to help another."""
    return int(os.environ.get("RANK", "0")) > 0


def under_torchrun() -> bool:
    """Whether torchrun has started this process."""
    return "WORLD_SIZE" in os.environ


def local_device(device: torch.device) -> torch.device:
    """The GPU of this process, where each process of a machine has its own."""
    own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return own if device == torch.device("cuda") else device


def num_processes(asked: int | None, device: torch.device) -> int:
    """Processes for a run: as many as `torchrun` has started, or as asked (none: one for each GPU that may be used)."""
    if under_torchrun():
        return int(os.environ["WORLD_SIZE"])
    if device.type == "cpu":
        return asked or 1
    most = torch.cuda.device_count() if device == torch.device("cuda") else 1
    return min(asked or most, most)


@contextmanager
def recruit(
    size: int,
    device: torch.device,
    job: dict[str, Any],
    helper: str,
    say: Callable[[str], object],
    failed: Callable[[str], object],
    limit_s: float,
) -> Iterator[World]:
    """Process 0's side: a world of `size` processes for the block.

    A helper that this function starts runs the Python statement `helper`, which should call `enlist`; `job` (JSON) is
    handed to every helper. `UserError` if a helper ends before its time. `say` hears of processes that stall, and
    `failed`, after `limit_s` seconds, why this process is about to end.
    """
    children: list[subprocess.Popen[bytes]] = []

    def give_up(reason: str) -> None:
        failed(reason)
        for child in children:
            child.kill()
        os._exit(1)

    watch, word = Watch(0, say, give_up, limit_s), "the run has failed"
    try:
        if size == 1:
            watch.start()
            yield World(watch=watch)
            return
        if under_torchrun():
            store, _, size = next(iter(rendezvous("env://", timeout=TIMEOUT)))
        else:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
            store = TCPStore("127.0.0.1", 0, size, is_master=True, timeout=TIMEOUT, wait_for_workers=False)
            children += [_start(rank, size, store.port, helper) for rank in range(1, size)]
        watch.expect(size - 1, children)
        here, open_to = os.environ.get("MASTER_ADDR", "127.0.0.1"), "" if under_torchrun() else "127.0.0.1"
        store.set(JOB, json.dumps({**job, "watch": [here, watch.listen(open_to)]}))
        watch.start()
        yield _connect(store, 0, size, device, watch)
        word = "the run has ended"
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        word = watch.wait_for_reason()
        raise UserError(
            f"{word}, so the run has stopped; --resume continues from the last checkpoint, and with "
            "--train.processes 1 without helpers"
        ) from error
    except UserError as error:
        word = str(error)
        raise
    finally:
        watch.end(word)
        for child in children:  # before the connections close, of which they would complain
            child.kill()
            child.wait()
        if dist.is_initialized():
            dist.destroy_process_group()


def enlist() -> tuple[Store, dict[str, Any]]:
    """A helper's side: process 0's store, and the job."""
    store, _, _ = next(iter(rendezvous("env://", timeout=TIMEOUT)))
    return store, parse_json(store.get(JOB))


@contextmanager
def helping(store: Store, device: torch.device, at: tuple[str, int], limit_s: float) -> Iterator[World]:
    """A helper's world for the block; process 0 listens `at` a host and port. Ends the process if the run ends."""
    rank = int(os.environ["RANK"])

    def say(what: str) -> None:
        print(f"data2vec2: process {rank}: {what}", file=sys.stderr, flush=True)

    def give_up(reason: str) -> None:
        say(f"{reason}; this process ends")
        os._exit(1)

    watch = Watch(rank, say, give_up, limit_s)
    watch.connect(*at)
    watch.start()
    word = ""
    try:
        yield _connect(store, rank, int(os.environ["WORLD_SIZE"]), device, watch)
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        say(f"{watch.wait_for_reason()}; this process ends")
        raise SystemExit(1) from None
    except UserError as error:
        word = str(error)
        raise
    finally:
        watch.end(word)
        dist.destroy_process_group()


def _connect(store: Store, rank: int, size: int, device: torch.device, watch: Watch) -> World:
    """Join the process group: NCCL for what is on GPUs, gloo elsewhere."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=PrefixStore("group", store), rank=rank, world_size=size, timeout=TIMEOUT)
    return World(rank, size, watch=watch)


def _start(rank: int, size: int, port: int, helper: str) -> subprocess.Popen[bytes]:
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment = os.environ | place | address | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command, null = [sys.executable, "-c", helper], subprocess.DEVNULL
    # A session of its own: Ctrl-C on the terminal reaches process 0 only, which saves first.
    return subprocess.Popen(command, env=environment, stdin=null, stdout=null, start_new_session=True)
