"""Batches, replacement of bad samples, and the survey."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from data2vec2.data.account import Bad
from data2vec2.data.folder import Files
from data2vec2.data.reader import LOOK_AT
from data2vec2.data.records import Records
from data2vec2.data.sampler import Plan
from data2vec2.errors import UserError
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig
from data2vec2.modalities.image.reader import ImageReader, survey

from .pictures import clothes, encoded, open_pictures, photo

GREY = ImageConfig(image_size=28, patch_size=4, num_channels=1)
COLOUR = ImageConfig(image_size=32, patch_size=8, num_channels=3)


def reader_of(records: Records, seed: int = 0, **data: object) -> ImageReader:
    return ImageReader(records, GREY, ImageDataConfig(**data), seed)


def ids(*samples: int) -> np.ndarray:
    return np.array(samples, dtype=np.int64)


@pytest.fixture
def half_bad(tmp_path: Path) -> Records:
    """Ten pictures of two classes, of which a, c, e, g, i can't be read."""
    for place in range(10):
        folder = tmp_path / ("even" if place % 2 == 0 else "odd")
        folder.mkdir(exist_ok=True)
        content = encoded(photo(40 + place, 40), "PNG") if place % 2 else b"" if place % 4 else b"text"
        (folder / f"{'abcdefghij'[place]}.png").write_bytes(content)
    return open_pictures(tmp_path).train


def test_shapes_and_labels() -> None:
    batch = reader_of(clothes()).train_batch(Plan(ids(0, 0, 1), ids(5, 6, 5)))
    assert batch.inputs.shape == (3, 1, 28, 28)
    assert batch.inputs.dtype == np.uint8
    assert batch.inputs.flags.writeable
    assert batch.labels_B.tolist() == clothes().labels[[5, 6, 5]].tolist()
    colour = ImageReader(clothes(), COLOUR, ImageDataConfig(), 0).eval_batch(ids(1, 2))
    assert colour.inputs.shape == (2, 3, 32, 32)
    assert (colour.inputs[:, 0] == colour.inputs[:, 2]).all()


def test_a_crop_depends_on_seed_epoch_and_sample_alone() -> None:
    reader = reader_of(clothes())
    many = reader.train_batch(Plan(np.zeros(20, np.int64), np.arange(20))).inputs
    assert np.array_equal(many[[7]], reader.train_batch(Plan(ids(0), ids(7))).inputs)
    assert np.array_equal(many[::-1], reader.train_batch(Plan(np.zeros(20, np.int64), np.arange(20)[::-1])).inputs)
    assert not np.array_equal(many[[7]], reader.train_batch(Plan(ids(1), ids(7))).inputs)
    assert not np.array_equal(many[[7]], reader_of(clothes(), seed=1).train_batch(Plan(ids(0), ids(7))).inputs)


def test_pickled_reader_gives_the_same_batch(half_bad: Records) -> None:
    for records in (clothes(), half_bad):
        reader = reader_of(records)
        again = pickle.loads(pickle.dumps(reader))
        one, two = reader.train_batch(Plan(ids(2, 2), ids(1, 4))), again.train_batch(Plan(ids(2, 2), ids(1, 4)))
        assert np.array_equal(one.inputs, two.inputs)
        assert one.bad == two.bad


def test_flip_mirrors_half_of_the_crops() -> None:
    samples, epochs = np.arange(200), np.zeros(200, np.int64)
    plain = reader_of(clothes(), flip=False).train_batch(Plan(epochs, samples)).inputs
    flipped = reader_of(clothes(), flip=True).train_batch(Plan(epochs, samples)).inputs
    same = (plain == flipped).all(axis=(1, 2, 3))
    mirrored = (plain[..., ::-1] == flipped).all(axis=(1, 2, 3))
    assert (same | mirrored).all()
    assert 70 < mirrored.sum() < 130


def test_whole_central_square_of_an_array_is_the_array() -> None:
    batch = reader_of(clothes(), eval_crop=1.0).eval_batch(np.arange(10))
    assert np.array_equal(batch.inputs[:, 0], np.stack([clothes().read(place) for place in range(10)]))


def test_bad_samples_are_replaced_and_labels_follow(half_bad: Records) -> None:
    reader = reader_of(half_bad)
    odd, even = half_bad.classes.index("odd"), half_bad.classes.index("even")
    bad_ids = np.flatnonzero(half_bad.labels == even)
    batch = reader.train_batch(Plan(np.full(5, 3), bad_ids))
    assert (batch.labels_B == odd).all()
    assert (half_bad.labels[batch.indices_B] == batch.labels_B).all()
    assert [bad.name for bad in batch.bad] == [half_bad.names[place] for place in bad_ids]
    assert [bad.reason for bad in batch.bad] == [
        "not an image",
        "empty file",
        "not an image",
        "empty file",
        "not an image",
    ]
    good = reader.train_batch(Plan(np.full(5, 3), np.flatnonzero(half_bad.labels == odd))).inputs
    for picture in batch.inputs:  # it is the crop that the other sample has in this epoch
        assert (picture == good).all(axis=(1, 2, 3)).any()


def test_replacement_is_deterministic_and_listed_each_time(half_bad: Records) -> None:
    reader = reader_of(half_bad)
    one = reader.train_batch(Plan(ids(0, 0, 0), ids(0, 1, 0)))
    two = reader.train_batch(Plan(ids(0, 0), ids(1, 0)))
    assert len(one.bad) == 3
    assert np.array_equal(one.inputs[[1, 0]], two.inputs)
    assert np.array_equal(one.inputs[0], one.inputs[2])
    assert set(one.indices_B.tolist()) <= set(range(5, 10))
    assert one.indices_B[0] == one.indices_B[2]
    assert np.array_equal(reader.train_batch(Plan(ids(0), one.indices_B[:1])).inputs[0], one.inputs[0])
    central = reader.eval_batch(ids(0, 5))
    assert central.bad == (Bad(half_bad.names[0], "not an image"),)


def test_a_file_that_vanished_is_replaced(half_bad: Records) -> None:
    assert isinstance(half_bad.source, Files)
    (half_bad.source.root / half_bad.names[9]).unlink()
    assert reader_of(half_bad).eval_batch(ids(9)).bad == (Bad(half_bad.names[9], "unreadable"),)


def test_nothing_usable_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    reader = reader_of(open_pictures(tmp_path).train)
    with pytest.raises(UserError, match=r"a\.jpg can't be used \(empty file\), nor can any of 100 replacements"):
        reader.eval_batch(ids(0))
    with pytest.raises(UserError, match=r"none of 1 samples .* a\.jpg: empty file"):
        survey(reader)


def test_survey_against_numpy() -> None:
    found, mean, std = survey(reader_of(clothes(), eval_crop=1.0))
    values = np.stack([clothes().read(place) for place in range(200)]) / 255
    assert found.checked == 200
    assert found.bad == ()
    assert mean == pytest.approx((values.mean(),))
    assert std == pytest.approx((values.std(),))


def test_survey_of_a_part_and_of_bad_files(half_bad: Records) -> None:
    assert survey(reader_of(clothes()), limit=50)[0].checked == 50
    found, mean, std = survey(ImageReader(half_bad, COLOUR, ImageDataConfig(), 0))
    assert found.checked == 10
    assert len(found.bad) == 5
    assert len(mean) == len(std) == 3


def test_fewer_are_surveyed_where_only_time_and_memory_are_asked_for() -> None:
    before = LOOK_AT.set(7)
    try:
        assert survey(reader_of(clothes()))[0].checked == 7
    finally:
        LOOK_AT.reset(before)
    assert survey(reader_of(clothes()))[0].checked > 7


def test_survey_of_a_single_colour_has_a_floor(tmp_path: Path) -> None:
    np.savez(tmp_path / "flat.npz", x=np.full((4, 8, 8), 51, np.uint8))
    _, mean, std = survey(reader_of(open_pictures(tmp_path / "flat.npz").train))
    assert mean == pytest.approx((0.2,))
    assert std == (1e-3,)
