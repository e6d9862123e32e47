"""Targets, the choice of labels, and batches of both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from data2vec2.data.batch import Batches
from data2vec2.data.records import Records, labelled_records, targets_of
from data2vec2.data.sampler import GlobalBatches
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig
from data2vec2.modalities.image.reader import ImageReader
from data2vec2.tasks.finetune import ClassTargets

from .pictures import clothes


def tagged() -> Records:
    """The clothes with two classes: an even number, and a label above 6 (a sample may have none or both)."""
    records = clothes()
    tags = np.stack((records.labels % 2 == 0, records.labels > 6), axis=1)
    return replace(records, labels=np.full(len(records), -1), classes=("even", "high"), tags=tags)


def reader_of(records: Records) -> ImageReader:
    return ImageReader(
        records, ImageConfig(image_size=28, patch_size=4, num_channels=1), ImageDataConfig(min_crop=0.7), 0
    )


def test_targets_are_one_hot_or_the_tags() -> None:
    indices = np.array([3, 0, 3])
    assert np.array_equal(targets_of(clothes(), indices), np.eye(10)[clothes().labels[indices]])
    assert np.array_equal(targets_of(tagged(), indices), tagged().tags[indices])


def test_smoothed_targets_are_probabilities() -> None:
    one = targets_of(clothes(), np.arange(20), 0.1)
    assert one.dtype == np.float32
    assert np.allclose(one.sum(axis=1), 1)
    assert np.allclose(one.max(axis=1), 0.91)
    assert np.allclose(one.min(axis=1), 0.01)
    several = targets_of(tagged(), np.arange(20), 0.1)
    assert np.allclose(np.where(tagged().tags[:20], several - 0.95, several - 0.05), 0)


def test_samples_without_label_are_left_out() -> None:
    records = clothes()
    labels = np.where(np.arange(len(records)) % 3 == 0, -1, records.labels)
    kept = labelled_records(replace(records, labels=labels))
    assert len(kept) == (labels >= 0).sum()
    assert (kept.labels >= 0).all()


@pytest.mark.parametrize("count", [1, 4])
def test_so_many_of_each_class_drawn_by_the_seed(count: int) -> None:
    chosen = labelled_records(clothes(), count, seed=1)
    assert np.bincount(chosen.labels, minlength=10).tolist() == [count] * 10
    assert list(chosen.names) == list(labelled_records(clothes(), count, seed=1).names)
    assert list(chosen.names) != list(labelled_records(clothes(), count, seed=2).names)
    more = labelled_records(clothes(), count + 1, seed=1)
    assert set(chosen.names) < set(more.names)  # curves over the number of labels add samples, they don't swap them


def test_more_labels_than_there_are_is_all_of_them() -> None:
    assert labelled_records(clothes(), 10_000) is clothes()


def test_so_many_of_each_tag_at_least() -> None:
    chosen = labelled_records(tagged(), 5)
    assert chosen.tags is not None
    assert (chosen.tags.sum(axis=0) >= 5).all()
    assert len(chosen) <= 10


def test_a_batch_has_the_pictures_and_their_targets() -> None:
    reader = reader_of(clothes())
    order = GlobalBatches(200, 16, 0)
    batch = Batches(reader, order, [ClassTargets(clothes(), 0.1)])[5]
    plan = order(5)
    assert batch.inputs.dtype == torch.uint8
    assert np.array_equal(batch.inputs.numpy(), reader.train_batch(plan).inputs)
    assert np.array_equal(batch.targets.numpy(), targets_of(clothes(), plan.samples_B, 0.1))


def test_parts_of_processes_and_micro_batches_make_the_whole() -> None:
    reader, order = reader_of(clothes()), GlobalBatches(200, 16, 0)
    targets = [ClassTargets(clothes())]
    whole = Batches(reader, order, targets)[3]
    halves = [Batches(reader, order, targets, rank, 2)[3] for rank in (0, 1)]
    quarters = list(whole.split(4))
    for parts in (halves, quarters):
        assert torch.equal(torch.cat([part.inputs for part in parts]), whole.inputs)
        assert torch.equal(torch.cat([part.targets for part in parts]), whole.targets)
