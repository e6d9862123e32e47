"""What is kept of very many files is what a listing would find, whatever has changed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest

from data2vec2.data import index
from data2vec2.data.batch import Batches, iterate
from data2vec2.data.index import Strings
from data2vec2.data.records import Parts, open_data
from data2vec2.errors import UserError
from data2vec2.files import cache_folder
from data2vec2.modalities.audio.manifests import MANIFESTS
from data2vec2.modalities.audio.reader import RECORDINGS
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig
from data2vec2.modalities.image.reader import ImageReader

from .pictures import open_pictures, put

PART_NAMES = ("train", "val", "test")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ten files are very many, and what changed 20 ms ago has settled."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "LEAST", 10)
    monkeypatch.setattr(index, "_SETTLED_NS", 20_000_000)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Pictures of two classes in two parts, one with a name that is no UTF-8, beside a file that is none."""
    root = tmp_path / "data"
    for place in range(24):
        put(root / ("train", "train", "test")[place % 3] / ("cat", "dog")[place % 2] / f"{place:02}.jpg")
    put(root / "train" / "dog" / os.fsdecode(b"\xff\xe9.jpg"))
    (root / "train" / "readme.txt").write_text("about")
    settle()
    return root


def settle() -> None:
    time.sleep(0.05)


def kept() -> list[Path]:
    return sorted(cache_folder().glob("listing-*"))


def fresh(root: Path) -> Parts:
    """Listed, not looked up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "load", lambda *_: None)
        patch.setattr(index, "LEAST", 1 << 60)
        return open_pictures(root)


def assert_same(found: Parts, expected: Parts) -> None:
    assert found.description == expected.description
    assert found.account.to_dict() == expected.account.to_dict()
    for part in PART_NAMES:
        one, other = getattr(found, part), getattr(expected, part)
        assert (one is None) == (other is None)
        if one is not None:
            assert list(one.names) == list(other.names)
            assert one.classes == other.classes
            assert np.array_equal(one.labels, other.labels)
            assert (one.texts is None) == (other.texts is None)
            assert list(one.texts or ()) == list(other.texts or ())
            assert one.fingerprint == other.fingerprint
            if len(one):
                assert one.read(len(one) - 1) == other.read(len(one) - 1)


def test_it_is_the_same_as_a_listing(data: Path) -> None:
    expected = fresh(data)
    for _ in range(3):
        found = open_pictures(data)
        assert isinstance(found.train.names, Strings)
        assert_same(found, expected)
    assert len(kept()) == 1
    places = np.array([5, 2, 9])
    assert list(found.train.select(places).select(np.array([2, 0])).names) == [expected.train.names[i] for i in (9, 5)]
    assert found.train.names[-1] == expected.train.names[-1]
    with pytest.raises(IndexError):
        found.train.names[len(expected.train)]


def add(root: Path) -> None:
    put(root / "train" / "cat" / "new.jpg")


def remove(root: Path) -> None:
    (root / "test" / "cat" / "02.jpg").unlink()


def rename(root: Path) -> None:
    (root / "train" / "cat" / "00.jpg").rename(root / "train" / "cat" / "renamed.jpg")


def move(root: Path) -> None:
    (root / "train" / "cat" / "00.jpg").rename(root / "train" / "dog" / "00.jpg")


def add_class(root: Path) -> None:
    put(root / "train" / "eel" / "0.jpg")


def add_empty_class(root: Path) -> None:
    (root / "train" / "fox").mkdir()


def rename_class(root: Path) -> None:
    (root / "train" / "cat").rename(root / "train" / "lynx")


def add_deeper(root: Path) -> None:
    put(root / "train" / "cat" / "more" / "0.jpg")


def describe(root: Path) -> None:
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("[0-9]*.jpg"))
    (root / "metadata.csv").write_text("file_name,label\n" + "".join(f"{name},{name[-5]}\n" for name in names))


def change_text(root: Path) -> None:
    (root / "train" / "readme.txt").write_text("other")


def replace_by_link(root: Path) -> None:
    shutil.copytree(root / "train" / "cat", root.parent / "elsewhere")
    shutil.rmtree(root / "train" / "cat")
    put(root.parent / "elsewhere" / "linked.jpg")
    (root / "train" / "cat").symlink_to(root.parent / "elsewhere", target_is_directory=True)


CHANGES = (add, remove, rename, move, add_class, add_empty_class, rename_class, add_deeper, describe, change_text)


@pytest.mark.parametrize("change", [*CHANGES, replace_by_link])
def test_changes_are_noticed(data: Path, change: Callable[[Path], None]) -> None:
    before = open_pictures(data)
    settle()
    change(data)
    settle()
    assert_same(open_pictures(data), fresh(data))
    assert_same(open_pictures(data), fresh(data))
    assert len(kept()) == 2
    assert list(before.train.names), "who began before goes on with what was there"


def test_changes_inside_of_what_is_linked_and_described(data: Path) -> None:
    replace_by_link(data)
    describe(data)
    settle()
    assert_same(open_pictures(data), fresh(data))
    put(data.parent / "elsewhere" / "another.jpg")
    settle()
    assert_same(open_pictures(data), fresh(data))
    (data.parent / "third").mkdir()
    put(data.parent / "third" / "0.jpg")
    (data / "train" / "cat").unlink()
    (data / "train" / "cat").symlink_to(data.parent / "third", target_is_directory=True)
    settle()
    assert_same(open_pictures(data), fresh(data))
    text, times = (data / "metadata.csv").read_text(), (data / "metadata.csv").stat()
    (data / "metadata.csv").write_text(text.replace(",0", ",9"))  # as long as before, and with the time of before
    os.utime(data / "metadata.csv", ns=(times.st_atime_ns, times.st_mtime_ns))
    settle()
    assert_same(open_pictures(data), fresh(data))
    assert "9" in open_pictures(data).train.classes


def test_a_file_of_another_size_changes_the_fingerprint(data: Path) -> None:
    before = open_pictures(data).train.fingerprint
    path = data / "train" / "cat" / "00.jpg"
    with path.open("ab") as file:
        file.write(b"more")
    settle()
    after = open_pictures(data).train
    assert isinstance(after.names, Strings)
    assert after.fingerprint != before


def test_what_is_not_kept(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too few files; what has just changed; links to nothing, and missing files, which may come."""
    with monkeypatch.context() as patch:
        patch.setattr(index, "LEAST", 1000)
        assert not isinstance(open_pictures(data).train.names, Strings)
    with monkeypatch.context() as patch:
        patch.setattr(index, "_SETTLED_NS", 3_600_000_000_000)
        assert not isinstance(open_pictures(data).train.names, Strings)
    (data / "train" / "cat" / "dangling.jpg").symlink_to(data.parent / "nothing")
    settle()
    assert not isinstance(open_pictures(data).train.names, Strings)
    (data / "train" / "cat" / "dangling.jpg").unlink()
    describe(data)
    with (data / "metadata.csv").open("a") as file:
        file.write("train/cat/missing.jpg,1\n")
    settle()
    assert not isinstance(open_pictures(data).train.names, Strings)
    assert not kept()


def test_what_is_damaged_is_made_again(data: Path) -> None:
    for name, size in (("about.json", 50), ("train-names.bytes.npy", 200), ("train-labels.npy", 0)):
        expected = open_pictures(data)
        (folder,) = kept()
        os.truncate(folder / name, size)
        shutil.copytree(folder, folder.with_name("damaged"))
        shutil.rmtree(folder)
        (folder.with_name("damaged")).rename(folder)
        assert_same(open_pictures(data), fresh(data))
        del expected
        shutil.rmtree(cache_folder())


def test_a_cache_that_can_not_be_written(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert_same(open_pictures(data), fresh(data))
    assert "is listed at each start: can't write" in capsys.readouterr().err


def test_readers_map_the_same_file(data: Path) -> None:
    """A process of its own is sent a path and no names, and reads the same batches."""
    train = open_pictures(data).train
    sent = ForkingPickler.dumps(train.names)
    assert b"00.jpg" not in bytes(sent)
    assert list(ForkingPickler.loads(sent)) == list(train.names)
    config = ImageConfig(image_size=8, patch_size=4, num_channels=3)
    reader = ImageReader(train, config, ImageDataConfig(mean=(0.5,) * 3, std=(0.5,) * 3), seed=0)
    batches = Batches(reader, reader.order(4))
    for here, there in zip(iterate(batches, 0, 3, workers=0), iterate(batches, 0, 3, workers=1), strict=True):
        assert (here.inputs == there.inputs).all()
    shutil.rmtree(kept()[0])
    with pytest.raises(UserError, match=r"can't be read .*; start again"):
        len(ForkingPickler.loads(sent))


def manifest(root: Path, texts: bool) -> Path:
    """Of fifteen recordings that need not be there."""
    root.mkdir(exist_ok=True)
    rows = [f"{place:02}.flac\t{160_000 + place}" for place in range(15)]
    (root / "train.tsv").write_text("\n".join([str(root), *rows]) + "\n")
    if texts:
        (root / "train.wrd").write_text("".join(f"{'' if place == 3 else place}\n" for place in range(15)))
    settle()
    return root / "train.tsv"


@pytest.mark.parametrize("whole", [False, True])
def test_manifests(tmp_path: Path, whole: bool) -> None:
    path = manifest(tmp_path / "speech", texts=False)
    place = path.parent if whole else path

    def opened() -> Parts:
        return open_data(place, RECORDINGS, MANIFESTS)

    for _ in range(2):
        found = opened().train
        assert isinstance(found.names, Strings)
        assert found.names[2] == "02.flac"
        assert found.texts is None
        assert found.seconds is not None
        assert found.seconds[1] == 160_001 / 16_000
        assert [*found.source.files()][2] == str(path.parent / "02.flac")
    manifest(tmp_path / "speech", texts=True)
    for _ in range(2):
        texts = opened().train.texts
        assert isinstance(texts, Strings)
        assert [texts[2], texts[3]] == ["2", None]
    (path.parent / "train.wrd").write_text("".join("other\n" for _ in range(15)))
    settle()
    assert (opened().train.texts or [None])[3] == "other"
    with path.open("a") as file:
        file.write("15.flac\t1000\n")
    settle()
    with pytest.raises(UserError, match="15 transcripts"):
        opened()
    (path.parent / "train.wrd").unlink()
    settle()
    assert len(opened().train) == 16
