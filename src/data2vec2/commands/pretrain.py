"""pretrain RECIPE DATA --out RUN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from data2vec2.commands.data import TrainingData, open_training_data, reopen_training_data
from data2vec2.commands.environment import environment
from data2vec2.commands.kinds import KINDS, Log
from data2vec2.commands.plan import fitted_config, resumed_config, saved_config, with_own_tokenizer
from data2vec2.commands.running import check_shares, fitted, help_task, placed, run_task
from data2vec2.config import RunConfig, TextDataConfig, from_dict, to_dict
from data2vec2.data.loader import MaskedBatches
from data2vec2.data.tokenizer import copy_tokenizer
from data2vec2.interop.card import model_card
from data2vec2.interop.export import export_encoder
from data2vec2.interop.weights import load_initial
from data2vec2.masking import draw_keep_ids, num_kept
from data2vec2.models import Data2Vec2
from data2vec2.recipes import get_recipe
from data2vec2.tasks.pretrain import PretrainTask
from data2vec2.training.checkpoint import list_checkpoints
from data2vec2.training.device import cpu_threads
from data2vec2.training.loop import Outcome
from data2vec2.training.optim import peak_lr
from data2vec2.training.parallel import World, is_helper, local_device
from data2vec2.training.progress import console
from data2vec2.training.run import CONFIG, SPLIT, TOKENIZER, RunFolder, write_text


def pretrain(
    config: RunConfig | str,
    data: str | Path,
    out: str | Path,
    *,
    val: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Outcome:
    """Pre-train on DATA into the run folder `out`; the folder then holds checkpoints, metrics, an export and a report.

    `config` is a recipe's name or a complete configuration. `val` names data for validation, else a part of DATA is
    held out. `resume` goes on with what `out` holds (with its own configuration, if `config` is a name), `overwrite`
    deletes it. `dry_run` prints what would happen.

    Returns how the run ended. Raises `UserError` (data or folder can't be used) or `ValueError` (configuration).
    """
    if is_helper():
        return help_pretrain()
    if resume and overwrite:
        raise ValueError("--resume goes on with a run and --overwrite deletes it; give one of them")
    run, data, say = RunFolder(Path(out)), Path(data), console().print
    run.check(resume=resume, overwrite=overwrite)
    if isinstance(config, RunConfig) and config.init_from:
        config = replace(config, init_from=str(Path(config.init_from).absolute()))
    if isinstance(config, RunConfig) and isinstance(config.data, TextDataConfig) and config.data.tokenizer:
        config = replace(config, data=replace(config.data, tokenizer=str(Path(config.data.tokenizer).absolute())))
    if resume:
        config = with_own_tokenizer(resumed_config(saved_config(run.path), config), run.path)
    else:
        config = fitted_config(get_recipe(config) if isinstance(config, str) else config, data, say)
    prepared = open_training_data(config, data, Path(val) if val else None, say)
    prepared = replace(prepared, config=replace(prepared.config, train=placed(prepared.config.train)))
    check_shares(prepared.train, prepared.config.train)
    device = local_device(torch.device(prepared.config.train.device))
    with cpu_threads(prepared.config.train.threads):
        torch.manual_seed(config.train.seed)
        config, model = _build(prepared.config, device)
        if config.init_from and not (resume and list_checkpoints(run.checkpoints)):
            say(f"weights: from {load_initial(model, Path(config.init_from))}")
        _explain(config, model, say)
        if dry_run:
            _show_first_batch(config, prepared, say)
            return Outcome("planned", 0)
        with run.locked():
            run.check(resume=resume, overwrite=overwrite)
            if not resume:
                run.clear()
            _write_start(run, config, prepared)
            return run_task(
                run,
                config,
                lambda world: _task(model, config, prepared, device, run, world),
                job=_job(run, config, data, Path(val) if val else None),
                helper=HELPER,
                fingerprint=prepared.train.records.fingerprint,
                resume=resume,
                skipped=prepared.skipped,
                finish=lambda log: _export(run, config, model, prepared),
            )


HELPER = "from data2vec2.commands.pretrain import help_pretrain; help_pretrain()"


SHOWN = 4
"""Samples whose masks are kept for the report."""


def _job(run: RunFolder, config: RunConfig, data: Path, val: Path | None) -> dict[str, Any]:
    """What a helper needs to know."""
    return {
        "run": str(run.path.resolve()),
        "config": to_dict(config),
        "device": config.train.device,
        "threads": config.train.threads,
        "data": str(data),
        "val": str(val) if val else None,
    }


def help_pretrain() -> Outcome:
    """Compute a share of the gradients of another process's run."""

    def build(job: dict[str, Any], device: torch.device) -> tuple[RunConfig, str, Callable[[World], PretrainTask]]:
        config, run = from_dict(RunConfig, job["config"]), RunFolder(Path(job["run"]))
        data = reopen_training_data(config, Path(job["data"]), Path(job["val"]) if job["val"] else None)
        model = Data2Vec2(config.model).to(device)
        return config, data.train.records.fingerprint, lambda world: _task(model, config, data, device, run, world)

    return help_task(build)


def _task(
    model: Data2Vec2, config: RunConfig, data: TrainingData, device: torch.device, run: RunFolder, world: World
) -> PretrainTask:
    normalise = KINDS[config.model.modality.kind].normalise(config.data, device)
    path = run.path / "skipped.jsonl"
    return PretrainTask(model, config, data.train, data.val, normalise, device, data.skipped, path, world)


def _export(run: RunFolder, config: RunConfig, model: Data2Vec2, data: TrainingData) -> None:
    """Write the student's encoder as `run`/exported."""
    card = model_card(config, data.description)
    export_encoder(model.student, config.model, config.data, run.path / "exported", card)


def _build(config: RunConfig, device: torch.device) -> tuple[RunConfig, Data2Vec2]:
    """The model on its device, and the configuration with precision and micro-batch filled in."""
    inputs, grid, size = KINDS[config.model.modality.kind].largest(config)
    zero = np.zeros(1, dtype=np.int64)
    keep_ids = torch.from_numpy(draw_keep_ids(config.model.masks, grid, 0, zero, zero)).to(device)
    inputs, model = inputs.to(device), Data2Vec2(config.model).to(device)

    def loss_of_one() -> torch.Tensor:
        loss: torch.Tensor = model(inputs, keep_ids).loss
        return loss

    config = replace(config, train=fitted(config.train, loss_of_one, device, size))
    model.zero_grad()
    return config, model


def _explain(config: RunConfig, model: Data2Vec2, say: Log) -> None:
    """Print the plan."""
    kind, masks, optim, train_config = KINDS[config.model.modality.kind], config.model.masks, config.optim, config.train
    tokens = int(np.prod(kind.largest(config)[1]))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    say(
        f"model: {trained:,} parameters to train; {tokens} tokens of {kind.largest_name}, of which each of "
        f"{masks.num_masks} masks keeps {num_kept(masks, tokens)}"
    )
    processes = f" by each of {train_config.processes} processes" if train_config.processes != 1 else ""
    say(
        f"plan: {train_config.updates:,} updates of {train_config.batch_size} {kind.unit} ({train_config.micro_batch} "
        f"at once{processes}) on {train_config.device} in {train_config.precision}; peak learning rate "
        f"{peak_lr(optim, train_config.batch_size):g} after {optim.warmup_updates:,} updates"
    )


def _show_first_batch(config: RunConfig, data: TrainingData, say: Log) -> None:
    """Print the shapes of the first batch."""
    batch = MaskedBatches(data.train, data.train.order(config.train.batch_size), config.model.masks)[0]
    what, dtype = KINDS[config.model.modality.kind].plural, str(batch.inputs.dtype).removeprefix("torch.")
    say(f"first batch: {what} {tuple(batch.inputs.shape)} {dtype}")
    say(f"first batch: kept tokens {tuple(batch.keep_ids_NK.shape)}")
    say(yaml.safe_dump(to_dict(config), sort_keys=False).rstrip())


def _write_start(run: RunFolder, config: RunConfig, data: TrainingData) -> None:
    """What the folder says about the run before it begins."""
    write_text(run.path / CONFIG, yaml.safe_dump(to_dict(config), sort_keys=False))
    if isinstance(config.data, TextDataConfig) and not (run.path / TOKENIZER).exists():
        copy_tokenizer(Path(str(config.data.tokenizer)), run.path / TOKENIZER)
    run.write_json("environment.json", {"data": data.description, **environment()})
    run.write_json(SPLIT, {"validation": list(data.val.records.names) if data.val else []})
    if data.skipped.reasons or data.skipped.left_out:
        data.skipped.write(run.path / "skipped.jsonl")
    reader = data.val or data.train
    samples = np.arange(min(SHOWN, len(reader.records)))
    kind = KINDS[config.model.modality.kind]
    np.savez_compressed(run.path / "masks.npz", **kind.preview(reader, samples, config))
