"""The fine-tuning step on real pictures and texts: targets, accumulation, processes, and no waiting for the device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from data2vec2.config.model import EncoderConfig
from data2vec2.data.batch import Batches
from data2vec2.data.reader import Reader
from data2vec2.data.records import Records, labelled_records
from data2vec2.method.encoder import Encoder
from data2vec2.method.heads import Classifier
from data2vec2.modalities import get_finetune_recipe
from data2vec2.modalities.image import fashion_mnist
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig
from data2vec2.modalities.image.model import ImageModality
from data2vec2.modalities.image.reader import ImageReader, Normalise
from data2vec2.modalities.jobs import FinetuneData, Job, RegressJob
from data2vec2.modalities.text import wordnet_glosses
from data2vec2.modalities.text.config import TextConfig
from data2vec2.modalities.text.model import TextModality
from data2vec2.modalities.text.reader import SentenceReader, Texts
from data2vec2.modalities.text.tokenizer import save_tokenizer, train_tokenizer
from data2vec2.modalities.tools import tools_of
from data2vec2.tasks import RunContext
from data2vec2.tasks.finetune import ClassTargets, NumberTargets
from data2vec2.training.loop import Trainer
from data2vec2.training.parallel import ALONE
from data2vec2.training.run import RunFolder
from tests.unit.data.pictures import open_pictures
from tests.unit.method.test_pretraining import no_waiting
from tests.unit.training.test_loop import CPU, first_gradient

TOKENS = 256
TEXTS = pq.read_table(wordnet_glosses() / "test.parquet").to_pydict()["text"][:2_000:20]
LENGTHS = np.array([len(text) for text in TEXTS], dtype=np.float64)
KINDS = ["pictures", "tagged pictures", "texts", "tagged texts", "numbers of texts"]
SHAPE = EncoderConfig(embed_dim=16, num_heads=2, prenet_depth=0, depth=2)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "new"
    save_tokenizer(train_tokenizer(TEXTS, 500), path)
    return path


def pictures(kind: str) -> ImageReader:
    """Clothes; or with tags: whether their number is even, and whether it is high."""
    records = open_pictures(fashion_mnist()).train.select(range(100))
    if kind == "tagged pictures":
        tags = np.stack([records.labels % 2 == 0, records.labels > 6], axis=1)
        records = replace(records, classes=("even", "high"), labels=np.full(100, -1), tags=tags)
    return ImageReader(records, ImageConfig(image_size=28, patch_size=4, num_channels=1), ImageDataConfig(), 0)


def texts(kind: str, tokenizer: Path) -> SentenceReader:
    """Texts with their lengths; or whether they are long; or, as tags, whether they are long and have a comma."""
    long, none = (np.median(LENGTHS) < LENGTHS).astype(np.int64), np.full(len(TEXTS), -1)
    names, source = [f"a[{place}]" for place in range(len(TEXTS))], Texts(tuple((text,) for text in TEXTS))
    records = Records("table", names, long, ("short", "long"), source)
    if kind == "numbers of texts":
        records = replace(records, labels=none, classes=(), numbers=LENGTHS)
    if kind == "tagged texts":
        tags = np.stack((long == 1, np.array(["," in text for text in TEXTS])), axis=1)
        records = replace(records, labels=none, classes=("long", "comma"), tags=tags)
    return SentenceReader(records, TextConfig(vocab_size=500, max_tokens=32), tokenizer, seed=0)


def trainer_of(kind: str, tokenizer: Path, folder: Path, parts: int = 1) -> Trainer:
    """Of a small model whose batches are cut into so many micro-batches."""
    torch.manual_seed(0)
    if "pictures" in kind:
        config, size = get_finetune_recipe("image_finetune_tiny"), 16
        reader: Reader = pictures(kind)
        model = Classifier(Encoder(SHAPE, ImageModality(reader.config, 16)), len(reader.records.classes))
        normalise = Normalise((0.29,), (0.35,), CPU)
    else:
        config, size = get_finetune_recipe("text_finetune_tiny"), TOKENS
        reader = texts(kind, tokenizer)
        encoder = Encoder(SHAPE, TextModality(reader.config, 16, 0.0))
        model = Classifier(encoder, len(reader.records.classes) or 1, pooling="first")
        normalise = torch.nn.Identity()
    train = replace(config.train, batch_size=size, micro_batch=size // parts, processes=1, updates=4)
    config = replace(config, optim=replace(config.optim, clip_norm=None, warmup_updates=1), train=train)
    context = RunContext(run=RunFolder(folder), device=CPU)
    numbers = kind == "numbers of texts"
    targets = NumberTargets(reader.records) if numbers else ClassTargets(reader.records, 0.1)
    common = (model, Batches(reader, reader.order(size), [targets]), reader, normalise, context)
    job = (RegressJob if numbers else Job)(tools_of("image" if "pictures" in kind else "text"))
    task = job.learning(FinetuneData(train=reader, val=reader, test=None, description="", outputs=1), common)
    return Trainer(task, config, RunFolder(folder), print, CPU, "fingerprint", ALONE)


@pytest.mark.parametrize(
    ("kind", "parts"), [(kind, parts) for kind in KINDS for parts in ((4, 16) if "pictures" in kind else (8,))]
)
def test_accumulation_gives_the_gradient_of_the_whole_batch(
    tmp_path: Path, tokenizer: Path, kind: str, parts: int
) -> None:
    whole = first_gradient(trainer_of(kind, tokenizer, tmp_path))
    cut = first_gradient(trainer_of(kind, tokenizer, tmp_path, parts))
    assert whole.keys() == cut.keys()
    largest = float(max(gradient.abs().max() for gradient in whole.values()))
    assert largest > 0
    for name, gradient in whole.items():
        assert (gradient - cut[name]).abs().max() < 1e-5 * max(1.0, largest), name


@pytest.mark.parametrize("kind", ["pictures", "texts", "numbers of texts"])
def test_a_step_never_waits_for_the_device(tmp_path: Path, tokenizer: Path, kind: str) -> None:
    trainer = trainer_of(kind, tokenizer, tmp_path, parts=2)
    batches = list(trainer.task.batches(0, 2))
    trainer.update(0, batches[0])
    with no_waiting():
        trainer.update(1, batches[1])


@pytest.mark.parametrize("kind", KINDS)
def test_the_score_that_is_monitored_is_given(tmp_path: Path, tokenizer: Path, kind: str) -> None:
    task = trainer_of(kind, tokenizer, tmp_path).task
    scores = "val_map val_loss" if "tagged" in kind else "val_accuracy val_f1 val_loss val_matthews"
    scores = "val_pearson val_mse val_spearman" if "numbers" in kind else scores
    assert task.monitor == scores.split()[0]
    assert set(task.evaluate(0)) == set(scores.split())


def test_numbers_are_validated_in_their_own_unit(tmp_path: Path, tokenizer: Path) -> None:
    """A model that always gives 0 means the mean, whose squared error is the variance."""
    trainer = trainer_of("numbers of texts", tokenizer, tmp_path)
    torch.nn.init.zeros_(trainer.model.head.weight)  # type: ignore[union-attr, arg-type]
    assert trainer.task.evaluate(0)["val_mse"] == pytest.approx(LENGTHS.var())


def test_batches_are_whole_texts_that_fit_and_parts_make_the_whole(tokenizer: Path) -> None:
    reader = texts("texts", tokenizer)
    order, added = reader.order(TOKENS), [ClassTargets(reader.records)]
    seen: list[int] = []
    for step in range(len(order.batches)):
        plan = order(step)
        batch = Batches(reader, order, added)[step]
        seen += plan.samples_B.tolist()
        assert batch.inputs.numel() == len(batch) * batch.size <= TOKENS
        assert batch.lengths_B is not None and batch.lengths_B.tolist() == reader.lengths_N[plan.samples_B].tolist()
        assert ((batch.inputs != 1).sum(1) == batch.lengths_B).all()
        parts = [Batches(reader, order, added, rank, 2)[step] for rank in (0, 1)]
        assert [part.weight for part in parts] == [2 * len(part) / len(batch) for part in parts]
        assert torch.equal(torch.cat([part.targets for part in parts]), batch.targets)
        rows, whole = (
            [row[:n].tolist() for one in some for row, n in zip(one.inputs, one.lengths_B, strict=True)]
            for some in (parts, [batch])
        )
        assert rows == whole
    assert set(seen) == set(range(len(TEXTS)))
    assert torch.equal(Batches(reader, order, added)[3].inputs, Batches(reader, order, added)[3].inputs)


def test_number_targets_are_standardised(tokenizer: Path) -> None:
    reader = texts("numbers of texts", tokenizer)
    targets, everything = NumberTargets(reader.records), reader.order(100_000)
    found = Batches(reader, everything, [targets])[0].targets
    assert found.shape == (len(TEXTS), 1) and found.dtype == torch.float32
    mean, deviation = targets.scale
    order = everything(0).samples_B
    assert np.allclose(found[:, 0].numpy() * deviation + mean, LENGTHS[order], rtol=1e-5)
    assert (abs(float(found.mean())), float(found.std(correction=0))) == pytest.approx((0, 1), abs=1e-5)


def test_rows_without_a_number_are_left_out_and_numbers_count_for_the_fingerprint(tokenizer: Path) -> None:
    records = texts("numbers of texts", tokenizer).records
    gaps = replace(records, numbers=np.where(np.arange(len(TEXTS)) % 3, LENGTHS, np.nan))
    kept = labelled_records(gaps)
    assert kept.numbers is not None and kept.numbers.tolist() == LENGTHS[np.arange(len(TEXTS)) % 3 > 0].tolist()
    assert replace(records, numbers=LENGTHS + 1).fingerprint != records.fingerprint
