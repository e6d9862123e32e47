"""What a configuration leaves to the machine: device, processes, threads, precision, micro-batch, readers."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from data2vec2.config.run import TrainConfig
from data2vec2.data.reader import Reader
from data2vec2.errors import UserError
from data2vec2.modalities.data import Log
from data2vec2.modalities.jobs import Sized
from data2vec2.training import device as devices
from data2vec2.training.parallel import num_processes, under_torchrun


def placed(config: TrainConfig, say: Log = lambda _: None) -> TrainConfig:
    """The configuration with device, processes, and threads for each of them filled in; says what can't be as asked."""
    device = devices.choose_device(config.device, "--train.device")
    processes = num_processes(config.processes, device)
    if processes != (config.processes or processes):
        why = "torchrun has started so many" if under_torchrun() else f"{device} can take no more"
        say(f"plan: {processes} processes, not {config.processes} as --train.processes says: {why}")
    if config.shard and processes == 1:
        say("plan: --train.shard has no effect with one process")
    threads = config.threads or max(1, torch.get_num_threads() // processes)
    return replace(config, device=str(device), processes=processes, threads=threads)


def check_shares(train: Reader, config: TrainConfig, say: Log) -> None:
    """`UserError` for so few samples that a batch has none for some process; says where a batch repeats some."""
    found, processes = len(train.order(config.batch_size)(0).samples_B), config.processes or 1
    if found > len(train.records):
        say(
            f"data: a batch of {found:,} holds some of the {len(train.records):,} to train on more than once; "
            f"--train.batch-size {len(train.records)} or less, or more data, avoids this"
        )
    if found < processes:
        raise UserError(
            f"a batch has only {found} of {len(train.records)} samples to train on, too few for {processes} processes; "
            f"give --train.processes {found}, or more data"
        )


def suited(config: TrainConfig, largest: Callable[[int], Sized], device: torch.device) -> TrainConfig:
    """The configuration with precision and micro-batch filled in, by the loss of so many samples."""
    micro_batch, forward_s, (loss, size) = config.micro_batch, 0.0, largest(1)
    if micro_batch is None:
        processes, started = config.processes or 1, time.perf_counter()
        needed, free = int(devices.activation_bytes(loss) / size), devices.free_memory(device)
        forward_s = time.perf_counter() - started
        shared_memory = processes if device.type == "cpu" else 1
        micro_batch = devices.fit_micro_batch(math.ceil(config.batch_size / processes), needed, free // shared_memory)
    at_once = max(1, int(micro_batch / size))
    precision = devices.choose_precision(config.precision, lambda n: largest(n).loss, at_once, device, forward_s)
    compiles = devices.can_compile(device) if config.compile is None else config.compile
    return replace(config, precision=precision, micro_batch=micro_batch, compile=compiles)


def num_readers(train: Reader, config: TrainConfig, largest: Callable[[int], Sized], device: torch.device) -> int:
    """How many processes read twice as fast as the model learns, by a short measurement; at most the cores."""
    # On a processor reading takes its share of the cores in any case, and one sample says enough.
    at_once = 1 if device.type == "cpu" else max(1, int((config.micro_batch or 1) / largest(1).size))
    (loss, size), order = largest(at_once), train.order(config.batch_size)
    for step in range(2):  # the first has files, kernels and memory to prepare
        plan = order(step)
        started = time.perf_counter()
        read = train.train_batch(plan.part(0, max(1, len(plan.samples_B) // 8)))
        reading_s = (time.perf_counter() - started) / (len(read.inputs) * train.size(read))
        if step or device.type != "cpu":
            learning_s = devices.loss_seconds(loss, device, config.precision == "bfloat16") / size
    most = max(1, (os.cpu_count() or 1) // (config.processes or 1))
    return min(most, math.ceil(2 * reading_s / learning_s))
