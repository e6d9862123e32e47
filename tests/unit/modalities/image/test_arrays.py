"""IDX files and .npz archives become records; what can't be used is refused with a message that helps."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from data2vec2.modalities.data import Columns
from data2vec2.modalities.image.reader import decode
from data2vec2.modalities.tools import tools_of
from tests.unit.data.pictures import clothes, open_pictures, put, refuse

PICTURES = np.stack([clothes().read(place) for place in range(12)])
LABELS = clothes().labels[:12].astype(np.uint8)


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    header = bytes((0, 0, kind, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


# IDX


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("pattern", ["{}-{}-idx{}-ubyte", "{}-{}.idx{}-ubyte"])
def test_idx_folder(tmp_path: Path, packed: bool, pattern: str) -> None:
    for part, count in (("train", 12), ("t10k", 5)):
        for what, array in (("images", PICTURES[:count]), ("labels", LABELS[:count])):
            name = pattern.format(part, what, array.ndim) + (".gz" if packed else "")
            put(tmp_path / name, gzip.compress(idx(array)) if packed else idx(array))
    put(tmp_path / "README.md", b"text")
    parts = open_pictures(tmp_path)
    assert parts.train.kind == "IDX arrays"
    assert parts.test is not None
    assert (len(parts.train), len(parts.test)) == (12, 5)
    assert parts.train.classes == tuple(str(value) for value in np.unique(LABELS))
    assert [parts.train.classes[label] for label in parts.train.labels] == [str(value) for value in LABELS]
    assert np.array_equal(parts.train.read(7), PICTURES[7])
    assert parts.test.names[3] == pattern.format("t10k", "images", 3) + (".gz" if packed else "") + "[3]"


def test_idx_file_alone_and_packed_beside_unpacked(tmp_path: Path) -> None:
    put(tmp_path / "t10k-images-idx3-ubyte", idx(PICTURES))
    assert len(open_pictures(tmp_path / "t10k-images-idx3-ubyte").train) == 12
    assert open_pictures(tmp_path / "t10k-images-idx3-ubyte").train.classes == ()
    put(tmp_path / "t10k-images-idx3-ubyte.gz", gzip.compress(idx(PICTURES)))
    put(tmp_path / "train-images-idx3-ubyte.gz", idx(PICTURES))  # a browser unpacked it and kept the name
    assert open_pictures(tmp_path).train.names[0] == "train-images-idx3-ubyte.gz[0]"


def test_idx_in_a_folder_of_a_folder(tmp_path: Path) -> None:
    for name in ("MNIST/raw/train-images-idx3-ubyte", "MNIST/raw/train-images-idx3-ubyte.gz"):
        put(tmp_path / name, idx(PICTURES))
    put(tmp_path / "MNIST/raw/train-labels-idx1-ubyte", idx(LABELS))
    train = open_pictures(tmp_path).train
    assert (train.kind, len(train), len(train.classes)) == ("IDX arrays", 12, len(np.unique(LABELS)))
    put(tmp_path / "other" / "raw" / "train-images-idx3-ubyte", idx(PICTURES))
    refuse(tmp_path, "two train parts, .*MNIST/raw/train-images-idx3-ubyte and .*other/raw")
    put(tmp_path / "a.png")
    assert open_pictures(tmp_path).train.kind == "folder of images"


def test_idx_of_four_dimensions(tmp_path: Path) -> None:
    colour = np.repeat(PICTURES[..., None], 3, axis=3)
    put(tmp_path / "train-images-idx4-ubyte", idx(colour))
    assert np.array_equal(open_pictures(tmp_path).train.read(2), colour[2])


def test_idx_with_test_only_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "t10k-images-idx3-ubyte", idx(PICTURES))
    put(tmp_path / "val-images-idx3-ubyte", idx(PICTURES))
    refuse(tmp_path, "IDX files of test and val, none to train on")
    put(tmp_path / "test-images-idx3-ubyte", idx(PICTURES))
    refuse(tmp_path, r"two test parts, .*t10k-images-idx3-ubyte and .*test-images-idx3-ubyte; name one")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is not an IDX file: it starts with nothing"),
        (b"\x89PNG....", "it starts with 89 50 4e 47, not with 00 00"),
        (idx(PICTURES, kind=13), "values of type 0x0d"),
        (idx(PICTURES[0]), "has 2 dimensions; expected 3 or 4"),
        (idx(PICTURES)[:10], "ends inside its header"),
        (idx(PICTURES)[:-1], "says 12 x 28 x 28, which is 9408 bytes, but holds 9407"),
        (idx(PICTURES) + b"0", "but holds 9409"),
        (idx(PICTURES[:0]), "holds no pictures"),
        (gzip.compress(idx(PICTURES))[:200], "can't read"),
        (b"\x1f\x8b" + b"\0" * 40, "can't read"),
    ],
)
def test_bad_idx(tmp_path: Path, content: bytes, match: str) -> None:
    put(tmp_path / "train-images-idx3-ubyte.gz", content)
    refuse(tmp_path, "train-images-idx3-ubyte.gz.*" + match if "can't" not in match else match)


def test_idx_labels_must_fit(tmp_path: Path) -> None:
    put(tmp_path / "train-images-idx3-ubyte", idx(PICTURES))
    put(tmp_path / "train-labels-idx1-ubyte", idx(LABELS[:5]))
    refuse(tmp_path, "has 12 pictures, but .*train-labels-idx1-ubyte has 5 labels")


# npz


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("X_train", "Y_train", "X_test", "Y_test"),
        ("train_data", "train_labels", "test_data", "test_labels"),
        ("trainX", "trainY", "testX", "testY"),
    ],
)
def test_npz_parts(tmp_path: Path, names: tuple[str, ...]) -> None:
    arrays = (PICTURES, LABELS[:, None] * 10, PICTURES[:4], LABELS[:4, None] * 10)
    np.savez(tmp_path / "a.npz", **dict(zip(names, arrays, strict=True)))
    parts = open_pictures(tmp_path / "a.npz")
    assert parts.train.kind == "npz arrays"
    assert parts.test is not None
    assert parts.train.names[2] == f"{names[0].lower()}[2]"
    assert [int(parts.train.classes[label]) for label in parts.train.labels] == (LABELS * 10).tolist()
    assert np.array_equal(parts.test.labels, parts.train.labels[:4])
    assert np.array_equal(parts.train.read(3), PICTURES[3])


@pytest.mark.parametrize("names", [("images", "label"), ("image", "classes"), ("x", "y"), ("anything", "labels")])
def test_npz_without_parts(tmp_path: Path, names: tuple[str, str]) -> None:
    np.savez(tmp_path / "a.npz", **{names[0]: PICTURES, names[1]: LABELS})
    train = open_pictures(tmp_path / "a.npz").train
    assert len(train) == 12
    assert bool(train.classes) == (names[0] != "anything")


def test_npz_label_values(tmp_path: Path) -> None:
    words = np.array(["cat", "dog", "cat", "ant"])
    np.savez(tmp_path / "words.npz", x=PICTURES[:4], y=words)
    train = open_pictures(tmp_path / "words.npz").train
    assert train.classes == ("ant", "cat", "dog")
    assert train.labels.tolist() == [1, 2, 1, 0]
    np.savez(tmp_path / "some.npz", x=PICTURES[:4], y=np.array([5.0, -1.0, 11.0, 5.0]))
    train = open_pictures(tmp_path / "some.npz").train
    assert train.classes == ("-1", "5", "11")
    assert train.labels.tolist() == [1, 0, 2, 1]
    np.savez(tmp_path / "named.npz", x=PICTURES[:3], y=np.array([2, 0, -1]), classes=np.array(["a", "b", "c"]))
    train = open_pictures(tmp_path / "named.npz").train
    assert train.classes == ("a", "b", "c")
    assert train.labels.tolist() == [2, 0, -1]
    np.savez(tmp_path / "bad.npz", x=PICTURES[:3], y=np.array([2, 0, 3]), classes=np.array(["a", "b", "c"]))
    refuse(tmp_path / "bad.npz", "a label is 3, which is not one of the given classes")
    np.savez(tmp_path / "hole.npz", x=PICTURES[:4], y=np.array([2, 0, np.nan, 2]))
    assert open_pictures(tmp_path / "hole.npz").train.labels.tolist() == [1, 0, -1, 1]
    np.savez(tmp_path / "bytes.npz", x=PICTURES[:2], y=np.array([b"dog", b"cat"]))
    assert open_pictures(tmp_path / "bytes.npz").train.classes == ("cat", "dog")
    np.savez(tmp_path / "half.npz", x=PICTURES[:3], y=np.array([0.5, 0, 1]))
    refuse(tmp_path / "half.npz", "a label is 0.5; labels are whole numbers")


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("order", ["NHWC", "NCHW"])
def test_npz_shapes(tmp_path: Path, channels: int, order: str) -> None:
    nhwc = np.stack([PICTURES // (c + 1) for c in range(channels)], axis=3)
    np.savez(tmp_path / "a.npz", nhwc if order == "NHWC" else nhwc.transpose(0, 3, 1, 2))
    picture = open_pictures(tmp_path / "a.npz").train.read(5)
    assert np.array_equal(picture, nhwc[5] if channels > 1 else nhwc[5, ..., 0])


@pytest.mark.parametrize("channels", [2, 5, 12])
@pytest.mark.parametrize("order", ["NHWC", "NCHW"])
def test_npz_of_any_number_of_channels(tmp_path: Path, channels: int, order: str) -> None:
    nhwc = np.stack([PICTURES // (c + 1) for c in range(channels)], axis=3)
    for rows in (28, 20):  # squares, and others
        arrays = nhwc[:, :rows]
        np.savez(tmp_path / "a.npz", arrays if order == "NHWC" else arrays.transpose(0, 3, 1, 2))
        assert np.array_equal(open_pictures(tmp_path / "a.npz").train.read(5), arrays[5])


@pytest.mark.parametrize(
    ("factor", "dtype", "levels"),
    [
        (257, np.uint16, (0, 65535)),
        (1, np.uint16, (0, 255)),
        (1, np.int64, (0, 255)),
        (1 / 255, np.float32, (0, 1)),
        (1, np.float64, (0, 255)),
        (1, np.float16, (0, 255)),
    ],
)
def test_npz_types(tmp_path: Path, factor: float, dtype: type, levels: tuple[float, float]) -> None:
    dark = np.zeros_like(PICTURES[:2])  # shares the range of the training part
    np.savez(
        tmp_path / "a.npz",
        x_train=(PICTURES * np.float64(factor)).astype(dtype),
        x_test=((dark + 1) * np.float64(factor)).astype(dtype),
    )
    parts = tools_of("image").open_labelled(tmp_path / "a.npz", Columns(), "classes")
    assert f"{levels[0]} becomes black and {levels[1]:,} white" in parts.description
    assert parts.train.levels == levels
    for place in range(12):
        assert np.array_equal(decode(parts.train.read(place), 1, parts.train.levels), PICTURES[place])
    assert parts.test is not None
    assert (decode(parts.test.read(0), 1, parts.test.levels) == 1).all()


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"x": PICTURES.astype(np.complex64)}, "x is of type complex64; pictures must be numbers"),
        ({"x": PICTURES.reshape(12, -1)}, r"x has shape \[12, 784\]"),
        ({"x": PICTURES[:0]}, "holds no pictures"),
        ({"x": PICTURES, "y": LABELS[:3]}, r"x has 12 pictures, but y has shape \[3\]"),
        ({"x": PICTURES, "y": 2 * np.eye(12)}, r"y has shape \[12, 12\]"),
        ({"a": PICTURES, "b": PICTURES, "c": LABELS}, r"it holds a uint8\[12, 28, 28\], .* c uint8\[12\]. Known are"),
        ({"x_test": PICTURES}, "no training pictures under a known name"),
        ({}, "it holds no arrays"),
        ({"x": np.array([{}])}, "can't read .*: it holds Python objects; save plain arrays$"),
    ],
)
def test_bad_npz(tmp_path: Path, arrays: dict[str, np.ndarray], match: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    refuse(tmp_path / "a.npz", match)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_damaged_npz(tmp_path: Path, content: bytes) -> None:
    put(tmp_path / "a.npz", content)
    refuse(tmp_path / "a.npz", r"can't read .*a\.npz")
    np.savez_compressed(tmp_path / "b.npz", x=PICTURES)
    raw = bytearray((tmp_path / "b.npz").read_bytes())
    raw[len(raw) // 2] ^= 255
    put(tmp_path / "b.npz", bytes(raw))
    refuse(tmp_path / "b.npz", r"can't read .*b\.npz")
    np.save(tmp_path / "c.npy", PICTURES)
    (tmp_path / "c.npy").rename(tmp_path / "c.npz")
    refuse(tmp_path / "c.npz", "a single array, not an archive")


def test_npz_with_one_column_a_class(tmp_path: Path) -> None:
    one, several = np.eye(3)[[2, 0, 1, 2]], np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0]])
    np.savez(tmp_path / "one.npz", x_train=PICTURES[:4], y_train=one)
    assert open_pictures(tmp_path / "one.npz").train.labels.tolist() == [2, 0, 1, 2]
    np.savez(tmp_path / "several.npz", x_train=PICTURES[:4], y_train=several, x_test=PICTURES[:4], y_test=one)
    parts = open_pictures(tmp_path / "several.npz")
    assert parts.train.tags is not None and np.array_equal(parts.train.tags, several > 0)
    assert parts.test is not None and parts.test.tags is not None and np.array_equal(parts.test.tags, one > 0)


def test_npz_parts_by_any_of_their_names_and_arrays_that_no_one_reads(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X_train=PICTURES[:4], Y_train=LABELS[:4], X_valid=PICTURES[4:6], weights=LABELS)
    parts = open_pictures(tmp_path / "a.npz")
    assert parts.val is not None and (len(parts.train), len(parts.val)) == (4, 2)
    assert parts.account.beside == {"weights": "unused array"}
    assert "left out: unused array (1)" in parts.description


def test_npz_of_yes_and_no(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=PICTURES > 127)
    train = open_pictures(tmp_path / "a.npz").train
    assert np.array_equal(train.read(0), np.where(PICTURES[0] > 127, 255, 0))
