"""Numbers that are not finite: updates are skipped, and a run goes back once, past what broke it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from data2vec2.data.batch import Batch
from data2vec2.tasks.pretrain import PretrainTask
from data2vec2.training.checkpoint import list_checkpoints, load_newest
from data2vec2.training.loop import train
from data2vec2.training.numbers import AT_LEAST, PATIENCE, Numbers
from data2vec2.training.progress import TrainingBar
from data2vec2.training.run import ODD, RunFolder
from data2vec2.training.task import Outcome, Sums
from tests.unit.training.test_loop import CPU, config_of, task_of, trainer_of


def run_with(folder: Path, broken: set[int], **train_config: int) -> tuple[Outcome, list[str], PretrainTask]:
    """A run in which the losses of some batches of the data, counted from 0, are not finite."""
    config = config_of(32, updates=30, log_every=5, eval_every=0, save_every=10, keep=10, **train_config)
    folder.mkdir()
    task, said = task_of(config, folder), list[str]()
    read, real, at = task.batches, task.loss, [0]

    def batches(start: int, stop: int) -> Iterator[Batch]:
        for number, batch in enumerate(read(start, stop), start):
            at[0] = number
            yield batch

    def loss(model: torch.nn.Module, batch: Batch) -> Sums:
        sums = real(model, batch)
        return Sums(sums.loss * (float("nan") if at[0] in broken else 1.0), sums.count)

    task.batches, task.loss = batches, loss  # type: ignore[method-assign]
    with TrainingBar(30) as bar:
        how = {"device": CPU, "fingerprint": "f", "resume": None, "asked_to_stop": lambda: False}
        outcome = train(task, config, RunFolder(folder), said.append, bar, **how)  # type: ignore[arg-type]
    return outcome, said, task


def odd(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / ODD).read_text().splitlines()]


def test_a_skipped_update_leaves_student_teacher_and_optimiser_alone(tmp_path: Path) -> None:
    trainer = trainer_of(config_of(), tmp_path)
    batches = list(trainer.task.batches(0, 3))
    trainer.update(0, batches[0])
    trainer.update(1, batches[1])
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    steps = [state["step"].clone() for state in trainer.optimizer.state.values()]
    real = trainer.task.loss
    trainer.task.loss = lambda *of: Sums(real(*of).loss * float("inf"), 1)  # type: ignore[method-assign]
    trainer.update(2, batches[2])
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.model.state_dict().items())
    assert [state["step"] for state in trainer.optimizer.state.values()] == steps
    assert trainer.window[-1].isnan()


def test_single_updates_are_skipped_and_counted(tmp_path: Path) -> None:
    outcome, said, task = run_with(tmp_path / "run", {3, 17, 18})
    assert outcome == Outcome("finished", 30)
    lines = RunFolder(tmp_path / "run").read_metrics()
    assert {line["step"]: line["skipped"] for line in lines if "skipped" in line} == {5: 1, 20: 2}
    assert [line["step"] for line in odd(tmp_path / "run")] == [4, 18, 19]
    assert odd(tmp_path / "run")[0]["samples"] == task.names(3)
    assert len(task.names(3)) == 32
    assert all(torch.isfinite(p).all() for p in task.model.parameters())
    assert "update 4: not finite, so skipped; its samples: " in said[1]


def test_many_in_a_row_are_passed_over(tmp_path: Path) -> None:
    """The run goes back to update 10 and ends as one that never met the batches 14 to 23."""
    broken = set(range(14, 14 + PATIENCE))
    outcome, said, task = run_with(tmp_path / "run", broken)
    assert outcome == Outcome("finished", 30)
    assert sum("going back to update 10" in line for line in said) == 1
    assert [line["step"] for line in odd(tmp_path / "run")] == [place + 1 for place in sorted(broken)]
    newest, _ = load_newest(tmp_path / "run" / "checkpoints")
    assert newest and newest.state["passed"] == [14, PATIENCE]
    without = run_with(tmp_path / "without", set())[2]
    seen = [task.names(step) for step in (*range(14), *range(14 + PATIENCE, 30 + PATIENCE))]
    assert len(seen) == 30 and seen[:14] == [without.names(step) for step in range(14)]


def test_a_second_time_is_a_divergence(tmp_path: Path) -> None:
    outcome, *_ = run_with(tmp_path / "run", {*range(12, 12 + PATIENCE), *range(24, 24 + PATIENCE)})
    assert outcome.state == "diverged"
    assert "the run has gone back once already" in outcome.message
    assert list_checkpoints(tmp_path / "run" / "checkpoints")


def test_without_a_checkpoint_it_is_one_at_once(tmp_path: Path) -> None:
    outcome, *_ = run_with(tmp_path / "run", set(range(2, 2 + PATIENCE)))
    assert outcome.state == "diverged" and outcome.step == 2 + PATIENCE
    assert "no checkpoint to go back to" in outcome.message and "Lower --optim.lr" in outcome.message


def test_a_run_does_not_end_with_updates_that_were_all_skipped(tmp_path: Path) -> None:
    """Fewer in a row are enough at the end: what comes after them is never seen."""
    outcome, said, _ = run_with(tmp_path / "once", {27, 28, 29})
    assert outcome == Outcome("finished", 30)
    assert sum("going back to update 20" in line for line in said) == 1
    outcome, *_ = run_with(tmp_path / "ever", set(range(27, 40)))
    assert outcome.state == "diverged"
    outcome, *_ = run_with(tmp_path / "two", {28, 29})
    assert outcome == Outcome("finished", 30)


def looked(losses: list[float]) -> list[int]:
    """The steps of the losses that stand out."""
    numbers, found = Numbers(wait=0), list[int]()
    for step, loss in enumerate(losses):
        numbers.add(step, lambda loss=loss: [loss, 0.0])  # type: ignore[misc]
        found += [number for number, _, _ in numbers.look()[1]]
    return found


def test_a_spike_is_told_from_noise_and_from_a_trend() -> None:
    noise = [2 + 0.1 * (-1) ** step + 0.003 * step for step in range(150)]
    assert looked(noise) == []
    assert looked([*noise[:60], 9.0, *noise[60:]]) == [60]
    assert looked([9.0 if step == AT_LEAST - 5 else loss for step, loss in enumerate(noise)]) == [], "too early to tell"
    assert looked([20 / (1 + step) + 2 for step in range(150)]) == []


@pytest.mark.parametrize("wait", [0, 1])
def test_what_is_known_later_is_looked_at_in_the_end(wait: int) -> None:
    numbers = Numbers(wait=wait)
    numbers.add(0, lambda: [1.0, 1.0])
    assert numbers.look()[0] is (wait == 0)
    numbers.add(1, lambda: [1.0, 0.0])
    assert numbers.look(last=True)[0] is (wait == 1)
