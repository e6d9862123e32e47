"""Where the lines of metrics.jsonl go besides: to trackers of experiments, each an extra, in a project "data2vec2".

Addresses, keys and other projects are the trackers' own settings: WANDB_MODE, WANDB_PROJECT, MLFLOW_TRACKING_URI, ...
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, redirect_stdout, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data2vec2.config.tree import require
from data2vec2.errors import UserError
from data2vec2.files import read_json
from data2vec2.training.run import STATUS, write_text

Log = Callable[[str], None]
Hear = Callable[[Mapping[str, Any]], object]
"""Hears a line of metrics.jsonl: figures by name, `step` among them."""
PROJECT = "data2vec2"


@contextmanager
def _tensorboard(run: Path, config: Mapping[str, Any]) -> Iterator[Hear]:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(run / "tb") as writer:
        yield lambda line: [writer.add_scalar(name, value, line["step"]) for name, value in figures(line).items()]


@contextmanager
def _wandb(run: Path, config: Mapping[str, Any]) -> Iterator[Hear]:
    import wandb

    how: dict[str, Any] = {"project": os.environ.get("WANDB_PROJECT", PROJECT), "name": run.name, "dir": run}
    tracked = wandb.init(**how, config=dict(config), id=_known(run, "wandb"), resume="allow")
    write_text(run / "wandb.id", tracked.id)
    try:
        yield lambda line: tracked.log(figures(line), step=line["step"])
    finally:
        tracked.finish(exit_code=int(_state(run) != "finished"))


@contextmanager
def _mlflow(run: Path, config: Mapping[str, Any]) -> Iterator[Hear]:
    import mlflow

    if not {"MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"} & set(os.environ):
        mlflow.set_experiment(PROJECT)
    known = _known(run, "mlflow")
    write_text(run / "mlflow.id", mlflow.start_run(run_id=known, run_name=run.name).info.run_id)
    try:
        if not known:  # they can't change
            mlflow.log_params(dict(_flat(config)))
        yield lambda line: mlflow.log_metrics(figures(line), step=line["step"])
    finally:
        mlflow.end_run({"finished": "FINISHED", "interrupted": "KILLED"}.get(_state(run), "FAILED"))


@contextmanager
def _trackio(run: Path, config: Mapping[str, Any]) -> Iterator[Hear]:
    import trackio

    with redirect_stdout(sys.stderr):  # where results go, it would write of itself
        tracked = trackio.init(project=PROJECT, name=run.name, config=dict(config), embed=False)
    try:
        yield lambda line: tracked.log(figures(line), step=line["step"])
    finally:
        with redirect_stdout(sys.stderr):
            trackio.finish()  # type: ignore[no-untyped-call,unused-ignore]


TRACKERS: Mapping[str, tuple[Callable[[Path, Mapping[str, Any]], AbstractContextManager[Hear]], str]] = {
    "tensorboard": (_tensorboard, "track"),
    "wandb": (_wandb, "wandb"),
    "mlflow": (_mlflow, "mlflow"),
    "trackio": (_trackio, "trackio"),
}
"""What opens each tracker, and the extra that it needs."""


def _known(run: Path, tracker: str) -> str | None:
    """What a tracker calls a run that is resumed."""
    kept = run / f"{tracker}.id"
    return kept.read_text("utf-8", errors="replace") if kept.is_file() else None


def _state(run: Path) -> str:
    """How a run ended; "failed" where that was not written down."""
    with suppress(UserError):
        return str(read_json(run / STATUS).get("state", "failed"))
    return "failed"


def check(names: Sequence[str]) -> None:
    """`UsageError` for a tracker that there is not, `UserError` for one that is not installed."""
    for name in names:
        require(name in TRACKERS, "--track", name, f"some of {', '.join(TRACKERS)}, with commas")
        if find_spec(name) is None:
            raise UserError(f"--track {name} needs pip install 'data2vec2[{TRACKERS[name][1]}]'")


@contextmanager
def tracking(names: Sequence[str], run: Path, config: Mapping[str, Any], log: Log) -> Iterator[Hear]:
    """What hears the lines of a run for the named trackers; for none TensorBoard, where it is installed.

    `UserError` for one that can't begin. One that fails later is said and left out: it must not
    end the training.
    """
    with ExitStack() as stack:
        stack.callback(setattr, threading, "excepthook", hook := threading.excepthook)
        # What a thread of theirs could not write, the next line or the end says.
        threading.excepthook = lambda lost: None if isinstance(lost.exc_value, OSError) else hook(lost)
        hearing: dict[str, Hear] = {}
        for name in names:
            try:
                hearing[name] = stack.enter_context(_forgiving(name, TRACKERS[name][0](run, config), log))
            except Exception as error:  # any of theirs
                raise UserError(f"--track {name} can't start: {error}") from error
        if not names:
            try:
                hearing["tensorboard"] = stack.enter_context(_forgiving("tensorboard", _tensorboard(run, config), log))
            except ImportError:
                pass
            except Exception as error:  # any of theirs
                log(f"tensorboard gets no metrics: {type(error).__name__}: {error}")

        def hear(line: Mapping[str, Any]) -> None:
            for name, one in list(hearing.items()):
                try:
                    one(line)
                except Exception as error:  # any of theirs
                    log(f"{name} gets no more metrics: {type(error).__name__}: {error}")
                    del hearing[name]

        yield hear


@contextmanager
def _forgiving(name: str, opened: AbstractContextManager[Hear], log: Log) -> Iterator[Hear]:
    """The same, but a failure to end is only said."""
    hear = opened.__enter__()
    try:
        yield hear
    finally:
        try:
            opened.__exit__(None, None, None)
        except Exception as error:
            log(f"{name} did not finish properly: {type(error).__name__}: {error}")


def figures(line: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a line, without its place."""
    return {name: value for name, value in line.items() if name not in ("step", "samples", "elapsed_s")}


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values of a configuration by the names of their flags."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
