"""Corpora as they come: transcripts and parts of each layout, and mistakes in them."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from data2vec2.data import index
from data2vec2.data.folder import MISSING
from data2vec2.data.records import Parts, held_out
from data2vec2.modalities.audio import english_prompts
from data2vec2.modalities.audio.config import AudioConfig, AudioDataConfig
from data2vec2.modalities.audio.frames import open_segments
from data2vec2.modalities.audio.reader import AudioReader
from tests.unit.data.sounds import FORMATS, open_recordings, refuse

Tree = Mapping[str, str]
"""Files by name: a text, of a recording what is said in it."""


@cache
def spoken(extension: str) -> bytes:
    """The first half second of a bundled recording."""
    with (english_prompts() / "metadata.csv").open(encoding="utf-8") as file:
        name = next(csv.DictReader(file))["file_name"]
    wave, rate = soundfile.read(english_prompts() / name, frames=8_000, dtype="float32")
    file = io.BytesIO()
    kind, subtype = FORMATS[extension]
    soundfile.write(file, wave, rate, format=kind, subtype=subtype)
    return file.getvalue()


def plant(root: Path, recordings: str, texts: Tree) -> Path:
    """Write recordings, whose names have spaces between, and texts."""
    for name in recordings.split():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(spoken(Path(name).suffix))
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def said(parts: Parts) -> dict[str, dict[str, str | None]]:
    """Transcripts by part and name, of recordings that can all be read."""
    for one in parts.each.values():
        assert not AudioReader(one, AudioConfig(), AudioDataConfig(), 0).pieces.unreadable
    return {part: dict(zip(one.names, one.texts or [None] * len(one), strict=True)) for part, one in parts.each.items()}


def bad(parts: Parts) -> dict[str, str]:
    return {name: reason for one in parts.account.parts.values() for name, reason in one.bad.items()}


LIBRI = "train-clean-100/19/198/19-198-0000.flac train-other-500/20/1/20-1-0000.flac dev-clean/84/1/84-1-0000.flac"
LIBRI += " dev-other/85/1/85-1-0000.flac test-clean/61/7/61-7-0000.flac test-other/62/7/62-7-0000.flac"
LIBRI_TEXTS = {
    f"{Path(name).parent}/{Path(name).stem[:-5]}.trans.txt": f"{Path(name).stem} WORDS OF {Path(name).stem[:2]}\n"
    for name in LIBRI.split()
}
CLIPS = "clips/a.mp3 clips/b.mp3 clips/c.mp3 clips/d.mp3 clips/e.mp3"
HEADER = "client_id\tpath\tsentence\tup_votes\n"


def rows(*given: tuple[str, str]) -> str:
    return HEADER + "".join(f"7\t{path}\t{sentence}\t2\n" for path, sentence in given)


VOICE = {
    "train.tsv": rows(("a.mp3", '"Oh", she said'), ("b.mp3", "B|b, b")),
    "dev.tsv": rows(("c.mp3", "C")),
    "test.tsv": rows(("d", 'He said "D"')),
    "validated.tsv": rows(("a.mp3", "no"), ("e.mp3", "no")),
    "invalidated.tsv": rows(("e.mp3", "no")),
    "clip_durations.tsv": "clip\tduration[ms]\na.mp3\t500\n",
}
VOICE_SAID = {
    "train": {"clips/a.mp3": '"Oh", she said', "clips/b.mp3": "B|b, b"},
    "val": {"clips/c.mp3": "C"},
    "test": {"clips/d.mp3": 'He said "D"'},
}


@pytest.mark.parametrize("above", ["", "LibriSpeech/", "corpora/LibriSpeech/"])
def test_librispeech(tmp_path: Path, above: str) -> None:
    plant(tmp_path / above, LIBRI, LIBRI_TEXTS | {"SPEAKERS.TXT": "; a table\n"})
    parts = open_recordings(tmp_path)
    assert {part: list(texts.values()) for part, texts in said(parts).items()} == {
        "train": ["WORDS OF 19", "WORDS OF 20"],
        "val": ["WORDS OF 84", "WORDS OF 85"],
        "test": ["WORDS OF 61", "WORDS OF 62"],
    }
    assert "transcripts from 6 .trans.txt files" in parts.description
    assert f"test is {above}test-clean, {above}test-other" in parts.description
    assert "left out: .txt (1)" in parts.description
    assert set(parts.train.classes) >= {"19", "20"}
    only = open_recordings(tmp_path / above / "test-other")
    assert said(only) == {"train": {"62/7/62-7-0000.flac": "WORDS OF 62"}}


@pytest.mark.parametrize(
    ("recordings", "texts", "expected", "choice"),
    [
        (
            "train/audio/4/5/4_5_000.flac train/audio/6/5/6_5_001.opus test/audio/7/5/7_5_000.flac",
            {
                "train/transcripts.txt": "4_5_000\tein haus\n6_5_001\tzwei\n",
                "test/transcripts.txt": "7_5_000\tdrei\n",
                "train/segments.txt": "4_5_000\thttps://x\t1\t2\n",
            },
            {
                "train": {"train/audio/4/5/4_5_000.flac": "ein haus", "train/audio/6/5/6_5_001.opus": "zwei"},
                "test": {"test/audio/7/5/7_5_000.flac": "drei"},
            },
            "transcripts from 2 transcripts.txt files",
        ),
        (
            "wavs/LJ-1.wav wavs/LJ-2.flac wavs/LJ-3.wav",
            {"metadata.csv": 'LJ-1|"Oh," in 1|"Oh," in one\nLJ-2|a, b|\r\nLJ-3|Dr. C|doctor c\n'},
            {"train": {"wavs/LJ-1.wav": '"Oh," in one', "wavs/LJ-2.flac": "a, b", "wavs/LJ-3.wav": "doctor c"}},
            "transcripts from 1 metadata.csv file",
        ),
        (
            "LJ/wavs/1.wav LJ/wavs/2.wav",
            {"LJ/metadata.csv": "1.wav|one\nwavs/2.wav|two\n"},
            {"train": {"LJ/wavs/1.wav": "one", "LJ/wavs/2.wav": "two"}},
            "transcripts from 1 metadata.csv file",
        ),
        (
            "a/1.wav a/2.wav b/3.wav b/4.wav",
            {"a/1.normalized.txt": "one", "a/1.original.txt": "1", "a/2.lab": "two\n", "b/3.txt": "3\n\nthree"},
            {"train": {"a/1.wav": "one", "a/2.wav": "two", "b/3.wav": "3 three", "b/4.wav": None}},
            "transcripts from 1 .normalized.txt file, 1 .lab file, 1 .txt file",
        ),
        (
            "a/S1.wav a/S2.wav a/S3.wav",
            {
                "a/S1.TXT": "0 46797 She had.\n",
                "a/S2.TXT": "0 38912 Don't ask 2.\n",
                "a/S2.PHN": "0 2 h#\n",
                "a/S2.WRD": "0 2 do\n",
                "a/S3.WRD": "0 2 ask\n",
            },
            {"train": {"a/S1.wav": "She had.", "a/S2.wav": "Don't ask 2.", "a/S3.wav": "ask"}},
            "transcripts from 2 .txt files, 1 .wrd file",
        ),
        (
            "a/S1.WAV.wav a/S2.wav a/S3.wav a/S4.wav",
            {
                "a/S1.WRD": "0 900 she\n900 1800 had\n",
                "a/S2.wav.txt": "and",
                "a/S3.wrd": "so\n",
                "a/S4.PHN": "0 2 h#\n",
            },
            {"train": {"a/S1.WAV.wav": "she had", "a/S2.wav": "and", "a/S3.wav": None, "a/S4.wav": None}},
            "left out: .phn (1), .wrd (1); transcripts from 1 .wrd file, 1 .txt file",
        ),
        (
            "train-clean-100/1/2/1_2_3.wav train-clean-100/1/2/1_2_4.wav dev-clean/3/4/3_4_5.wav",
            {
                "train-clean-100/1/2/1_2.trans.tsv": '1_2_3\tDr. "A".\tDoctor "A".\n1_2_4\tB\t\n',
                "train-clean-100/1/2/1_2.book.tsv": "1_2_3\tDr. A.\tDoctor A.\t0\n",
                "dev-clean/3/4/3_4.trans.tsv": "3_4_5\tC\n",
            },
            {
                "train": {"train-clean-100/1/2/1_2_3.wav": 'Doctor "A".', "train-clean-100/1/2/1_2_4.wav": "B"},
                "val": {"dev-clean/3/4/3_4_5.wav": "C"},
            },
            "transcripts from 2 .trans.tsv files",
        ),
        (
            "1/2/1_2_3.wav",
            {"1/2/1_2_3.normalized.txt": "one", "1/2/1_2_3.original.txt": "1", "1/2/1_2.trans.tsv": "1_2_9\t9\tnine\n"},
            {"train": {"1/2/1_2_3.wav": "one"}},
            "transcripts from 1 .normalized.txt file",
        ),
        (
            "V/wav48/p1/p1_001_mic1.flac V/wav48/p1/p1_001_mic2.flac V/wav48/p2/p2_001.wav V/wav48/p3/p3_001_mic1.flac",
            {
                "V/txt/p1/p1_001.txt": "Please call.\n",
                "V/txt/p2/p2_001.txt": "Ask her.\n",
                "V/txt/p2/p2_002.txt": "No recording.\n",
                "V/speaker-info.txt": "ID AGE\np1 23\n",
            },
            {
                "train": {
                    "V/wav48/p1/p1_001_mic1.flac": "Please call.",
                    "V/wav48/p1/p1_001_mic2.flac": "Please call.",
                    "V/wav48/p2/p2_001.wav": "Ask her.",
                    "V/wav48/p3/p3_001_mic1.flac": None,
                }
            },
            "3 classes, 3 transcripts; left out: .txt (2); transcripts from 2 .txt files",
        ),
        (
            "ABA/wav/a1.wav ABA/wav/a2.wav BWC/wav/a1.wav m_mic1.wav m_mic2.wav n-Mic1.wav",
            {
                "ABA/transcript/a1.txt": "one",
                "BWC/transcript/a1.txt": "One",
                "m_mic1.txt": "left",
                "m_mic2.txt": "right",
                "txt/n.txt": "both",
            },
            {
                "train": {
                    "ABA/wav/a1.wav": "one",
                    "ABA/wav/a2.wav": None,
                    "BWC/wav/a1.wav": "One",
                    "m_mic1.wav": "left",
                    "m_mic2.wav": "right",
                    "n-Mic1.wav": "both",
                }
            },
            "transcripts from 5 .txt files",
        ),
        (
            "1.wav 2.wav",
            {"1.txt": "0 1 2", "2.txt": "7 8 9"},
            {"train": {"1.wav": "0 1 2", "2.wav": "7 8 9"}},
            "transcripts from 2 .txt files",
        ),
        (CLIPS, VOICE, VOICE_SAID, "parts by name: train is train.tsv; val is dev.tsv; test is test.tsv"),
        (
            CLIPS,
            {"validated.tsv": VOICE["validated.tsv"], "other.tsv": HEADER},
            {"train": {"clips/a.mp3": "no", "clips/e.mp3": "no"}},
            "not used: other.tsv",
        ),
        (
            "data/wavs/1.wav data/wavs/2.wav data/wavs/3.wav",
            {
                "data/train/wav.scp": "u1 data/wavs/1.wav\nu2 data/wavs/2.wav\n",
                "data/train/text": "u1 one  1\nu2\n",
                "data/dev/wav.scp": "u3\tdata/wavs/3.wav\n",
                "data/dev/text": "u3\tthree\n",
            },
            {"train": {"u1": "one  1", "u2": None}, "val": {"u3": "three"}},
            "parts by name: train is data/train/wav.scp; val is data/dev/wav.scp",
        ),
        (
            "wavs/1.wav wavs/2.flac wavs/3.wav",
            {
                "train_manifest.json": '{"audio_filepath": "wavs/1.wav", "duration": 0.5, "text": "one"}\n'
                '{"audio_filepath": "wavs/2.flac", "duration": 0.5, "offset": 0}\n',
                "test_manifest.json": '{"audio_filepath": "wavs/3.wav", "duration": 0.5, "text": "three"}\n',
            },
            {"train": {"wavs/1.wav": "one", "wavs/2.flac": None}, "test": {"wavs/3.wav": "three"}},
            "parts by name: train is train_manifest.json; test is test_manifest.json",
        ),
    ],
    ids=[
        *("mls", "ljspeech", "ljspeech-below", "beside", "timit", "words", "libritts-lists", "libritts", "vctk", "l2"),
        *("digits", "voice", "validated", "kaldi", "nemo"),
    ],
)
def test_transcripts(
    tmp_path: Path, recordings: str, texts: Tree, expected: dict[str, dict[str, str | None]], choice: str
) -> None:
    parts = open_recordings(plant(tmp_path, recordings, texts))
    assert said(parts) == expected
    assert choice in parts.description
    assert not bad(parts)
    assert not [remark for remark in parts.account.remarks if "tables" in remark]


@pytest.mark.parametrize(("form", "texts"), [("_mic{}.flac", True), ("_mic{}.flac", False), (".{}", True)])
def test_what_is_recorded_several_times_is_never_trained_on_and_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, texts: bool
) -> None:
    settled(monkeypatch, tmp_path)
    names = [f"wav48/p{n % 2}/p{n % 2}_{n}" for n in range(40)]
    takes = [form.format(take) for take in (("flac", "wav") if form == ".{}" else (1, 2))]
    said = {f"{name.replace('wav48', 'txt')}.txt": name for name in names}
    plant(tmp_path / "data", " ".join(name + take for name in names for take in takes), said if texts else {})
    for _ in range(2):  # found, and kept
        train, held = held_out(open_recordings(tmp_path / "data"), None, 0.2, 0)
        assert held is not None
        assert (len(train), len(held)) == (64, 16)
        ours, theirs = ({re.split(r"_mic|\.", name)[0] for name in one.names} for one in (train, held))
        assert (len(ours), len(theirs), ours & theirs) == (32, 8, set())


def test_common_voice_as_a_whole_and_by_part(tmp_path: Path) -> None:
    plant(tmp_path / "cv" / "en", CLIPS, VOICE)
    parts = open_recordings(tmp_path / "cv")
    assert said(parts) == VOICE_SAID
    assert "in no part (1)" in parts.description
    assert "not used: en/clip_durations.tsv, en/invalidated.tsv, en/validated.tsv" in parts.description
    assert parts.account.beside == {"en/clips/e.mp3": "in no part"}
    assert said(open_recordings(tmp_path / "cv" / "en" / "dev.tsv")) == {"train": VOICE_SAID["val"]}
    plant(tmp_path / "cv" / "de", CLIPS, VOICE)  # two languages: recordings, whose folders are classes
    assert open_recordings(tmp_path / "cv").train.texts is None


def test_empty_tables_of_common_voice(tmp_path: Path) -> None:
    plant(tmp_path, CLIPS, VOICE | {"dev.tsv": HEADER})
    assert said(open_recordings(tmp_path)) == {part: VOICE_SAID[part] for part in ("train", "test")}
    plant(tmp_path, "", {"train.tsv": HEADER})
    assert list(said(open_recordings(tmp_path))["train"]) == ["clips/a.mp3", "clips/e.mp3"]  # all that is validated


def test_one_manifest(tmp_path: Path) -> None:
    plant(tmp_path, "wavs/1.wav", {"data/wav.scp": "u1 wavs/1.wav\n"})
    plant(tmp_path, "", {"some.json": json.dumps({"audio_filepath": str(tmp_path / "wavs" / "1.wav"), "text": 7})})
    assert said(open_recordings(tmp_path / "some.json")) == {"train": {str(tmp_path / "wavs" / "1.wav"): "7"}}
    assert said(open_recordings(tmp_path / "data" / "wav.scp")) == {"train": {"u1": None}}


def test_files_that_are_no_manifest(tmp_path: Path) -> None:
    plant(tmp_path, "a.wav", {"metadata.jsonl": '{"file_name": "a.wav"}\n', "m.json": "[1]", "v.tsv": HEADER})
    refuse(tmp_path / "metadata.jsonl", "metadata.jsonl is not a known kind of data; name a folder of recordings")
    refuse(tmp_path / "m.json", r"m\.json: line 1 is '\[1\]'; it must be a JSON object with audio_filepath")
    refuse(tmp_path / "v.tsv", "it must be the folder that the recordings are in")
    plant(tmp_path, "", {"metadata.jsonl": '{"audio_filepath": "a.wav", "text": "one"}\n'})
    for place in (tmp_path, tmp_path / "metadata.jsonl"):
        assert said(open_recordings(place)) == {"train": {"a.wav": "one"}}


def test_recordings_that_no_manifest_names(tmp_path: Path) -> None:
    plant(tmp_path, "w/1.wav w/2.wav", {"m.json": '{"audio_filepath": "w/../w/1.wav"}', "more.tsv": "a\tb\n"})
    parts = open_recordings(tmp_path)
    assert parts.account.beside == {"w/2.wav": "in no part"}
    assert parts.description == "manifest of NeMo: 1 train, no labels; left out: in no part (1); not used: more.tsv"
    plant(tmp_path, "", {"0.tar": ""})  # such a manifest is of recordings in tars
    assert "m.json" not in open_recordings(tmp_path).description


def test_texts_beside_recordings_of_names_that_differ_in_case_only(tmp_path: Path) -> None:
    plant(tmp_path, "a.wav A.wav", {"a.txt": "small", "A.TXT": "large"})
    assert said(open_recordings(tmp_path)) == {"train": {"A.wav": "large", "a.wav": "small"}}


def test_speech_commands(tmp_path: Path) -> None:
    names = "bed/1.wav bed/2.wav bed/3.wav cat/1.wav cat/2.wav _background_noise_/hum.wav"
    lists = {"validation_list.txt": "bed/2.wav\n", "testing_list.txt": "bed/3.wav\r\ncat/2.wav\ncat/gone.wav\n"}
    for above in ("", "v2/"):
        root = tmp_path / f"in {above}"
        parts = open_recordings(plant(root / above, names, lists).parent if above else plant(root, names, lists))
        found = {
            part: {name: one.classes[one.labels[i]] for i, name in enumerate(one.names)}
            for part, one in parts.each.items()
        }
        assert found == {
            "train": {f"{above}bed/1.wav": "bed", f"{above}cat/1.wav": "cat"},
            "val": {f"{above}bed/2.wav": "bed"},
            "test": {f"{above}bed/3.wav": "bed", f"{above}cat/2.wav": "cat"},
        }
        assert parts.train.classes == ("bed", "cat")
        assert bad(parts) == {f"{above}cat/gone.wav": MISSING}
        assert "left out: _background_noise_ (1); parts by " in parts.description


@pytest.mark.parametrize(
    ("recordings", "texts", "missing"),
    [
        ("1/2/a.flac", {"1/2/1-2.trans.txt": "a one\nb two\n"}, "1/2/b"),
        ("audio/1/2/1_2_3.flac", {"transcripts.txt": "9_2_3\ttwo\n1_2_3\tone\n"}, "audio/9/2/9_2_3"),
        ("wavs/a.wav", {"metadata.csv": "a|one\nb|two\n"}, "wavs/b"),
        ("clips/a.mp3", {"train.tsv": rows(("a.mp3", "one"), ("b\0.mp3", "two"))}, "clips/b\0.mp3"),
        ("a.wav", {"m.json": '{"audio_filepath": "a.wav"}\n{"audio_filepath": "b.wav"}'}, "b.wav"),
        ("a.wav", {"wav.scp": "a a.wav\nb b.wav\n"}, "b"),
        ("a.wav", {"wav.scp": "a a.wav\n", "text": "b two\n"}, "b"),
        ("a.wav", {"wav.scp": f"b {'b' * 300}.wav\na a.wav\n"}, "b"),
    ],
)
def test_names_that_lead_to_no_file(tmp_path: Path, recordings: str, texts: Tree, missing: str) -> None:
    parts = open_recordings(plant(tmp_path, recordings, texts))
    assert bad(parts) == {missing: MISSING}
    assert len(said(parts)["train"]) == 1


def test_transcripts_of_another_part(tmp_path: Path) -> None:
    plant(tmp_path, "a.wav b.wav", {"dev/wav.scp": "b b.wav\n", "dev/text": "b two\nc three\nd four\n"})
    plant(tmp_path, "", {"train/wav.scp": "a a.wav\n", "train/text": "b two\na one\n"})
    parts = open_recordings(tmp_path)
    assert said(parts) == {"train": {"a": "one"}, "val": {"b": "two"}}
    assert bad(parts) == {"c": MISSING, "d": MISSING}  # most, so that they are to be missed
    what = "1 train transcripts are of no recording that is listed (b); they are not used"
    assert parts.account.remarks == [what]


@pytest.mark.parametrize(
    ("recordings", "texts"),
    [
        ("1/2/a.flac", {"1/2/1-2.trans.txt": "a one\na two\na one\n"}),
        ("wavs/a.wav", {"metadata.csv": "a|one\na|two\n"}),
        ("clips/a.mp3", {"train.tsv": rows(("a.mp3", "one"), ("a.mp3", "two"))}),
        (
            "a.wav",
            {"m.jsonl": '{"audio_filepath": "a.wav", "text": "one"}\n{"audio_filepath": "a.wav", "text": "two"}'},
        ),
    ],
)
def test_transcripts_that_contradict_each_other(tmp_path: Path, recordings: str, texts: Tree) -> None:
    parts = open_recordings(plant(tmp_path, recordings, texts))
    assert said(parts) == {"train": {recordings: None}}
    assert "contradict each other ignored" in parts.account.part("train").mended[recordings]


@pytest.mark.parametrize(
    ("recordings", "texts", "match"),
    [
        ("1/2/a.flac", {"1/2/1-2.trans.txt": "a one\nb\n"}, r"1-2\.trans\.txt: line 2 is 'b'; it must be the name"),
        (
            "a.flac",
            {"transcripts.txt": "a\tone\nb two\n"},
            r"transcripts\.txt: line 2 is 'b two'; .* a tab and its text",
        ),
        ("a.wav", {"metadata.csv": "a|one\nb|1|2|3\n"}, r"metadata\.csv: line 2 is 'b\|1\|2\|3'; .* a pipe"),
        ("a.wav", {"metadata.csv": "a|one\n|two\n"}, r"line 2 is '\|two'"),
        (
            "clips/a.mp3",
            {"train.tsv": rows(("a.mp3", "one")) + "7\tb.mp3\n"},
            r"train\.tsv: line 3 .* have a path, and 4 ",
        ),
        ("clips/a.mp3", {"train.tsv": rows(("", "one"))}, "line 2 is "),
        (
            "clips/a.mp3",
            {"train.tsv": rows(("b.mp3", ""))},
            r"none of the 1 recordings of train\.tsv .* the first is .*b\.mp3",
        ),
        ("clips/a.mp3", {"dev.tsv": rows(("a.mp3", "")), "test.tsv": rows(("a.mp3", ""))}, "none to train on"),
        (
            "a.wav",
            {"m.json": '{"audio_filepath": "a.wav"}\n[1]\n'},
            r"m\.json: line 2 is '\[1\]'; .* with audio_filepath",
        ),
        ("a.wav", {"m.json": '{"audio_filepath": "a.wav"}\n{"audio_filepath": \n'}, "line 2 is "),
        (
            "a.wav",
            {"m.json": '{"audio_filepath": "a.wav", "offset": 1.5}\n'},
            r"line 1 begins at 1\.5 s of a\.wav; cut",
        ),
        (
            "a.wav",
            {"wav.scp": "a sph2pipe a.sph |\n"},
            r"wav\.scp: a is the command 'sph2pipe a\.sph \|'; give the path",
        ),
        (
            "a.wav",
            {"wav.scp": "a a.wav\n", "segments": "a1 a 0 1\n"},
            r"segments cuts recordings, which are read whole",
        ),
        (
            "a.wav",
            {"wav.scp": "a a.wav\na b.wav\n"},
            r"wav\.scp: line 2 is 'a b\.wav'; it must be the name of an utterance",
        ),
        ("a.wav", {"wav.scp": "a\n"}, "line 1 is 'a'; .* and a path"),
        ("a.wav", {"wav.scp": "a gone.wav\n"}, r"none of the 1 recordings of wav\.scp in "),
    ],
)
def test_mistakes(tmp_path: Path, recordings: str, texts: Tree, match: str) -> None:
    refuse(plant(tmp_path, recordings, texts), match)


@pytest.mark.parametrize("name", ["1/2/1-2.trans.txt", "metadata.csv", "clips/../train.tsv", "m.json"])
def test_another_encoding_is_refused(tmp_path: Path, name: str) -> None:
    start = {"metadata.csv": b"a|caf\xe9\n", "m.json": b'{"audio_filepath": "a.wav", "text": "caf\xe9"}'}
    plant(tmp_path, "clips/a.mp3 a.wav 1/2/a.flac", {name: ""})
    (tmp_path / name).write_bytes(
        start.get(name, b"a caf\xe9\n" if "trans" in name else HEADER.encode() + b"\xe9\ta\tb\tc\n")
    )
    refuse(tmp_path, "is not UTF-8; save the file as UTF-8")


def test_texts_beside_recordings_that_are_no_transcripts(tmp_path: Path) -> None:
    track = "0.0\t0.2\tvoice\n0.3\t0.4\tvoice\n"
    plant(tmp_path, "1.wav 2.wav 3.wav 4.wav", {"1.txt": track, "2.txt": "", "3.lab": "0 250 sil\n250 400 a\n"})
    plant(tmp_path, "5.wav", {"5.lab": "#\n0.1 125 sil\n0.4 125 a\n"})
    parts = open_recordings(tmp_path)
    assert parts.train.texts is None
    assert "transcripts" not in parts.description
    assert "2 segments in 2 train recordings" in open_segments(str(tmp_path)).description
    plant(tmp_path, "", {"4.txt": "word " * 3_000})
    (tmp_path / "3.txt").write_bytes(b"caf\xe9")
    parts = open_recordings(tmp_path)
    assert parts.train.texts is None
    expected = "2 texts beside recordings (3.txt, 4.txt) are longer than a transcript, or not UTF-8; they are not read"
    assert parts.account.remarks == [expected]


def test_metadata_that_name_files_win(tmp_path: Path) -> None:
    plant(tmp_path, "1/2/a.flac 1/2/b.flac", {"1/2/1-2.trans.txt": "a one\nb two\n"})
    plant(tmp_path, "", {"metadata.csv": "file_name,transcription\n1/2/a.flac,other\n"})
    assert said(open_recordings(tmp_path)) == {"train": {"1/2/a.flac": "other", "1/2/b.flac": None}}
    plant(tmp_path, "", {"metadata.csv": "file_name|transcription\n1/2/a.flac|other\n"})
    refuse(tmp_path, "save the file with commas between the fields, not '|'")
    (tmp_path / "metadata.csv").unlink()
    pq.write_table(pa.table({"file_name": ["1/2/a.flac"], "transcription": ["another"]}), tmp_path / "metadata.parquet")
    assert said(open_recordings(tmp_path)) == {"train": {"1/2/a.flac": "another", "1/2/b.flac": None}}


def settled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(index, "LEAST", 1)
    monkeypatch.setattr(index, "_SETTLED_NS", -(10**18))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("recordings", "texts", "change"),
    [
        ("1/2/a.flac", {"1/2/1-2.trans.txt": "a one\n"}, {"1/2/1-2.trans.txt": "a other\n"}),
        ("clips/a.mp3", {"train.tsv": rows(("a.mp3", "one"))}, {"train.tsv": rows(("a.mp3", "other"))}),
        (
            "a.wav",
            {"m.json": '{"audio_filepath": "a.wav", "text": "one"}'},
            {"m.json": '{"audio_filepath": "a.wav", "text": "other"}'},
        ),
        ("a.wav", {"a.txt": "one"}, {"a.txt": "other"}),
        ("a.wav", {"a.lab": "one"}, {"a.txt": "other"}),
    ],
)
def test_what_is_kept_of_many_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recordings: str, texts: Tree, change: Tree
) -> None:
    settled(monkeypatch, tmp_path)
    root = plant(tmp_path / "data", recordings, texts)
    kept: Callable[[], list[Path]] = lambda: [*(tmp_path / "cache").rglob("about.json")]  # noqa: E731
    for _ in range(2):
        assert said(open_recordings(root)) == {"train": {recordings: "one"}}
        assert len(kept()) == 1
    plant(root, "", change)
    assert said(open_recordings(root)) == {"train": {recordings: "other"}}


def test_what_is_kept_of_parts_by_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settled(monkeypatch, tmp_path)
    root = plant(
        tmp_path / "data", "a/1.wav b/2.wav b/3.wav", {"validation_list.txt": "b/2.wav\n", "testing_list.txt": ""}
    )
    for _ in range(2):
        parts = open_recordings(root)
        assert {part: len(one) for part, one in parts.each.items()} == {"train": 2, "val": 1}
        assert parts.train.read(1) == spoken(".wav")


def test_missing_recordings_may_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settled(monkeypatch, tmp_path)
    lines = "".join(json.dumps({"audio_filepath": f"../wavs/{name}.wav"}) + "\n" for name in "ab")
    plant(tmp_path, "wavs/a.wav", {"lists/m.json": lines})
    assert bad(open_recordings(tmp_path / "lists")) == bad(open_recordings(tmp_path / "lists" / "m.json"))
    plant(tmp_path, "wavs/b.wav", {})
    for place in ("lists", "lists/m.json"):
        assert len(open_recordings(tmp_path / place).train) == 2
