"""The same real pictures in every kind of source; damage of every kind is named."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import pickle
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data2vec2.data.records import Parts, Records
from data2vec2.data.sampler import Plan
from data2vec2.data.source import BadSample
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig
from data2vec2.modalities.image.reader import ImageReader

from .pictures import clothes, encoded, open_pictures, photo, refuse
from .tars import as_tar

datasets = pytest.importorskip("datasets")

COUNT = 40
FILES = [encoded(photo(40 + place, 30), "JPEG" if place % 2 else "PNG") for place in range(COUNT)]
NAMES = ("shirt", "boot", "bag")
LABELS = [place % 3 for place in range(COUNT)]
TAGS = [[tag for tag in range(3) if place >> tag & 1] for place in range(COUNT)]
READER = ImageConfig(image_size=16, patch_size=4, num_channels=3)


def features(label: Any) -> Any:
    return datasets.Features({"image": datasets.Image(), "label": label})


def hugging_face(label: Any, labels: list[Any]) -> Any:
    rows = {"image": [{"bytes": file, "path": None} for file in FILES], "label": labels}
    return datasets.Dataset.from_dict(rows, features=features(label))


def parquet(root: Path) -> Path:
    table = pa.table({"name": [str(place) for place in range(COUNT)], "image": FILES, "label": LABELS})
    pq.write_table(table, root / "data.parquet", row_group_size=7)
    return root / "data.parquet"


def parquet_of_structs(root: Path) -> Path:
    structs = [{"bytes": file, "path": "a.jpg"} for file in FILES]
    pq.write_table(pa.table({"anything": structs, "class": [NAMES[i] for i in LABELS]}), root / "a.parquet")
    return root


def parquet_of_hugging_face(root: Path) -> Path:
    hugging_face(datasets.ClassLabel(names=list(NAMES)), LABELS).to_parquet(root / "a.parquet", batch_size=9)
    return root / "a.parquet"


def tar(root: Path) -> Path:
    members = []
    for place, (file, label) in enumerate(zip(FILES, LABELS, strict=True)):
        members += [(f"{place:03}.cls", f"{label}\n".encode()), (f"{place:03}.jpg", file)]
    return as_tar(root / "shard-000000.tar", members)


def tars_with_json(root: Path) -> Path:
    for start in (0, 20):
        members = []
        for place in range(start, start + 20):
            described = json.dumps({"label": NAMES[LABELS[place]], "text": "a picture"}).encode()
            members += [(f"./in/{place:03}.jpg", FILES[place]), (f"./in/{place:03}.json", described)]
        as_tar(root / f"shard-{start:06}.tar", members)
    return root


def saved(root: Path) -> str:
    hugging_face(datasets.ClassLabel(names=list(NAMES)), LABELS).save_to_disk(root / "saved")
    return f"hf:{root / 'saved'}"


def hub_folder(root: Path) -> str:
    hugging_face(datasets.Value("int64"), LABELS).to_parquet(root / "train-00000-of-00001.parquet")
    return f"hf:{root}"


def metadata_csv(root: Path) -> Path:
    with (root / "metadata.csv").open("w", newline="") as file:
        rows = [(f"pictures/{place:03}.jpg", NAMES[label]) for place, label in enumerate(LABELS)]
        csv.writer(file).writerows([("file_name", "label"), *rows])
    (root / "pictures").mkdir()
    for place, content in enumerate(FILES):
        (root / "pictures" / f"{place:03}.jpg").write_bytes(content)
    return root


def metadata_jsonl(root: Path) -> Path:
    folder = metadata_csv(root)
    (folder / "metadata.csv").unlink()
    rows = [{"file_name": f"./pictures/{place:03}.jpg", "label": label} for place, label in enumerate(LABELS)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def metadata_parquet(root: Path) -> Path:
    folder = metadata_csv(root)
    (folder / "metadata.csv").unlink()
    names = [f"pictures/{place:03}.jpg" for place in range(len(LABELS))]
    pq.write_table(pa.table({"file_name": names, "label": LABELS}), folder / "metadata.parquet")
    return folder


SOURCES: list[Callable[[Path], Path | str]] = [
    parquet,
    parquet_of_structs,
    parquet_of_hugging_face,
    tar,
    tars_with_json,
    saved,
    hub_folder,
    metadata_csv,
    metadata_jsonl,
    metadata_parquet,
]


@pytest.mark.parametrize("make", SOURCES)
def test_every_source_gives_the_same_pictures_and_labels(tmp_path: Path, make: Callable[[Path], Path | str]) -> None:
    data = make(tmp_path)
    records = open_pictures(data).train
    assert len(records) == COUNT
    assert [records.read(place) for place in range(COUNT)] == FILES
    assert len(set(records.names)) == COUNT
    given = [records.classes[label] for label in records.labels]
    assert given in ([NAMES[label] for label in LABELS], [str(label) for label in LABELS])
    assert records.tags is None

    order = np.random.default_rng(0).permutation(COUNT)[:25]
    chosen = pickle.loads(pickle.dumps(records.select(order)))
    assert [chosen.read(place) for place in range(25)] == [FILES[place] for place in order]
    assert list(chosen.names) == [records.names[place] for place in order]
    assert chosen.fingerprint == open_pictures(Path(data)).train.select(order).fingerprint
    assert chosen.fingerprint != records.select(order[::-1]).fingerprint
    pixels = (
        ImageReader(records, READER, ImageDataConfig(), 0).train_batch(Plan(np.zeros(9, np.int64), np.arange(9))).inputs
    )
    assert pixels.std() > 10


@pytest.mark.parametrize("make", [parquet, tar, saved, metadata_csv])
def test_pictures_are_read_in_another_process(tmp_path: Path, make: Callable[[Path], Path | str]) -> None:
    """A worker needs nothing but the pickled records."""
    (tmp_path / "records").write_bytes(pickle.dumps(open_pictures(make(tmp_path)).train))
    program = "import pickle, sys; r = pickle.load(open(sys.argv[1], 'rb')); print(len(r.read(31)))"
    command = [sys.executable, "-c", program, str(tmp_path / "records")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == [str(len(FILES[31]))]


def several_in_parquet(root: Path) -> Path:
    pq.write_table(pa.table({"image": FILES, "labels": TAGS}), root / "a.parquet")
    return root / "a.parquet"


def several_in_hugging_face(root: Path) -> Path:
    label = datasets.List(datasets.ClassLabel(names=list(NAMES)))
    hugging_face(label, TAGS).to_parquet(root / "a.parquet")
    return root / "a.parquet"


def several_saved(root: Path) -> str:
    hugging_face(datasets.List(datasets.ClassLabel(names=list(NAMES))), TAGS).save_to_disk(root / "saved")
    return f"hf:{root / 'saved'}"


def several_in_tar(root: Path) -> Path:
    members = []
    for place in range(COUNT):
        described = json.dumps({"labels": [NAMES[tag] for tag in TAGS[place]]}).encode()
        members += [(f"{place:03}.jpg", FILES[place]), (f"{place:03}.json", described)]
    return as_tar(root / "a.tar", members)


def several_in_csv(root: Path) -> Path:
    folder = metadata_csv(root)
    rows = [f"pictures/{place:03}.jpg,{'|'.join(NAMES[tag] for tag in TAGS[place])}" for place in range(COUNT)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    return folder


@pytest.mark.parametrize(
    "make", [several_in_parquet, several_in_hugging_face, several_saved, several_in_tar, several_in_csv]
)
def test_tags(tmp_path: Path, make: Callable[[Path], Path | str]) -> None:
    parts = open_pictures(make(tmp_path))
    records = parts.train
    assert records.tags is not None
    assert records.tags.shape == (COUNT, 3)
    assert (records.labels == -1).all()
    assert "3 tags, of which a picture can have several" in parts.description
    for place, row in enumerate(records.tags):
        found = {records.classes[tag] for tag in np.flatnonzero(row)}
        assert found in ({NAMES[tag] for tag in TAGS[place]}, {str(tag) for tag in TAGS[place]})
    chosen = records.select([5, 2])
    assert chosen.tags is not None
    assert np.array_equal(chosen.tags, records.tags[[5, 2]])
    changed = Records(records.kind, records.names, records.labels, records.classes, records.source, ~records.tags)
    assert changed.fingerprint != records.fingerprint


# Parts


def tables_of_parts(root: Path) -> Path:
    for name, count in (("train-0", 10), ("train-1", 5), ("validation-0", 4), ("test-0", 3)):
        pq.write_table(pa.table({"image": FILES[:count], "label": LABELS[:count]}), root / f"{name}.parquet")
    (root / "README.md").write_text("text")
    return root


def tars_of_parts(root: Path) -> Path:
    for name, count in (("train/0", 10), ("train/1", 5), ("val/0", 4), ("test/0", 3)):
        members = [(f"{i}.jpg", FILES[i]) for i in range(count)] + [(f"{i}.cls", b"%d" % (i % 3)) for i in range(count)]
        as_tar(root / f"{name}.tar", members)
    (root / "README.md").write_text("text")
    return root


def splits(root: Path) -> str:
    tables_of_parts(root)
    return f"hf:{root}"


def metadata_in_each_part(root: Path) -> Path:
    for part, count in (("train", 15), ("valid", 4), ("test", 3)):
        (root / part).mkdir()
        rows = [json.dumps({"file_name": f"{i}.png", "label": i % 3}) for i in range(count)]
        (root / part / "metadata.jsonl").write_text("\n".join(rows) + "\n")
        for place in range(count):
            (root / part / f"{place}.png").write_bytes(FILES[place])
    (root / "README.md").write_text("text")
    return root


@pytest.mark.parametrize("make", [tables_of_parts, tars_of_parts, splits, metadata_in_each_part])
def test_parts(tmp_path: Path, make: Callable[[Path], Path | str]) -> None:
    parts: Parts = open_pictures(make(tmp_path))
    assert parts.val is not None
    assert parts.test is not None
    assert [len(part) for part in (parts.train, parts.val, parts.test)] == [15, 4, 3]
    assert "15 train, 4 val, 3 test, 3 classes" in parts.description
    assert sorted(parts.test.labels.tolist()) == [0, 1, 2]
    assert parts.test.read(2) == FILES[2]
    assert parts.train.classes == parts.val.classes == parts.test.classes == ("0", "1", "2")
    assert make is splits or "left out: .md (1)" in parts.description


def test_one_part_alone_is_trained_on_and_two_without_train_are_refused(tmp_path: Path) -> None:
    tables_of_parts(tmp_path)
    for name in ("train-0", "train-1"):
        (tmp_path / f"{name}.parquet").unlink()
    assert len(open_pictures(tmp_path / "test-0.parquet").train) == 3
    refuse(tmp_path, "has test and val parts, but none to train on")
    (tmp_path / "validation-0.parquet").unlink()
    assert len(open_pictures(tmp_path).train) == 3


def test_of_several_kinds_the_one_with_most_files_is_taken(tmp_path: Path) -> None:
    parquet(tmp_path)
    (tmp_path / "logo.png").write_bytes(FILES[0])
    parts = open_pictures(tmp_path)
    assert parts.train.kind == "Parquet tables"
    assert "left out: .png (1)" in parts.description
    (tmp_path / "photo.png").write_bytes(FILES[0])
    parts = open_pictures(tmp_path)
    assert parts.train.kind == "folder of images"
    assert "left out: .parquet (1)" in parts.description


def test_metadata_is_no_table_of_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(FILES[0])
    pq.write_table(pa.table({"file_name": ["a.jpg"], "label": [3]}), tmp_path / "metadata.parquet")
    assert list(open_pictures(tmp_path).train.names) == ["a.jpg"]


# Parquet


def test_a_table_is_copied_once_and_again_when_it_changes(tmp_path: Path, cache: Path) -> None:
    path = parquet(tmp_path)
    open_pictures(path)
    copies = {file: file.stat().st_mtime_ns for file in cache.iterdir()}
    assert sorted(file.suffix for file in copies) == [".npy", ".pictures"]
    open_pictures(path)
    assert {file: file.stat().st_mtime_ns for file in cache.iterdir()} == copies
    pq.write_table(pa.table({"image": FILES[::-1][:-1]}), path)
    assert open_pictures(path).train.read(0) == FILES[-1]
    for file in cache.glob("*.pictures"):  # what a full disk or a dead machine leaves
        file.write_bytes(file.read_bytes()[:-1])
    assert open_pictures(path).train.read(COUNT - 2) == FILES[1]


def test_memory_does_not_grow_with_a_table(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(100_000)
    with pq.ParquetWriter(tmp_path / "a.parquet", pa.schema({"image": pa.binary()})) as writer:
        for _ in range(20):
            writer.write_table(pa.table({"image": [noise] * 20}))
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    open_pictures(tmp_path / "a.parquet")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6  # the file has 40 MB
    assert pa.total_allocated_bytes() - before < 10e6


def test_rows_without_a_picture_are_bad_samples(tmp_path: Path) -> None:
    structs = [{"bytes": FILES[0]}, {"bytes": None}, None, {"bytes": b""}, {"bytes": FILES[1][:50]}]
    pq.write_table(pa.table({"image": structs}), tmp_path / "a.parquet")
    records = open_pictures(tmp_path / "a.parquet").train
    assert records.read(0) == FILES[0]
    for place in (1, 2, 3):
        with pytest.raises(BadSample, match="empty file"):
            records.read(place)
    batch = ImageReader(records, READER, ImageDataConfig(), 0).eval_batch(np.arange(5))
    assert [bad.reason for bad in batch.bad][:3] == ["empty file"] * 3
    assert batch.indices_B.tolist() == [0] * 5


@pytest.mark.parametrize("cut", [0, 3, 100, -1])
def test_cut_parquet(tmp_path: Path, cut: int) -> None:
    path = parquet(tmp_path)
    path.write_bytes(path.read_bytes()[:cut])
    refuse(path, r"can't read .*data\.parquet as Parquet; was the download interrupted\?")


def test_damaged_row_group(tmp_path: Path, cache: Path) -> None:
    path = parquet(tmp_path)
    raw = bytearray(path.read_bytes())
    raw[100:2000] = bytes(1900)
    path.write_bytes(raw)
    refuse(path, r"can't read .*data\.parquet")
    assert not list(cache.iterdir())  # nothing half-done is left


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"a": [1, 2]}, r"has no column of pictures under a known name; it has a \(int64\)"),
        ({"a": [b"1"], "b": [b"2"]}, r"it has a \(binary\), b \(binary\)"),
        ({"image": [[1, 2]]}, r"it has image \(list<"),
        ({"image": pa.array([], pa.binary())}, "has no rows"),
        ({"image": [b"1", b"2"], "label": [0, 1], "a": [b"3", b"4"]}, ""),
        ({"annotation": [b"3", b"4"], "image": [b"1", b"2"]}, ""),
        ({"mask": [b"3", b"4"], "pixel_values": [b"1", b"2"]}, ""),
    ],
)
def test_columns(tmp_path: Path, columns: dict[str, Any], match: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    if match:
        refuse(tmp_path / "a.parquet", match)
    else:
        assert open_pictures(tmp_path / "a.parquet").train.read(1) == b"2"


def described(columns: dict[str, Any], path: Path, **features: dict[str, Any]) -> Path:
    """A table with Hugging Face's description."""
    info = json.dumps({"info": {"features": features}})
    pq.write_table(pa.table(columns).replace_schema_metadata({"huggingface": info}), path)
    return path


def test_of_several_columns_of_pictures_the_one_of_a_known_name(tmp_path: Path) -> None:
    image, parts = {"_type": "Image"}, {"_type": "ClassLabel", "names": ["train", "test"]}
    columns: dict[str, Any] = {"annotation": FILES[2:4], "image": FILES[:2], "split": [0, 1]}
    records = open_pictures(
        described(columns, tmp_path / "a.parquet", annotation=image, image=image, split=parts)
    ).train
    assert (records.read(0), records.classes) == (FILES[0], ())  # which part a row is of is no label
    columns = {"before": FILES[:2], "after": FILES[2:4]}
    refuse(described(columns, tmp_path / "b.parquet", before=image, after=image), "has no column of pictures under")


def test_a_column_of_parts_is_said_and_a_part_may_have_no_labels(tmp_path: Path) -> None:
    table = pa.table({"image": FILES[:2], "label": [3, 7], "split": ["train", "test"]})
    pq.write_table(table, tmp_path / "train.parquet")
    pq.write_table(table.select(["image"]), tmp_path / "test.parquet")
    parts = open_pictures(tmp_path)
    assert "column 'split' of train.parquet (test, train) is not read: names of files and folders set the parts" in (
        parts.account.remarks
    )
    assert parts.test is not None and parts.test.labels.tolist() == [-1, -1]
    assert (parts.train.classes, parts.train.labels.tolist()) == (("3", "7"), [0, 1])


def test_splits_of_other_classes(tmp_path: Path) -> None:
    one, other = (hugging_face(datasets.ClassLabel(names=names), LABELS) for names in (NAMES, NAMES[::-1]))
    bare = one.remove_columns("label")
    datasets.DatasetDict(train=one, test=bare).save_to_disk(tmp_path / "bare")
    parts = open_pictures(f"hf:{tmp_path / 'bare'}")
    assert parts.train.classes == tuple(NAMES) and parts.train.labels.tolist() == LABELS
    datasets.DatasetDict(train=one, test=other).save_to_disk(tmp_path / "other")
    refuse(f"hf:{tmp_path / 'other'}", "test of hf:.* has the classes .*, where the splits before it have")


def test_tables_of_other_columns_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": FILES[:2], "label": [0, 1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"picture": FILES[:2], "label": [0, 1]}), tmp_path / "b.parquet")
    refuse(tmp_path, r"b\.parquet has other columns than the files before it")


def test_no_room_for_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    refuse(
        parquet(tmp_path),
        r"can't write .*\.pictures: .*, where the pictures of .*data.parquet are copied .*; XDG_CACHE_HOME names",
    )


# WebDataset


@pytest.mark.parametrize(
    ("name", "kind", "match"),
    [
        ("../a.jpg", tarfile.REGTYPE, "has a member '../a.jpg', whose path leaves the archive"),
        ("b/../../a.jpg", tarfile.REGTYPE, "leaves the archive"),
        ("b\\..\\a.txt", tarfile.REGTYPE, "leaves the archive"),
        ("/etc/a.jpg", tarfile.REGTYPE, "'/etc/a.jpg', whose path leaves"),
        ("C:\\a.jpg", tarfile.REGTYPE, "leaves the archive"),
        ("a.jpg", tarfile.SYMTYPE, "has a member 'a.jpg', which is not a regular file"),
        ("a.jpg", tarfile.LNKTYPE, "not a regular file"),
        ("a.txt", tarfile.CHRTYPE, "not a regular file"),
        ("a.jpg", tarfile.BLKTYPE, "not a regular file"),
        ("a.jpg", tarfile.FIFOTYPE, "not a regular file"),
    ],
)
def test_members_that_could_lead_out(tmp_path: Path, name: str, kind: bytes, match: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        good = tarfile.TarInfo("0.jpg")
        good.size = len(FILES[0])
        archive.addfile(good, io.BytesIO(FILES[0]))
        bad = tarfile.TarInfo(name)
        bad.type, bad.linkname = kind, "/etc/passwd"
        archive.addfile(bad)
    refuse(tmp_path / "a.tar", match)


def test_members_that_are_not_samples(tmp_path: Path) -> None:
    members = [
        ("__key__", b""),
        (".hidden.jpg", b"1"),
        ("a.seg.png", b"2"),
        ("a.txt", b"a caption"),
        ("a.JPG", FILES[0]),
    ]
    as_tar(tmp_path / "a.tar", [*members, ("d/b.c/e.jpeg", FILES[1]), ("a.json", b'{"width": 3}'), ("empty.png", b"")])
    records = open_pictures(tmp_path / "a.tar").train
    assert list(records.names) == ["a.tar/a.JPG", "a.tar/d/b.c/e.jpeg", "a.tar/empty.png"]
    assert records.read(1) == FILES[1]
    assert records.classes == ()
    with pytest.raises(BadSample, match="empty file"):
        records.read(2)


def test_a_label_beside_a_description(tmp_path: Path) -> None:
    members = [(f"{i}.{end}", content) for i in range(2) for end, content in (("jpg", FILES[i]), ("cls", b"%d" % i))]
    as_tar(tmp_path / "a.tar", [*members, ("0.json", b'{"width": 3}'), ("1.json", b'{"width": 3}')])
    assert open_pictures(tmp_path / "a.tar").train.labels.tolist() == [0, 1]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"{", b"[" * 100_000])
def test_damaged_labels(tmp_path: Path, content: bytes) -> None:
    good = [
        ("1.jpg", FILES[1]),
        ("1.json", b'\xef\xbb\xbf{"label": 1}'),
        ("2.jpg", FILES[2]),
        ("2.json", b'{"label": 0}'),
    ]
    as_tar(tmp_path / "a.tar", [("0.jpg", FILES[0]), ("0.json", content), *good])
    parts = open_pictures(tmp_path / "a.tar")
    assert (list(parts.train.names), parts.train.labels.tolist()) == (["a.tar/1.jpg", "a.tar/2.jpg"], [1, 0])
    assert parts.account.part("train").bad == {"a.tar/0.jpg": ".json that can't be read"}
    assert (parts.account.part("train").found, parts.account.beside) == (3, {})
    as_tar(tmp_path / "a.tar", [("0.jpg", FILES[0]), ("0.json", content)])
    refuse(
        tmp_path / "a.tar", r"none of the pictures in a.tar of .* can be used:\n  a.tar/0.jpg: .json that can't be read"
    )


def test_cut_tar(tmp_path: Path) -> None:
    whole = tar(tmp_path).read_bytes()
    with tarfile.open(tmp_path / "shard-000000.tar") as archive:
        starts = [member.offset for member in archive]
    path = tmp_path / "cut.tar"
    for cut in (0, 100, starts[1], starts[5], starts[5] + 512, starts[5] + 700, starts[-1] + 513):
        path.write_bytes(whole[:cut])
        refuse(path, "cut.tar")
    raw = bytearray(whole)
    raw[starts[8] : starts[8] + 512] = b"\xa5" * 512
    path.write_bytes(raw)
    refuse(path, r"cut\.tar is damaged or cut off after .* bytes; download or create it again")


def test_a_tar_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = tar(tmp_path)
    records = open_pictures(path).train
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(BadSample, match="truncated"):
        records.read(COUNT - 1)
    path.unlink()
    with pytest.raises(BadSample, match="unreadable"):
        records.read(0)


def test_tars_without_pictures_and_packed_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    as_tar(tmp_path / "a.tar", [("a.txt", b"text")])
    refuse(tmp_path / "a.tar", "no pictures .* in a.tar")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz"):
        pass
    refuse(tmp_path / "a.tar.gz", "no pictures .* in a.tar.gz")
    (tmp_path / "a.zip").write_bytes(b"PK")
    refuse(tmp_path / "a.zip", "is an unsupported kind of archive; unpack it and give the folder")
    (tmp_path / "a.tar.gz").rename(tmp_path / "b.tar")
    refuse(tmp_path / "b.tar", "no pictures .* in b.tar")  # unpacked, and empty


# hf:NAME


def test_pictures_that_lie_beside_a_hugging_face_table(tmp_path: Path) -> None:
    folder = metadata_csv(tmp_path)
    records = open_pictures(f"hf:{folder}").train  # datasets calls it an imagefolder
    assert sorted(records.read(place) for place in range(COUNT)) == sorted(FILES)
    assert records.classes == tuple(sorted(NAMES))
    (folder / "pictures" / "000.jpg").unlink()
    with pytest.raises(BadSample, match="unreadable"):
        records.read(0)


def test_hugging_face_of_nothing(tmp_path: Path) -> None:
    refuse(f"hf:{tmp_path}", "can't be loaded .*; name a data set or folder")
    (tmp_path / "dataset_dict.json").write_text("{")
    refuse(f"hf:{tmp_path}", "can't be loaded")


def test_splits_of_no_part_are_left_out(tmp_path: Path) -> None:
    whole = hugging_face(datasets.Value("int64"), LABELS)
    splits_of = datasets.DatasetDict(train=whole.select(range(9)), test=whole.select(range(5)), unlabelled=whole)
    splits_of.save_to_disk(tmp_path / "saved")
    parts = open_pictures(f"hf:{tmp_path / 'saved'}")
    assert parts.test is not None
    assert (len(parts.train), len(parts.test)) == (9, 5)
    assert parts.train.read(8) == FILES[8]
    assert parts.account.beside == {"unlabelled": "a split of another name"}
    datasets.DatasetDict(a=whole, b=whole).save_to_disk(tmp_path / "two")
    refuse(f"hf:{tmp_path / 'two'}", "has several splits for train: a, b")


def test_a_saved_folder_without_hf(tmp_path: Path) -> None:
    saved(tmp_path)
    refuse(tmp_path / "saved", r"if it was saved by datasets, name it as hf:.*saved")


def test_missing_library(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['datasets'] = None\n"
        "from data2vec2.data.hub import load_splits\n"
        "try: load_splits('hf:x')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "UserError hf:x needs the library datasets: pip install 'data2vec2[data]'"


# Metadata


def test_metadata_and_what_it_leaves_out(tmp_path: Path) -> None:
    folder = metadata_csv(tmp_path)
    text = (folder / "metadata.csv").read_text().replace("pictures/001.jpg", "pictures/gone.jpg")
    (folder / "metadata.csv").write_text("\ufeff" + text)
    (folder / "pictures" / "noext").write_bytes(FILES[0])
    parts = open_pictures(folder)
    labels = dict(zip(parts.train.names, parts.train.labels.tolist(), strict=True))
    assert labels["pictures/001.jpg"] == -1  # not in the table
    assert "pictures/gone.jpg" not in labels
    account = parts.account.part("train")
    assert account.bad == {"pictures/gone.jpg": "missing, though metadata names it"}
    assert (account.found, account.used) == (COUNT + 1, COUNT)
    assert "left out: no extension (1); labels from metadata.csv" in parts.description


def test_metadata_without_labels_leaves_those_of_the_folders(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(FILES[0])
    (tmp_path / "metadata.csv").write_text("file_name,caption\na/1.jpg,text\n")
    assert open_pictures(tmp_path).train.classes == ("a", "b")


def test_what_metadata_says_of_labels(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(FILES[0])
    table = tmp_path / "metadata.csv"
    table.write_text("file_name,species\na.jpg,cat\nb.jpg,dog\n")
    assert open_pictures(tmp_path).account.remarks == ["metadata.csv has no column label; it has species"]
    for text in ("cat|dog", "\"['cat', 'dog']\""):
        table.write_text(f"file_name,tags\na.jpg,{text}\nb.jpg,dog\n")
        parts = open_pictures(tmp_path)
        assert parts.train.tags is not None and parts.train.tags.tolist() == [[True, True], [False, True]]
        assert parts.account.remarks == ["classes with one training sample: cat"]


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("metadata.csv", "name,label\na.jpg,1\n", "row 1 has no file_name; it has name, label"),
        ("metadata.csv", "file_name,label\n../a.jpg,1\n", r"row 1 names \.\./a\.jpg, which is outside"),
        ("metadata.csv", "file_name,label\n/a.jpg,1\n", "row 1 names /a.jpg"),
        ("metadata.jsonl", '{"file_name": 3}', "row 1 has no file_name"),
        (
            "metadata.jsonl",
            '{"file_name": ',
            r"metadata\.jsonl: line 1 is not a JSON object; write one object per line",
        ),
        ("metadata.jsonl", "[1]", r"line 1 is not a JSON object; .*'\[1\]'"),
        (
            "metadata.csv",
            "file_name,label,label\na.jpg,1,2\n",
            "metadata.csv has more than one column 'label'; rename all but one",
        ),
        (
            "metadata.csv",
            "file_name,label\na.jpg,\udcff\n",
            "metadata.csv: line 2 is not UTF-8; save the file as UTF-8",
        ),
        ("metadata.jsonl", '{"file_name": "a.jpg", "label": 0.5}', "a label is 0.5"),
    ],
)
def test_bad_metadata(tmp_path: Path, name: str, text: str, match: str) -> None:
    (tmp_path / "a.jpg").write_bytes(FILES[0])
    (tmp_path / name).write_text(text, "utf-8", "surrogateescape")
    refuse(tmp_path, match)


def test_rows_of_metadata_that_can_not_be_read_as_they_are_meant_are_left_out_or_refused(tmp_path: Path) -> None:
    folder = metadata_csv(tmp_path)
    rows = (folder / "metadata.csv").read_text().splitlines()
    (folder / "metadata.csv").write_text("\n".join([*rows, 'pictures/000.jpg,"shirt']))
    parts = open_pictures(folder)
    assert len(parts.train) == COUNT and (parts.train.labels >= 0).all()
    left = "metadata.csv left out: line 42: 'pictures/000.jpg,\"shirt': unclosed quotes, or text beside quotes"
    assert parts.account.remarks == [f"1 of 41 rows of {left}"]
    (folder / "metadata.csv").write_text("file_name,label\npictures/000.jpg,x,y\npictures/001.jpg\n")
    refuse(
        folder, r"2 of 2 rows of .*metadata.csv can't be read .*\n  line 2: 'pictures/000.jpg,x,y': more fields than"
    )


def test_metadata_files_that_disagree_and_a_column_of_parts(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        for name in ("a.jpg", "b.jpg", "c.jpg"):
            (tmp_path / part / name).write_bytes(FILES[0])
    rows = "train/a.jpg,x,train\ntrain/b.jpg,y,train\ntest/c.jpg ,x,test\n"
    (tmp_path / "metadata.csv").write_text("file_name,label,split\n" + rows)
    (tmp_path / "train/metadata.jsonl").write_text('{"file_name": "a.jpg", "label": "y"}\n{"file_name": "c.jpg"}\n')
    parts = open_pictures(tmp_path)
    assert parts.test is not None and parts.test.labels.tolist() == [-1, -1, 0]
    assert parts.train.labels.tolist() == [-1, 1, -1]
    said = "rows of train/metadata.jsonl that contradict each other ignored"
    assert parts.account.part("train").mended == {"train/a.jpg": said}
    column = "column 'split' of metadata.csv (test, train) is not read: names of files and folders set the parts"
    assert parts.account.remarks[0] == column


def test_parts_in_the_folders_of_classes(tmp_path: Path) -> None:
    for name in ("cat/train/1.jpg", "cat/train/2.jpg", "dog/train/1.jpg", "cat/test/1.jpg", "dog/test/more/1.jpg"):
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / name).write_bytes(FILES[0])
    parts = open_pictures(tmp_path)
    assert parts.test is not None and list(parts.test.names) == ["all/cat/test/1.jpg", "all/dog/test/more/1.jpg"]
    assert (parts.train.classes, parts.train.labels.tolist()) == (("cat", "dog"), [0, 0, 1])
    assert parts.test.labels.tolist() == [0, 1]
    assert parts.account.choices == [
        "parts by name: train is all/cat/train, all/dog/train; test is all/cat/test, all/dog/test",
        "sub-folders of class folders belong to the class (all/dog/test/more)",
    ]
    assert parts.account.remarks == ["classes with one training sample: dog"]
    (tmp_path / "all/cat/3.jpg").write_bytes(FILES[0])
    parts = open_pictures(tmp_path)
    assert parts.test is None and len(parts.train) == 6


def test_tables_beside_pictures_that_say_nothing_are_named(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "all/a.jpg").write_bytes(FILES[0])
    (tmp_path / "labels.csv").write_text("id,label\na,x\n")
    assert "tables that describe none of the pictures here: labels.csv; " in open_pictures(tmp_path).account.remarks[0]


def test_metadata_with_other_headers_names_and_two_rows_of_a_file(tmp_path: Path) -> None:
    for name in ("caf\u0065\u0301.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(FILES[0])
    text = f"File_Name,Label\ncaf\u00e9.jpg,x\nb.jpg,x\n{tmp_path / 'b.jpg'},y\nc.jpg,y\nc.jpg,y\n"
    (tmp_path / "metadata.csv").write_text(text, "utf-16")
    parts = open_pictures(tmp_path)
    assert list(parts.train.names) == ["b.jpg", "c.jpg", "caf\u0065\u0301.jpg"]
    assert parts.train.labels.tolist() == [-1, 1, 0]
    said = "rows of metadata.csv that contradict each other ignored"
    assert parts.account.part("train").mended == {"b.jpg": said}


def test_parquet_with_paths_only(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for place in range(4):
        (tmp_path / "pictures" / f"{place}.jpg").write_bytes(FILES[place])
    names = [f"pictures/{place}.jpg" for place in range(5)]
    labels = [0.0, None, 1.0, 1.0, 0.0]
    table = datasets.Dataset.from_dict({"image": names}).cast_column("image", datasets.Image(decode=False)).to_pandas()
    table.assign(Label=labels).to_parquet(tmp_path / "a.parquet")
    parts = open_pictures(tmp_path / "a.parquet")
    assert [parts.train.read(place) for place in range(4)] == FILES[:4]
    assert (parts.train.labels.tolist(), parts.train.classes) == ([0, -1, 1, 1], ("0", "1"))
    assert parts.account.part("train").bad == {"a.parquet[4]": "no bytes, and no such file beside the table"}
    structs = [{"bytes": FILES[9], "path": "x"}, {"bytes": None, "path": "/far/away/pictures/2.jpg"}]
    pq.write_table(pa.table({"image": structs, "label": [0.5, 1.0]}), tmp_path / "pictures" / "b.parquet")
    parts = open_pictures(tmp_path / "pictures" / "b.parquet")
    assert [parts.train.read(place) for place in range(2)] == [FILES[9], FILES[2]]
    assert parts.account.remarks == ["b.parquet: label holds numbers, not classes; it is not read"]


@pytest.mark.parametrize("name", ["hf:", "hf: "])
def test_no_name(name: str) -> None:
    refuse(name, "names no data set")


def test_bundled_pictures_as_a_table(tmp_path: Path) -> None:
    """Real data through a Parquet file are the arrays they came from."""
    squares = [ImageReader(clothes(), READER, ImageDataConfig(), 0).whole(place) for place in range(20)]
    files = [encoded(Image.fromarray(square.transpose(1, 2, 0)), "PNG") for square in squares]
    pq.write_table(pa.table({"image": files, "label": clothes().labels[:20]}), tmp_path / "a.parquet")
    config, data = READER, ImageDataConfig(eval_crop=1.0)
    batch = ImageReader(open_pictures(tmp_path / "a.parquet").train, config, data, 0).eval_batch(np.arange(20))
    plain = ImageReader(clothes(), config, ImageDataConfig(), 0).eval_batch(np.arange(20))
    assert np.array_equal(batch.inputs, plain.inputs)


def test_names_with_dots(tmp_path: Path) -> None:
    members = []
    for place in range(6):
        stem = f"scan_2021.05.{place:02}" if place % 2 else f"scan_{place}"
        members += [(f"{stem}.png", FILES[place]), (f"{stem}.cls", b"%d" % place)]
    members += [
        ("v1.2/a.jpg", FILES[7]),
        ("v1.2/a.cls", b"0"),
        ("v1.2/a.mask.png", b"mask"),
        ("v1.2/a.b.jpg", FILES[8]),
    ]
    parts = open_pictures(as_tar(tmp_path / "a.tar", [*members, ("v1.2/a.b.json", b'{"label": 3}')]))
    assert [parts.train.classes[label] for label in parts.train.labels] == ["0", "1", "2", "3", "4", "5", "0", "3"]
    assert [parts.train.read(place) for place in range(8)] == [*FILES[:6], FILES[7], FILES[8]]
    assert parts.account.beside == {"a.tar/v1.2/a.mask.png": ".mask.png"}


def test_archives_joined_end_to_end(tmp_path: Path) -> None:
    one = as_tar(tmp_path / "1.tar", [("0.jpg", FILES[0]), ("0.cls", b"cat"), ("1.jpg", FILES[1]), ("1.cls", b"dog")])
    two = as_tar(tmp_path / "2.tar", [("0.jpg", FILES[2]), ("0.cls", b"dog"), ("2.jpg", FILES[3]), ("2.cls", b"cat")])
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "a.tar").write_bytes(one.read_bytes() + two.read_bytes())
    records = open_pictures(tmp_path / "all" / "a.tar").train
    assert list(records.names) == ["a.tar/0.jpg", "a.tar/1.jpg", "a.tar/0.jpg[2]", "a.tar/2.jpg"]
    assert [records.read(place) for place in range(4)] == FILES[:4]
    assert [records.classes[label] for label in records.labels] == ["cat", "dog", "dog", "cat"]
    (tmp_path / "all" / "a.tar").write_bytes(one.read_bytes() + two.read_bytes()[:700])
    refuse(tmp_path / "all" / "a.tar", r"a\.tar")
    (tmp_path / "all" / "a.tar").write_bytes(one.read_bytes() + b"something else" * 100)
    refuse(tmp_path / "all" / "a.tar", r"a\.tar is damaged or cut off after 10,240 bytes")


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.TGZ"])
@pytest.mark.parametrize("kind", ["gzip", "bz2", "xz", "zstd"])
def test_a_compressed_archive(tmp_path: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    plain = as_tar(tmp_path / "plain", [("0.jpg", FILES[0]), ("0.cls", b"1")]).read_bytes()
    with lzma.open(tmp_path / name, "w") if kind == "xz" else pa.output_stream(tmp_path / name, kind) as file:
        file.write(plain)
    packed = (tmp_path / name).read_bytes()
    parts = open_pictures(tmp_path / name)
    assert (parts.train.read(0), parts.train.names) == (FILES[0], (f"{name}/0.jpg",))
    folder = tmp_path / "cache" / "data2vec2"
    assert parts.account.choices == [f"{name} is compressed, and was unpacked to {folder}"]
    assert len(list(folder.iterdir())) == 1
    (tmp_path / name).write_bytes(packed[: len(packed) // 2])
    refuse(tmp_path / name, rf"can't unpack .*{name}")
    assert len(list(folder.iterdir())) == 1


def test_compressed_archives_in_a_folder_are_parts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for place, name in enumerate(("train-0.tar.gz", "train-1.tgz", "valid-0.tar")):
        plain = as_tar(tmp_path / "plain", [(f"{place}.jpg", FILES[place]), (f"{place}.cls", b"%d" % place)])
        (tmp_path / "all").mkdir(exist_ok=True)
        packed = gzip.compress(plain.read_bytes()) if "z" in name else plain.read_bytes()
        (tmp_path / "all" / name).write_bytes(packed)
    parts = open_pictures(tmp_path / "all")
    assert list(parts.train.names) == ["train-0.tar.gz/0.jpg", "train-1.tgz/1.jpg"]
    assert parts.val is not None and parts.val.read(0) == FILES[2]
    where = tmp_path / "cache" / "data2vec2"
    assert f"train-0.tar.gz and 1 more are compressed, and were unpacked to {where}" in parts.account.choices
    assert not parts.account.beside


def test_the_tars_of_img2dataset_are_read_and_not_the_tables_beside_them(tmp_path: Path) -> None:
    said = json.dumps({"caption": "a cat", "key": "0", "status": "success"}).encode()
    as_tar(tmp_path / "00000.tar", [("0.jpg", FILES[0]), ("0.txt", b"a cat"), ("0.json", said)])
    pq.write_table(pa.table({"url": ["x"], "caption": ["a cat"]}), tmp_path / "00000.parquet")
    parts = open_pictures(tmp_path)
    assert (parts.train.read(0), len(parts.train)) == (FILES[0], 1)
    assert parts.account.beside["00000.parquet"] == ".parquet"


def test_a_label_beside_a_picture_of_two_extensions(tmp_path: Path) -> None:
    members = [("s0.input.jpg", FILES[0]), ("s0.cls", b"cat"), ("s1.input.jpg", FILES[1]), ("s1.cls", b"dog")]
    several = [("s2.left.jpg", FILES[2]), ("s2.right.jpg", FILES[3]), ("s2.cls", b"dog")]
    parts = open_pictures(as_tar(tmp_path / "a.tar", members + several))
    assert [parts.train.classes[label] if label >= 0 else None for label in parts.train.labels] == (
        ["cat", "dog", None, None]  # of two, it is not certain which is meant
    )
    assert parts.account.beside == {"a.tar/s2.cls": ".cls that describes no sample"}


def test_of_two_pictures_of_a_key_one_is_the_sample(tmp_path: Path) -> None:
    members = [("0.png", FILES[0]), ("0.jpg", FILES[1]), ("0.cls", b"3"), ("1.png", FILES[2]), ("1.cls", b"4")]
    parts = open_pictures(as_tar(tmp_path / "a.tar", members))
    assert list(parts.train.names) == ["a.tar/0.jpg", "a.tar/1.png"]
    assert parts.train.labels.tolist() == [0, 1]
    assert parts.account.beside == {"a.tar/0.png": ".png"}


def test_folders_in_an_archive_are_said_to_be_neither_parts_nor_classes(tmp_path: Path) -> None:
    names = [f"photos/{part}/{name}/0.jpg" for part in ("train", "test") for name in ("cat", "dog")]
    parts = open_pictures(as_tar(tmp_path / "a.tar", [(name, FILES[0]) for name in names]))
    assert (len(parts.train), parts.train.classes) == (4, ())
    said = "a.tar/photos/test/cat, a.tar/photos/test/dog, a.tar/photos/train/cat, ..."
    assert parts.account.remarks == [
        f"folders in archives are neither parts nor classes ({said}); unpack them for that"
    ]


def test_members_that_no_one_reads_stand_in_the_account(tmp_path: Path) -> None:
    boxes = b'[{"bbox": [1, 2, 3, 4], "category": "cat"}]'
    members = [
        ("./d.v1/0.JPG", FILES[0]),
        ("./d.v1/._0.JPG", b"junk"),
        ("./d.v1/0.cls", b"3\n"),
        ("1.jpg", FILES[1]),
        ("1.json", boxes),
        ("1.npy", b"array"),
        ("1.txt", b"a caption"),
        ("2.cls", b"4"),
        ("3.jpg", FILES[2]),
        ("3.jpg", FILES[3]),
        ("4.jpg", FILES[4]),
        ("4.json", b'["cat", "dog"]'),
        ("readme", b"hello"),
    ]
    as_tar(tmp_path / "a.tar", [one for one in members if one[0] not in ("4.jpg", "4.json")])
    parts = open_pictures(tmp_path / "a.tar")
    assert list(parts.train.names) == ["a.tar/d.v1/0.JPG", "a.tar/1.jpg", "a.tar/3.jpg"]
    assert parts.train.read(2) == FILES[3]
    assert parts.account.beside == {
        "a.tar/d.v1/._0.JPG": "hidden",
        "a.tar/1.json": ".json that describes no sample",
        "a.tar/1.npy": ".npy",
        "a.tar/1.txt": ".txt",
        "a.tar/2.cls": ".cls that describes no sample",
        "a.tar/3.jpg, an earlier one": "replaced later in the archive",
        "a.tar/readme": "no extension",
    }
    as_tar(tmp_path / "b.tar", members[-3:-1])
    assert open_pictures(tmp_path / "b.tar").train.classes == ("cat", "dog")
