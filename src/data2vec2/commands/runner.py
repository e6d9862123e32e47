"""What every command that trains does around the loop: configuration, data, the run folder, helpers and the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
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
from data2vec2.data.batch import default_workers
from data2vec2.data.reader import Reader, Skipped
from data2vec2.errors import UsageError, UserError
from data2vec2.modalities.data import Log
from data2vec2.modalities.jobs import Sized
from data2vec2.reporting.build import write_report
from data2vec2.tasks import RunContext
from data2vec2.training.checkpoint import Checkpoint, list_checkpoints, load_newest
from data2vec2.training.device import (
    activation_bytes,
    choose_device,
    choose_precision,
    cpu_threads,
    fit_micro_batch,
    free_memory,
)
from data2vec2.training.loop import Outcome, Task, train
from data2vec2.training.optim import peak_lr
from data2vec2.training.parallel import World, enlist, helping, is_helper, local_device, num_processes, recruit
from data2vec2.training.progress import TrainingBar, console, stop_requested
from data2vec2.training.run import CONFIG, SPLIT, RunFolder, write_text

C = TypeVar("C", RunConfig, FinetuneConfig)

# What may differ between a run and its resumption: where and how the sums are made, not what they are.
FREE_ON_RESUME = (
    "train.processes",
    "train.device",
    "train.threads",
    "train.precision",
    "train.micro_batch",
    "train.compile",
    "train.log_every",
    "train.eval_every",
    "train.save_every",
    "train.keep",
    "data.max_bad",
    "data.workers",
    "data.tokenizer",  # as far as it is the same one
)


@dataclass(frozen=True, kw_only=True)
class Opened(Generic[C]):
    """Opened, split and looked at data, and the configuration that they complete."""

    config: C
    train: Reader
    val: Reader | None
    skipped: Skipped
    description: str
    in_memory: bool
    """Whether reading is so quick that it needs no processes of its own."""
    more: Any = None
    """What else a kind of training knows of its data."""


class Training(ABC, Generic[C]):
    """What pre-training and fine-tuning do differently."""

    helper: str
    """Statement of Python that another process of the run executes (`help_run`)."""

    @abstractmethod
    def read(self, values: Any) -> C:
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

    @abstractmethod
    def unit(self, config: C) -> str:
        """What a batch size counts."""

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
    with cpu_threads(_placed(config.train).threads):
        opened, model = _completed(training, config, data, val, say)
        if not (resume and list_checkpoints(run.checkpoints)):
            training.load(model, opened, say)
        training.explain(model, opened, say)
        _say_plan(training, opened.config, say)
        if given.dry_run:
            training.show_first(opened, say)
            say(yaml.safe_dump(to_dict(opened.config), sort_keys=False).rstrip())
            return Outcome("planned", 0)
        with run.locked():
            run.check(resume=resume, overwrite=overwrite)
            if not resume:
                run.clear()
            _write_start(training, run, opened)
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
    device = choose_device(config.device)
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
        needed, free = int(activation_bytes(largest.loss) / largest.size), free_memory(device)
        shared_memory = processes if device.type == "cpu" else 1
        micro_batch = fit_micro_batch(config.batch_size // processes, needed, free // shared_memory)
    return replace(config, precision=choose_precision(config.precision, largest.loss, device), micro_batch=micro_batch)


def _say_plan(training: Training[C], config: C, say: Log) -> None:
    """Print how the model is trained."""
    optim, train = config.optim, config.train
    processes = f" by each of {train.processes} processes" if train.processes != 1 else ""
    decay = f", layer decay {optim.layer_decay:g}" if isinstance(optim, FinetuneOptimConfig) else ""
    say(
        f"plan: {train.updates:,} updates of {train.batch_size} {training.unit(config)} ({train.micro_batch} "
        f"at once{processes}) on {train.device} in {train.precision}; peak learning rate "
        f"{peak_lr(optim, train.batch_size):g} after {optim.warmup_updates:,} updates{decay}"
    )


def _write_start(training: Training[C], run: RunFolder, data: Opened[C]) -> None:
    """What the folder says about the run before it begins."""
    write_text(run.path / CONFIG, yaml.safe_dump(to_dict(data.config), sort_keys=False))
    run.write_json("environment.json", {"data": data.description, **training.arguments(), **environment()})
    run.write_json(SPLIT, {"validation": list(data.val.records.names) if data.val else []})
    if data.skipped.reasons or data.skipped.left_out:
        data.skipped.write(run.path / "skipped.jsonl")
    training.write_start(run, data)


def _train(
    training: Training[C], run: RunFolder, model: nn.Module, data: Opened[C], path: Path, val: Path | None, resume: bool
) -> Outcome:
    """Train in a locked folder that describes the run; leaves status and report behind however it ends."""
    config, fingerprint = data.config, data.train.records.fingerprint
    device = local_device(torch.device(config.train.device))
    with TrainingBar(config.train.updates) as bar, stop_requested() as asked_to_stop:
        log = run.logger(bar.console.print)
        checkpoint = _checkpoint(run, config.train.updates, log) if resume else None
        if not checkpoint:
            run.cut_metrics(-1)
        job = {
            "run": str(run.path.resolve()),
            "config": to_dict(config),
            "device": config.train.device,
            "threads": config.train.threads,
            "data": str(path),
            "val": str(val) if val else None,
            "fingerprint": fingerprint,
            "step": checkpoint.step if checkpoint else None,
            "arguments": training.arguments(),
        }
        try:
            with recruit(config.train.processes or 1, device, job, training.helper) as world:
                context = _context(training, run, data, device, world, log)
                outcome = train(
                    training.task(model, data, context),
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
        if data.skipped.reasons:
            log(f"{len(data.skipped.reasons)} samples could not be used: {data.skipped.summary()} (skipped.jsonl)")
        log(f"{outcome.state} at update {outcome.step}" + (f": {outcome.message}" if outcome.message else ""))
        if outcome.state == "finished":
            training.finish(run, model, data, log)
    _write_end(run, config, outcome)
    return outcome


def _context(
    training: Training[C], run: RunFolder, data: Opened[C], device: torch.device, world: World, log: Log
) -> RunContext:
    """Where the task runs."""
    workers, unit = data.config.data.workers or 0, training.unit(data.config)
    return RunContext(run=run, device=device, skipped=data.skipped, workers=workers, world=world, log=log, unit=unit)


def help_run(training_class: Callable[..., Training[Any]]) -> Outcome:
    """Compute a share of the gradients of another process's run (training/parallel.py)."""
    store, job = enlist()
    torch.set_num_threads(job["threads"])
    device, run = local_device(torch.device(job["device"])), RunFolder(Path(job["run"]))
    training = training_class(**job["arguments"])
    val = Path(job["val"]) if job["val"] else None
    data = training.opened(training.read(job["config"]), Path(job["data"]), val, None)
    model, fingerprint = training.built(data, device), data.train.records.fingerprint
    if fingerprint != job["fingerprint"]:
        raise UserError("process 0 sees other data than this one")
    with helping(store, device) as world, stop_requested():
        context = _context(training, run, data, device, world, lambda _: None)
        outcome = train(
            training.task(model, data, context),
            data.config,
            run,
            lambda _: None,
            TrainingBar(data.config.train.updates),
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


def _write_end(run: RunFolder, config: RunConfig | FinetuneConfig, outcome: Outcome) -> None:
    """What the folder says about the run when it ends."""
    run.write_json("status.json", {**asdict(outcome), "updates": config.train.updates})
    write_report(run.path)


def read_yaml(path: Path, read: Callable[[Any], C]) -> C:
    """The configuration in a run folder's file; `UserError` if it can't be read."""
    try:
        return read(yaml.safe_load(path.read_text("utf-8")))
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path} can't be read as the configuration of a run: {error}") from error


def keep_started(saved: C, asked: C, fitted: C) -> C:
    """`saved` with what `asked` changes of `FREE_ON_RESUME`; `UserError` for any other change.

    `fitted` is `asked` with the schedule that it had got at the start.
    """
    for section in (field.name for field in fields(saved) if is_dataclass(getattr(saved, field.name))):
        mine, adapted, theirs = (_flat(to_dict(getattr(c, section)), section) for c in (asked, fitted, saved))
        for name, value in mine.items():
            if value in (None, "auto") or theirs[name] in (value, adapted[name]):
                continue
            if name not in FREE_ON_RESUME:
                flag = "--" + name.removeprefix("task.").replace("_", "-")
                raise UserError(f"{flag} {value} can't change on --resume: the run was started with {theirs[name]}")
            part: Any = replace(getattr(saved, section), **{name.split(".")[1]: value})
            saved = replace(saved, **{section: part})
    return saved


def _flat(tree: Mapping[str, object], prefix: str) -> dict[str, object]:
    """Nested keys as dotted names."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        flat.update(_flat(value, f"{prefix}.{key}") if isinstance(value, dict) else {f"{prefix}.{key}": value})
    return flat
