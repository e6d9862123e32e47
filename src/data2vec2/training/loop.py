"""The one loop, for pre-training and fine-tuning."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from data2vec2 import rng
from data2vec2.config.run import FinetuneConfig, RunConfig
from data2vec2.errors import UserError
from data2vec2.training import optim
from data2vec2.training.checkpoint import Best, Checkpoint, save_checkpoint
from data2vec2.training.parallel import ALONE, World, without_averaging
from data2vec2.training.progress import DIVERGED, Alarm, Alarms, TrainingBar, tensorboard
from data2vec2.training.run import RunFolder


@dataclass(frozen=True)
class Sums:
    """A micro-batch's loss, summed over `count` equal parts (student rows, samples)."""

    loss: Tensor
    count: int


class Task(ABC):
    """What the loop trains."""

    model: nn.Module
    """Everything that is trained or saved."""
    ema: optim.Ema | None = None
    """The teacher's average; none in fine-tuning."""
    monitor: str | None = None
    """The score (the higher the better) whose best model is kept too; without one, the untrained model is scored."""
    unit: str
    """What `train.batch_size` counts: "pictures", "seconds of audio"."""
    bars: Mapping[str, tuple[float, float]] = {}
    """95 % intervals of the scores of the last evaluation, of those that have one."""
    lighter: ClassVar[str]
    """What to try where even one sample is too much for the memory."""

    @abstractmethod
    def batches(self, start: int, stop: int) -> Iterable[Any]:
        """Global batches of the given steps, or this process's part of them (`data.batch.Batch`)."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> Sums:
        """The loss of a micro-batch; never waits for the device."""

    @abstractmethod
    def figures(self, step: int) -> dict[str, float]:
        """What else to log, from the last micro-batch; called by all processes at log points only, so it may wait."""

    @abstractmethod
    def evaluate(self, step: int) -> dict[str, float]:
        """Scores on the validation part."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    state: str
    """finished, interrupted, diverged, collapsed; planned (a dry run) or helped (a process that is not the first)."""
    step: int
    message: str = ""


def train(
    task: Task,
    config: RunConfig | FinetuneConfig,
    run: RunFolder,
    log: Callable[[str], None],
    bar: TrainingBar,
    *,
    device: torch.device,
    fingerprint: str,
    resume: Checkpoint | None,
    asked_to_stop: Callable[[], bool],
    world: World = ALONE,
) -> Outcome:
    """Train from step 0 or from a checkpoint to `config.train.updates`, in a folder whose lock process 0 holds.

    The same configuration and data give the same numbers, interrupted or not: everything random depends on (seed,
    step, process), and a checkpoint holds everything else.
    """
    trainer = _Trainer(task, config, run, log, device, fingerprint, world)
    step = trainer.restore(resume) if resume else 0
    every, updates = config.train, config.train.updates
    try:
        if resume is None and every.eval_every and task.monitor is None and not world.rank:
            trainer.evaluate(0)  # what later scores are held against
        for batch in task.batches(step, updates):
            trainer.update(step, batch)
            step += 1
            last = step == updates
            noted = step % every.log_every == 0 or last or step == 1  # the first line is of the untrained model
            if noted:
                trainer.log_metrics(step)
            if world.rank:
                continue  # the rest is for process 0, which ends its helpers when it stops
            bar.update(bar.task, completed=step, note=trainer.note)
            if noted and bar.disable:
                log(trainer.note)
            if every.eval_every and (step % every.eval_every == 0 or last):
                trainer.evaluate(step)
            stop = asked_to_stop()
            if step % every.save_every == 0 or last or stop:
                trainer.save(step)
            if stop and not last:
                return Outcome("interrupted", step, f"saved at update {step} of {updates}; --resume goes on from here")
    except Alarm as alarm:
        return Outcome(alarm.kind, step, str(alarm))
    except torch.OutOfMemoryError as error:
        micro = trainer.micro_batch
        smaller = next((n for n in range(micro - 1, 0, -1) if config.train.batch_size % n == 0), None)
        advice = f"--train.micro-batch {smaller}" if smaller else task.lighter
        raise UserError(f"out of memory on {device} with {micro} samples at once; try {advice}") from error
    finally:
        if trainer.events:
            trainer.events.close()
    return Outcome("finished", step)


@dataclass
class _Trainer:
    """What stays the same from step to step."""

    task: Task
    config: RunConfig | FinetuneConfig
    run: RunFolder
    log: Callable[[str], None]
    device: torch.device
    fingerprint: str
    world: World

    def __post_init__(self) -> None:
        train, rank = self.config.train, self.world.rank
        self.model = self.task.model
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = optim.build_optimizer(self.model, self.config.optim)
        self.peak = optim.peak_lr(self.config.optim, train.batch_size)
        self.micro_batch = train.micro_batch or train.batch_size // self.world.size
        half = train.precision == "bfloat16"
        self.autocast = torch.autocast(self.device.type, dtype=torch.bfloat16) if half else nullcontext()
        self.alarms = Alarms()
        self.events: Any = None if rank else tensorboard(self.run.path / "tb")
        self.best = None if rank or self.task.monitor is None else Best(self.run.path)
        self.window: list[Tensor] = []
        self.lr, self.note = 0.0, ""
        self.earlier_s, self.started, self.mark = 0.0, time.perf_counter(), (0, time.perf_counter())
        self.model.train()
        if train.compile:
            self.model.compile()
        may_skip = [getattr(part, name, 0) for part in self.model.modules() for name in ("layer_drop", "skips_parts")]
        self.shared = self.world.wrap(self.model, any(may_skip))

    def restore(self, checkpoint: Checkpoint) -> int:
        """Put back model, optimiser and the loop's state; returns the step to go on from."""
        state = checkpoint.state
        if state["fingerprint"] != self.fingerprint:
            raise UserError(
                "the data has changed since the run began, or how it is read; resume with the same data, or start a "
                "new run"
            )
        try:
            self.model.load_state_dict(checkpoint.groups["model"])
        except RuntimeError as error:
            what = "this data asks for other outputs than the run has, or this version spells transcripts otherwise"
            raise UserError(f"{what}; start a new run") from error
        optim.load_optimizer_tensors(self.model, self.optimizer, checkpoint.groups["optimizer"])
        self.window = [torch.tensor(loss, device=self.device) for loss in state["window"]]
        self.earlier_s = state["elapsed_s"]
        self.mark = (checkpoint.step, time.perf_counter())
        for line in self.run.cut_metrics(checkpoint.step) if not self.world.rank else ():
            self.alarms.check(line["step"], line)
        return checkpoint.step

    def update(self, step: int, batch: Any) -> None:
        """One optimiser step over a global batch, then the teacher's."""
        config, schedule = self.config.optim, optim.schedule_of(self.config.optim)
        warmup, updates = config.warmup_updates, self.config.train.updates
        self.lr = optim.learning_rate(step, peak=self.peak, warmup=warmup, updates=updates, schedule=schedule)
        optim.set_learning_rate(self.optimizer, self.lr)
        total, seen = torch.zeros((), device=self.device), 0
        for index, micro in enumerate(batch.split(self.micro_batch)):
            seed = rng.keys(rng.Stream.STEP, self.config.train.seed, step, self.world.rank, index)
            torch.manual_seed(rng.seed_of(seed))
            seen += len(micro)
            with nullcontext() if seen == len(batch) else without_averaging(self.shared):
                with self.autocast:
                    sums = self.task.loss(self.shared, micro.to(self.device))
                loss = sums.loss / sums.count * (batch.weight * len(micro) / len(batch))
                loss.backward()
            total += loss.detach()
        self.world.average(total)
        clip = float("inf") if config.clip_norm is None else config.clip_norm
        self.grad_norm = nn.utils.clip_grad_norm_(self.parameters, clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.task.ema:
            self.task.ema.update(step + 1)  # the teacher follows
        self.window.append(total)

    @property
    def elapsed_s(self) -> float:
        """Seconds of training, earlier parts of a resumed run counted in."""
        return self.earlier_s + time.perf_counter() - self.started

    def log_metrics(self, step: int) -> None:
        """Write a line of metrics for the updates since the last one and let the alarms look at it."""
        figures = self.task.figures(step)
        loss = torch.stack(self.window).mean().item()
        self.window.clear()
        if self.world.rank:
            return
        (since, then), now = self.mark, time.perf_counter()
        rate = (step - since) * self.config.train.batch_size / max(now - then, 1e-9)
        ema = {"ema_decay": self.task.ema.decay(step)} if self.task.ema else {}
        line = {"loss": loss, "lr": self.lr, "grad_norm": self.grad_norm.item(), **ema, **figures}
        self.mark = (step, now)
        self.write(step, {**line, "samples_per_s": rate})
        self.note = f"update {step}/{self.config.train.updates}  loss {loss:.4f}  {rate:.0f} {self.task.unit} a second"
        self.alarms.check(step, line)

    def evaluate(self, step: int) -> None:
        """Score on the validation part and write the scores."""
        started = time.perf_counter()
        self.model.eval()
        scores = self.task.evaluate(step)
        self.model.train()
        if scores:
            self.write(step, scores)
            self.alarms.check(step, scores)
            best = ""
            if self.best and self.task.monitor in scores and self.best.is_best(scores[self.task.monitor]):
                self.check_finite(step)
                self.best.save(step, scores[self.task.monitor], self.model)
                best = "  (best so far)"
            bars = {name: " ({:.3f} to {:.3f})".format(*bar) for name, bar in self.task.bars.items()}
            said = (f"{name} {value:.3f}{bars.get(name, '')}" for name, value in scores.items())
            self.log(f"update {step}  " + "  ".join(said) + best)
        since, then = self.mark
        self.mark = (since, then + time.perf_counter() - started)  # the rate counts training alone

    def write(self, step: int, figures: dict[str, float]) -> None:
        """One line of metrics.jsonl, and the same to TensorBoard where it is installed."""
        where = {"step": step, "samples": step * self.config.train.batch_size, "elapsed_s": round(self.elapsed_s, 3)}
        self.run.append_metrics({**where, **figures})
        for name, value in figures.items() if self.events else ():
            self.events.add_scalar(name, value, step)

    def save(self, step: int) -> None:
        """Write a checkpoint; never one of a model that has diverged."""
        window = [loss.item() for loss in self.window]
        self.check_finite(step)
        state = {"window": window, "elapsed_s": self.elapsed_s, "fingerprint": self.fingerprint}
        tensors = optim.optimizer_tensors(self.model, self.optimizer)
        groups = {"model": self.model.state_dict(), "optimizer": tensors}
        save_checkpoint(self.run.checkpoints, step, groups, state, keep=self.config.train.keep)

    def check_finite(self, step: int) -> None:
        """Raise the alarm if the model has diverged."""
        if not all(torch.isfinite(p).all() for p in self.parameters):
            raise Alarm(DIVERGED, f"parameters are not finite at update {step}: training diverged. Lower --optim.lr")
