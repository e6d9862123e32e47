"""finetune TASK MODEL DATA --out RUN."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import nn

from data2vec2.commands.environment import environment
from data2vec2.commands.jobs import JOBS, Data, Job
from data2vec2.commands.jobs.base import AnyConfig
from data2vec2.commands.kinds import Log
from data2vec2.commands.plan import keep_started
from data2vec2.commands.running import check_shares, fitted, help_task, placed, run_task
from data2vec2.config import (
    FINETUNE_KINDS,
    AudioFinetuneConfig,
    ModelConfig,
    TrainConfig,
    read_finetune_config,
    to_dict,
)
from data2vec2.data.loader import default_workers
from data2vec2.data.skipped import Skipped
from data2vec2.errors import UserError
from data2vec2.interop.export import ExportInfo, export_of, load_encoder
from data2vec2.modalities import build_modality
from data2vec2.models import Encoder
from data2vec2.recipes.finetune import get_finetune_recipe
from data2vec2.training.checkpoint import load_newest
from data2vec2.training.device import cpu_threads
from data2vec2.training.loop import Outcome, Task
from data2vec2.training.optim import peak_lr
from data2vec2.training.parallel import World, is_helper, local_device
from data2vec2.training.progress import console
from data2vec2.training.run import CONFIG, SPLIT, RunFolder, write_text

TaskName = Literal["classify", "regress", "ctc"]
HELPER = "from data2vec2.commands.finetune import help_finetune; help_finetune()"


def finetune(
    model: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    task: TaskName = "classify",
    config: AnyConfig | str | None = None,
    val: str | Path | None = None,
    from_scratch: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Outcome:
    """Train a pre-trained encoder with a head on the labels of DATA, into the run folder `out`.

    `task` is classify (classes or tags), regress (numbers for texts) or ctc (transcripts of speech). `model` is a run
    folder or an exported model; `config` a recipe's name or a complete configuration (none: the tiny recipe).
    `from_scratch` takes the model's shape but not its weights, and freezes nothing (the baseline).

    The model that is exported is the best on the validation part: `val`, or DATA's own, or a part of DATA that is held
    out. It is scored on DATA's test part if there is one (scores.json; mistakes.npz or transcripts.jsonl). `resume`,
    `overwrite` and `dry_run` as in `pretrain`, and so are what is returned and what is raised.
    """
    if is_helper():
        return help_finetune()
    if resume and overwrite:
        raise ValueError("--resume goes on with a run and --overwrite deletes it; give one of them")
    run, data, val, say = RunFolder(Path(out)), Path(data), Path(val) if val else None, console().print
    run.check(resume=resume, overwrite=overwrite)
    source = export_of(Path(model))
    encoder, info = load_encoder(source)
    job, weights = _job(task, info), weights_of(source)
    config = next(iter(job.recipes)) if config is None else config
    config = _started(run, config, from_scratch, weights) if resume else _planned(config, from_scratch, say)
    config, shape = _completed(job, config, info, weights)
    opened = job.open(config, shape, data, val)
    say(f"data: {data}: {opened.description}")
    skipped = job.look(opened, config, say)
    check_shares(opened.train, config.train)
    if config.data.workers is None:
        workers = default_workers(job.in_memory(opened, config))
        config = replace(config, data=replace(config.data, workers=workers))  # type: ignore[arg-type]
    device = local_device(torch.device(config.train.device))
    with cpu_threads(config.train.threads):
        head = _build(job, config, shape, encoder, opened, device)
        config = replace(config, train=_fitted(job, config, shape, head, device))
        _explain(job, config, head, opened, say)
        if dry_run:
            job.show_first(config, shape, opened, say)
            say(yaml.safe_dump(to_dict(config), sort_keys=False).rstrip())
            return Outcome("planned", 0)
        with run.locked():
            run.check(resume=resume, overwrite=overwrite)
            if not resume:
                run.clear()
            _write_start(run, config, opened, Path(model), skipped)
            told: dict[str, Any] = {"model": str(source), "data": str(data), "val": str(val) if val else None}
            told |= {"task": task, "run": str(run.path.resolve())}
            told |= {"device": config.train.device, "threads": config.train.threads}
            return run_task(
                run,
                config,
                lambda world: job.task(head, config, opened, device, skipped, run, world, run.logger(say)),
                job={**told, "config": to_dict(config)},
                helper=HELPER,
                fingerprint=opened.train.records.fingerprint,
                resume=resume,
                skipped=skipped,
                finish=lambda log: job.finish(run, config, shape, head, opened, log),
            )


def _fitted(job: Job, config: AnyConfig, shape: ModelConfig, head: nn.Module, device: torch.device) -> TrainConfig:
    """Precision and micro-batch, filled in by a measurement."""
    loss_of_one, size = job.one(config, shape, head)
    train = fitted(config.train, loss_of_one, device, size)
    head.zero_grad()
    return train


def help_finetune() -> Outcome:
    """Compute a share of the gradients of another process's run."""

    def build(told: dict[str, Any], device: torch.device) -> tuple[AnyConfig, str, Callable[[World], Task]]:
        config, run = read_finetune_config(told["config"]), RunFolder(Path(told["run"]))
        encoder, info = load_encoder(Path(told["model"]))
        val = Path(told["val"]) if told["val"] else None
        job, config, shape, data = _opened(told["task"], config, info, Path(told["data"]), val)
        model = _build(job, config, shape, encoder, data, device)
        skipped, fingerprint = Skipped(len(data.train.records), 1.0), data.train.records.fingerprint
        return (
            config,
            fingerprint,
            lambda world: job.task(model, config, data, device, skipped, run, world, lambda _: None),
        )

    return help_task(build)


def _job(task: str, info: ExportInfo) -> Job:
    """The task on the model's modality."""
    kind = info.model.modality.kind
    if task not in {name for name, _ in JOBS}:
        raise ValueError(f"the task is {task!r}; it must be {' or '.join(sorted({name for name, _ in JOBS}))}")
    if (task, kind) not in JOBS:
        needed = " or ".join(modality for name, modality in JOBS if name == task)
        raise UserError(f"finetune {task} needs a model of {needed}, and MODEL is one of {kind}")
    return JOBS[task, kind]


def _opened(
    task: str, config: AnyConfig, info: ExportInfo, data: Path, val: Path | None
) -> tuple[Job, AnyConfig, ModelConfig, Data]:
    """The job, complete configuration, encoder's shape and data of a run that has begun."""
    job = _job(task, info)
    config, shape = _completed(job, config, info, config.weights or "")
    return job, config, shape, job.open(config, shape, data, val)


def check_data(run: Path, task: TaskName, info: ExportInfo, data: Path, val: Path | None) -> None:
    """Raise `UserError` if DATA is not what a run has learned from, as resuming it would; `info` is of its MODEL."""
    checkpoint, _ = load_newest(RunFolder(run).checkpoints)
    _, _, _, opened = _opened(task, read_config(run / CONFIG), info, data, val)
    if checkpoint and checkpoint.state["fingerprint"] != opened.train.records.fingerprint:
        raise UserError(
            f"the data has changed since {run} was trained; resume with the same data, or start a new sweep"
        )


def weights_of(source: Path) -> str:
    """SHA-256 (hex) of an exported model's weights."""
    with (source / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _planned(config: AnyConfig | str, from_scratch: bool, say: Log) -> AnyConfig:
    """The configuration with a warm-up, and updates in which the encoder is frozen, that fit the number of updates."""
    config = get_finetune_recipe(config) if isinstance(config, str) else config
    planned = _shortened(replace(config, from_scratch=from_scratch or config.from_scratch, weights=None))
    if (planned.optim, planned.model) != (config.optim, config.model):
        frozen = ""
        if isinstance(planned, AudioFinetuneConfig) and planned.model.freeze_updates and not planned.from_scratch:
            frozen = f", only the head learns in the first {planned.model.freeze_updates:,}"
        say(f"schedule: {config.train.updates:,} updates: warm-up {planned.optim.warmup_updates:,}{frozen}")
    return planned


def _shortened(config: AnyConfig) -> AnyConfig:
    """Warm-up and freezing as much shorter as the run is shorter than the recipe's, unless they were set."""
    recipe = get_finetune_recipe(config.recipe)
    ratio = config.train.updates / recipe.train.updates
    if ratio >= 1:
        return config
    if config.optim.warmup_updates == recipe.optim.warmup_updates:
        config = replace(config, optim=replace(config.optim, warmup_updates=round(ratio * recipe.optim.warmup_updates)))
    if isinstance(config, AudioFinetuneConfig) and isinstance(recipe, AudioFinetuneConfig):
        frozen = recipe.model.freeze_updates
        if config.model.freeze_updates == frozen:
            config = replace(config, model=replace(config.model, freeze_updates=round(ratio * frozen)))
    return config


def read_config(path: Path) -> AnyConfig:
    """The configuration in the config.yaml of a run; `UserError` if it can't be read."""
    try:
        return read_finetune_config(yaml.safe_load(path.read_text("utf-8")))
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path} can't be read as the configuration of a fine-tuning run: {error}") from error


def _started(run: RunFolder, asked: AnyConfig | str, from_scratch: bool, weights: str) -> AnyConfig:
    """The run's own configuration, with what may change as asked; `UserError` for any other change."""
    saved = read_config(run.path / CONFIG)
    recipe = asked if isinstance(asked, str) else asked.recipe
    if recipe != saved.recipe:
        raise UserError(f"the folder holds a run of {saved.recipe}, not of {recipe}")
    if weights != saved.weights:
        raise UserError("MODEL is not the one that the run was started from; resume with the same")
    if from_scratch and not saved.from_scratch:
        raise UserError("--from-scratch can't change on --resume: the run was started from MODEL's weights")
    return saved if isinstance(asked, str) else keep_started(saved, asked, _shortened(asked))


def _completed(job: Job, config: AnyConfig, info: ExportInfo, weights: str) -> tuple[AnyConfig, ModelConfig]:
    """The configuration with what it leaves to model and machine, and the encoder's shape."""
    if not isinstance(config, FINETUNE_KINDS[info.model.modality.kind]):
        raise ValueError(
            f"{config.recipe} is a recipe for {config.data.kind}, and MODEL is one of {info.model.modality.kind}; "
            f"there are {', '.join(job.recipes)}"
        )
    if config.recipe not in job.recipes:
        raise ValueError(f"{config.recipe} is not for this task; there are {', '.join(job.recipes)}")
    config, shape = job.completed(config, info)
    return replace(config, train=placed(config.train), weights=weights), shape


def _build(
    job: Job, config: AnyConfig, shape: ModelConfig, source: Encoder, data: Data, device: torch.device
) -> nn.Module:
    """The model on its device, with the source's weights or random ones."""
    torch.manual_seed(config.train.seed)
    encoder = Encoder(shape.encoder, build_modality(shape))
    if not config.from_scratch:
        encoder.load_state_dict(source.state_dict())
    return job.model(config, encoder, data).to(device)


def _explain(job: Job, config: AnyConfig, model: nn.Module, data: Data, say: Log) -> None:
    """Print the plan."""
    start, train = "from random initialisation" if config.from_scratch else "pre-trained", config.train
    say(f"model: {sum(p.numel() for p in model.parameters()):,} parameters, {start}; {data.outputs} {job.outputs}")
    processes = f" by each of {train.processes} processes" if train.processes != 1 else ""
    say(
        f"plan: {train.updates:,} updates of {train.batch_size} {job.unit} ({train.micro_batch} at once{processes}) on "
        f"{train.device} in {train.precision}; peak learning rate {peak_lr(config.optim, train.batch_size):g} after "
        f"{config.optim.warmup_updates:,} updates, layer decay {config.optim.layer_decay:g}"
    )


def _write_start(run: RunFolder, config: AnyConfig, data: Data, model: Path, skipped: Skipped) -> None:
    """What the folder says about the run before it begins."""
    write_text(run.path / CONFIG, yaml.safe_dump(to_dict(config), sort_keys=False))
    run.write_json("environment.json", {"data": data.description, "model": str(model), **environment()})
    run.write_json(SPLIT, {"validation": list(data.val.records.names) if data.val else []})
    if skipped.reasons or skipped.left_out:
        skipped.write(run.path / "skipped.jsonl")
