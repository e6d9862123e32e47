"""Several data sets as one: nothing is lost or taken for something else, and shares are what was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data2vec2.config.run import DataConfig
from data2vec2.data.joined import join, weighted
from data2vec2.data.records import Parts, Records
from data2vec2.data.sampler import GlobalBatches, LengthBatches, Repeated
from data2vec2.errors import UsageError
from data2vec2.modalities.image.config import ImageFinetuneDataConfig

from .pictures import encoded, open_pictures, photo, put
from .tars import as_tar


@pytest.fixture
def data(tmp_path: Path) -> tuple[list[str], list[Parts]]:
    """A folder with a damaged file and two classes, and an archive with two classes, one of them of the same name."""
    for place in range(30):
        put(tmp_path / "folder" / ("cat", "dog")[place % 2] / f"{place:02}.jpg")
    (tmp_path / "folder" / "cat" / "notes.md").write_text("no picture")
    members = []
    for place in range(50):
        members += [(f"{place:02}.png", encoded(photo(20 + place, 20), "PNG"))]
        members += [(f"{place:02}.cls", (b"cat", b"eel")[place % 2])]
    as_tar(tmp_path / "archive.tar", members)
    names = [str(tmp_path / "folder"), str(tmp_path / "archive.tar")]
    return names, [open_pictures(name) for name in names]


def test_all_samples_are_there(data: tuple[list[str], list[Parts]]) -> None:
    names, parts = data
    joined = join(parts, names, 0.0, seed=0)
    assert joined.val is None
    assert joined.train.classes == ("cat", "dog", "eel")
    place = 0
    for name, one in zip(names, parts, strict=True):
        for own in range(len(one.train)):
            assert joined.train.names[place] == f"{name}/{one.train.names[own]}"
            assert joined.train.read(place) == one.train.read(own)
            with joined.train.open(place) as file, one.train.open(own) as expected:
                assert file.read() == expected.read()
            label = joined.train.classes[joined.train.labels[place]]
            assert label == one.train.classes[one.train.labels[own]]
            place += 1
    assert place == len(joined.train) == 80
    chosen = joined.train.select([70, 3])
    assert [chosen.read(0), chosen.read(1)] == [joined.train.read(70), joined.train.read(3)]
    assert list(chosen.names) == [joined.train.names[70], joined.train.names[3]]


def test_accounts_add_up_and_say_of_which_data_set(data: tuple[list[str], list[Parts]]) -> None:
    names, parts = data
    joined = join(parts, names, 0.2, seed=0)
    assert joined.val is not None
    found = joined.account.to_dict()
    assert found["parts"]["train"]["found"] == len(joined.train) == 64
    assert found["parts"]["val"]["found"] == len(joined.val) == 16
    assert found["no_samples"] == {f"{names[0]}/cat/notes.md": ".md"}
    assert all(f"{name}: {one.description}" in joined.description for name, one in zip(names, parts, strict=True))
    for name in names:
        assert any(held.startswith(f"{name}/") for held in joined.val.names), "each data set has a part held out"
    assert not {*joined.val.names} & {*joined.train.names}


def test_labels_that_not_all_have_are_left_out_aloud(tmp_path: Path, data: tuple[list[str], list[Parts]]) -> None:
    names, parts = data
    for place in range(3):
        put(tmp_path / "plain" / f"{place}.jpg")
    names, parts = [*names, str(tmp_path / "plain")], [*parts, open_pictures(tmp_path / "plain")]
    joined = join(parts, names, 0.0, seed=0)
    assert joined.train.classes == ()
    assert (joined.train.labels == -1).all()
    (remark,) = [one for one in joined.account.remarks if "labels of" in one]
    assert names[0] in remark
    assert names[1] in remark
    assert names[2] not in remark


def test_the_fingerprint_tells_data_sets_and_shares_apart(data: tuple[list[str], list[Parts]]) -> None:
    names = data[0]

    def opened(order: list[int], weights: tuple[float, ...] = ()) -> str:
        fresh = [open_pictures(names[place]) for place in order]
        train = join(fresh, [names[place] for place in order], 0.0, seed=0).train
        return (weighted(train, names, weights, 0)[0] if weights else train).fingerprint

    found = [opened([0, 1]), opened([1, 0]), opened([0, 1], (1, 1)), opened([0, 1], (1, 2))]
    assert len({*found}) == 4
    assert opened([0, 1]) == found[0]
    (Path(names[0]) / "cat" / "00.jpg").write_bytes(b"other")
    assert opened([0, 1]) != found[0]


def fake(sizes: list[int]) -> Records:
    """Records of nothing but which data set they are of."""
    parts = [Records("a", [str(place) for place in range(size)], np.full(size, -1), (), None) for size in sizes]  # type: ignore
    origins = np.repeat(np.arange(len(sizes)), sizes)
    names = [f"{name}" for part in parts for name in part.names]
    return Records("all", names, np.full(sum(sizes), -1), (), None, origins=origins)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sizes", "weights"),
    [([30, 100, 7], (0.5, 0.3, 0.2)), ([30, 100], (3, 10)), ([10, 10], (1, 9)), ([5, 5000], (0.01, 0.99))],
)
def test_shares_are_what_was_asked_for(sizes: list[int], weights: tuple[float, ...]) -> None:
    names = [f"d{place}" for place in range(len(sizes))]
    records, said = weighted(fake(sizes), names, weights, seed=5)
    assert records.repeats is not None
    assert records.origins is not None
    counts = np.bincount(records.origins, records.repeats)
    assert np.allclose(counts / counts.sum(), np.array(weights) / sum(weights), atol=1 / counts.sum())
    assert records.repeats.min() >= 1, "every sample comes in every pass"
    for place in range(len(sizes)):
        assert np.ptp(records.repeats[records.origins == place]) <= 1
    assert len(said) == len(sizes)
    again, _ = weighted(fake(sizes), names, weights, seed=5)
    assert np.array_equal(again.repeats, records.repeats)


def test_weights_by_size_change_nothing() -> None:
    records, _ = weighted(fake([30, 100]), ["a", "b"], (30, 100), seed=0)
    assert records.repeats is not None
    order, plain = Repeated(records.repeats, lambda some: GlobalBatches(len(some), 8, 3)), GlobalBatches(130, 8, 3)
    for step in range(40):
        assert np.array_equal(order(step).samples_B, plain(step).samples_B)
        assert np.array_equal(order(step).epochs_B, plain(step).epochs_B)


def test_a_pass_has_every_sample_as_often_as_it_should() -> None:
    repeats = weighted(fake([6, 20]), ["a", "b"], (0.6, 0.4), seed=1)[0].repeats
    assert repeats is not None
    order = Repeated(repeats, lambda some: GlobalBatches(len(some), 5, seed=2))
    total = int(repeats.sum())
    plans = [order(step) for step in range(3 * total // 5 + 1)]
    samples = np.concatenate([plan.samples_B for plan in plans])[: 3 * total]
    epochs = np.concatenate([plan.epochs_B for plan in plans])[: 3 * total]
    for number in range(3):
        assert np.array_equal(np.bincount(samples[number * total : (number + 1) * total], minlength=26), repeats)
    assert len({*zip(epochs.tolist(), samples.tolist(), strict=True)}) == 3 * total, "no crop or mask comes twice"
    behind = Repeated(repeats, lambda some: GlobalBatches(len(some), 5, seed=2))
    for step in reversed(range(10)):
        assert np.array_equal(behind(step).samples_B, plans[step].samples_B)


def test_recordings_come_as_often_in_batches_of_one_length() -> None:
    repeats = np.array([1, 3, 2, 1, 1, 4])
    lengths = np.array([100, 200, 150, 300, 250, 120]) * 100
    order = Repeated(repeats, lambda some: LengthBatches(lengths[some], 3.0, 0, 16_000))
    plans = [order(step) for step in range(int(order.per_epoch))]
    counts = np.bincount(np.concatenate([plan.samples_B for plan in plans]), minlength=6)
    assert (counts >= repeats).all(), "the last batch may take of the one before"
    assert counts.sum() - repeats.sum() <= max(len(plan.samples_B) for plan in plans)
    for plan in plans:
        assert (lengths[plan.samples_B] >= plan.length).all()


def test_what_can_not_be() -> None:
    with pytest.raises(UsageError, match="2 values for 3 data sets"):
        weighted(fake([5, 5, 5]), ["a", "b", "c"], (0.5, 0.5), 0)
    with pytest.raises(UsageError, match=r"each sample of a would come 999,000 times; raise the weight of b"):
        weighted(fake([10, 10_000]), ["a", "b"], (0.999, 0.001), 0)
    with pytest.raises(UsageError, match="must be above 0"):
        DataConfig(kind="image", weights=(0.5, 0.0))
    with pytest.raises(UsageError, match="fine-tuning takes one DATA"):
        ImageFinetuneDataConfig(weights=(0.5, 0.5))


def test_the_same_data_twice(data: tuple[list[str], list[Parts]]) -> None:
    names, parts = data
    with pytest.raises(UsageError, match="name each data set once"):
        join([parts[0], parts[0]], [names[0], names[0]], 0.0, 0)
