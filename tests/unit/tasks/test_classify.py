"""The fine-tuning step on real pictures: accumulation, and no waiting for the device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data2vec2.modalities.recipes import get_finetune_recipe
from data2vec2.tasks.classify import ClassifyTask
from torch import Tensor

from data2vec2.config.model import EncoderConfig
from data2vec2.data.account import Skipped
from data2vec2.data.records import Records, open_data
from data2vec2.data.samples import fashion_mnist
from data2vec2.method.encoder import Encoder
from data2vec2.method.heads import Classifier
from data2vec2.modalities.image.config import AugmentConfig, FinetuneConfig, FinetuneModelConfig, ImageConfig
from data2vec2.modalities.image.model import ImageModality
from data2vec2.modalities.image.reader import ImageReader
from data2vec2.training.loop import _Trainer
from data2vec2.training.parallel import ALONE
from data2vec2.training.run import RunFolder
from tests.unit.method.test_pretraining import no_waiting

CPU = torch.device("cpu")


def config_of(micro_batch: int) -> FinetuneConfig:
    config = get_finetune_recipe("image_finetune_tiny")
    return replace(
        config,
        model=FinetuneModelConfig(drop_path=0.0),  # its draws differ between micro-batches
        augment=AugmentConfig(label_smoothing=0.1),
        optim=replace(config.optim, clip_norm=None, warmup_updates=1),
        data=replace(config.data, mean=(0.29,), std=(0.35,)),
        train=replace(config.train, batch_size=16, micro_batch=micro_batch, processes=1, updates=4),
    )


def records_of(multi_label: bool) -> Records:
    records = open_data(fashion_mnist()).train.select(range(100))
    if not multi_label:
        return records
    tags = np.stack([records.labels % 2 == 0, records.labels > 6], axis=1)
    return replace(records, classes=("even", "high"), labels=np.full(100, -1), tags=tags)


def trainer_of(config: FinetuneConfig, folder: Path, multi_label: bool = False) -> _Trainer:
    folder.mkdir(exist_ok=True)
    records, image = records_of(multi_label), ImageConfig(image_size=28, patch_size=4, num_channels=1)
    shape = EncoderConfig(embed_dim=16, num_heads=2, prenet_depth=0, depth=2)
    torch.manual_seed(0)
    model = Classifier(Encoder(shape, ImageModality(image, 16)), len(records.classes), config.model.drop_path)
    reader = ImageReader(records, image, config.data, 0)
    task = ClassifyTask(model, config, reader, reader, CPU, Skipped(100, 0.0), folder / "skipped.jsonl")
    return _Trainer(task, config, RunFolder(folder), print, CPU, "fingerprint", ALONE)


def first_gradient(micro_batch: int, folder: Path, multi_label: bool) -> dict[str, Tensor]:
    trainer = trainer_of(config_of(micro_batch), folder, multi_label)
    gradients: dict[str, Tensor] = {}

    def keep(*_: object) -> None:
        gradients.update({n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None})

    trainer.optimizer.register_step_pre_hook(keep)
    trainer.update(0, next(iter(trainer.task.batches(0, 1))))
    return gradients


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("micro_batch", [4, 1])
def test_accumulation_gives_the_gradient_of_the_whole_batch(
    tmp_path: Path, micro_batch: int, multi_label: bool
) -> None:
    whole = first_gradient(16, tmp_path, multi_label)
    parts = first_gradient(micro_batch, tmp_path, multi_label)
    assert whole.keys() == parts.keys()
    largest = max(gradient.abs().max() for gradient in whole.values())
    for name, gradient in whole.items():
        assert (gradient - parts[name]).abs().max() < 1e-5 * max(1.0, float(largest)), name


def test_a_step_never_waits_for_the_device(tmp_path: Path) -> None:
    trainer = trainer_of(config_of(8), tmp_path)
    batches = list(trainer.task.batches(0, 2))
    trainer.update(0, batches[0])
    with no_waiting():
        trainer.update(1, batches[1])


@pytest.mark.parametrize(("multi_label", "scores"), [(False, "val_accuracy val_f1 val_matthews"), (True, "val_map")])
def test_the_score_that_is_monitored_is_given(tmp_path: Path, multi_label: bool, scores: str) -> None:
    task = trainer_of(config_of(16), tmp_path, multi_label).task
    assert task.monitor == scores.split()[0]
    assert set(task.evaluate(0)) == {"val_loss", *scores.split()}
