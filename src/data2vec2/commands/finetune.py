"""finetune TASK MODEL DATA --out RUN."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data2vec2.commands.flags import fields_of
from data2vec2.commands.options import Finetune
from data2vec2.commands.runner import run_training, say_account, where_is
from data2vec2.commands.training import Opened, Training, kept_on
from data2vec2.config.run import FinetuneConfig
from data2vec2.config.tree import flag_of
from data2vec2.data.batch import Batches
from data2vec2.errors import UsageError, UserError
from data2vec2.evaluation.features import encode_by_each, labelled
from data2vec2.evaluation.probes import knn_accuracy
from data2vec2.files import read_yaml, sha256_of, whole_file
from data2vec2.interop.card import finetuned_card
from data2vec2.interop.folder import export_model, export_of, load_encoder
from data2vec2.modalities import finetune_config, get_finetune_recipe, read_finetune_config, specs, unset_in
from data2vec2.modalities.data import Log, ModelInfo
from data2vec2.modalities.fields import build_encoder
from data2vec2.modalities.jobs import FinetuneData, Job, Sized
from data2vec2.modalities.tools import tools_of
from data2vec2.tasks import RunContext
from data2vec2.tasks.finetune import write_transcripts
from data2vec2.training.checkpoint import Best, load_newest
from data2vec2.training.device import choose_device
from data2vec2.training.run import CONFIG, RunFolder
from data2vec2.training.task import Outcome, Task

MORE = 0.05
"""Where its neighbours are right so much more often, MODEL's own weights are the better start."""
COMPARED, FEWEST = 1_000, 50
"""Most samples of each part that decide how much of a start is new, and how many the validation part needs for that."""


def finetune(given: Finetune) -> Outcome:
    """Fine-tune once as asked; returns how the run ended."""
    export_of(Path(given.model), Path(given.data))
    data = (str(given.data),)
    training = Finetuning(str(given.model), given.task, given.from_scratch)
    usual = str(Path(given.out) / CONFIG) if given.resume else training.default_recipe
    asked = usual if given.config is None else given.config
    return run_training(training, asked, data, given)


class Finetuning(Training[FinetuneConfig]):
    """One task on the modality of a model."""

    read = staticmethod(read_finetune_config)
    recipe = staticmethod(get_finetune_recipe)

    def __init__(self, model: str, task: str = "classify", from_scratch: bool = False) -> None:
        self.model_path, self.task_name, self.from_scratch = model, task, from_scratch

    @cached_property
    def source(self) -> tuple[Any, ModelInfo]:
        """The encoder that is started from, and what is known of it."""
        return load_encoder(export_of(Path(self.model_path)))

    @cached_property
    def weights(self) -> str:
        """SHA-256 (hex) of the model's weights."""
        return sha256_of(export_of(Path(self.model_path)) / "model.safetensors")

    @cached_property
    def job(self) -> Job:
        """The task on the model's modality; `UserError` if there is none."""
        able = [spec.name for spec in specs().values() if self.task_name in spec.finetune]
        kind = self.source[1].kind
        if not able:
            tasks = sorted({task for spec in specs().values() for task in spec.finetune})
            raise UsageError(f"the task is {self.task_name!r}; it must be {' or '.join(tasks)}")
        if kind not in able:
            needed = " or ".join(able)
            raise UserError(f"finetune {self.task_name} needs a model of {needed}, but MODEL is one of {kind}")
        tools = tools_of(kind)
        return tools.jobs[self.task_name](tools)

    @property
    def default_recipe(self) -> str:
        """The first of those for this task."""
        return next(iter(self.job.tools.spec.finetune[self.task_name]))

    def named(self, asked: FinetuneConfig | str) -> FinetuneConfig:
        """That of a recipe or a file."""
        config = finetune_config(asked) if isinstance(asked, str) else asked
        self._check_recipe(config)
        return config

    def started(
        self, config: FinetuneConfig, data: Sequence[str], say: Log, flags: Sequence[str] = ()
    ) -> FinetuneConfig:
        """From the model's weights, or from scratch, where nothing can be made of what was learned."""
        asked, usual = config, get_finetune_recipe(config.recipe)
        config = replace(config, from_scratch=self.from_scratch or config.from_scratch, weights=None)
        for name in ("optim.fresh", *self.job.of_learned) if config.from_scratch else ():
            value, given = attrgetter(name)(config), name.removeprefix("task.") in fields_of(flags)
            if not value or (value == attrgetter(name)(usual) and not given):
                continue
            if given or (asked.from_scratch and asked.weights is None):  # which says both itself, and is not a run's
                why = "nothing is learned yet from scratch; leave one of them out"
                raise UsageError(f"{flag_of(name)} is {value}, but {why}")
            say(f"start: {flag_of(name)} {value} has no use from scratch")
        return config

    def schedule(self, config: FinetuneConfig) -> str:
        """Warm-up, and the updates in which the encoder is frozen."""
        return f"warm-up {config.optim.warmup_updates:,}{'' if config.from_scratch else config.task.remark}"

    def resumed(self, run: Path, asked: FinetuneConfig | str, flags: Sequence[str]) -> FinetuneConfig:
        """The run's own configuration, with what may change as asked."""
        saved = read_yaml(run / CONFIG, self.read)
        wanted = finetune_config(asked) if isinstance(asked, str) else asked
        if wanted.recipe != saved.recipe:
            raise UserError(f"the folder holds a run of {saved.recipe}, not of {wanted.recipe}")
        if self.weights != saved.weights:
            raise UserError("the run was started from a different MODEL; resume with that one")
        if self.from_scratch and not saved.from_scratch:
            raise UserError("--from-scratch can't change on --resume: the run was started from MODEL's weights")
        self._check_recipe(saved)
        unset = unset_in(asked)
        asked = finetune_config(asked, lambda _: saved) if isinstance(asked, str) else asked
        return kept_on(saved, asked, get_finetune_recipe(saved.recipe), flags, unset)

    def _check_recipe(self, config: FinetuneConfig) -> None:
        recipes, kind = self.job.tools.spec.finetune[self.task_name], self.source[1].kind
        there = f"there are {', '.join(recipes)}"
        if config.task.kind != kind:
            raise UsageError(f"{config.recipe} is a recipe for {config.task.kind}, but MODEL is one of {kind}; {there}")
        if config.recipe not in recipes:
            raise UsageError(f"{config.recipe} is not for this task; {there}")

    def opened(
        self, config: FinetuneConfig, data: Sequence[str], val: str | None, say: Log | None
    ) -> Opened[FinetuneConfig]:
        """Samples with targets, looked at; `more` has them with what the model will be."""
        config, info = self.job.completed(replace(config, weights=self.weights), self.source[1])
        config, info, found = self.job.fitted(config, info, self.job.open(config, info, data[0], val))
        words = self.job.tools.words
        how = words.finetune_unit or words.unit, words.many, self.job.in_memory(found, config)
        if say:
            say(f"data: {data[0]}: {found.description}")
            say_account(found.account, say)
            found.account.part("train").add(())
            self.job.look(found, config, say)
        if config.optim.fresh is None:
            config = replace(config, optim=replace(config.optim, fresh=self.fresh(config, info, found, say)))
        return Opened(config, found.train, found.val, found.account, found.description, *how, (info, found))

    def fresh(self, config: FinetuneConfig, info: ModelInfo, found: FinetuneData, say: Log | None) -> float:
        """How much of the start should be new: see `FinetuneOptimConfig`.

        What a model of minutes knows can cost more than it gives ("half of the start, at its size", LOG.md).
        """
        parts = [part for part in (found.train, found.val) if part]
        samples = [labelled(part.records.labels, COMPARED) for part in parts]
        few = len(parts) < 2 or len(samples[1]) < FEWEST
        if config.from_scratch or found.multi_label or few:
            return 0.0
        torch.manual_seed(config.train.seed)
        device = choose_device(config.train.device)
        encoders = [one.to(device).eval() for one in (copy.deepcopy(self.source[0]), build_encoder(info.model))]
        normalise = self.job.tools.normalise(info.data, device)
        known, asked = (
            encode_by_each(encoders, part, chosen, normalise, device)
            for part, chosen in zip(parts, samples, strict=True)
        )
        learned, new = map(knn_accuracy, known, asked)
        share = 0.5 if learned - new < MORE else 0.0
        if say:
            what = "new random values are half of the start" if share else "the start is MODEL's weights"
            told = f"MODEL's features are right for {learned:.1%}, of an untrained network's for {new:.1%}"
            say(f"start: nearest neighbours of {told} of the validation part; {what} (--optim.fresh {share:g})")
        return share

    def built(self, data: Opened[FinetuneConfig], device: torch.device) -> nn.Module:
        """The encoder with a head, with the source's weights or random ones."""
        info, found = data.more
        torch.manual_seed(data.config.train.seed)
        encoder = build_encoder(info.model)
        encoder.gradient_checkpointing = data.config.train.checkpoint_activations
        if not data.config.from_scratch:
            learned, new, share = self.source[0].state_dict(), encoder.state_dict(), data.config.optim.fresh
            if share:
                learned = {name: blended(value, new[name], share) for name, value in learned.items()}
            encoder.load_state_dict(learned)
        return self.job.model(data.config, encoder, found).to(device)

    def largest(self, model: nn.Module, data: Opened[FinetuneConfig], count: int = 1) -> Sized:
        """As the job has it."""
        return self.job.largest(data.config, data.more[0], model, count)

    def task(self, model: nn.Module, data: Opened[FinetuneConfig], context: RunContext) -> Task:
        """The job's."""
        info, found = data.more
        return self.job.task(model, data.config, info, found, context)

    def explain(self, model: nn.Module, data: Opened[FinetuneConfig], say: Log) -> None:
        """Sizes."""
        config, found = data.config, data.more[1]
        blend = f", with {config.optim.fresh:.0%} of new random values" if config.optim.fresh else ""
        start = "from random initialisation" if config.from_scratch else f"pre-trained{blend}"
        parameters = sum(p.numel() for p in model.parameters())
        say(f"model: {parameters:,} parameters, {start}; {found.outputs} {self.job.outputs}")

    def show_first(self, data: Opened[FinetuneConfig], say: Log) -> None:
        """Inputs and targets."""
        batch = Batches(data.train, data.train.order(data.config.train.batch_size))[0]
        say(f"first batch: {self.job.tools.words.many} {tuple(batch.inputs.shape)}")
        say(f"first batch: targets of {len(batch)} samples, {data.more[1].outputs} {self.job.outputs}")

    def finish(self, run: RunFolder, model: Any, data: Opened[FinetuneConfig], log: Log) -> None:
        """Export the best model on the validation part (else the last); score it once, on the test part (else that)."""
        config, (info, found) = data.config, data.more
        if best := Best(run.path).load():
            model.load_state_dict(best.groups["model"])
        step, device = best.step if best else config.train.updates, next(model.parameters()).device
        info = self.job.finished(model.eval(), info, found)
        key, part = ("test", "test") if found.test is not None else ("val", "validation")
        scores: dict[str, Any] = {}
        if key in found.readers:
            scored = self.job.score(model, info, found, key, device)
            scores = {"data": where_is(found.where), "part": part, **scored.scores, "update": step}
            scores["from_scratch"] = config.from_scratch
            if scored.mistakes is not None:
                with whole_file(run.path / "mistakes.npz") as file:
                    np.savez_compressed(file, allow_pickle=False, **scored.mistakes)
            if scored.transcripts:
                write_transcripts(run, [{**row, "part": part, "update": step} for row in scored.transcripts])
            run.write_json("scores.json", scores)
            log(f"{part} part of {found.where}: {scored.sentence}; the model of update {step}")
        export_model(model, info, run.path / "exported", finetuned_card(config, info, data.description, scores))

    def arguments(self) -> dict[str, Any]:
        """Model and task."""
        return {"model": self.model_path, "task": self.task_name}


def check_data(run: Path, task: str, model: Path, data: str, val: str | None) -> None:
    """Raise `UserError` if DATA is not what a run has learned from, as resuming it would."""
    checkpoint, _ = load_newest(RunFolder(run).checkpoints)
    config = read_yaml(run / CONFIG, read_finetune_config)
    opened = Finetuning(str(model), task).opened(config, (data,), val, None)
    if checkpoint and checkpoint.state["fingerprint"] != opened.train.records.fingerprint:
        raise UserError(
            f"the data has changed since {run} was trained; resume with the same data, or start a new sweep"
        )


def blended(learned: Tensor, new: Tensor, share: float) -> Tensor:
    """`(1 - share) * learned + share * new`; of a matrix, `learned` is first brought to the size of the new one."""
    if learned.ndim > 1 and (size := learned.std()) > 0 and (usual := new.std()) > 0:
        learned = learned * (usual / size)
    return torch.lerp(learned, new, share)
