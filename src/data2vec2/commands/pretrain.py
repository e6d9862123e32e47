"""pretrain RECIPE DATA --out RUN."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data2vec2.commands.flags import applied
from data2vec2.commands.options import Pretrain
from data2vec2.commands.runner import Opened, Training, help_run, keep_started, read_yaml, run_training
from data2vec2.config import RunConfig, fit_schedule
from data2vec2.data.account import Skipped
from data2vec2.data.batch import Batches
from data2vec2.data.records import held_out
from data2vec2.errors import UserError
from data2vec2.files import whole_file
from data2vec2.interop.card import model_card
from data2vec2.interop.folder import export_model
from data2vec2.interop.weights import load_initial
from data2vec2.method.masking import draw_keep_ids, num_kept
from data2vec2.method.pretraining import Data2Vec2
from data2vec2.modalities import get_recipe, read_run_config, run_config
from data2vec2.modalities.data import Log
from data2vec2.modalities.info import ModelInfo
from data2vec2.modalities.jobs import Sized
from data2vec2.modalities.tools import Tools, tools_of
from data2vec2.tasks import RunContext
from data2vec2.tasks.pretrain import Masks, PretrainTask
from data2vec2.training.loop import Outcome
from data2vec2.training.run import CONFIG, RunFolder

PREVIEWED = 4
"""Samples whose masks are kept for the report."""


def pretrain(given: Pretrain) -> Outcome:
    """Pre-train as asked; returns how the run ended."""
    return run_training(Pretraining(given.init_from), given.config, given.data, given)


def help_pretrain() -> Outcome:
    """Compute a share of the gradients of another process's run."""
    return help_run(Pretraining)


class Pretraining(Training[RunConfig]):
    """The data2vec 2.0 objective on samples of any modality."""

    helper = "from data2vec2.commands.pretrain import help_pretrain; help_pretrain()"

    def __init__(self, init_from: str | Path | None = None) -> None:
        """`init_from`: weights to start from, in place of those that the configuration names."""
        self.init_from = init_from

    def read(self, values: Any) -> RunConfig:
        """The configuration in a nested dictionary."""
        return read_run_config(values)

    def named(self, asked: RunConfig | str) -> RunConfig:
        """That of a recipe or a file, with the weights that were asked for."""
        config = run_config(asked) if isinstance(asked, str) else asked
        weights = self.init_from or config.init_from
        return replace(config, init_from=str(Path(weights).absolute())) if weights else config

    def started(self, config: RunConfig, data: Path, say: Log) -> RunConfig:
        """Schedules that fit the number of updates, and a model that fits the data."""
        tools, recipe = _tools(config), get_recipe(config.recipe)
        fitted = fit_schedule(tools.located(config), recipe)
        if (fitted.optim, fitted.ema) != (config.optim, config.ema):
            say(
                f"schedule: {config.train.updates:,} updates instead of {recipe.train.updates:,}: "
                f"warm-up {fitted.optim.warmup_updates:,}, EMA {fitted.ema.start:.6g} to {fitted.ema.end:.6g} "
                f"over {fitted.ema.anneal_updates:,} updates"
            )
        return tools.fitted(fitted, recipe, data, say)

    def resumed(self, run: Path, asked: RunConfig | str, flags: Sequence[str]) -> RunConfig:
        """The run's own configuration, with what may change as asked."""
        saved = read_yaml(run / CONFIG, read_run_config)
        wanted = self.named(asked)
        if wanted.recipe != saved.recipe:
            raise UserError(f"the folder holds a run of {saved.recipe}, not of {wanted.recipe}")
        if wanted.init_from not in (None, saved.init_from):
            begun = f"the run began with {saved.init_from}"
            raise UserError(f"--init-from {self.init_from} can't change on --resume: {begun}")
        tools = _tools(saved)
        if not isinstance(asked, str):
            saved = keep_started(saved, tools.located(asked), fit_schedule(asked, get_recipe(asked.recipe)))
        changed = tools.located(applied(saved, flags))
        return tools.resumed(keep_started(saved, changed, changed), run)

    def opened(self, config: RunConfig, data: Path, val: Path | None, say: Log | None) -> Opened[RunConfig]:
        """Samples to train on and some that are held out, looked at."""
        tools, seed, quiet = _tools(config), config.train.seed, say or (lambda _: None)
        parts, fraction = tools.open(data, config, quiet), 0.0 if val else config.data.val_fraction
        train, held = held_out(parts, tools.open(val, config, quiet) if val else None, fraction, seed)
        readers = [tools.reader(part, config.model, config.data, seed) if part else None for part in (train, held)]
        reader, skipped = readers[0], Skipped(len(train), config.data.max_bad)
        assert reader is not None
        if say:
            say(f"data: {data}: {parts.description}")
            config, found = tools.look(reader, config, say)
            skipped.leave_out(found.left_out)
            if skipped.add(found.bad, found.checked):
                say(f"data: {len(found.bad)} of {found.checked} looked at can't be used: {skipped.summary()}")
            say(f"data: {len(train):,} to train on, {len(held) if held else 0:,} held out for validation")
        return Opened(
            config=config, train=reader, val=readers[1], skipped=skipped, description=parts.description,
            in_memory=reader.in_memory,
        )  # fmt: skip

    def built(self, data: Opened[RunConfig], device: torch.device) -> Data2Vec2:
        """Student, teacher and decoder."""
        model = data.config.model
        return Data2Vec2(model, _tools(data.config).build(model)).to(device)

    def largest(self, model: Any, data: Opened[RunConfig]) -> Sized:
        """With as many masks as in training."""
        config, zero = data.config, np.zeros(1, dtype=np.int64)
        inputs, grid, size = _tools(config).largest(config.model, config.data)
        device = next(model.parameters()).device
        keep_ids = torch.from_numpy(draw_keep_ids(config.model.masks, grid, 0, zero, zero)).to(device)
        inputs = inputs.to(device)
        return Sized(lambda: model(inputs, keep_ids).loss, size)

    def load(self, model: Any, data: Opened[RunConfig], say: Log) -> None:
        """Weights to start from, if they were named."""
        if data.config.init_from:
            say(f"weights: from {load_initial(model, Path(data.config.init_from))}")

    def task(self, model: Any, data: Opened[RunConfig], context: RunContext) -> PretrainTask:
        """The objective."""
        normalise = _tools(data.config).normalise(data.config.data, context.device)
        return PretrainTask(model, data.config, data.train, data.val, normalise, context)

    def unit(self, config: RunConfig) -> str:
        """As the modality has it."""
        return _tools(config).words.unit

    def explain(self, model: Any, data: Opened[RunConfig], say: Log) -> None:
        """Sizes and masks."""
        config, words, masks = data.config, _tools(data.config).words, data.config.model.masks
        tokens = int(np.prod(_tools(config).largest(config.model, config.data).grid))
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        say(
            f"model: {trained:,} parameters to train; {tokens} tokens of {words.largest}, of which each of "
            f"{masks.num_masks} masks keeps {num_kept(masks, tokens)}"
        )

    def show_first(self, data: Opened[RunConfig], say: Log) -> None:
        """Inputs and kept tokens."""
        config = data.config
        order, masks = data.train.order(config.train.batch_size), Masks(config.model.masks, data.train)
        batch = Batches(data.train, order, [masks])[0]
        assert batch.keep_ids_NK is not None
        dtype = str(batch.inputs.dtype).removeprefix("torch.")
        say(f"first batch: {_tools(config).words.many} {tuple(batch.inputs.shape)} {dtype}")
        say(f"first batch: kept tokens {tuple(batch.keep_ids_NK.shape)}")

    def write_start(self, run: RunFolder, data: Opened[RunConfig]) -> None:
        """Some samples with their masks, and what else belongs to the modality."""
        tools, reader = _tools(data.config), data.val or data.train
        tools.write_start(run.path, data.config)
        samples = np.arange(min(PREVIEWED, len(reader.records)))
        with whole_file(run.path / "masks.npz") as file:
            np.savez_compressed(file, **tools.preview(reader, samples, data.config))

    def finish(self, run: RunFolder, model: Any, data: Opened[RunConfig], log: Log) -> None:
        """Write the student's encoder as RUN/exported."""
        config = data.config
        info = ModelInfo(model=config.model, data=config.data)
        export_model(model.student, info, run.path / "exported", model_card(config, data.description))


def _tools(config: RunConfig) -> Tools:
    """Those of the configuration's modality."""
    return tools_of(config.model.modality.kind)
