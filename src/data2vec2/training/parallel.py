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
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from data2vec2.errors import UserError

TIMEOUT = timedelta(hours=1)
"""How long a helper waits while process 0 scores or saves."""
JOB = "job"
PARENT = "DATA2VEC2_PARENT"


@dataclass(frozen=True)
class World:
    """Which of the processes that share a run this is."""

    rank: int = 0
    size: int = 1
    store: Store | None = None

    def collect(self, key: str, value: Any) -> list[Any]:
        """Process 0 gets every process's `value` (JSON), in order, helpers nothing; all call it, with one new `key`."""
        if self.store is None:
            return [value]
        if self.rank:
            self.store.set(f"{key}/{self.rank}", json.dumps(value))
            return []
        keys = [f"{key}/{rank}" for rank in range(1, self.size)]
        values = [json.loads(self.store.get(key)) for key in keys]
        for key in keys:
            self.store.delete_key(key)
        return [value, *values]

    def average(self, tensor: torch.Tensor) -> None:
        """Replace a tensor by its mean over all processes."""
        if self.size > 1:
            dist.all_reduce(tensor)
            tensor /= self.size

    def wrap(self, model: nn.Module, skips_parts: bool = False) -> nn.Module:
        """The model, which averages gradients over processes; `skips_parts`: a pass may leave out trained parts."""
        if self.size == 1:
            return model
        # A patch stem's gradient has one channel in another memory order than its bucket; that costs nothing here.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the option's new name is not in torch 2.9
            return DistributedDataParallel(
                model, broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=skips_parts
            )


ALONE = World()


def without_averaging(model: nn.Module) -> AbstractContextManager[None]:
    """A block in which a wrapped model only adds to its gradients: all micro-batches but a batch's last."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


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
def recruit(size: int, device: torch.device, job: dict[str, Any], helper: str) -> Iterator[World]:
    """Process 0's side: a world of `size` processes for the block.

    A helper that this function starts runs the Python statement `helper`, which should call `enlist`; `job` (JSON) is
    handed to every helper. `UserError` if a helper ends before its time.
    """
    if size == 1:
        yield ALONE
        return
    if under_torchrun():
        store, _, size = next(iter(rendezvous("env://", timeout=TIMEOUT)))
        children = []
    else:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
        store = TCPStore("127.0.0.1", 0, size, is_master=True, timeout=TIMEOUT, wait_for_workers=False)
        children = [_start(rank, size, store.port, helper) for rank in range(1, size)]
    try:
        store.set(JOB, json.dumps(job))
        yield _connect(store, 0, size, device)
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise UserError(
            "a helper process has ended (out of memory, or killed?), so the run can't go on; --resume goes on from "
            "the last checkpoint, and with --train.processes 1 without helpers"
        ) from error
    finally:
        for child in children:  # before the connections close, of which they would complain
            child.kill()
            child.wait()
        if dist.is_initialized():
            dist.destroy_process_group()


def enlist() -> tuple[Store, dict[str, Any]]:
    """A helper's side: process 0's store, and the job."""
    store, _, _ = next(iter(rendezvous("env://", timeout=TIMEOUT)))
    return store, json.loads(store.get(JOB))


@contextmanager
def helping(store: Store, device: torch.device) -> Iterator[World]:
    """A helper's world for the block."""
    try:
        yield _connect(store, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), device)
    except RuntimeError:
        for _ in range(40 if PARENT in os.environ else 0):  # connections close before a parent is gone
            if os.environ[PARENT] != str(os.getppid()):
                raise SystemExit(1) from None  # process 0 was killed; a helper has nothing to add
            time.sleep(0.05)
        raise
    finally:
        dist.destroy_process_group()


def _connect(store: Store, rank: int, size: int, device: torch.device) -> World:
    """Join the process group: NCCL between GPUs, gloo elsewhere."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=PrefixStore("group", store), rank=rank, world_size=size, timeout=TIMEOUT)
    return World(rank, size, store)


def _start(rank: int, size: int, port: int, helper: str) -> subprocess.Popen[bytes]:
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), PARENT: str(os.getpid())}
    environment = os.environ | place | address | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command, null = [sys.executable, "-c", helper], subprocess.DEVNULL
    # A session of its own: Ctrl-C on the terminal reaches process 0 only, which saves first.
    return subprocess.Popen(command, env=environment, stdin=null, stdout=null, start_new_session=True)
