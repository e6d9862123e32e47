"""The loop's step on real pictures: accumulation, waiting, and what it leaves behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from data2vec2.config.run import EmaConfig, RunConfig
from data2vec2.errors import UserError
from data2vec2.method.masking import complement, take
from data2vec2.method.pretraining import Data2Vec2
from data2vec2.modalities import get_recipe
from data2vec2.modalities.image import fashion_mnist
from data2vec2.modalities.image.reader import ImageReader, Normalise
from data2vec2.modalities.image.tools import ImageTools
from data2vec2.tasks import RunContext
from data2vec2.tasks.pretrain import PretrainTask
from data2vec2.training.checkpoint import Checkpoint
from data2vec2.training.loop import Trainer, train
from data2vec2.training.parallel import ALONE
from data2vec2.training.progress import TrainingBar
from data2vec2.training.run import RunFolder
from data2vec2.training.task import Outcome
from tests.unit.data.pictures import open_pictures
from tests.unit.method.test_pretraining import no_waiting

CPU = torch.device("cpu")


def config_of(micro_batch: int = 32, **train: object) -> RunConfig:
    config = get_recipe("image_tiny")
    model = replace(config.model, decoder=replace(config.model.decoder, noise_std=0.0))
    settled = {
        "batch_size": 32,
        "processes": 1,
        "micro_batch": micro_batch,
        "precision": "float32",
        "updates": 4,
        "log_every": 1,
        **train,
    }
    return replace(
        config,
        model=model,
        optim=replace(config.optim, clip_norm=None, warmup_updates=1),
        train=replace(config.train, **settled),  # type: ignore[arg-type]
    )


def task_of(config: RunConfig, folder: Path) -> PretrainTask:
    records = open_pictures(fashion_mnist()).train.select(range(200))
    reader = ImageReader(records, config.model.modality, config.data, config.train.seed)
    torch.manual_seed(0)
    model = Data2Vec2(config.model, ImageTools().build(config.model))
    context = RunContext(run=RunFolder(folder), device=CPU)
    return PretrainTask(model, config, reader, None, Normalise((0.3,), (0.3,), CPU), context)


def trainer_of(config: RunConfig, folder: Path) -> Trainer:
    folder.mkdir(exist_ok=True)
    return Trainer(task_of(config, folder), config, RunFolder(folder), print, CPU, "fingerprint", ALONE)


def first_gradient(trainer: Trainer) -> dict[str, Tensor]:
    gradients: dict[str, Tensor] = {}

    def keep(*_: object) -> None:
        gradients.update({n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None})

    trainer.optimizer.register_step_pre_hook(keep)
    trainer.update(0, next(iter(trainer.task.batches(0, 1))))
    return gradients


@pytest.mark.parametrize("micro_batch", [8, 1])
def test_accumulation_gives_the_gradient_of_the_whole_batch(tmp_path: Path, micro_batch: int) -> None:
    whole, parts = (first_gradient(trainer_of(config_of(size), tmp_path)) for size in (32, micro_batch))
    assert whole.keys() == parts.keys()
    largest = max(gradient.abs().max() for gradient in whole.values())
    for name, gradient in whole.items():
        assert (gradient - parts[name]).abs().max() < 1e-5 * max(1.0, float(largest)), name


def test_a_step_of_the_loop_never_waits_for_the_device(tmp_path: Path) -> None:
    trainer = trainer_of(config_of(16), tmp_path)
    batches = list(trainer.task.batches(0, 2))
    trainer.update(0, batches[0])
    with no_waiting():
        trainer.update(1, batches[1])


def test_the_first_update_has_rate_zero_and_moves_nothing(tmp_path: Path) -> None:
    trainer = trainer_of(config_of(), tmp_path)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    batches = list(trainer.task.batches(0, 2))
    trainer.update(0, batches[0])
    assert trainer.lr == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.model.state_dict().items())
    trainer.update(1, batches[1])
    assert trainer.lr == trainer.peak
    assert not torch.equal(trainer.model.state_dict()["decoder.proj.weight"], before["decoder.proj.weight"])


def test_the_teacher_follows_every_update(tmp_path: Path) -> None:
    config = replace(config_of(), ema=EmaConfig(start=0.0, end=0.9, anneal_updates=9))
    trainer = trainer_of(config, tmp_path)
    for step, batch in enumerate(trainer.task.batches(0, 3)):
        before = {name: p.clone() for name, p in trainer.task.model.get_submodule("teacher").named_parameters()}
        trainer.update(step, batch)
        decay = 0.1 * (step + 1)  # the number of the update, counted from 1
        student = dict(trainer.task.model.get_submodule("student").named_parameters())
        for name, parameter in trainer.task.model.get_submodule("teacher").named_parameters():
            expected = decay * before[name] + (1 - decay) * student[name]
            assert torch.allclose(parameter, expected, atol=1e-6), name


def run_loop(config: RunConfig, folder: Path, resume: Checkpoint | None = None) -> Outcome:
    run = RunFolder(folder)
    with TrainingBar(config.train.updates) as bar:
        return train(
            task_of(config, folder),
            config,
            run,
            lambda _: None,
            bar,
            device=CPU,
            fingerprint="fingerprint",
            resume=resume,
            asked_to_stop=lambda: False,
        )


def test_log_lines_and_checkpoints_come_when_they_should(tmp_path: Path) -> None:
    config = config_of(updates=7, log_every=3, save_every=2, keep=10, eval_every=0)
    assert run_loop(config, tmp_path) == Outcome("finished", 7)
    lines = RunFolder(tmp_path).read_metrics()
    assert [line["step"] for line in lines] == [1, 3, 6, 7]
    assert [line["samples"] for line in lines] == [32, 96, 192, 224]
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"step-2", "step-4", "step-6", "step-7"}


def test_a_logged_loss_is_the_mean_since_the_last_line(tmp_path: Path) -> None:
    (tmp_path / "each").mkdir()
    (tmp_path / "mean").mkdir()
    run_loop(config_of(log_every=1), tmp_path / "each")
    run_loop(config_of(log_every=4), tmp_path / "mean")
    each = [line["loss"] for line in RunFolder(tmp_path / "each").read_metrics()]
    mean = [line["loss"] for line in RunFolder(tmp_path / "mean").read_metrics()]
    assert len(each) == 4
    assert mean == [each[0], pytest.approx(sum(each[1:]) / 3, rel=1e-6)]


def test_other_data_are_refused_on_resume(tmp_path: Path) -> None:
    checkpoint = Checkpoint(2, {}, {"fingerprint": "another", "window": [], "elapsed_s": 0.0}, tmp_path)
    with pytest.raises(UserError, match="have changed since the run started"):
        run_loop(config_of(), tmp_path, checkpoint)


def test_unexplained_is_the_share_of_the_targets_variance_that_is_missed(tmp_path: Path) -> None:
    task = task_of(config_of(), tmp_path)
    batch = next(iter(task.batches(0, 1)))
    out = task.model(task.normalise(batch.inputs), batch.keep_ids_NK)
    task.loss(task.model, batch)  # noise is off, so the same numbers
    masked_NU = complement(batch.keep_ids_NK, out.targets_BTD.shape[1])
    error = (out.predictions_NUD - take(out.targets_BTD, masked_NU)).square().mean()
    variance = out.targets_BTD.flatten(0, 1).var(0).sqrt().mean() ** 2
    assert task.figures(0)["unexplained"] == pytest.approx((error / variance).item(), rel=1e-4)
    assert 0.5 < task.figures(1)["unexplained"] < 3  # an untrained model explains next to nothing
