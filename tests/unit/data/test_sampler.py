"""The order of samples, the batches read in it, and the count of those that can't be read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data2vec2.config.model import MaskConfig
from data2vec2.data.account import Bad, PartAccount
from data2vec2.data.batch import Batch, Batches, iterate
from data2vec2.data.sampler import GlobalBatches
from data2vec2.errors import UserError
from data2vec2.modalities.image import fashion_mnist
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig
from data2vec2.modalities.image.reader import ImageReader
from data2vec2.tasks.pretrain import Masks

from .pictures import open_pictures


@pytest.mark.parametrize(("num_samples", "batch_size"), [(100, 32), (32, 32), (7, 32), (1, 4), (64, 16), (33, 1)])
def test_every_epoch_is_a_permutation(num_samples: int, batch_size: int) -> None:
    order = GlobalBatches(num_samples, batch_size, seed=0)
    plans = [order(step) for step in range(-(-5 * num_samples // batch_size))]
    batches = [(plan.epochs_B, plan.samples_B) for plan in plans]
    assert all(len(epochs) == len(samples) == batch_size for epochs, samples in batches)
    epochs, samples = (
        np.concatenate(part)[: 5 * num_samples].reshape(5, num_samples) for part in zip(*batches, strict=True)
    )
    assert (epochs == np.arange(5)[:, None]).all()
    assert (np.sort(samples, axis=1) == np.arange(num_samples)).all()
    if num_samples > 6:
        assert len(np.unique(samples, axis=0)) == 5


def test_a_batch_is_a_function_of_its_step() -> None:
    ahead, behind = GlobalBatches(50, 16, seed=3), GlobalBatches(50, 16, seed=3)
    forwards = [ahead(step) for step in range(12)]
    for step in reversed(range(12)):
        assert np.array_equal(forwards[step].epochs_B, behind(step).epochs_B)
        assert np.array_equal(forwards[step].samples_B, behind(step).samples_B)
    assert not np.array_equal(forwards[0].samples_B, GlobalBatches(50, 16, seed=4)(0).samples_B)


def test_the_batch_size_only_cuts_the_same_order() -> None:
    small = np.concatenate([GlobalBatches(50, 8, seed=0)(step).samples_B for step in range(8)])
    large = np.concatenate([GlobalBatches(50, 32, seed=0)(step).samples_B for step in range(2)])
    assert np.array_equal(small, large)


def test_nothing_to_train_on() -> None:
    with pytest.raises(ValueError, match="no samples"):
        GlobalBatches(0, 4, seed=0)


@pytest.fixture(scope="module")
def dataset() -> Batches:
    records = open_pictures(fashion_mnist()).train.select(range(40))
    config = ImageConfig(image_size=28, patch_size=4, num_channels=1)
    reader = ImageReader(records, config, ImageDataConfig(), 0)
    return Batches(reader, GlobalBatches(40, 12, seed=0), [Masks(MaskConfig(num_masks=3, mask_ratio=0.6), reader)])


def same(a: Batch, b: Batch) -> bool:
    return torch.equal(a.inputs, b.inputs) and torch.equal(a.keep_ids_NK, b.keep_ids_NK)


def test_workers_change_nothing(dataset: Batches) -> None:
    here = list(iterate(dataset, 2, 8, workers=0))
    assert len(here) == 6
    assert all(same(batch, dataset[step]) for step, batch in zip(range(2, 8), here, strict=True))
    there = list(iterate(dataset, 2, 8, workers=2))
    assert all(same(a, b) for a, b in zip(here, there, strict=True))


class Refused(Batches):
    def __getitem__(self, step: int) -> Batch:
        raise UserError("two of three files are damaged; check them")


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_worker_tells_the_user_has_no_traceback(dataset: Batches, workers: int) -> None:
    with pytest.raises(UserError) as caught:
        list(iterate(Refused(dataset.reader, dataset.order), 0, 1, workers=workers))
    assert str(caught.value) == "two of three files are damaged; check them"


@pytest.mark.parametrize("size", [1, 4, 6, 12])
def test_micro_batches_are_slices(dataset: Batches, size: int) -> None:
    batch = dataset[3]
    assert len(batch) == 12
    assert batch.keep_ids_NK.shape == (36, 19)
    parts = list(batch.split(size))
    assert [len(part) for part in parts] == [size] * (12 // size)
    assert torch.equal(torch.cat([part.inputs for part in parts]), batch.inputs)
    assert torch.equal(torch.cat([part.keep_ids_NK for part in parts]), batch.keep_ids_NK)


def test_a_sample_brings_its_masks_to_any_batch(dataset: Batches) -> None:
    """Rows `b * M` to `b * M + M - 1` of a batch belong to sample b: the same as in a batch of one."""
    alone = Batches(dataset.reader, GlobalBatches(40, 1, seed=0), dataset.additions)
    batch = dataset[0]
    for place, part in enumerate(batch.split(1)):
        assert same(part, alone[place])


def test_skipped_samples_are_counted_once() -> None:
    skipped = PartAccount(100, max_bad=0.05)
    assert skipped.add([Bad("a", "truncated"), Bad("b", "empty file")]) == [
        Bad("a", "truncated"),
        Bad("b", "empty file"),
    ]
    assert skipped.add([Bad("a", "truncated"), Bad("c", "truncated")]) == [Bad("c", "truncated")]
    assert skipped.add([Bad("a", "truncated")]) == []
    assert skipped.summary() == "2 truncated, 1 empty file"


def test_too_many_skipped_samples_are_an_error_that_lists_them() -> None:
    skipped = PartAccount(100, max_bad=0.05)
    skipped.add([Bad(f"file{i}", "truncated") for i in range(5)])
    with pytest.raises(UserError) as caught:
        skipped.add([Bad("last", "not an image")])
    message = str(caught.value)
    for part in ("6 of 100", "--data.max-bad 0.05", "5 truncated, 1 not an image", "file0: truncated", "last: not an"):
        assert part in message
    with pytest.raises(UserError, match="and 20 more"):
        PartAccount(1_000, 0.0).add([Bad(str(i), "damaged") for i in range(120)])


def test_a_share_is_of_what_was_looked_at() -> None:
    with pytest.raises(UserError, match="2 of 20"):
        PartAccount(1_000, 0.05).add([Bad("a", "x"), Bad("b", "x")], checked=20)
    assert PartAccount(1_000, 0.05).add([Bad("a", "x")], checked=20)
