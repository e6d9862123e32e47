"""Folders become records; what can't be used is refused with a message that helps."""

from __future__ import annotations

import io
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data2vec2.data.records import among
from data2vec2.data.source import BadSample, Spans, part_of
from data2vec2.errors import UserError
from data2vec2.modalities.image import fashion_mnist
from data2vec2.modalities.image.reader import PICTURES as CONTENT
from data2vec2.modalities.image.reader import decode

from .pictures import clothes, open_pictures, put, refuse

# Folders


def test_folders_below_classes_and_those_of_other_programs(tmp_path: Path) -> None:
    others = ("@eaDir/0", "__MACOSX/0", ".thumbs/0", "$RECYCLE.BIN/S-1/0", "#recycle/0", "lost+found/0")
    for name in ("animal/cat/0", "animal/dog/0", "plant/oak/0", *others):
        put(tmp_path / f"{name}.jpg")
    parts = open_pictures(tmp_path)
    assert (parts.train.classes, parts.train.labels.tolist()) == (("animal", "plant"), [0, 0, 1])
    some = "animal/cat, animal/dog, plant/oak"
    assert parts.account.choices == [f"sub-folders of class folders belong to the class ({some})"]


@pytest.mark.parametrize("part", ["", "train/"])
def test_folders_that_all_samples_share_are_no_classes(tmp_path: Path, part: str) -> None:
    for name in ("all/jpg/cat/0", "all/jpg/dog/more/0"):
        put(tmp_path / f"{part}{name}.jpg")
    if part:
        for name in ("all/jpg/0", "all/jpg/dog/0"):
            put(tmp_path / f"test/{name}.jpg")
    parts = open_pictures(tmp_path)
    assert (parts.train.classes, parts.train.labels.tolist()) == (("cat", "dog"), [0, 1])
    assert parts.test is None or parts.test.labels.tolist() == [-1, 1]
    assert f"sub-folders of class folders belong to the class ({part}all/jpg/dog/more)" in parts.account.choices


def test_folds_are_no_classes(tmp_path: Path) -> None:
    for name in ("audio/fold1/0", "audio/fold2/0", "audio/Fold 10/more/0"):
        put(tmp_path / f"{name}.jpg")
    put(tmp_path / "metadata" / "sounds.csv", b"name,class\n0,dog\n")
    parts = open_pictures(tmp_path)
    assert (parts.train.classes, parts.train.labels.tolist()) == ((), [-1, -1, -1])
    folds, table = parts.account.remarks
    assert folds == "folders taken as folds, not as classes: Fold 10, fold1, fold2"
    assert table.startswith("tables that describe none of the pictures here: metadata/sounds.csv; ")
    put(tmp_path / "audio/rest/0.jpg")
    assert open_pictures(tmp_path).train.classes == ("Fold 10", "fold1", "fold2", "rest")


def test_flat_folder_with_every_extension(tmp_path: Path) -> None:
    for place, extension in enumerate(sorted(CONTENT.extensions)):
        put(tmp_path / f"{place}{extension.upper() if place % 2 else extension}")
    put(tmp_path / "notes.txt", b"text")
    put(tmp_path / "more" / "Makefile", b"text")
    put(tmp_path / "more" / "b.TXT", b"text")
    parts = open_pictures(tmp_path)
    assert len(parts.train) == len(CONTENT.extensions)
    assert list(parts.train.names) == sorted(parts.train.names)
    assert parts.train.kind == "folder of images"
    assert parts.train.classes == ()
    assert (parts.train.labels == -1).all()
    assert parts.val is parts.test is None
    assert "13 train, no labels; left out: .txt (2), no extension (1)" in parts.description
    for place in range(len(parts.train)):
        assert decode(parts.train.read(place), 3).shape[:2] == (16, 24)


def test_sub_folders_are_labels(tmp_path: Path) -> None:
    for name in ("dog/1.png", "cat/2.png", "cat/deep/er/3.png", "0.png"):
        put(tmp_path / name)
    train = open_pictures(tmp_path).train
    assert list(train.names) == ["0.png", "cat/2.png", "cat/deep/er/3.png", "dog/1.png"]
    assert train.classes == ("cat", "dog")
    assert train.labels.tolist() == [-1, 0, 0, 1]


def test_numbers_as_folder_names_are_names(tmp_path: Path) -> None:
    for name in ("-1/1.png", "10/2.png", "2/3.png"):
        put(tmp_path / name)
    train = open_pictures(tmp_path).train
    assert train.classes == ("-1", "10", "2")
    assert train.labels.tolist() == [0, 1, 2]


def test_one_sub_folder_is_no_label(tmp_path: Path) -> None:
    put(tmp_path / "all" / "1.png")
    train = open_pictures(tmp_path).train
    assert train.classes == ()
    assert train.labels.tolist() == [-1]


def test_labels_are_below_folders_in_which_all_pictures_lie(tmp_path: Path) -> None:
    for name in ("archive/archive/cat/1.png", "archive/archive/dog/a/2.png"):
        put(tmp_path / name)
    parts = open_pictures(tmp_path)
    assert (parts.train.classes, parts.train.labels.tolist()) == (("cat", "dog"), [0, 1])
    assert parts.account.choices == ["sub-folders of class folders belong to the class (archive/archive/dog/a)"]
    put(tmp_path / "archive" / "logo.png")
    assert open_pictures(tmp_path).train.classes == ()


def test_titles_are_no_parts() -> None:
    assert [part_of(name) for name in ("test of time.txt", "TheTestOfTime.txt", "latest", "Contest")] == [None] * 4
    assert [part_of(name) for name in ("MyTest.csv", "ValData", "testimgs", "dataset")] == ["test", "val", "test", None]


@pytest.mark.parametrize("val_name", ["val", "Valid", "VALIDATION"])
def test_parts_share_their_classes(tmp_path: Path, val_name: str) -> None:
    for name in ("Train/b/1.png", "Train/c/2.png", f"{val_name}/a/3.png", "test/c/4.png", "test/5.png", "logo.png"):
        put(tmp_path / name)
    (tmp_path / "docs").mkdir()
    parts = open_pictures(tmp_path)
    assert parts.val is not None
    assert parts.test is not None
    assert parts.train.classes == parts.val.classes == parts.test.classes == ("a", "b", "c")
    assert parts.train.labels.tolist() == [1, 2]
    assert parts.val.labels.tolist() == [0]
    assert list(parts.test.names) == ["test/5.png", "test/c/4.png"]
    assert parts.test.labels.tolist() == [-1, 2]
    assert "2 train, 1 val, 2 test, 3 classes; left out: in no part (1)" in parts.description


def test_a_class_called_train(tmp_path: Path) -> None:
    for name in ("train/1.png", "plane/2.png"):
        put(tmp_path / name)
    parts = open_pictures(tmp_path)
    assert parts.train.classes == ("plane", "train")


PARTS = [
    (("Training/b/1.png", "Training/c/2.png", "Testing/b/3.png"), ["b", "c"], ["b"]),
    (("seg_train/seg_train/b/1.png", "seg_train/seg_train/c/2.png", "seg_test/seg_test/c/3.png"), ["b", "c"], ["c"]),
    (("data/train2017/b/1.png", "data/train2017/c/2.png", "data/val2017/c/3.png"), ["b", "c"], ["c"]),
    (("training_set/b/1.png", "training_set/c/2.png", "evaluation_set/c/3.png"), ["b", "c"], ["c"]),
    (("TrainSet/b/1.png", "TrainSet/c/2.png", "dev/c/3.png", "more/1.png"), ["b", "c"], ["c"]),
    (("train-a/b/1.png", "train-b/c/2.png", "dev-a/c/3.png", "dev-b/c/4.png"), ["b", "c"], ["c", "c"]),
    (("trainval/b/1.png", "trainval/c/2.png", "test/c/3.png"), ["b", "c"], ["c"]),
    (("trn/b/1.png", "trn/c/2.png", "tst/c/3.png"), ["b", "c"], ["c"]),
    (("traindata/b/1.png", "traindata/c/2.png", "testimages/c/3.png"), ["b", "c"], ["c"]),
    (("dogsTrain/b/1.png", "dogsTrain/c/2.png", "dogsTest/c/3.png"), ["b", "c"], ["c"]),
    (("train/images/b/1.png", "train/images/c/2.png", "validate/images/c/3.png"), ["b", "c"], ["c"]),
    (("train/images/b/1.png", "train/images/c/2.png", "test/images/3.png"), ["b", "c"], [""]),
]


@pytest.mark.parametrize(("names", "learned", "held"), PARTS)
def test_folders_called_after_parts(
    tmp_path: Path, names: tuple[str, ...], learned: list[str], held: list[str]
) -> None:
    for name in names:
        put(tmp_path / name)
    parts = open_pictures(tmp_path)
    other = parts.test or parts.val
    assert other is not None and parts.train.classes == ("b", "c")
    found = [[(*records.classes, "")[label] for label in records.labels] for records in (parts.train, other)]
    assert found == [learned, held]
    assert "parts by name: train is " in parts.account.choices[0]
    assert parts.account.beside == ({"more/1.png": "in no part"} if "more/1.png" in names else {})


def test_folders_of_one_part_and_of_none(tmp_path: Path) -> None:
    for name in ("test/b/1.png", "test/c/2.png"):
        put(tmp_path / name)
    (tmp_path / "test" / "d").mkdir()
    parts = open_pictures(tmp_path)
    assert (parts.train.classes, parts.test) == (("b", "c"), None)
    assert "folders without pictures: test/d" in parts.account.remarks
    put(tmp_path / "val" / "b" / "1.png")
    refuse(tmp_path, "has test and val parts, but none to train on")
    put(tmp_path / "plane" / "1.png")
    parts = open_pictures(tmp_path)
    assert parts.train.classes == ("plane", "test", "val")
    assert "folders taken as classes, not as parts: test, val" in parts.account.remarks


def test_two_validation_parts_are_refused(tmp_path: Path) -> None:
    for name in ("train/a/1.png", "val/a/2.png", "valid/a/2.png"):
        put(tmp_path / name)
    refuse(tmp_path, "more than one val part: val and valid")


def test_hidden_files_and_loops_are_skipped(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/2.png", ".hidden/3.png", "a/._1.png"):
        put(tmp_path / name)
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "c").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "itself.txt").symlink_to("itself.txt")
    assert list(open_pictures(tmp_path).train.names) == ["a/1.png", "b/2.png", "c/1.png"]


def test_what_can_not_be_read_is_a_bad_sample(tmp_path: Path) -> None:
    put(tmp_path / "a.png", b"")
    (tmp_path / "b.png").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "c.png")  # reading it would wait for ever
    train = open_pictures(tmp_path).train
    assert list(train.names) == ["a.png", "b.png"]
    for place, reason in enumerate(("empty file", "unreadable")):
        with pytest.raises(BadSample, match=reason) as error:
            train.read(place)
        assert pickle.loads(pickle.dumps(error.value)).reason == reason


def test_nothing_usable(tmp_path: Path) -> None:
    refuse(tmp_path / "gone", "gone does not exist")
    refuse(tmp_path, "no images in .*it is empty")
    put(tmp_path / "sub" / "a.csv", b"1")
    put(tmp_path / "b.npz", b"1")
    refuse(tmp_path, r"it holds files of type \.csv \(1\), \.npz \(1\); name the \.npz file itself")
    refuse(tmp_path / "sub" / "a.csv", r"a\.csv is not a known kind of data; name a folder")
    put(tmp_path / "one.png")
    refuse(tmp_path / "one.png", "is one picture")


# Records


def test_bundled_fashion_mnist() -> None:
    parts = open_pictures(fashion_mnist())
    assert parts.test is not None
    assert (len(parts.train), len(parts.test)) == (10_000, 2_000)
    assert parts.train.classes[0] == "T-shirt/top"
    assert parts.train.classes[9] == "Ankle boot"
    assert np.bincount(parts.train.labels).min() > 900
    assert np.bincount(parts.test.labels).min() > 180
    assert parts.description == "npz arrays: 10,000 train, 2,000 test, 10 classes"
    assert (fashion_mnist().parent / "LICENSE").read_text().count("Zalando") == 1


def folder_records(tmp_path: Path) -> list[object]:
    for name in ("cat/1.png", "cat/2.png", "dog/3.png"):
        put(tmp_path / name)
    return [clothes(), open_pictures(tmp_path).train]


def test_select_and_pickle(tmp_path: Path) -> None:
    for records in folder_records(tmp_path):
        chosen = records.select(np.array([2, 0]))
        assert len(chosen) == 2
        assert list(chosen.names) == [records.names[2], records.names[0]]
        assert np.array_equal(chosen.labels, records.labels[[2, 0]])
        assert np.array_equal(chosen.read(0), records.read(2))
        again = pickle.loads(pickle.dumps(chosen))
        assert again.fingerprint == chosen.fingerprint
        assert np.array_equal(again.read(1), records.read(0))
        assert len(records.select([])) == 0


def test_fewer_classes_among_others(tmp_path: Path) -> None:
    for name in ("b/0.png", "c/1.png", "b/2.png"):
        put(tmp_path / name)
    records = open_pictures(tmp_path).train
    assert among(records, records, "few", "all") == (records, [])
    with pytest.raises(UserError, match="all has the classes b, but few has b, c; those must be among these"):
        among(records, replace(records, classes=("b",)), "few", "all")
    found, remarks = among(records, replace(records, classes=("a", "b", "c")), "few", "all")
    assert (found.classes, found.labels.tolist()) == (("a", "b", "c"), [1, 1, 2])
    assert remarks == ["few has 2 of the 3 classes"]
    tags = np.array([[True, False], [False, False], [True, True]])
    tagged = replace(records, tags=tags, labels=np.full(3, -1))
    of_all = replace(tagged, classes=("c", "a", "b"), tags=np.zeros((3, 3), dtype=np.bool_))
    found, _ = among(tagged, of_all, "few", "all")
    assert found.tags is not None
    assert found.labels.tolist() == [-1, -1, -1]
    assert found.tags.tolist() == [[False, False, True], [False, False, False], [True, False, True]]
    with pytest.raises(UserError, match="but few has b, c; those"):
        among(tagged, records, "few", "all")
    with pytest.raises(UserError, match="but few has none; those"):
        among(replace(records, classes=()), records, "few", "all")


def test_a_name_that_can_not_be_is_bad(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a\\u0000.png"}\n')
    train = open_pictures(tmp_path).train
    assert list(train.names) == ["a.png"]
    assert open_pictures(tmp_path).account.part("train").bad == {"a\0.png": "missing, though metadata names it"}


def test_a_stretch_of_a_file_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "all").write_bytes(bytes(range(100)))
    places = np.array([[0, 20, 30], [0, 90, 20], [0, 100, 0]])
    source = Spans((tmp_path / "all",), places)
    assert source.read(0) == bytes(range(20, 50))
    with source.open(0) as file:
        assert file.read(4) == bytes(range(20, 24))
        assert file.seek(-5, io.SEEK_END) == file.tell() == 25
        assert file.read(100) == bytes(range(45, 50))
        assert file.seek(2, io.SEEK_CUR) == 32
        assert file.read(1) == b""
        assert file.seek(0) == 0
        assert file.read() == bytes(range(20, 50))
        with pytest.raises(ValueError, match="no place -1"):
            file.seek(-1)
    with pytest.raises(BadSample, match="truncated"):
        source.read(1)
    assert source.read(2) == source.open(2).read() == b""
    with pytest.raises(BadSample, match="unreadable"):
        Spans((tmp_path / "gone",), places).read(0)


def test_fingerprint_tells_other_data(tmp_path: Path) -> None:
    _, records = folder_records(tmp_path)
    assert records.fingerprint == open_pictures(tmp_path).train.fingerprint
    prints = {records.fingerprint, records.select([0, 1]).fingerprint, records.select([1, 0, 2]).fingerprint}
    put(tmp_path / "cat" / "1.png", b"other size")
    prints.add(open_pictures(tmp_path).train.fingerprint)
    (tmp_path / "cat" / "2.png").rename(tmp_path / "cat" / "4.png")
    prints.add(open_pictures(tmp_path).train.fingerprint)
    assert len(prints) == 5
    pictures = np.stack([clothes().read(place) for place in range(12)])
    for array in (pictures, pictures.swapaxes(0, 1), 255 - pictures):
        np.savez(tmp_path / "a.npz", np.ascontiguousarray(array))
        prints.add(open_pictures(tmp_path / "a.npz").train.fingerprint)
    assert len(prints) == 8


def test_labels_of_folders_in_other_normal_forms_are_one_class(tmp_path: Path) -> None:
    for name in ("train/caf\u00e9/1.png", "train/b/2.png", "test/cafe\u0301/1.png"):
        put(tmp_path / name)
    parts = open_pictures(tmp_path)
    assert parts.test is not None and parts.train.classes == ("b", "caf\u00e9")
    assert parts.test.labels.tolist() == [1]


def test_the_longest_names_and_links_to_themselves(tmp_path: Path) -> None:
    longest = "\u00e9" * 125 + "x.png"
    put(tmp_path / longest)
    (tmp_path / "itself.png").symlink_to("itself.png")
    train = open_pictures(tmp_path).train
    assert list(train.names) == ["itself.png", longest]
    assert len(train.read(1)) > 0
    with pytest.raises(BadSample, match="unreadable"):
        train.read(0)
