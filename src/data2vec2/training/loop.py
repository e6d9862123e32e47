"""The one loop, for pre-training and fine-tuning."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from data2vec2 import rng
from data2vec2.config.run import FinetuneConfig, RunConfig
from data2vec2.errors import UserError
from data2vec2.files import WriteError
from data2vec2.training import device as devices
from data2vec2.training import optim
from data2vec2.training.checkpoint import (
    Best,
    Checkpoint,
    Writer,
    copied,
    list_checkpoints,
    load_newest,
    save_checkpoint,
    step_of,
)
from data2vec2.training.numbers import AT_THE_END, PATIENCE, Numbers, Relapse
from data2vec2.training.pace import Pace
from data2vec2.training.parallel import ALONE, World, local, spread_as, whole, without_averaging
from data2vec2.training.progress import DIVERGED, LOWER, Alarm, Alarms, TrainingBar
from data2vec2.training.run import ODD, RunFolder
from data2vec2.training.task import Outcome, Task
from data2vec2.training.trackers import Hear
from data2vec2.training.watch import DATA

CHANGED = (
    "the data, or how they are read, have changed since the run started; resume with the same data, or start a new run"
)


def load_weights(model: nn.Module, checkpoint: Checkpoint, fingerprint: str) -> None:
    """Load a checkpoint's weights; `UserError` for one of other data (by their `fingerprint`) or another model."""
    if checkpoint.state.get("fingerprint") != fingerprint:
        raise UserError(CHANGED)
    try:
        own, saved = model.state_dict(), checkpoint.groups.get("model", {})
        model.load_state_dict({name: spread_as(one, own[name]) if name in own else one for name, one in saved.items()})
    except RuntimeError as error:
        what = "the data have other classes or letters, or this version normalises transcripts otherwise"
        raise UserError(f"{what}; start a new run") from error


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
    hear: Hear = lambda _: None,
) -> Outcome:
    """Train from step 0 or from a checkpoint to `config.train.updates`, in a folder whose lock process 0 holds.

    The same configuration and data give the same numbers, interrupted or not: everything random depends on (seed,
    step, process), and a checkpoint holds everything else. `hear` is told every line of metrics.jsonl.
    """
    trainer = Trainer(task, config, run, log, device, fingerprint, world, hear)
    if resume:
        trainer.restore(resume)
    bar.update(bar.task, completed=trainer.step)  # before a first update, which may take long
    try:
        if resume is None and config.train.eval_every and task.scores_untrained:
            trainer.evaluate(0)  # what later scores are held against
        while True:
            try:
                return _advance(trainer, bar, asked_to_stop)
            except Relapse as relapse:
                trainer.go_back(relapse)
                bar.update(bar.task, completed=trainer.step)
    except Alarm as alarm:
        world.leaving(f"the run has {alarm.kind}: {alarm}")
        return Outcome(alarm.kind, trainer.step, str(alarm))
    except UserError as error:  # of the data: between two updates
        if not (isinstance(error, WriteError) or world.rank or world.sharded):
            trainer.save_what_there_is()
        raise
    except torch.OutOfMemoryError as error:
        micro = trainer.micro_batch
        smaller = next((n for n in range(micro - 1, 0, -1) if config.train.batch_size % n == 0), None)
        advice = f"--train.micro-batch {smaller}" if smaller else task.lighter
        raise UserError(f"out of memory on {device} with {micro} samples at once; try {advice}") from error
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker ("):
            raise
        raise UserError(
            f"{str(error).partition('. ')[0]}; it read data, and memory or /dev/shm may be full: "
            "try --data.workers 0, or fewer than now"
        ) from error
    finally:
        trainer.close()


def _advance(trainer: Trainer, bar: TrainingBar, asked_to_stop: Callable[[], bool]) -> Outcome:
    """Updates to the last, or until the processes are asked to stop."""
    every, updates, world = trainer.config.train, trainer.config.train.updates, trainer.world
    for batch in trainer.waited_for(trainer.batches(updates)):
        trainer.update(trainer.step, batch, stop=asked_to_stop())
        trainer.step = step = trainer.step + 1
        if every.compile:
            trainer.say_compiled()
        last = step == updates
        stop = trainer.look(last) or (world.size == 1 and asked_to_stop())
        noted = step % every.log_every == 0 or last or step == 1  # the first line is of the untrained model
        if noted:
            trainer.log_metrics(step)
        if not world.rank:
            bar.update(bar.task, completed=step, note=trainer.note)
            if noted and bar.disable:
                trainer.log(f"update {step}/{updates}  {trainer.note}  {trainer.pace.left(step)} left")
        if every.eval_every and (step % every.eval_every == 0 or last):
            trainer.evaluate(step)
        good = not trainer.numbers.skipped  # else a run that goes back should come to before this update
        if (step % every.save_every == 0 and good) or last or stop:
            trainer.save(step, last or stop)
        if stop:
            return Outcome("interrupted", step, f"saved at update {step} of {updates}; --resume continues here")
    return Outcome("finished", trainer.step)


@dataclass
class Trainer:
    """What stays the same from step to step."""

    task: Task
    config: RunConfig | FinetuneConfig
    run: RunFolder
    log: Callable[[str], None]
    device: torch.device
    fingerprint: str
    world: World
    hear: Hear = lambda _: None

    def __post_init__(self) -> None:
        train = self.config.train
        self.model = self.task.model
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = optim.build_optimizer(self.model, self.config.optim)
        self.peak = optim.peak_lr(self.config.optim, train.batch_size)
        self.micro_batch = train.micro_batch or math.ceil(train.batch_size / self.world.size)
        half = train.precision == "bfloat16"
        self.autocast = torch.autocast(self.device.type, dtype=torch.bfloat16) if half else nullcontext()
        self.alarms = Alarms()
        self.best = None if self.task.monitor is None else Best(self.run.path)
        self.window: list[Tensor] = []
        order = getattr(self.task.dataset, "order", None)
        self.pace = Pace(train, self.task.unit, self.task.many, getattr(order, "per_epoch", 0.0))
        self.lr, self.note, self.graphs, self.unsaved, self.warned = 0.0, "", 0, 0, False
        self.step, self.passed = 0, (0, 0)
        self.numbers, self.writer, self.saving = Numbers(wait=int(self.device.type == "cuda")), Writer(), ""
        self.model.train()
        self.drops = any(getattr(part, "layer_drop", 0) for part in self.model.modules())
        self.skips: bool | None = None
        self.shared = self.model

    def share(self, skips: bool) -> None:
        """Wrap the model for several processes, anew where its encoder freezes or thaws: see `World.wrap`."""
        self.skips, self.shared = skips, self.model  # the old wrapper goes, and its hooks with it
        self.shared = self.world.wrap(self.model, skips)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Put back model, optimiser and the loop's state."""
        state = checkpoint.state
        load_weights(self.model, checkpoint, self.fingerprint)
        try:
            optim.load_optimizer_tensors(self.model, self.optimizer, checkpoint.groups["optimizer"])
            self.window = [torch.tensor(float(loss), device=self.device) for loss in state["window"]]
            samples = state.get("samples", checkpoint.step * self.config.train.batch_size)  # older ones have none
            first, count = state.get("passed", (0, 0))
            self.step, self.passed = checkpoint.step, (int(first), int(count))
            self.pace.resume(checkpoint.step, int(samples), float(state["elapsed_s"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{checkpoint.folder} does not hold what this run goes on from: {error!r}") from error
        for line in self.run.cut_metrics(checkpoint.step) if not self.world.rank else ():
            self.alarms.check(line["step"], line)

    def go_back(self, relapse: Relapse) -> None:
        """To the newest checkpoint, to go on past the batches whose numbers were not finite; once a run."""
        said = f"the numbers of {relapse.count} updates in a row, from update {relapse.first + 1} on, are not finite"
        self.settle()
        self.world.wait()
        newest = load_newest(self.run.checkpoints)[0]
        if not newest or self.passed[1]:
            why = "there is no checkpoint to go back to" if not newest else "the run has gone back once already"
            raise Alarm(DIVERGED, f"{said}, and {why}: training diverged. {LOWER}")
        self.log(f"{said}; going back to update {newest.step}, to leave out the batches of these updates ({ODD})")
        self.alarms, self.numbers = Alarms(), Numbers(self.numbers.wait)
        self.restore(newest)
        self.passed = relapse.first, relapse.count

    def batches(self, updates: int) -> Iterator[Any]:
        """Those of all updates to come, without those that were passed over."""
        first, count = self.passed
        if self.step < first:
            yield from self.task.batches(self.step, min(first, updates))
        if max(self.step, first) < updates:
            yield from self.task.batches(max(self.step, first) + count, updates + count)

    def update(self, step: int, batch: Any, stop: bool = False) -> None:
        """One optimiser step over a global batch, then the teacher's; neither where a number is not finite."""
        config, schedule = self.config.optim, optim.schedule_of(self.config.optim)
        warmup, updates = config.warmup_updates, self.config.train.updates
        self.lr = optim.learning_rate(step, peak=self.peak, warmup=warmup, updates=updates, schedule=schedule)
        optim.set_learning_rate(self.optimizer, self.lr)
        if (skips := self.drops or batch.freeze_encoder) != self.skips:
            self.share(skips)
        total, seen = torch.zeros(2, device=self.device), 0
        self.pace.count(batch, self.world.size)
        # Sharded, all processes call all parts equally often: they have as many micro-batches and leave out the same.
        most = math.ceil(round(len(batch) * self.world.size / batch.weight) / self.world.size)
        for index, micro in enumerate(batch.split(self.micro_batch, most if self.world.sharded else None)):
            seed = rng.keys(rng.Stream.STEP, self.config.train.seed, step, self.world.rank, index)
            torch.manual_seed(rng.seed_of(seed))
            if self.world.sharded:
                common = rng.keys(rng.Stream.STEP, self.config.train.seed, step, 0, index)
                torch.default_generator.manual_seed(rng.seed_of(common))
            seen += len(micro)
            with nullcontext() if seen == len(batch) else without_averaging(self.shared):
                with self.autocast:
                    sums = self.task.loss(self.shared, micro.to(self.device))
                loss = sums.loss / sums.count * (batch.weight * len(micro) / len(batch))
                loss.backward()
            total[0] += loss.detach()
        total[1] = stop
        self.world.average(total)
        clip = float("inf") if config.clip_norm is None else config.clip_norm
        self.grad_norm = whole(nn.utils.clip_grad_norm_(self.parameters, clip))
        skip = ~(torch.isfinite(total[0]) & torch.isfinite(self.grad_norm))
        total[0] = torch.where(skip, math.nan, total[0])
        optim.step_unless(skip, self.optimizer)
        self.optimizer.zero_grad()
        if self.task.ema:
            self.task.ema.update(step + 1, skip)  # the teacher follows
        self.window.append(total[0])
        self.numbers.add(step, devices.later(total))

    def look(self, last: bool) -> bool:
        """At the last numbers that are known: say what is odd about them; whether all processes stop here."""
        stop, odd = self.numbers.look(last)
        for step, loss, usual in odd if not self.world.rank else ():
            names = self.task.names(step + self.passed[1] * (step >= self.passed[0]))
            more = f" and {len(names) - 4} more" if len(names) > 4 else ""
            what = f"loss {loss:.4g} where {usual:.4g} is usual" if math.isfinite(loss) else "not finite, so skipped"
            self.log(f"update {step + 1}: {what}; its samples: {', '.join(names[:4])}{more} ({ODD})")
            self.run.append_odd({"step": step + 1, "loss": loss if math.isfinite(loss) else None, "samples": names})
        if self.numbers.skipped >= (min(AT_THE_END, self.step) if last else PATIENCE):
            raise Relapse(odd[-1][0] + 1 - self.numbers.skipped, self.numbers.skipped)
        return stop

    def say_compiled(self) -> None:
        """Say how much was compiled in the last update, if anything."""
        from torch._dynamo.utils import counters

        graphs = counters["stats"]["unique_graphs"]
        if graphs > self.graphs:
            seconds = time.perf_counter() - self.pace.then
            self.log(f"compiled {graphs - self.graphs} graphs, {graphs} in all, after {seconds:.0f} s")
            self.graphs = graphs

    def waited_for(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The same batches; notes how long each kept the loop waiting."""
        several, asked = iter(batches), time.perf_counter()
        self.world.at(DATA)
        while (batch := next(several, None)) is not None:
            self.pace.wait_s += time.perf_counter() - asked
            self.world.at(f"at update {self.step + 1}")
            yield batch
            self.world.at(DATA)
            asked = time.perf_counter()
        self.world.at("ending")

    def log_metrics(self, step: int) -> None:
        """Write a line of metrics for the updates since the last one and let the alarms look at it."""
        figures = self.task.figures(step)
        losses = torch.stack(self.window)
        finite = losses[~losses.isnan()]
        if not len(finite):
            return
        loss, skipped = finite.mean().item(), len(losses) - len(finite)
        self.window.clear()
        if self.world.rank:
            return
        if (late := self.pace.line(step)) and not self.warned:
            self.warned, workers = True, self.config.data.workers or 0
            by = f"{workers} processes of their own" if workers else "this process itself"
            self.log(f"{late}, which were read by {by}; more (--data.workers) help where there are cores for them")
        ema = {"ema_decay": self.task.ema.decay(step)} if self.task.ema else {}
        line = {"loss": loss, "lr": self.lr, "grad_norm": self.grad_norm.item(), **ema, **figures}
        line = {name: value for name, value in line.items() if math.isfinite(value)} if skipped else line
        line |= {"skipped": skipped} if skipped else {}
        self.write(step, {**line, **self.pace.rates})
        self.note = self.pace.note(step, loss, self.device)
        self.alarms.check(step, line)

    def evaluate(self, step: int) -> None:
        """Score on the validation part, all processes their share of it; the first writes the scores."""
        started = time.perf_counter()
        self.world.at("scoring")
        self.model.eval()
        scores = self.task.evaluate(step)
        self.model.train()
        score, best = scores.get(self.task.monitor or "", math.nan), ""
        if self.best and step and self.best.is_best(score):
            self.check_finite(step)
            if weights := self.gathered(self.model.state_dict()):
                self.best.put(step, score, weights)
                self.put(f"the best model, of update {step}, waits in memory", self.best.save)
            self.best.score, best = score, "  (best so far)"
        if scores and not self.world.rank:
            self.write(step, scores)
            self.alarms.check(step, scores)
            bars = {name: " ({:.3f} to {:.3f})".format(*bar) for name, bar in self.task.bars.items()}
            said = (f"{name} {value:.3f}{bars.get(name, '')}" for name, value in scores.items())
            self.log(f"update {step}  " + "  ".join(said) + best)
        self.pace.leave_out(time.perf_counter() - started)

    def write(self, step: int, figures: dict[str, float]) -> None:
        """One line of metrics.jsonl, and the same to who hears it."""
        units = {"units": step * self.config.train.batch_size} if self.pace.units_apart else {}
        where = {"step": step, "samples": self.pace.samples, **units, "elapsed_s": round(self.pace.elapsed_s, 3)}
        self.run.append_metrics({**where, **figures})
        self.hear({**where, **figures})

    def save(self, step: int, last: bool = True) -> None:
        """Begin to write a checkpoint; never one of a model that has diverged.

        Training goes on without one that can't be written: the next is due as ever. `WriteError` only of the `last`.
        """
        self.check_finite(step)
        self.settle()  # so that memory holds one copy
        tensors = self.model.state_dict(), optim.optimizer_tensors(self.model, self.optimizer)
        model, optimizer = map(self.gathered, tensors)
        if self.world.rank:
            return
        state: dict[str, Any] = {"window": [loss.item() for loss in self.window], "fingerprint": self.fingerprint}
        state |= {"elapsed_s": self.pace.elapsed_s, "samples": self.pace.samples, "passed": self.passed}
        groups = {"model": model, "optimizer": optimizer}
        self.put(f"no checkpoint of update {step}", partial(self._write, step, groups, state))
        if last:
            self.writer.settle()

    def save_what_there_is(self) -> None:
        """A checkpoint of a run that can't go on, if there are updates that are not saved yet and it can be made."""
        newest = max(map(step_of, list_checkpoints(self.run.checkpoints)), default=0)
        if self.step > newest and not self.numbers.skipped:
            with suppress(Alarm, WriteError):
                self.save(self.step)
                self.log(f"saved at update {self.step} of {self.config.train.updates}; --resume continues here")

    def gathered(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Copies for process 0 to write; the others have nothing, but give their parts of what is sharded."""
        found = copied(tensors) if self.world.sharded or not self.world.rank else {}
        return found if not self.world.rank else {}

    def _write(self, step: int, groups: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
        keep, every = self.config.train.keep, self.config.train.keep_every
        if self.best:
            self.best.save()  # else a run could go on from here without its best model
        save_checkpoint(self.run.checkpoints, step, groups, state, keep=keep, every=every)

    def put(self, saving: str, write: Callable[[], object]) -> None:
        """Let something be written while training goes on, after what was put before."""
        self.settle()
        self.saving = saving
        self.writer.put(write)

    def settle(self) -> None:
        """Wait until all is written; what can't be is said, and tried again with the next checkpoint."""
        try:
            self.writer.settle()
        except WriteError as error:
            self.unsaved += 1
            times = f"{self.unsaved} times in this run; " if self.unsaved > 1 else ""
            every = self.config.train.save_every
            self.log(f"{self.saving}: {error} ({times}tried again at update {(self.step // every + 1) * every})")

    def close(self) -> None:
        """Wait until all is written, and end the thread that writes."""
        self.settle()
        self.writer.close()

    def check_finite(self, step: int) -> None:
        """Raise the alarm if the model has diverged."""
        if not all(torch.isfinite(local(p)).all() for p in self.parameters):
            raise Alarm(DIVERGED, f"parameters are not finite at update {step}: training diverged. Lower --optim.lr")
