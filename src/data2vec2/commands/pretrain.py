"""pretrain RECIPE DATA --out RUN."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data2vec2.commands.estimate import Plan
from data2vec2.commands.fitting import placed
from data2vec2.commands.options import Estimate, Pretrain, names_of
from data2vec2.commands.runner import run_training, say_account
from data2vec2.commands.starting import Start, following, load_start, open_start, told
from data2vec2.commands.training import Opened, Training, asked_for, completed, kept_on, planned, quiet, with_length
from data2vec2.config.run import RunConfig
from data2vec2.data import hub
from data2vec2.data.account import counted
from data2vec2.data.batch import Batches
from data2vec2.data.joined import join, weighted
from data2vec2.data.reader import LOOK_AT, Reader
from data2vec2.data.records import held_out
from data2vec2.errors import UsageError, UserError
from data2vec2.files import masked, read_yaml, whole_file
from data2vec2.interop.card import model_card
from data2vec2.interop.folder import export_model
from data2vec2.method.masking import num_kept
from data2vec2.method.pretraining import Data2Vec2
from data2vec2.modalities import get_recipe, read_run_config, recipes, run_config, unset_in
from data2vec2.modalities.data import Log, ModelInfo
from data2vec2.modalities.jobs import Sized
from data2vec2.modalities.tools import Tools, tools_of
from data2vec2.tasks import RunContext
from data2vec2.tasks.pretrain import SCORE, Masks, PretrainTask, scored
from data2vec2.training.checkpoint import Best
from data2vec2.training.device import computing
from data2vec2.training.run import CONFIG, RunFolder
from data2vec2.training.task import Outcome

PREVIEWED = 4
"""Samples whose masks are kept for the report."""


def estimate(given: Estimate) -> Plan:
    """What pre-training as asked would take; writes nothing."""
    training, data, flags, val = Pretraining(), names_of(given.data), given.flags, str(given.val) if given.val else None
    before = LOOK_AT.set(256)
    try:
        config = training.started(asked_for(training, given.config, flags, val), data, quiet, flags)
        with computing(placed(config.train).threads):
            opened, model, cost = completed(training, config, data, val, quiet, True, again=False)
            assert cost
            return planned(training, with_length(training, opened, cost, flags, quiet), model, cost)
    finally:
        LOOK_AT.reset(before)


def pretrain(given: Pretrain) -> Outcome:
    """Pre-train as asked; returns how the run ended."""
    data = names_of(given.data)
    if data[0] in recipes() and isinstance(given.config, str) and given.config not in recipes():
        raise UsageError(f"RECIPE comes before DATA: data2vec2 pretrain {data[0]} {given.config} --out {given.out}")
    return run_training(Pretraining(given.init_from), given.config, data, given)


class Pretraining(Training[RunConfig]):
    """The data2vec 2.0 objective on samples of any modality."""

    read = staticmethod(read_run_config)
    recipe = staticmethod(get_recipe)

    def __init__(self, init_from: str | Path | None = None) -> None:
        """`init_from`: weights to start from, in place of those that the configuration names."""
        self.init_from = init_from
        self._start: Start | None = None
        self._followed: RunConfig | None = None  # the recipe with the shape of these weights

    def named(self, asked: RunConfig | str) -> RunConfig:
        """That of a recipe or a file, with the weights that were asked for, and their shape."""
        config = self._asked(asked)
        if config.init_from:
            self._start = open_start(config.init_from)
            config = self._followed = following(config, get_recipe(config.recipe), self._start)
        return config

    def _asked(self, asked: RunConfig | str) -> RunConfig:
        config, weights = run_config(asked) if isinstance(asked, str) else asked, self.init_from
        weights = str(weights or config.init_from or "")
        located = weights if weights.startswith(hub.PREFIX) else str(Path(weights).absolute())
        return replace(config, init_from=located) if weights else config

    def started(self, config: RunConfig, data: Sequence[str], say: Log, flags: Sequence[str] = ()) -> RunConfig:
        """A model that fits the weights and the data."""
        tools, recipe, start = _tools(config), get_recipe(config.recipe), self._start
        if start is None or self._followed is None:
            return tools.fitted(tools.located(config), recipe, data, say)
        config = following(config, self._followed, start)  # flags may have set what is against the weights
        for line in told(config, recipe, start):
            say(line)
        if start.data is not None:
            tools.check_learned(tools.located(config).data, start.data)
        fitted = tools.fitted(tools.located(config), recipe, data, say)
        return fitted if start.shape is None else replace(fitted, model=config.model)

    def schedule(self, config: RunConfig) -> str:
        """Warm-up and the teacher's average."""
        ema = f"EMA {config.ema.start:.6g} to {config.ema.end:.6g} over {config.ema.anneal_updates:,} updates"
        return f"warm-up {config.optim.warmup_updates:,}, {ema}"

    def resumed(self, run: Path, asked: RunConfig | str, flags: Sequence[str]) -> RunConfig:
        """The run's own configuration, with what may change as asked."""
        saved = read_yaml(run / CONFIG, self.read)
        wanted = self._asked(asked)
        if wanted.recipe != saved.recipe:
            raise UserError(f"the folder holds a run of {saved.recipe}, not of {wanted.recipe}")
        if wanted.init_from not in (None, saved.init_from):
            begun = f"the run was started with {saved.init_from}"
            raise UserError(f"--init-from {self.init_from} can't change on --resume: {begun}")
        tools, reference = _tools(saved), get_recipe(saved.recipe)
        unset = unset_in(asked)
        asked = run_config(asked, lambda _: saved) if isinstance(asked, str) else asked
        if saved.init_from:  # whose shape it has
            model = _unless_set(asked.model, reference.model, saved.model)
            asked = replace(asked, model=model, data=_unless_set(asked.data, reference.data, saved.data))
        return tools.resumed(kept_on(saved, asked, reference, flags, unset, tools.located), run)

    def opened(self, config: RunConfig, data: Sequence[str], val: str | None, say: Log | None) -> Opened[RunConfig]:
        """Samples to train on and some that are held out, looked at."""
        tools, seed, tell = _tools(config), config.train.seed, say or quiet
        fraction = 0.0 if val else config.data.val_fraction
        opening = replace(config, data=replace(config.data, val_fraction=fraction))
        each = [tools.open(one, opening, tell) for one in data]
        named = [masked(one) for one in data]
        parts = join(each, named, fraction, seed) if len(data) > 1 else each[0]
        others = tools.open(val, opening, tell) if val else None
        train, held = held_out(parts, others, fraction, seed)
        if weights := config.data.weights:
            train, shares = weighted(train, named, weights, seed)
            parts.account.choices += shares
        reader, account = tools.reader(train, config.model, config.data, seed), parts.account
        account.hold_out(len(parts.train) - len(train))
        if others:
            account.join_val(others.account)
        skipped = account.part("train")
        account.limit(config.data.max_bad)
        if say:
            say(f"data: {parts.description if len(data) > 1 else f'{data[0]}: {parts.description}'}")
            for share in parts.account.choices if weights else ():
                say(f"data: {share}")
            say_account(account, say)
            skipped.add(())
            config, found = tools.look(reader, config, say)
            skipped.leave_out(found.left_out)
            skipped.mend(found.mended)
            if found.mended:
                say(f"data: {len(found.mended)} checked are repaired: {counted(why for _, why in found.mended)}")
            account.remarks += found.remarks
            for remark in found.remarks:
                say(f"data: {remark}")
            if skipped.add(found.bad, found.checked):
                say(f"data: {len(found.bad)} of {found.checked} checked can't be used: {skipped.summary()}")
            say(f"data: {skipped.used:,} to train on, {len(held) if held else 0:,} held out for validation")
        readers = [tools.reader(part, config.model, config.data, seed) if part else None for part in (train, held)]
        reader, words = readers[0] or reader, tools.words
        if say:
            _check_scores(config, reader, readers[1], say)
        if say and readers[1]:
            readers[1].note_unreadable(account.part("val"), say)
        how = words.unit, words.many, reader.in_memory
        return Opened(config, reader, readers[1], account, parts.description, *how)

    def built(self, data: Opened[RunConfig], device: torch.device) -> Data2Vec2:
        """Student, teacher and decoder."""
        config = data.config.model
        model = Data2Vec2(config, _tools(data.config).build(config)).to(device)
        model.student.gradient_checkpointing = data.config.train.checkpoint_activations
        return model

    def largest(self, model: Any, data: Opened[RunConfig], count: int = 1) -> Sized:
        """With as many masks as in training."""
        return _tools(data.config).sized(model, data.config, count)

    def load(self, model: Any, data: Opened[RunConfig], say: Log) -> None:
        """Weights to start from, if they were named."""
        if data.config.init_from:
            start = self._start or open_start(data.config.init_from)
            self._start = None  # its tensors are in the model
            say(f"weights: from {load_start(model, start)}")

    def task(self, model: Any, data: Opened[RunConfig], context: RunContext) -> PretrainTask:
        """The objective."""
        normalise = _tools(data.config).normalise(data.config.data, context.device)
        return PretrainTask(model, data.config, data.train, data.val, normalise, context)

    def explain(self, model: Any, data: Opened[RunConfig], say: Log) -> None:
        """Sizes and masks."""
        config, words, masks = data.config, _tools(data.config).words, data.config.model.masks
        tokens = int(np.prod(_tools(config).largest(config.model, config.data).grid))
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        kept = f"each of {masks.num_masks} masks keeps {num_kept(masks, tokens)}"
        say(f"model: {trained:,} parameters to train; {tokens} tokens of {words.largest}, of which {kept}")

    def show_first(self, data: Opened[RunConfig], say: Log) -> None:
        """Inputs and kept tokens."""
        config, order = data.config, data.train.order(data.config.train.batch_size)
        batch = Batches(data.train, order, [Masks(config.model.masks, data.train)])[0]
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
        """Write the student's encoder as RUN/exported, of the best model where that is kept."""
        if data.config.train.keep_best and (best := Best(run.path).load()):
            model.load_state_dict(best.groups["model"])
            log(f"exporting the model of update {best.step}, whose {SCORE} is the best: {best.state['score']:.3f}")
        info, card = (
            ModelInfo(model=data.config.model, data=data.config.data),
            model_card(data.config, data.description),
        )
        export_model(model.student, info, run.path / "exported", card)


def _check_scores(config: RunConfig, train: Reader, val: Reader | None, say: Log) -> None:
    """Say if held-out samples can't be scored; `UserError` if no score tells which model is the best."""
    scores = scored(train, val)
    if config.train.keep_best and not (scores and config.train.eval_every):
        needed = "classes both among the samples to train on and those held out, and --train.eval-every above 0"
        raise UserError(f"--train.keep-best needs a score of validation samples: {needed}; leave it out")
    if val and not scores and config.train.eval_every:
        say("data: training is not scored without classes in both parts; what is held out is only shown in the report")


def _unless_set(mine: Any, usual: Any, saved: Any) -> Any:
    """A configuration with what is `saved` where it is as `usual`, and so was not set."""
    if not is_dataclass(mine) or isinstance(mine, type):
        return saved if mine == usual else mine
    names = [field.name for field in fields(mine)]
    return replace(mine, **{n: _unless_set(getattr(mine, n), getattr(usual, n), getattr(saved, n)) for n in names})


def _tools(config: RunConfig) -> Tools:
    return tools_of(config.model.modality.kind)
