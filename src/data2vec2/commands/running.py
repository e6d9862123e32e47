"""What every command that trains does around the loop: the run folder, checkpoints, helpers, signals and the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from data2vec2.config import TrainConfig
from data2vec2.data.reader import Reader
from data2vec2.data.skipped import Skipped
from data2vec2.errors import UserError
from data2vec2.reporting import write_report
from data2vec2.training.checkpoint import Checkpoint, load_newest
from data2vec2.training.device import (
    activation_bytes,
    choose_device,
    choose_precision,
    fit_micro_batch,
    free_memory,
)
from data2vec2.training.loop import Outcome, Task, TaskConfig, train
from data2vec2.training.parallel import World, enlist, helping, local_device, num_processes, recruit
from data2vec2.training.progress import TrainingBar
from data2vec2.training.run import RunFolder
from data2vec2.training.signals import stop_requested

Log = Callable[[str], None]
C = TypeVar("C", bound=TaskConfig)


def placed(config: TrainConfig) -> TrainConfig:
    """The configuration with device, processes, and threads for each of them filled in."""
    device = choose_device(config.device)
    processes = num_processes(config.processes, device)
    threads = config.threads or max(1, torch.get_num_threads() // processes)
    return replace(config, device=str(device), processes=processes, threads=threads)


def check_shares(train: Reader, config: TrainConfig) -> None:
    """`UserError` for so few samples that a batch has none for some process; to be asked before a run begins."""
    found, processes = len(train.order(config.batch_size)(0).samples_B), config.processes or 1
    if found < processes:
        raise UserError(
            f"a batch has only {found} of {len(train.records)} samples to train on, too few for {processes} processes, "
            f"which need one each; give --train.processes {found}, or more data"
        )


def fitted(
    config: TrainConfig, loss_of_one: Callable[[], torch.Tensor], device: torch.device, size: float = 1.0
) -> TrainConfig:
    """The configuration with precision and micro-batch filled in, from a measurement of one sample's loss.

    `size` is what this sample counts in a batch size.
    """
    micro_batch = config.micro_batch
    if micro_batch is None:
        processes = config.processes or 1
        needed, free = int(activation_bytes(loss_of_one) / size), free_memory(device)
        shared_memory = processes if device.type == "cpu" else 1
        micro_batch = fit_micro_batch(config.batch_size // processes, needed, free // shared_memory)
    return replace(config, precision=choose_precision(config.precision, loss_of_one, device), micro_batch=micro_batch)


def run_task(
    run: RunFolder,
    config: TaskConfig,
    task_of: Callable[[World], Task],
    *,
    job: dict[str, Any],
    helper: str,
    fingerprint: str,
    resume: bool,
    skipped: Skipped,
    finish: Callable[[Log], None],
) -> Outcome:
    """Train in a locked folder that describes the run; leaves status and report behind however it ends.

    `task_of` builds the task for this process; `job` and `helper` are for the other processes (`recruit`). `finish` is
    called after the last update, before the report.
    """
    with TrainingBar(config.train.updates) as bar, stop_requested() as asked_to_stop:
        log = run.logger(bar.line)
        checkpoint = _checkpoint(run, config.train.updates, log) if resume else None
        if not checkpoint:
            run.cut_metrics(-1)
        device = local_device(torch.device(config.train.device))
        job = {**job, "fingerprint": fingerprint, "step": checkpoint.step if checkpoint else None}
        try:
            with recruit(config.train.processes or 1, device, job, helper) as world:
                outcome = train(
                    task_of(world),
                    config,
                    run,
                    log,
                    bar,
                    device=device,
                    fingerprint=fingerprint,
                    resume=checkpoint,
                    asked_to_stop=asked_to_stop,
                    world=world,
                )
        except UserError as error:
            lines = run.read_metrics()
            _write_end(run, config, Outcome("failed", lines[-1]["step"] if lines else 0, str(error)))
            raise
        if skipped.reasons:
            log(f"{len(skipped.reasons)} samples could not be used: {skipped.summary()} (skipped.jsonl)")
        log(f"{outcome.state} at update {outcome.step}" + (f": {outcome.message}" if outcome.message else ""))
        if outcome.state == "finished":
            finish(log)
    _write_end(run, config, outcome)
    return outcome


def help_task(build: Callable[[dict[str, Any], torch.device], tuple[C, str, Callable[[World], Task]]]) -> Outcome:
    """Compute a share of the gradients of another process's run (training/parallel.py).

    `build` makes configuration, data fingerprint and task from the job and this process's device.
    """
    store, job = enlist()
    torch.set_num_threads(job["threads"])
    device = local_device(torch.device(job["device"]))
    config, fingerprint, task_of = build(job, device)
    if fingerprint != job["fingerprint"]:
        raise UserError("process 0 sees other data than this one")
    run = RunFolder(Path(job["run"]))
    with helping(store, device) as world, stop_requested():
        outcome = train(
            task_of(world),
            config,
            run,
            lambda _: None,
            TrainingBar(config.train.updates),
            device=device,
            fingerprint=fingerprint,
            resume=load_newest(run.checkpoints)[0] if job["step"] is not None else None,
            asked_to_stop=lambda: False,
            world=world,
        )
    return Outcome("helped", outcome.step)


def _checkpoint(run: RunFolder, updates: int, log: Log) -> Checkpoint | None:
    """The newest checkpoint that can be used, saying what was found."""
    checkpoint, damaged = load_newest(run.checkpoints)
    for message in damaged:
        log(f"damaged checkpoint passed over: {message}")
    if checkpoint is None:
        log("no usable checkpoint: starting over")
    elif checkpoint.step == updates:
        log(f"the run has all its {updates} updates already: only export and report are written again")
    else:
        log(f"going on from update {checkpoint.step}")
    return checkpoint


def _write_end(run: RunFolder, config: TaskConfig, outcome: Outcome) -> None:
    """What the folder says about the run when it ends."""
    run.write_json("status.json", {**asdict(outcome), "updates": config.train.updates})
    write_report(run.path)
