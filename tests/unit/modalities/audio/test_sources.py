"""The same recordings, labels and transcripts in every kind of source; damage of every kind is named."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data2vec2.data.account import Bad
from data2vec2.data.sampler import Plan
from data2vec2.data.source import BadSample
from data2vec2.errors import UserError
from data2vec2.modalities.audio.config import AudioConfig, AudioDataConfig
from data2vec2.modalities.audio.reader import AudioReader, survey_audio
from data2vec2.modalities.audio.waveform import read_audio
from tests.unit.data.pictures import encoded as encoded_picture
from tests.unit.data.pictures import open_pictures, photo
from tests.unit.data.sounds import FORMATS, RATE, encoded, open_recordings, put, refuse, sound
from tests.unit.data.tars import as_tar

datasets = pytest.importorskip("datasets")

COUNT = 12
ENDS = [(".wav", ".flac", ".ogg")[place % 3] for place in range(COUNT)]
SECONDS = [1 + 0.1 * place for place in range(COUNT)]
FILES = [encoded(sound(SECONDS[i], seed=i), extension=ENDS[i]) for i in range(COUNT)]
SPEAKERS = ("ada", "bob")
LABELS = [place % 2 for place in range(COUNT)]
TEXTS = [f"THIS IS NUMBER {'ABCDEFGHIJKL'[place]}" for place in range(COUNT)]
NAMES = [f"{SPEAKERS[label]}/{place:02}{end}" for place, (label, end) in enumerate(zip(LABELS, ENDS, strict=True))]


def write_files(root: Path) -> Path:
    for name, content in zip(NAMES, FILES, strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def folder_with_csv(root: Path) -> Path:
    write_files(root)
    with (root / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "transcription"), *zip(NAMES, TEXTS, strict=True)])
    return root


def folder_with_jsonl(root: Path) -> Path:
    write_files(root)
    rows = [
        {"file_name": name, "label": SPEAKERS[label], "sentence": f" {text}\n"}
        for name, label, text in zip(NAMES, LABELS, TEXTS, strict=True)
    ]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def table(root: Path) -> Path:
    columns = {"audio": FILES, "text": TEXTS, "label": [SPEAKERS[label] for label in LABELS]}
    pq.write_table(pa.table(columns), root / "a.parquet", row_group_size=5)
    return root / "a.parquet"


def table_of_structs(root: Path) -> Path:
    structs = [{"bytes": content, "path": name} for content, name in zip(FILES, NAMES, strict=True)]
    columns = {
        "sound": structs,
        "sentence": pa.array(TEXTS).dictionary_encode(),
        "class": [SPEAKERS[label] for label in LABELS],
    }
    pq.write_table(pa.table(columns), root / "a.parquet")
    return root


def hugging_face() -> Any:
    features = datasets.Features(
        {
            "clip": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
            "transcript": datasets.Value("string"),
            "label": datasets.ClassLabel(names=list(SPEAKERS)),
        }
    )
    clips = [{"bytes": content, "path": None} for content in FILES]
    rows = {"clip": clips, "transcript": TEXTS, "label": LABELS}
    return datasets.Dataset.from_dict(rows, features=features).cast_column("clip", datasets.Audio(decode=False))


def table_of_hugging_face(root: Path) -> Path:
    hugging_face().to_parquet(root / "a.parquet")
    return root / "a.parquet"


def saved(root: Path) -> str:
    hugging_face().save_to_disk(root / "saved")
    return f"hf:{root / 'saved'}"


def hub_folder(root: Path) -> str:
    hugging_face().to_parquet(root / "train-00000-of-00001.parquet")
    return f"hf:{root}"


def tar_with_txt(root: Path) -> Path:
    members: list[tuple[str, bytes]] = []
    for place in range(COUNT):
        members += [(f"in/{place:03}.txt", f"{TEXTS[place]}\n".encode()), (f"in/{place:03}{ENDS[place]}", FILES[place])]
        members += [(f"in/{place:03}.cls", SPEAKERS[LABELS[place]].encode())]
    return as_tar(root / "a.tar", members)


def tar_with_json(root: Path) -> Path:
    members: list[tuple[str, bytes]] = []
    for place in range(COUNT):
        described = json.dumps({"text": TEXTS[place], "label": SPEAKERS[LABELS[place]], "seconds": 1}).encode()
        members += [(f"{place:03}{ENDS[place].upper()}", FILES[place]), (f"{place:03}.json", described)]
    as_tar(root / "a.tar", members)
    return root


def manifest(root: Path, name: str = "train", folder: str = "sounds", places: Sequence[int] = range(COUNT)) -> Path:
    write_files(root / "sounds")
    rows = [f"{NAMES[place]}\t{round(SECONDS[place] * RATE)}" for place in places]
    (root / f"{name}.tsv").write_text("\n".join([folder, *rows]) + "\n")
    letters = [" ".join(TEXTS[place].replace(" ", "|") + "|") for place in places]
    (root / f"{name}.ltr").write_text("\n".join(letters) + "\n")
    return root / f"{name}.tsv"


def manifest_of_words(root: Path) -> Path:
    manifest(root, folder=str(root / "sounds"))
    (root / "train.ltr").unlink()
    (root / "train.wrd").write_text("\n".join(TEXTS) + "\n")
    return root


SOURCES: list[Callable[[Path], Path | str]] = [
    folder_with_csv,
    folder_with_jsonl,
    table,
    table_of_structs,
    table_of_hugging_face,
    saved,
    hub_folder,
    tar_with_txt,
    tar_with_json,
    manifest,
    manifest_of_words,
]


@pytest.mark.parametrize("make", SOURCES)
def test_every_source_gives_the_same_recordings_labels_and_transcripts(
    tmp_path: Path, make: Callable[[Path], Path | str]
) -> None:
    parts = open_recordings(make(tmp_path))
    records = parts.train
    assert len(records) == COUNT
    assert len(set(records.names)) == COUNT
    assert "12 transcripts" in parts.description
    assert parts.train.texts is not None
    found = {records.read(place): place for place in range(COUNT)}
    order = [found[content] for content in FILES]
    assert [records.texts[place] for place in order] == TEXTS
    if "manifest" not in make.__name__:
        assert [records.classes[records.labels[place]] for place in order] == [SPEAKERS[label] for label in LABELS]

    chosen = pickle.loads(pickle.dumps(records.select(order[::-1])))
    assert list(chosen.texts) == TEXTS[::-1]
    assert chosen.fingerprint == records.select(order[::-1]).fingerprint
    assert chosen.fingerprint != replace(chosen, texts=chosen.texts[::-1]).fingerprint
    for place in range(COUNT):
        with chosen.open(place) as file:
            assert file.read() == FILES[::-1][place]
            file.seek(-5, os.SEEK_END)
            assert file.read(9) == FILES[::-1][place][-5:]
            file.seek(20)
            assert file.read(7) == FILES[::-1][place][20:27]
            assert file.tell() == 27

    reader = AudioReader(chosen, AudioConfig(), AudioDataConfig(min_seconds=1.0, max_seconds=2.0), 0)
    assert np.abs(reader.pieces.lengths_N - np.array(SECONDS[::-1]) * RATE).max() <= 1
    batch = reader.eval_batch(np.array([3, 11]))
    assert batch.bad == ()
    for row, place in zip(batch.inputs, (8, 0), strict=True):
        wave = read_audio(io.BytesIO(FILES[place]), RATE)
        assert np.corrcoef(row[: len(wave)], wave)[0, 1] > 0.9999
    found_bad = survey_audio(reader, print).bad
    assert found_bad == ()


@pytest.mark.parametrize("make", [table, tar_with_txt, saved, manifest])
def test_recordings_are_read_in_another_process(tmp_path: Path, make: Callable[[Path], Path | str]) -> None:
    (tmp_path / "records").write_bytes(pickle.dumps(open_recordings(make(tmp_path)).train))
    program = (
        "import pickle, sys; from data2vec2.modalities.audio.waveform import read_audio\n"
        "r = pickle.load(open(sys.argv[1], 'rb')); print(len(read_audio(r.open(10), 16000)))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "records")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["32000"]


# Folders


def test_a_folder_with_every_extension(tmp_path: Path) -> None:
    for place, extension in enumerate(FORMATS):
        path = put(tmp_path / f"{place:02}{extension}", 1.0)
        path.rename(path.with_suffix(extension.upper() if place % 2 else extension))
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / "a.png").write_bytes(encoded_picture(photo(), "PNG"))
    parts = open_recordings(tmp_path)
    assert len(parts.train) == len(FORMATS)
    assert parts.train.kind == "folder of recordings"
    assert parts.train.texts is None
    assert parts.description.endswith(f"{len(FORMATS)} train, no labels; left out: .png (1), .txt (1)")
    for place in range(len(FORMATS)):
        with parts.train.open(place) as file:
            assert abs(len(read_audio(file, RATE)) - RATE) < 5
    pictures = open_pictures(tmp_path).train
    assert list(pictures.names) == ["a.png"]


def test_parts_and_classes_of_sub_folders(tmp_path: Path) -> None:
    for name in ("train/a/1.wav", "train/b/2.wav", "dev/a/3.wav", "test/b/4.wav", "5.wav"):
        put(tmp_path / name, 0.1)
    parts = open_recordings(tmp_path)
    assert parts.val is not None
    assert parts.test is not None
    assert [list(part.names) for part in (parts.val, parts.test)] == [["dev/a/3.wav"], ["test/b/4.wav"]]
    assert parts.train.classes == ("a", "b")
    assert "left out: in no part (1)" in parts.description


def test_transcripts_that_some_have(tmp_path: Path) -> None:
    write_files(tmp_path)
    rows = [{"file_name": NAMES[0], "text": "HELLO"}, {"file_name": NAMES[1], "text": " "}, {"file_name": NAMES[2]}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    parts = open_recordings(tmp_path)
    assert parts.train.texts is not None
    assert dict(zip(parts.train.names, parts.train.texts, strict=True)) == {**dict.fromkeys(NAMES), NAMES[0]: "HELLO"}
    assert "2 classes, 1 transcripts" in parts.description  # labels are those of the folders
    values = (7, 0, float("nan"), {}, ["a dog", "it barks"], None)
    rows = [{"file_name": name, "text": value} for name, value in zip(NAMES, values, strict=False)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    parts = open_recordings(tmp_path)
    assert dict(zip(parts.train.names, parts.train.texts or (), strict=True)) == {
        **dict.fromkeys(NAMES),
        NAMES[0]: "7",
        NAMES[1]: "0",
    }
    said = "2 of 12 transcripts of the train part are no texts, such as ['a dog', 'it barks']; they are not read"
    assert parts.account.remarks == [said]


def test_rows_that_describe_a_piece_of_a_file_are_told_to_be_of_the_whole(tmp_path: Path) -> None:
    write_files(tmp_path)
    for start, told in (
        (0.5, ["column 'Start' of metadata.jsonl is not read: a row describes a whole recording"]),
        (0, []),
    ):
        row = {"file_name": NAMES[0], "Start": start, "duration": 1, "text": "HELLO"}
        (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
        assert open_recordings(tmp_path).account.remarks == told


def test_what_is_no_audio(tmp_path: Path) -> None:
    refuse(tmp_path / "gone", "gone does not exist")
    refuse(tmp_path, r"no recordings in .*\.aif, .*\.flac.*: it is empty")
    (tmp_path / "a.png").write_bytes(encoded_picture(photo(), "PNG"))
    np.savez(tmp_path / "b.npz", x=np.zeros((2, 8, 8), np.uint8))
    refuse(tmp_path, r"it holds files of type \.npz \(1\), \.png \(1\)$")
    refuse(tmp_path / "b.npz", r"b\.npz is not a known kind .* or a \.parquet, \.tar, \.json, \.jsonl or \.tsv file of")
    put(tmp_path / "one.wav")
    refuse(tmp_path / "one.wav", "is one recording; name a folder of recordings")
    with pytest.raises(UserError, match=r"no images in .*\.wav \(1\)"):
        (tmp_path / "a.png").unlink()
        open_pictures(tmp_path)


def test_files_that_only_metadata_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")  # reading it would wait for ever
    (tmp_path / "folder.wav").mkdir()
    put(tmp_path / "good.wav")
    names = ("pipe.wav", "folder.wav", "gone.wav", "good.wav", "nul\0.wav")
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps({"file_name": name}) for name in names))
    parts = open_recordings(tmp_path)
    records = parts.train
    assert list(parts.account.part("train").bad) == ["gone.wav", "nul\0.wav"]
    assert list(records.names) == ["folder.wav", "good.wav", "pipe.wav"]
    for place, name in enumerate(records.names):
        if name != "good.wav":
            for read in (records.read, records.open):
                with pytest.raises(BadSample, match="unreadable"):
                    read(place)
    reader = AudioReader(records, AudioConfig(), AudioDataConfig(), 0)
    assert {bad.name: bad.reason for bad in reader.pieces.unreadable} == {
        name: "unreadable" for name in records.names if name != "good.wav"
    }


# Manifests


def test_manifests_of_parts(tmp_path: Path) -> None:
    for name, places in (("train_a", range(3)), ("train_b", range(3, 6)), ("valid", range(6, 8)), ("test", [9])):
        manifest(tmp_path, name, places=places)
    (tmp_path / "dev_other.tsv").write_text(f"sounds\n{NAMES[11]}\t9\n")
    (tmp_path / "table.tsv").write_text("client_id\tpath\tsentence\n1\ta.mp3\thello\n")  # no manifest
    (tmp_path / "test.ltr").unlink()
    parts = open_recordings(tmp_path)
    assert parts.train.kind == "manifest of recordings"
    assert list(parts.train.names) == NAMES[:6]
    assert parts.train.texts == tuple(TEXTS[:6])
    assert parts.train.seconds is not None
    assert parts.train.seconds == pytest.approx(SECONDS[:6])
    assert parts.val is not None
    assert list(parts.val.names) == [NAMES[11], *NAMES[6:8]]
    assert parts.val.texts == (None, *TEXTS[6:8])
    assert parts.test is not None
    assert parts.test.texts is None
    assert parts.test.read(0) == FILES[9]
    assert len(open_recordings(tmp_path / "valid.tsv").train) == 2
    chosen = parts.train.select([4, 1])
    assert chosen.seconds is not None
    assert chosen.seconds == pytest.approx([SECONDS[4], SECONDS[1]])
    assert chosen.fingerprint != replace(chosen, seconds=chosen.seconds + 1).fingerprint


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        ([], r"line 1 is ''; it must be the folder"),
        (["gone"], r"line 1 is 'gone'; it must be the folder that the recordings are in"),
        (["path\tsentence"], r"line 1 is 'path\\tsentence'"),
        (["."], r"a\.tsv in .* has no recordings"),
        ([".", "a.wav"], r"line 2 is 'a\.wav'; it must be a path, a tab and a number of frames"),
        ([".", "a.wav\t7", "b.wav\t-7"], "line 3 is "),
        ([".", "a.wav\t7", "", "b.wav\t7"], "line 3 is ''"),
        ([".", "\t7"], "line 2 is "),
    ],
)
def test_bad_manifests(tmp_path: Path, lines: list[str], match: str) -> None:
    (tmp_path / "a.tsv").write_text("".join(f"{line}\n" for line in lines))
    refuse(tmp_path / "a.tsv", match)


@pytest.mark.parametrize("end", ["ltr", "wrd"])
@pytest.mark.parametrize("count", [0, 11, 13])
def test_transcripts_must_be_as_many_as_recordings(tmp_path: Path, end: str, count: int) -> None:
    path = manifest(tmp_path)
    path.with_suffix(f".{end}").write_text("A B |\n" * count)
    refuse(path, rf"train\.{end} has {max(count, 1)} transcripts, but .*train\.tsv has 12 recordings")


@pytest.mark.parametrize("end", ["ltr", "wrd"])
def test_encodings_of_manifests_and_transcripts(tmp_path: Path, end: str) -> None:
    path, texts = manifest(tmp_path), ["CAF\u00c9" if end == "wrd" else "C A F \u00c9 |"] * COUNT
    (tmp_path / "train.ltr").unlink()
    path.write_text(path.read_text(), "utf-8-sig")
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.with_suffix(f".{end}").write_text("\n".join(texts) + "\n", encoding)
        assert open_recordings(path).train.texts == ("CAF\u00c9",) * COUNT
    path.with_suffix(f".{end}").write_text("\n".join(texts) + "\n", "latin-1")
    refuse(path, rf"train\.{end} is not UTF-8; save the file as UTF-8")


def test_names_in_odd_encodings_and_missing_files(tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9 \xc3\xa9.wav")
    put(tmp_path / odd, 2.0)
    rows = f"\n{odd}\t32000\ngone.wav\t32000\n/etc/passwd\t32000\n"
    (tmp_path / "a.tsv").write_bytes(os.fsencode(f".{rows}"))
    records = open_recordings(tmp_path / "a.tsv").train
    assert records.names[0] == odd
    reader = AudioReader(records, AudioConfig(), AudioDataConfig(), 0)
    assert reader.pieces.unreadable == (Bad("gone.wav", "unreadable"), Bad("/etc/passwd", "not audio"))
    assert reader.train_batch(Plan(np.zeros(1, int), np.zeros(1, int), RATE)).bad == ()


def test_a_manifest_that_counts_frames_at_another_rate(tmp_path: Path) -> None:
    put(tmp_path / "a.wav", 4.0, 48_000)
    (tmp_path / "a.tsv").write_text(f".\na.wav\t{4 * 48_000}\n")
    reader = AudioReader(open_recordings(tmp_path / "a.tsv").train, AudioConfig(), AudioDataConfig(), 0)
    with pytest.raises(UserError, match=r"1 not as long as the manifest says \(the first: a\.wav\)"):
        survey_audio(reader, print)


# Tables, tars and the hub


def test_columns_that_are_no_recordings(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": FILES, "b": FILES}), tmp_path / "a.parquet")
    refuse(tmp_path / "a.parquet", "has no column of recordings under a known name; .* in a column called audio, ")
    pq.write_table(pa.table({"image": FILES, "wav": FILES, "text": list(range(COUNT))}), tmp_path / "a.parquet")
    records = open_recordings(tmp_path / "a.parquet").train
    assert records.texts is None  # the column is not of strings
    assert records.read(2) == FILES[2]
    assert open_pictures(tmp_path / "a.parquet").train.texts is None


@pytest.mark.parametrize(
    ("name", "kind", "match"),
    [
        ("../a.wav", tarfile.REGTYPE, r"has a member '\.\./a\.wav', whose path leaves the archive"),
        ("/etc/a.txt", tarfile.REGTYPE, "leaves the archive"),
        ("b\\..\\..\\a.flac", tarfile.REGTYPE, "leaves the archive"),
        ("C:/a.wav", tarfile.REGTYPE, "leaves the archive"),
        ("a.wav", tarfile.SYMTYPE, "has a member 'a.wav', which is not a regular file"),
        ("0.txt", tarfile.LNKTYPE, "not a regular file"),
        ("a.wav", tarfile.FIFOTYPE, "not a regular file"),
    ],
)
def test_members_that_could_lead_out(tmp_path: Path, name: str, kind: bytes, match: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        good = tarfile.TarInfo("0.wav")
        good.size = len(FILES[0])
        archive.addfile(good, io.BytesIO(FILES[0]))
        bad = tarfile.TarInfo(name)
        bad.type, bad.linkname = kind, "/etc/passwd"
        archive.addfile(bad)
    refuse(tmp_path / "a.tar", match)


def test_hostile_and_other_members(tmp_path: Path) -> None:
    says = {"0.txt": b"\xff\xfe", "1.json": b"{", "2.txt": bytes(2 << 20), "3.cls": b"a"}
    members = [(f"{place}.wav", FILES[place]) for place in range(4)]
    account = open_recordings(as_tar(tmp_path / "a.tar", [*members, *says.items()])).account
    assert account.part("train").bad == {
        "a.tar/0.wav": ".txt that can't be read",
        "a.tar/1.wav": ".json that can't be read",
        "a.tar/2.wav": ".txt of too many bytes for a label or a transcript",
    }
    refuse(as_tar(tmp_path / "a.tar", [("0.png", b"1")]), r"no recordings \(\.3gp, .* in a\.tar")
    whole = as_tar(tmp_path / "a.tar", [("0.wav", FILES[0]), ("1.wav", FILES[3]), ("2.mp3", b""), ("3.wav", FILES[6])])
    records = open_recordings(whole).train
    whole.write_bytes(whole.read_bytes()[: len(FILES[0]) + 5_000])  # cut while it is in use
    reader = AudioReader(records, AudioConfig(), AudioDataConfig(min_seconds=1.0), 0)
    assert {bad.name: bad.reason for bad in reader.pieces.unreadable} == {
        "a.tar/1.wav": "truncated",
        "a.tar/2.mp3": "empty file",
        "a.tar/3.wav": "empty file",
    }
    whole.unlink()
    with pytest.raises(BadSample, match="unreadable"):
        records.open(0)


def test_a_long_member_is_not_read_as_a_whole(tmp_path: Path) -> None:
    records = open_recordings(as_tar(tmp_path / "a.tar", [("0.wav", FILES[0]), ("1.wav", encoded(sound(60.0)))])).train
    with records.open(1) as file:
        part = read_audio(file, RATE, 50.0, 1.0)
        with pytest.raises(ValueError, match="no place -1"):
            file.seek(-1)
    assert np.abs(part - sound(60.0)[50 * RATE : 51 * RATE]).max() < 1e-3


def test_what_datasets_can_not_load_without_another_library(tmp_path: Path) -> None:
    if importlib.util.find_spec("torchcodec"):
        pytest.skip("torchcodec is installed")
    write_files(tmp_path)
    refuse(f"hf:{tmp_path}", "can't be loaded .*please install 'torchcodec'")
    assert len(open_recordings(tmp_path).train) == COUNT


def test_pictures_with_captions_have_no_transcripts(tmp_path: Path) -> None:
    picture = encoded_picture(photo(), "PNG")
    as_tar(tmp_path / "a.tar", [("0.png", picture), ("0.txt", b"\xff a caption"), ("0.json", b'{"text": "a caption"}')])
    assert open_pictures(tmp_path / "a.tar").train.texts is None
