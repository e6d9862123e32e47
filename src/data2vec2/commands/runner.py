"""What every command that trains does around the loop: configuration, data, the run folder, helpers and the end."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
import yaml
from torch import nn

from data2vec2.commands.doctor import environment
from data2vec2.commands.flags import applied
from data2vec2.commands.options import Finetune, Pretrain
from data2vec2.config.run import FinetuneConfig, FinetuneOptimConfig, RunConfig, TrainConfig
from data2vec2.config.tree import to_dict
from data2vec2.data import hub
from data2vec2.data.account import Account
from data2vec2.data.batch import default_workers
from data2vec2.data.reader import Reader
from data2vec2.errors import UsageError, UserError
from data2vec2.modalities.data import Log
from data2vec2.modalities.jobs import Sized
from data2vec2.reporting.build import write_report
from data2vec2.tasks import RunContext
from data2vec2.training import device as devices
from data2vec2.training.checkpoint import Checkpoint, list_checkpoints, load_newest
from data2vec2.training.loop import Outcome, Task, train
from data2vec2.training.optim import peak_lr
from data2vec2.training.parallel import World, enlist, helping, is_helper, local_device, num_processes, recruit
from data2vec2.training.progress import TrainingBar, console, stop_requested
from data2vec2.training.run import ACCOUNT, CONFIG, SPLIT, RunFolder, write_text

C = TypeVar("C", RunConfig, FinetuneConfig)

FREE_ON_RESUME = {
    *(f"train.{name}" for name in ("processes", "device", "threads", "precision", "micro_batch", "compile", "keep")),
    *("train.log_every", "train.eval_every", "train.save_every", "data.max_bad", "data.workers"),
    "data.tokenizer",  # as far as it is the same one
}
"""What may differ between a run and its resumption: where and how the sums are made, not what they are."""


@dataclass(frozen=True)
class Opened(Generic[C]):
    """Opened, split and looked at data, and the configuration that they complete."""

    config: C
    train: Reader
    val: Reader | None
    account: Account
    """What became of all samples."""
    description: str
    unit: str
    """What a batch size counts."""
    in_memory: bool
    """Whether reading is so quick that it needs no processes of its own."""
    more: Any = None
    """What else a kind of training knows of its data."""


class Training(ABC, Generic[C]):
    """What pre-training and fine-tuning do differently."""

    read: Callable[[Any], C]
    """The configuration in a nested dictionary."""

    @abstractmethod
    def named(self, asked: C | str) -> C:
        """The configuration that was asked for: itself, or that of a recipe or a file."""

    @abstractmethod
    def started(self, config: C, data: Path, say: Log) -> C:
        """The configuration of a new run, as far as it can be told before the data are opened."""

    @abstractmethod
    def resumed(self, run: Path, asked: C | str, flags: Sequence[str]) -> C:
        """The configuration of a run that goes on, with what flags set; `UserError` for a change that can't be."""

    @abstractmethod
    def opened(self, config: C, data: Path, val: Path | None, say: Log | None) -> Opened[C]:
        """The data. With `say` they are looked at, and `config` is completed by them; in a helper it is complete."""

    @abstractmethod
    def built(self, data: Opened[C], device: torch.device) -> nn.Module:
        """The model, with weights to start from."""

    @abstractmethod
    def largest(self, model: nn.Module, data: Opened[C]) -> Sized:
        """The loss of one sample of the largest size."""

    @abstractmethod
    def task(self, model: nn.Module, data: Opened[C], context: RunContext) -> Task:
        """What the loop trains."""

    @abstractmethod
    def explain(self, model: nn.Module, data: Opened[C], say: Log) -> None:
        """Print what the model is."""

    @abstractmethod
    def show_first(self, data: Opened[C], say: Log) -> None:
        """Print the shapes of the first batch."""

    @abstractmethod
    def finish(self, run: RunFolder, model: Any, data: Opened[C], log: Log) -> None:
        """Export the model, and score it where that belongs to the run."""

    def load(self, model: Any, data: Opened[C], say: Log) -> None:
        """Put in weights that a run begins with, unless it goes on from a checkpoint."""

    def write_start(self, run: RunFolder, data: Opened[C]) -> None:
        """What else the folder says about the run before it begins."""

    def arguments(self) -> dict[str, Any]:
        """What a helper must know to make the same (JSON); also written into environment.json."""
        return {}


def run_training(training: Training[C], asked: C | str, data: str | Path, given: Pretrain | Finetune) -> Outcome:
    """Train into the run folder `out`, or with `dry_run` only say what would be done."""
    if is_helper():
        return help_run(training.__class__)
    resume, overwrite = given.resume, given.overwrite
    if resume and overwrite:
        raise UsageError("--resume goes on with a run and --overwrite deletes it; give one of them")
    run, data, say = RunFolder(Path(given.out)), Path(data), console().print
    val = Path(given.val) if given.val else None
    run.check(resume=resume, overwrite=overwrite)
    if resume:
        config = training.resumed(run.path, asked, given.flags)
    else:
        config = training.started(applied(training.named(asked), given.flags), data, say)
    with devices.cpu_threads(_placed(config.train).threads):
        opened, model = _completed(training, config, data, val, say)
        if not (resume and list_checkpoints(run.checkpoints)):
            training.load(model, opened, say)
        training.explain(model, opened, say)
        _say_plan(opened, say)
        if given.dry_run:
            training.show_first(opened, say)
            say(yaml.safe_dump(to_dict(opened.config), sort_keys=False).rstrip())
            return Outcome("planned", 0)
        with run.locked():
            run.check(resume=resume, overwrite=overwrite)
            if resume:
                _recall(run, opened.account)
            else:
                run.clear()
            _write_start(training, run, opened, data)
            return _train(training, run, model, opened, data, val, resume)


def _completed(training: Training[C], config: C, path: Path, val: Path | None, say: Log) -> tuple[Opened[C], nn.Module]:
    """The one place where a configuration gets what it leaves to data, machine and measurement."""
    data = training.opened(config, path, val, say)
    config = replace(data.config, train=_placed(data.config.train))
    if config.data.workers is None:
        config = replace(config, data=replace(config.data, workers=default_workers(data.in_memory)))
    _check_shares(data.train, config.train)
    data, device = replace(data, config=config), local_device(torch.device(config.train.device))
    torch.manual_seed(config.train.seed)
    model = training.built(data, device)
    measured = _measured(config.train, training.largest(model, data), device)
    model.zero_grad()
    return replace(data, config=replace(config, train=measured)), model


def _placed(config: TrainConfig) -> TrainConfig:
    """The configuration with device, processes, and threads for each of them filled in."""
    device = devices.choose_device(config.device)
    processes = num_processes(config.processes, device)
    threads = config.threads or max(1, torch.get_num_threads() // processes)
    return replace(config, device=str(device), processes=processes, threads=threads)


def _check_shares(train: Reader, config: TrainConfig) -> None:
    """`UserError` for so few samples that a batch has none for some process."""
    found, processes = len(train.order(config.batch_size)(0).samples_B), config.processes or 1
    if found < processes:
        raise UserError(
            f"a batch has only {found} of {len(train.records)} samples to train on, too few for {processes} processes, "
            f"which need one each; give --train.processes {found}, or more data"
        )


def _measured(config: TrainConfig, largest: Sized, device: torch.device) -> TrainConfig:
    """The configuration with precision and micro-batch filled in, from a measurement of one sample's loss."""
    micro_batch = config.micro_batch
    if micro_batch is None:
        processes = config.processes or 1
        needed, free = int(devices.activation_bytes(largest.loss) / largest.size), devices.free_memory(device)
        shared_memory = processes if device.type == "cpu" else 1
        micro_batch = devices.fit_micro_batch(config.batch_size // processes, needed, free // shared_memory)
    return replace(
        config, precision=devices.choose_precision(config.precision, largest.loss, device), micro_batch=micro_batch
    )


def _say_plan(data: Opened[C], say: Log) -> None:
    optim, train = data.config.optim, data.config.train
    processes = f" by each of {train.processes} processes" if train.processes != 1 else ""
    decay = f", layer decay {optim.layer_decay:g}" if isinstance(optim, FinetuneOptimConfig) else ""
    say(
        f"plan: {train.updates:,} updates of {train.batch_size} {data.unit} ({train.micro_batch} "
        f"at once{processes}) on {train.device} in {train.precision}; peak learning rate "
        f"{peak_lr(optim, train.batch_size):g} after {optim.warmup_updates:,} updates{decay}"
    )


def _recall(run: RunFolder, account: Account) -> None:
    """What a run had found to be bad before it was interrupted, which may not be looked at again."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        for name, part in json.loads((run.path / ACCOUNT).read_text("utf-8"))["parts"].items():
            account.part(name).bad = {**part["bad"], **account.part(name).bad}


def where_is(data: Path | str) -> str:
    """A data set by its name on the hub or its whole path, to tell it from others."""
    return str(data) if str(data).startswith(hub.PREFIX) else str(Path(data).resolve())


def _write_start(training: Training[C], run: RunFolder, data: Opened[C], path: Path) -> None:
    write_text(run.path / CONFIG, yaml.safe_dump(to_dict(data.config), sort_keys=False))
    about = {"data": data.description, "data_path": where_is(path), **training.arguments(), **environment()}
    run.write_json("environment.json", about)
    run.write_json(SPLIT, {"validation": list(data.val.records.names) if data.val else []})
    run.write_json(ACCOUNT, data.account.to_dict())
    training.write_start(run, data)


def _train(
    training: Training[C], run: RunFolder, model: nn.Module, data: Opened[C], path: Path, val: Path | None, resume: bool
) -> Outcome:
    """Train in a locked folder that describes the run; leaves status and report behind however it ends."""
    config, device = data.config, local_device(torch.device(data.config.train.device))
    with TrainingBar(config.train.updates) as bar, stop_requested() as asked_to_stop:
        log = run.logger(bar.console.print)
        checkpoint = _checkpoint(run, config.train.updates, log) if resume else None
        if not checkpoint:
            run.cut_metrics(-1)
        job = {
            "run": str(run.path.resolve()),
            "config": to_dict(config),
            "data": str(path),
            "val": str(val) if val else None,
            "fingerprint": data.train.records.fingerprint,
            "resumes": checkpoint is not None,
            "arguments": training.arguments(),
        }
        kind = training.__class__
        helper = f"from {__name__} import help_run; from {kind.__module__} import {kind.__name__} as K; help_run(K)"
        try:
            with recruit(config.train.processes or 1, device, job, helper) as world:
                how = {"bar": bar, "resume": checkpoint, "asked_to_stop": asked_to_stop}
                outcome = _loop(training, run, model, data, device, world, log, **how)
            log(f"{outcome.state} at update {outcome.step}" + (f": {outcome.message}" if outcome.message else ""))
            if outcome.state == "finished":
                training.finish(run, model, data, log)
        except UserError as error:
            lines = run.read_metrics()
            run.write_json(ACCOUNT, data.account.to_dict())
            _write_end(run, config, Outcome("failed", lines[-1]["step"] if lines else 0, str(error)))
            raise
        for name, part in sorted(data.account.parts.items(), key=lambda one: one[0] == "train"):
            if part.bad:
                log(f"{name} part: {len(part.bad)} samples could not be used: {part.summary()} ({ACCOUNT})")
        run.write_json(ACCOUNT, data.account.to_dict())
    _write_end(run, config, outcome)
    return outcome


def help_run(kind: Callable[..., Training[Any]]) -> Outcome:
    """Compute a share of the gradients of another process's run (training/parallel.py)."""
    store, job = enlist()
    training, val, run = kind(**job["arguments"]), Path(job["val"]) if job["val"] else None, RunFolder(Path(job["run"]))
    config = training.read(job["config"])
    torch.set_num_threads(config.train.threads)
    device = local_device(torch.device(config.train.device))
    data = training.opened(config, Path(job["data"]), val, None)
    model = training.built(data, device)
    if data.train.records.fingerprint != job["fingerprint"]:
        raise UserError("process 0 sees other data than this one")
    with helping(store, device) as world, stop_requested():
        checkpoint, bar = load_newest(run.checkpoints)[0] if job["resumes"] else None, TrainingBar(config.train.updates)
        how = {"bar": bar, "resume": checkpoint, "asked_to_stop": lambda: False}
        outcome = _loop(training, run, model, data, device, world, lambda _: None, **how)
    return Outcome("helped", outcome.step)


def _loop(
    training: Training[C],
    run: RunFolder,
    model: nn.Module,
    data: Opened[C],
    device: torch.device,
    world: World,
    log: Log,
    **how: Any,
) -> Outcome:
    """What `train` does in one of the run's processes, which tells it `how`."""
    account, unit, workers = data.account, data.unit, data.config.data.workers or 0
    context = RunContext(run=run, device=device, account=account, unit=unit, workers=workers, world=world, log=log)
    task, seen = training.task(model, data, context), data.train.records.fingerprint
    return train(task, data.config, run, log, device=device, fingerprint=seen, world=world, **how)


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


def _write_end(run: RunFolder, config: RunConfig | FinetuneConfig, outcome: Outcome) -> None:
    run.write_json("status.json", {**asdict(outcome), "updates": config.train.updates})
    write_report(run.path)


def say_account(account: Account, say: Log) -> None:
    """Print what the user should know of the data before anything begins."""
    for line in account.lines():
        say(f"data: {line}")


def read_yaml(path: Path, read: Callable[[Any], C]) -> C:
    """The configuration in a run folder's file; `UserError` if it can't be read."""
    try:
        return read(yaml.safe_load(path.read_text("utf-8")))
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path} can't be read as the configuration of a run: {error}") from error


def keep_started(saved: C, asked: C, fitted: C, prefix: str = "") -> C:
    """`saved` with what `asked` changes of `FREE_ON_RESUME` in its sections; `UserError` for any other change.

    `fitted` is `asked` with the schedule that it had got at the start.
    """
    changed = {}
    for field in fields(saved):
        name = prefix + field.name
        theirs, mine, adapted = (getattr(config, field.name) for config in (saved, asked, fitted))
        if is_dataclass(theirs):
            changed[field.name] = keep_started(theirs, mine, adapted, f"{name}.")
        elif prefix and mine not in (None, "auto") and theirs not in (mine, adapted):
            if name not in FREE_ON_RESUME:
                flag = "--" + name.removeprefix("task.").replace("_", "-")
                raise UserError(f"{flag} {mine} can't change on --resume: the run was started with {theirs}")
            changed[field.name] = mine
    return replace(saved, **changed)
