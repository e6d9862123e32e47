"""What every command that trains does around the loop: the run folder, helpers and the end."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from torch import nn

from data2vec2.commands.doctor import environment
from data2vec2.commands.fitting import placed
from data2vec2.commands.options import Finetune, OfColumns, Predict, Pretrain, names_of, several
from data2vec2.commands.training import Opened, Training, asked_for, completed, planned, prepared, say_plan, with_length
from data2vec2.config.run import FinetuneConfig, RunConfig
from data2vec2.config.tree import to_dict
from data2vec2.data import hub, objects, remote
from data2vec2.data.account import Account, PartAccount
from data2vec2.errors import Stopped, UsageError, UserError
from data2vec2.files import WriteError, masked, read_json
from data2vec2.modalities.data import Columns, Log
from data2vec2.modalities.tools import Tools
from data2vec2.reporting.build import write_report
from data2vec2.tasks import RunContext
from data2vec2.training import device as devices
from data2vec2.training import trackers
from data2vec2.training.checkpoint import Checkpoint, list_checkpoints, load_newest, step_of
from data2vec2.training.loop import load_weights, train
from data2vec2.training.parallel import World, enlist, helping, is_helper, local_device, recruit
from data2vec2.training.progress import TrainingBar, console, stop_requested
from data2vec2.training.run import ACCOUNT, CONFIG, SCORES, SPLIT, STATUS, RunFolder, write_text
from data2vec2.training.task import Outcome
from data2vec2.training.watch import end_with

C = TypeVar("C", RunConfig, FinetuneConfig)
NAMED = 20
"""At most so many samples that are left out of scores are named."""


def run_training(training: Training[C], asked: C | str, data: Sequence[str], given: Pretrain | Finetune) -> Outcome:
    """Train into the run folder `out`, or with `dry_run` only say what would be done.

    `Stopped` by a signal before there is a checkpoint to go on from; later that is an outcome.
    """
    if is_helper():
        return help_run(training.__class__)
    run = RunFolder(Path(given.out))
    try:
        return _run_training(training, run, asked, data, given)
    except Stopped as stop:
        saved = list_checkpoints(run.checkpoints) if given.resume or run.cleared else []
        if not saved:
            raise
        step = step_of(saved[0])
        outcome = Outcome("interrupted", step, f"{stop}; --resume goes on from update {step}", run=run.path)
        console().print(f"interrupted: {outcome.message}")
        return outcome


def _run_training(
    training: Training[C], run: RunFolder, asked: C | str, data: Sequence[str], given: Pretrain | Finetune
) -> Outcome:
    trackers.check(given.track)
    resume, overwrite = given.resume, given.overwrite
    if resume and overwrite:
        raise UsageError("--resume continues a run and --overwrite deletes it; give one of them")
    say = console().print
    val = str(given.val) if given.val else None
    run.check(resume=resume, overwrite=overwrite)
    if resume:
        config = training.resumed(run.path, asked, given.flags)
    else:
        _check_apart(given)
        config = asked_for(training, asked, given.flags, val)
        placed(config.train)  # refuses a device that is not there before anything is read
        config = training.started(config, data, say, given.flags)
    if any(map(objects.is_name, [*data, val])):
        if config.train.processes not in (None, 1):
            which = ", ".join(filter(objects.is_name, [*data, val or ""]))
            raise UserError(f"--train.processes is {config.train.processes}, but only this process has {which}; give 1")
        config = replace(config, train=replace(config.train, processes=1))
    with devices.computing(placed(config.train).threads):
        measure = given.dry_run or (config.train.hours is not None and not resume)
        opened, model, cost = completed(training, config, data, val, say, measure)
        if not resume:
            opened = with_length(training, opened, cost, given.flags, say)
        if not (resume and list_checkpoints(run.checkpoints)):
            training.load(model, opened, say)
        training.explain(model, opened, say)
        say_plan(opened, say)
        if given.dry_run:
            assert cost
            training.show_first(opened, say)
            return Outcome("planned", 0, plan=planned(training, opened, model, cost))
        with run.locked():
            run.check(resume=resume, overwrite=overwrite)
            newest = load_newest(run.checkpoints) if resume else None
            if newest:  # refused, if it must be, before anything is written
                _check_newest(run, *newest, model, opened.train.records.fingerprint)
            if resume:
                _recall(run, opened.account)
            else:
                run.clear()
            _write_start(training, run, opened, data)
            with trackers.tracking(given.track, run.path, to_dict(opened.config), say) as track:
                outcome = _train(training, run, model, opened, data, val, newest, (track, given.callback))
        return replace(outcome, run=run.path, scores=_scores(run))


def _check_apart(given: Pretrain | Finetune) -> None:
    """`UserError` for a run folder among what is read, or around it, where it would be changed or deleted."""
    out = Path(given.out).resolve()
    read = [*(("DATA", name) for name in names_of(given.data)), ("--val", given.val)]
    started_from = [("MODEL", getattr(given, "model", None)), ("--init-from", getattr(given, "init_from", None))]
    for name, path in [*read, *started_from]:
        if path is None or not _is_path(path):
            continue
        source = Path(path).resolve()
        if source.is_relative_to(out):
            raise UserError(
                f"{name} {path} is inside --out {given.out}, which will be overwritten; give another folder"
            )
        if name in ("DATA", "--val") and out.is_relative_to(source):
            raise UserError(
                f"--out {given.out} is inside {name} {path}, where the run would be read as data; give another folder"
            )


def _recall(run: RunFolder, account: Account) -> None:
    """What a run had found to be bad before it was interrupted, which may not be looked at again."""
    with suppress(UserError, KeyError, TypeError, AttributeError):
        for name, part in read_json(run.path / ACCOUNT)["parts"].items():
            known = {str(sample): str(why) for sample, why in part["bad"].items()}
            account.part(name).bad = known | account.part(name).bad


def _is_path(data: Path | str) -> bool:
    return not (remote.is_url(data) or str(data).startswith((hub.PREFIX, objects.PREFIX)))


def where_is(data: Path | str) -> str:
    """A data set by its URL, its name on the hub or its whole path, to tell it from others."""
    return str(Path(data).resolve()) if _is_path(data) else masked(str(data))


def _write_start(training: Training[C], run: RunFolder, data: Opened[C], names: Sequence[str]) -> None:
    write_text(run.path / CONFIG, yaml.safe_dump(to_dict(data.config), sort_keys=False))
    where = [where_is(name) for name in names]
    about = {
        "data": masked(data.description),
        **({"data_path": where[0]} if len(where) == 1 else {"data_paths": where}),
    }
    about |= {**training.arguments(), **environment()}
    run.write_json("environment.json", about)
    run.write_json(SPLIT, {"validation": list(data.val.records.names) if data.val else []})
    run.write_json(ACCOUNT, data.account.to_dict())
    training.write_start(run, data)


def _train(
    training: Training[C],
    run: RunFolder,
    model: nn.Module,
    data: Opened[C],
    names: Sequence[str],
    val: str | None,
    newest: tuple[Checkpoint | None, list[str]] | None,
    hearing: Sequence[trackers.Hear | None],
) -> Outcome:
    """Train in a locked folder that describes the run; leaves status and report behind however it ends.

    `newest` is what a resumed run goes on from, and which checkpoints are damaged.
    """
    config, device = data.config, local_device(torch.device(data.config.train.device))
    with TrainingBar(config.train.updates) as bar:
        log = run.logger(bar.console.print)
        checkpoint = _checkpoint(*newest, config.train.updates, log) if newest else None
        if not checkpoint:
            run.cut_metrics(-1)
        job = {
            "run": str(run.path.resolve()),
            "config": to_dict(config),
            "data": list(names),
            "val": val,
            "fingerprint": data.train.records.fingerprint,
            "resumes": checkpoint is not None,
            "arguments": training.arguments(),
        }
        kind = training.__class__
        own = f"from {kind.__module__} import {kind.__name__} as K"
        helper = f"from {__name__} import assist; {own}; assist(K, {os.getpid()})"
        try:
            failed, limit_s = partial(_stalled, run, data), 60 * config.train.stall_minutes
            several = config.train.processes or 1, device, job, helper, log, failed, limit_s
            with stop_requested() as asked_to_stop, recruit(*several) as world:
                how: dict[str, Any] = {"bar": bar, "resume": checkpoint, "asked_to_stop": asked_to_stop}
                how["hear"] = lambda line: [hear(line) for hear in hearing if hear]
                outcome = _loop(training, run, model, data, device, world, log, **how)
            log(f"{outcome.state} at update {outcome.step}" + (f": {outcome.message}" if outcome.message else ""))
            if outcome.state == "finished":
                if config.train.shard:  # this process has but a part of it
                    model = training.built(data, device)
                    saved, _ = load_newest(run.checkpoints)
                    assert saved, "the last update's checkpoint has been written"
                    load_weights(model, saved, data.train.records.fingerprint)
                training.finish(run, model, data, log)
        except (Exception, Stopped) as error:
            lines = list[dict[str, Any]]()
            with suppress(OSError):
                lines = run.read_metrics()
            said = str(error) if isinstance(error, UserError | Stopped) else f"{type(error).__name__}: {error}"
            outcome = Outcome("failed", lines[-1]["step"] if lines else 0, said)
            if isinstance(error, Stopped):
                outcome = replace(outcome, state="interrupted")
            _write_end(run, data, outcome, log, report=not isinstance(error, Stopped))
            raise
        for name, part in sorted(data.account.parts.items(), key=lambda one: one[0] == "train"):
            if part.bad:
                log(f"{name} part: {len(part.bad)} samples could not be used: {part.summary()} ({ACCOUNT})")
        _write_end(run, data, outcome, log)
    return outcome


def assist(kind: Callable[..., Training[Any]], parent: int) -> None:
    """Such a process from beginning to end, where this program has started it as `parent`; errors are said."""
    end_with(parent)
    try:
        help_run(kind)
    except UserError as error:
        raise SystemExit(f"data2vec2: process {os.environ['RANK']}: {error}") from None


def help_run(kind: Callable[..., Training[Any]]) -> Outcome:
    """Compute a share of the gradients of another process's run (training/parallel.py)."""
    store, job = enlist()
    training, run = kind(**job["arguments"]), RunFolder(Path(job["run"]))
    config = training.read(job["config"])
    device = local_device(torch.device(config.train.device))
    with stop_requested(), devices.computing(config.train.threads):  # what a signal means process 0 decides
        data = training.opened(config, job["data"], job["val"], None)
        model = training.built(data, device)
        if data.train.records.fingerprint != job["fingerprint"]:
            raise UserError("process 0 sees different data than this one")
        with helping(store, device, job["watch"], 60 * config.train.stall_minutes) as world:
            checkpoint = load_newest(run.checkpoints)[0] if job["resumes"] else None
            bar = TrainingBar(config.train.updates)
            how = {"bar": bar, "resume": checkpoint, "asked_to_stop": lambda: False}
            outcome = _loop(training, run, model, data, device, world, lambda _: None, **how)
    if outcome.state == "interrupted":
        print(f"process {world.rank}: interrupted at update {outcome.step}: {outcome.message}", file=sys.stderr)
        raise SystemExit(os.EX_TEMPFAIL)
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
    world = replace(world, sharded=data.config.train.shard and world.size > 1)
    account, unit, workers = data.account, data.unit, data.config.data.workers or 0
    of_data: dict[str, Any] = {"account": account, "unit": unit, "many": data.many}
    context = RunContext(run=run, device=device, workers=workers, world=world, log=log, **of_data)
    task, seen = prepared(training, model, data, context), data.train.records.fingerprint
    return train(task, data.config, run, log, device=device, fingerprint=seen, world=world, **how)


def _check_newest(
    run: RunFolder, checkpoint: Checkpoint | None, damaged: list[str], model: nn.Module, fingerprint: str
) -> None:
    """Load what a run goes on from; `UserError` if it can't, or if all is damaged, so that it would begin anew."""
    if checkpoint:
        load_weights(model, checkpoint, fingerprint)
    elif damaged:
        raise UserError(
            f"no checkpoint of {run.path} can be used: {'; '.join(damaged)}. Put a copy back, or begin anew with "
            "--overwrite"
        )


def _checkpoint(checkpoint: Checkpoint | None, damaged: list[str], updates: int, log: Log) -> Checkpoint | None:
    """The newest checkpoint that can be used, saying what was found."""
    for message in damaged:
        log(f"skipped a damaged checkpoint: {message}")
    if checkpoint is None:
        log("there is no checkpoint yet: starting over")
    elif checkpoint.step == updates:
        log(f"the run has all its {updates} updates already; only export and report are rewritten")
    else:
        log(f"resuming from update {checkpoint.step}")
    return checkpoint


def _stalled(run: RunFolder, data: Opened[C], reason: str) -> None:
    """What stays of a run that is about to end, because something has stalled."""
    message = f"{reason}; --resume continues from the last checkpoint"
    print(f"data2vec2: {message}", file=sys.stderr, flush=True)
    lines = run.read_metrics()
    outcome = Outcome("failed", lines[-1]["step"] if lines else 0, message)
    _write_end(run, data, outcome, print, report=False)


def _write_end(run: RunFolder, data: Opened[C], outcome: Outcome, log: Log, report: bool = True) -> None:
    """Account, status and report; what can't be written is said, and fails a run that did not otherwise."""
    said = {"state": outcome.state, "step": outcome.step, "message": outcome.message}
    try:
        run.finish_lines()
        run.write_json(STATUS, {**said, "updates": data.config.train.updates})
        run.write_json(ACCOUNT, data.account.to_dict())
        if report:
            write_report(run.path)
    except WriteError as error:
        if outcome.state == "finished":
            raise
        log(str(error))


def _scores(run: RunFolder) -> dict[str, Any]:
    """Those of the test part, if there are any, else of the last evaluation on the validation part."""
    with suppress(UserError):
        return read_json(run.path / SCORES)
    lines = [line for line in run.read_metrics() if "loss" not in line]
    return trackers.figures(lines[-1]) if lines else {}


def named_columns(tools: Tools, given: OfColumns | Predict, learned: tuple[str, ...] = ()) -> Columns:
    """Columns and encoding of tables that a user named, or a model learned from; `UsageError` for data without."""
    label = given.label_column if isinstance(given, OfColumns) else None
    columns = Columns(text=several(given.text_columns), label=label, encoding=given.encoding, learned=learned)
    if columns and not tools.words.columns:
        flags = "--text-columns and --label-column are" if columns.text or label else "--encoding is"
        raise UsageError(f"{flags} for text models, not for {tools.spec.name}")
    return columns


def say_account(account: Account, say: Log) -> None:
    """Print what the user should know of the data before anything begins."""
    for line in account.lines():
        say(f"data: {line}")


def say_skipped(skipped: PartAccount, many: str, say: Log) -> dict[str, int]:
    """Print which samples are left out of scores; returns how many for each reason."""
    if skipped.bad:
        say(f"{len(skipped.bad):,} {many} are left out: {skipped.summary()}{skipped.listed(NAMED)}")
    return dict(Counter(skipped.bad.values()).most_common())
