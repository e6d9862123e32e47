"""The fine-tuning step on real texts: targets, accumulation, processes, and no waiting for the device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from data2vec2.tasks.classify import ClassifyTask, RegressTask
from torch import Tensor

from data2vec2.config.model import EncoderConfig
from data2vec2.data.account import Skipped
from data2vec2.data.batch import ClassTargets, NumberTargets, SentenceBatches
from data2vec2.data.records import Records, labelled_records
from data2vec2.data.samples import wordnet_glosses
from data2vec2.method.encoder import Encoder
from data2vec2.method.heads import Classifier
from data2vec2.modalities.text.config import TextConfig, TextFinetuneConfig
from data2vec2.modalities.text.model import TextModality
from data2vec2.modalities.text.reader import SentenceReader, Texts
from data2vec2.modalities.text.recipes import text_finetune_tiny
from data2vec2.modalities.text.tokenizer import save_tokenizer, train_tokenizer
from data2vec2.training.loop import _Trainer
from data2vec2.training.parallel import ALONE
from data2vec2.training.run import RunFolder
from tests.unit.method.test_pretraining import no_waiting

CPU, TOKENS = torch.device("cpu"), 256
TEXTS = pq.read_table(wordnet_glosses() / "test.parquet").to_pydict()["text"][:2_000:20]
LENGTHS = np.array([len(text) for text in TEXTS], dtype=np.float64)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "new"
    save_tokenizer(train_tokenizer(TEXTS, 500), path)
    return path


def reader_of(task: str, tokenizer: Path) -> SentenceReader:
    """Texts with their lengths; or whether they are long; or, as tags, whether they are long and have a comma."""
    long, none = (np.median(LENGTHS) < LENGTHS).astype(np.int64), np.full(len(TEXTS), -1)
    names, source = [f"a[{place}]" for place in range(len(TEXTS))], Texts(tuple((text,) for text in TEXTS))
    records = Records("table", names, long, ("short", "long"), {}, source)
    if task == "regress":
        records = replace(records, labels=none, classes=(), numbers=LENGTHS)
    if task == "tags":
        tags = np.stack((long == 1, np.array(["," in text for text in TEXTS])), axis=1)
        records = replace(records, labels=none, classes=("long", "comma"), tags=tags)
    return SentenceReader(records, TextConfig(vocab_size=500, max_tokens=32), tokenizer, seed=0)


def config_of(micro_batch: int) -> TextFinetuneConfig:
    config = text_finetune_tiny()
    train = replace(config.train, batch_size=TOKENS, micro_batch=micro_batch, processes=1, updates=4)
    return replace(config, optim=replace(config.optim, clip_norm=None, warmup_updates=1), train=train)


def trainer_of(task: str, tokenizer: Path, folder: Path, micro_batch: int = TOKENS) -> _Trainer:
    folder.mkdir(exist_ok=True)
    reader, config = reader_of(task, tokenizer), config_of(micro_batch)
    shape = EncoderConfig(embed_dim=16, num_heads=2, prenet_depth=0, depth=2)
    torch.manual_seed(0)
    encoder = Encoder(shape, TextModality(reader.config, 16, 0.0))
    model = Classifier(encoder, 1 if task == "regress" else 2, pooling="first")
    kind = RegressTask if task == "regress" else ClassifyTask
    found = kind(model, config, reader, reader, CPU, Skipped(100, 0.0), folder / "skipped.jsonl")
    return _Trainer(found, config, RunFolder(folder), print, CPU, "fingerprint", ALONE)


def first_gradient(trainer: _Trainer) -> dict[str, Tensor]:
    gradients: dict[str, Tensor] = {}

    def keep(*_: object) -> None:
        gradients.update({n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None})

    trainer.optimizer.register_step_pre_hook(keep)
    trainer.update(0, next(iter(trainer.task.batches(0, 1))))
    return gradients


@pytest.mark.parametrize("task", ["classify", "tags", "regress"])
def test_accumulation_gives_the_gradient_of_the_whole_batch(tmp_path: Path, tokenizer: Path, task: str) -> None:
    whole = first_gradient(trainer_of(task, tokenizer, tmp_path))
    parts = first_gradient(trainer_of(task, tokenizer, tmp_path, micro_batch=32))
    assert whole.keys() == parts.keys()
    largest = float(max(gradient.abs().max() for gradient in whole.values()))
    assert largest > 0
    for name, gradient in whole.items():
        assert (gradient - parts[name]).abs().max() < 1e-5 * max(1.0, largest), name


@pytest.mark.parametrize("task", ["classify", "regress"])
def test_a_step_never_waits_for_the_device(tmp_path: Path, tokenizer: Path, task: str) -> None:
    trainer = trainer_of(task, tokenizer, tmp_path, micro_batch=128)
    batches = list(trainer.task.batches(0, 2))
    trainer.update(0, batches[0])
    with no_waiting():
        trainer.update(1, batches[1])


@pytest.mark.parametrize(
    ("task", "scores"),
    [
        ("classify", "val_accuracy val_f1 val_loss val_matthews"),
        ("tags", "val_map val_loss"),
        ("regress", "val_pearson val_mse val_spearman"),
    ],
)
def test_the_score_that_is_monitored_is_given(tmp_path: Path, tokenizer: Path, task: str, scores: str) -> None:
    found = trainer_of(task, tokenizer, tmp_path).task
    assert found.monitor == scores.split()[0]
    assert set(found.evaluate(0)) == set(scores.split())


def test_numbers_are_validated_in_their_own_unit(tmp_path: Path, tokenizer: Path) -> None:
    """A model that always gives 0 means the mean, whose squared error is the variance."""
    trainer = trainer_of("regress", tokenizer, tmp_path)
    torch.nn.init.zeros_(trainer.model.head.weight)  # type: ignore[union-attr, arg-type]
    assert trainer.task.evaluate(0)["val_mse"] == pytest.approx(LENGTHS.var())


def test_batches_are_whole_texts_that_fit_and_parts_make_the_whole(tokenizer: Path) -> None:
    reader = reader_of("classify", tokenizer)
    order, targets = reader.order(TOKENS), ClassTargets(reader.records)
    seen: list[int] = []
    for step in range(len(order.starts)):
        plan = order(step)
        batch = SentenceBatches(reader, order, targets)[step]
        seen += plan.samples_B.tolist()
        assert batch.inputs.numel() == len(batch) * batch.size <= TOKENS
        assert batch.lengths_B is not None and batch.lengths_B.tolist() == reader.lengths_N[plan.samples_B].tolist()
        assert ((batch.inputs != 1).sum(1) == batch.lengths_B).all()
        parts = [SentenceBatches(reader, order, targets, rank, 2)[step] for rank in (0, 1)]
        assert [part.weight for part in parts] == [2 * len(part) / len(batch) for part in parts]
        assert torch.equal(torch.cat([part.targets for part in parts]), batch.targets)
        rows = [
            row[:length].tolist() for part in parts for row, length in zip(part.inputs, part.lengths_B, strict=True)
        ]  # type: ignore[arg-type]
        assert rows == [row[:length].tolist() for row, length in zip(batch.inputs, batch.lengths_B, strict=True)]
    assert set(seen) == set(range(len(TEXTS)))
    assert torch.equal(
        SentenceBatches(reader, order, targets)[3].inputs, SentenceBatches(reader, order, targets)[3].inputs
    )


def test_number_targets_are_standardised(tokenizer: Path) -> None:
    targets = NumberTargets(reader_of("regress", tokenizer).records)
    found = targets(np.arange(len(TEXTS)))[0]
    assert found.shape == (len(TEXTS), 1) and found.dtype == torch.float32
    mean, deviation = targets.scale
    assert np.allclose(found[:, 0].numpy() * deviation + mean, LENGTHS, rtol=1e-5)
    assert (abs(float(found.mean())), float(found.std(correction=0))) == pytest.approx((0, 1), abs=1e-5)


def test_rows_without_a_number_are_left_out_and_numbers_count_for_the_fingerprint(tokenizer: Path) -> None:
    records = reader_of("regress", tokenizer).records
    gaps = replace(records, numbers=np.where(np.arange(len(TEXTS)) % 3, LENGTHS, np.nan))
    kept = labelled_records(gaps)
    assert kept.numbers is not None and kept.numbers.tolist() == LENGTHS[np.arange(len(TEXTS)) % 3 > 0].tolist()
    assert replace(records, numbers=LENGTHS + 1).fingerprint != records.fingerprint
