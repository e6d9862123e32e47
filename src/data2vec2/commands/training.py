"""What kinds of training do differently, and how a configuration is completed by data, machine and measurement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from data2vec2.commands.estimate import Plan, format_length, model_bytes
from data2vec2.commands.fitting import check_shares, num_readers, placed, suited
from data2vec2.commands.flags import applied, fields_of
from data2vec2.config.run import FinetuneConfig, FinetuneOptimConfig, RunConfig, bounded_updates, fit_schedule
from data2vec2.config.tree import flag_of
from data2vec2.data.account import Account
from data2vec2.data.reader import Reader
from data2vec2.errors import UsageError, UserError
from data2vec2.method.compiling import compile_blocks
from data2vec2.method.sharding import shard
from data2vec2.modalities.data import Log
from data2vec2.modalities.jobs import Sized
from data2vec2.tasks import RunContext
from data2vec2.training import device as devices
from data2vec2.training.measure import Cost, measure_update, update_flops
from data2vec2.training.optim import peak_lr
from data2vec2.training.parallel import local_device
from data2vec2.training.run import RunFolder
from data2vec2.training.task import Task

C = TypeVar("C", RunConfig, FinetuneConfig)

BUDGET_S = 3.0
"""Seconds in which an update is measured."""
FREE_ON_RESUME = {
    *(f"train.{name}" for name in ("processes", "device", "threads", "precision", "micro_batch", "compile", "shard")),
    *(f"train.{name}" for name in ("checkpoint_activations", "stall_minutes", "keep", "keep_every")),
    *("train.log_every", "train.eval_every", "train.save_every", "data.max_bad", "data.workers"),
    "data.tokenizer",  # as far as it is the same one
}
"""What may differ between a run and its resumption: where and how the sums are made, not what they are."""
CHOSEN = {
    *("train.precision", "train.micro_batch", "train.compile", "optim.fresh", "model.modality.num_channels"),
    *("data.mean", "data.std", "data.levels"),
}
"""What a run finds itself at its start where it is none or auto, and keeps: the same command gives the same bits."""


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
    many: str
    """What samples are called."""
    in_memory: bool
    """Whether reading is so quick that it needs no processes of its own."""
    more: Any = None
    """What else a kind of training knows of its data."""


class Training(ABC, Generic[C]):
    """What pre-training and fine-tuning do differently."""

    read: Callable[[Any], C]
    """The configuration in a nested dictionary."""
    recipe: Callable[[str], C]
    """That of a recipe's name."""

    @abstractmethod
    def named(self, asked: C | str) -> C:
        """The configuration that was asked for: itself, or that of a recipe or a file."""

    @abstractmethod
    def started(self, config: C, data: Sequence[str], say: Log, flags: Sequence[str] = ()) -> C:
        """The configuration of a new run, as far as it can be told before the data are opened; `flags` are in it."""

    @abstractmethod
    def schedule(self, config: C) -> str:
        """What is shorter in a run that is shorter than its recipe's."""

    @abstractmethod
    def resumed(self, run: Path, asked: C | str, flags: Sequence[str]) -> C:
        """The configuration of a run that goes on, with what flags set; `UserError` for a change that can't be."""

    @abstractmethod
    def opened(self, config: C, data: Sequence[str], val: str | None, say: Log | None) -> Opened[C]:
        """The data. With `say` they are looked at, and `config` is completed by them; in a helper it is complete."""

    @abstractmethod
    def built(self, data: Opened[C], device: torch.device) -> nn.Module:
        """The model, with weights to start from."""

    @abstractmethod
    def largest(self, model: nn.Module, data: Opened[C], count: int = 1) -> Sized:
        """The loss of `count` samples of the largest size."""

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


def asked_for(training: Training[C], asked: C | str, flags: Sequence[str], val: str | None) -> C:
    """The configuration with what flags set; `UsageError` for a part of DATA to hold out beside validation data."""
    config = applied(training.named(asked), flags)
    fraction, usual = (one.data.val_fraction for one in (config, training.recipe(config.recipe)))
    if val and fraction not in (0, usual):
        raise UsageError(
            f"--data.val-fraction is {fraction:g}, but --val says what to validate on; leave one of them out"
        )
    return config


def quiet(_: str) -> None:
    """Say nothing."""


def completed(
    training: Training[C], config: C, names: Sequence[str], val: str | None, say: Log, measure: bool, again: bool = True
) -> tuple[Opened[C], nn.Module, Cost | None]:
    """The one place where a configuration gets what it leaves to data, machine and measurement.

    All but its length; with `measure` also what an update takes, after which the model is built `again`.
    """
    data = training.opened(config, names, val, say)
    config = replace(data.config, train=placed(data.config.train, say))
    check_shares(data.train, config.train, say)
    data, device = replace(data, config=config), local_device(torch.device(config.train.device))
    torch.manual_seed(config.train.seed)
    model = training.built(data, device)
    measured = suited(config.train, partial(training.largest, model, data), device)
    config = replace(config, train=measured)
    if config.data.workers is None:
        in_memory = data.in_memory or data.train.records.source.in_memory
        workers = 0 if in_memory else num_readers(data.train, measured, partial(training.largest, model, data), device)
        config = replace(config, data=replace(config.data, workers=workers))
    data, cost = replace(data, config=config), None
    if measure:
        context = RunContext(run=RunFolder(Path(names[0])), device=device)  # nothing is written there
        task = prepared(training, model, data, context)
        cost = measure_update(task, task.dataset, data.config, device, BUDGET_S)
        if again:
            del model, task
            torch.manual_seed(config.train.seed)
            model = training.built(data, device)
    model.zero_grad()
    return data, model, cost


def prepared(training: Training[C], model: nn.Module, data: Opened[C], context: RunContext) -> Task:
    """What the loop trains, with compiled blocks where the configuration says so."""
    if data.config.train.compile:
        compile_blocks(model)
    if context.world.sharded:
        shard(model, context.device, data.config.train.precision == "bfloat16" and context.device.type == "cuda")
    return training.task(model, data, context)


def with_length(training: Training[C], data: Opened[C], cost: Cost | None, flags: Sequence[str], say: Log) -> Opened[C]:
    """With the number of updates that was asked for, in whatever words, and schedules that fit it."""
    config, reference = data.config, training.recipe(data.config.recipe)
    train, per_epoch = config.train, data.train.order(config.train.batch_size).per_epoch
    updates = train.updates
    if train.epochs:
        updates = max(1, round(train.epochs * per_epoch))
    elif train.hours:
        assert cost
        updates = max(1, int(train.hours * 3600 / cost.seconds))
    elif updates == reference.train.updates and "train.updates" not in fields_of(flags):
        updates = bounded_updates(reference, per_epoch)
    config = replace(config, train=replace(train, updates=updates))
    fitted = fit_schedule(config, reference, fields_of(flags))
    if fitted != config:
        say(f"schedule: {updates:,} updates instead of {reference.train.updates:,}: {training.schedule(fitted)}")
    return replace(data, config=fitted)


def planned(training: Training[C], data: Opened[C], model: nn.Module, cost: Cost) -> Plan:
    """What a run of a complete configuration will take; the model is spent then."""
    train, parts = data.config.train, [part.records for part in (data.train, data.val) if part]
    free, order = devices.free_memory(next(model.parameters()).device), data.train.order(train.batch_size)
    largest = training.largest(model.to("meta"), data)  # operations are counted without being made
    return Plan(
        config=data.config,
        data=data.description,
        samples=data.train.num_trained,
        held_out=sum(map(len, parts[1:])),
        many=data.many,
        unit=data.unit,
        passes=train.updates / order.per_epoch,
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        cost=cost,
        free_memory=free,
        checkpoint_bytes=model_bytes(model),
        cache_bytes=sum(path.stat().st_size for path in {copy for part in parts for copy in part.source.copies()}),
        sample_bytes=devices.activation_bytes(largest.loss),
        update_flops=update_flops(model, largest.loss) / largest.size * train.batch_size,
    )


def say_plan(data: Opened[C], say: Log) -> None:
    """Print how long the run is, where and how it computes, and its rate."""
    optim, train = data.config.optim, data.config.train
    processes = f" by each of {train.processes} processes" if train.processes != 1 else ""
    compiled = ", compiled" if train.compile else ", not compiled" if train.device.startswith("cuda") else ""
    decay = f", layer decay {optim.layer_decay:g}" if isinstance(optim, FinetuneOptimConfig) else ""
    passes = train.updates / data.train.order(train.batch_size).per_epoch
    say(
        f"plan: {format_length(data.train.num_trained, data.many, passes, train, data.unit)} ({train.micro_batch} "
        f"at once{processes}) on {train.device} in {train.precision}{compiled}; peak learning rate "
        f"{peak_lr(optim, train.batch_size):g} after {optim.warmup_updates:,} updates{decay}"
    )


def kept_on(
    saved: C,
    asked: C,
    reference: C,
    flags: Sequence[str],
    unset: Collection[str],
    located: Callable[[C], C] = lambda one: one,
) -> C:
    """A run's `saved` configuration with what may change, as `asked` and flags say; `UserError` for other changes.

    `unset` are fields that `asked` says are none, not only leaves out.
    The updates are those of the start unless a flag says others, or `asked` says so: no passes or hours, and another
    number than the `reference` recipe's.
    """
    asked, given = located(applied(asked, flags)), fields_of(flags)
    left = asked.train.epochs or asked.train.hours or asked.train.updates == reference.train.updates
    if left and "train.updates" not in given:
        asked = replace(asked, train=replace(asked.train, updates=saved.train.updates))
    return keep_started(saved, asked, fit_schedule(asked, reference, given), given.union(unset) - CHOSEN)


def keep_started(saved: C, asked: C, fitted: C, given: Collection[str] = (), prefix: str = "") -> C:
    """`saved` with what `asked` changes of `FREE_ON_RESUME` in its sections; `UserError` for any other change.

    `fitted` is `asked` with the schedule that it had got at the start. None and "auto" leave a field as it is, unless
    it is among the `given` ones.
    """
    changed = {}
    for field in fields(saved):
        name = prefix + field.name
        theirs, mine, adapted = (getattr(config, field.name) for config in (saved, asked, fitted))
        if is_dataclass(theirs):
            changed[field.name] = keep_started(theirs, mine, adapted, given, f"{name}.")
        elif (
            prefix
            and theirs not in (mine, adapted)
            and (mine not in (None, "auto") or name.removeprefix("task.") in given)
        ):
            if name not in FREE_ON_RESUME:
                raise UserError(f"{flag_of(name)} {mine} can't change on --resume: the run was started with {theirs}")
            changed[field.name] = mine
    return replace(saved, **changed)
