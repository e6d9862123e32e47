"""`data2vec2 inspect` on real files of every modality, good and bad: its numbers add up, and everything is named."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

import data2vec2
from data2vec2.data.reading import EMPTY_END, FEWER, HALVES, MORE, NO_OBJECT, NULS, PLAIN_QUOTES, QUOTES
from data2vec2.data.reading import NO_TEXT as NO_UTF_8
from data2vec2.errors import UsageError, UserError
from data2vec2.modalities.audio import english_prompts
from data2vec2.modalities.audio.waveform import CANCELLED
from data2vec2.modalities.text.reader import NO_TEXT
from tests.integration.helpers import run_here, small_npz
from tests.unit.data.sounds import encoded, sound
from tests.unit.reporting.pages import Page


def pictures(folder: Path, seed: int, good: int, bad: int, empty: int, twins: int) -> dict[str, str]:
    """Pictures of two classes below `folder`; those of the first kind are good. Returns why the others are bad."""
    draw, reasons = np.random.default_rng(seed), {}
    for place in range(good + bad + empty):
        path = folder / "ab"[place % 2] / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (32, 40, 3), dtype=np.uint8)).save(path)
        if place >= good:
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2] if place < good + bad else b"")
            reasons[path.relative_to(folder).as_posix()] = "truncated" if place < good + bad else "empty file"
    for place in range(twins):
        shutil.copy(folder / "ab"[place % 2] / f"{place}.png", folder / "ab"[place % 2] / f"twin{place}.png")
    return reasons


@pytest.mark.parametrize("seed", range(6))
def test_every_sample_is_used_or_named(tmp_path: Path, seed: int) -> None:
    draw, expected = random.Random(seed), {}
    for part in ("train", "val", "test")[: draw.randint(1, 3)]:
        good, bad, empty = draw.randint(3, 8), draw.randint(0, 4), draw.randint(0, 3)
        twins = draw.randint(0, 2)
        reasons = pictures(tmp_path / part, 100 * seed + len(expected), good, bad, empty, twins)
        expected[part] = (good + bad + empty + twins, {f"{part}/{name}": why for name, why in reasons.items()})
    (tmp_path / "notes.txt").write_text("no picture")
    found = data2vec2.inspect(tmp_path)
    assert found.kind == "image"
    assert found.account.beside == {"notes.txt": ".txt"}
    alone = len(expected) == 1
    for part, (count, reasons) in expected.items():
        account = found.account.parts["train" if alone else part]
        assert account.found == count
        assert account.bad == reasons
        assert account.used == count - len(reasons) == found.facts["train" if alone else part]["mode"]["RGB"]


GOOD, MENDED, BAD = "good", "mended", "bad"
ROWS: dict[str, list[tuple[str, str, str]]] = {
    ".csv": [
        (GOOD, "words {0},{1}\n", ""),
        (GOOD, '"words {0}, and\n""more""",{1}\n', ""),
        (GOOD, '"words {0}",{1}\r\n\r\n', ""),
        (MENDED, "words {0},{1},,\n", EMPTY_END),
        (MENDED, '"words" {0},{1}\n', PLAIN_QUOTES),
        (MENDED, "words\0 {0},{1}\n", NULS),
        (BAD, "words {0}, and more,{1}\n", MORE),
        (BAD, "words {0}\n", FEWER),
        (BAD, ",{1}\n", NO_TEXT),
        (BAD, '"words {0}, never closed,{1}\n', QUOTES),
        (BAD, "words \udcff {0},{1}\n", NO_UTF_8),
    ],
    ".tsv": [
        (GOOD, "words {0}\t{1}\n", ""),
        (GOOD, '"words, {0}\t{1}\r\n', ""),
        (MENDED, "words {0}\t{1}\t\n", EMPTY_END),
        (MENDED, "words\0 {0}\t{1}\n", NULS),
        (BAD, "words {0}\tmore\t{1}\n", MORE),
        (BAD, "words {0}\n", FEWER),
        (BAD, " \t{1}\n", NO_TEXT),
        (BAD, "words \udcff {0}\t{1}\n", NO_UTF_8),
    ],
    ".jsonl": [
        (GOOD, '{{"text": "words {0}", "label": "{1}"}}\n', ""),
        (GOOD, '{{"label": "{1}", "more": {{"a": [1]}}, "text": "words\\n{0}"}}\r\n', ""),
        (MENDED, '{{"text": "words\\u0000 {0}", "label": "{1}"}}\n', NULS),
        (MENDED, '{{"text": "words\\ud83d {0}", "label": "{1}"}}\n', HALVES),
        (BAD, '{{"text": "words {0}", "label": "{1}"\n', NO_OBJECT),
        (BAD, '["words {0}", "{1}"]\n', NO_OBJECT),
        (BAD, '{{"label": "{1}"}}\n', NO_TEXT),
        (BAD, '{{"text": ["words {0}"], "label": "{1}"}}\n', "no text but a list"),
        (BAD, '{{"text": "words \udcff {0}", "label": "{1}"}}\n', NO_UTF_8),
    ],
}
"""Kinds of rows: what becomes of them, how they are written, and why."""


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("extension", ROWS)
def test_every_row_is_used_or_named(tmp_path: Path, extension: str, seed: int) -> None:
    draw, expected = random.Random(seed), {}
    for part in ("train", "val", "test")[: 1 + seed % 3]:
        kinds = ROWS[extension]
        chosen = [kind for kind in kinds if kind[0] == GOOD for _ in range(70)]
        chosen += [kind for kind in kinds if kind[0] != GOOD for _ in range(draw.randint(0, 1))]
        draw.shuffle(chosen)
        lines = [form.format(f"{part} {place}", "ab"[place % 2]) for place, (_, form, _) in enumerate(chosen)]
        header = {".csv": "text,label\n", ".tsv": "text\tlabel\n"}.get(extension, "")
        content = header + "".join(lines)
        (tmp_path / f"{part}{extension}").write_bytes(content.encode("utf-8", "surrogateescape"))
        expected[part] = chosen
    found = data2vec2.inspect(tmp_path, kind="text")
    assert found.kind == "text"
    for part, chosen in expected.items():
        account = found.account.parts[part]

        def named(what: str, chosen: list[tuple[str, str, str]] = chosen, part: str = part) -> dict[str, str]:
            return {f"{part}{extension}[{n}]": why for n, (kind, _, why) in enumerate(chosen) if kind == what}

        assert {name.split(" (")[0]: why for name, why in account.bad.items()} == named(BAD)
        assert account.mended == named(MENDED)
        assert (account.found, account.used) == (len(chosen), len(chosen) - len(named(BAD)))
        assert account.used == sum(found.classes[part].values())


@pytest.mark.parametrize("seed", range(4))
def test_every_row_of_metadata_is_used_or_named(tmp_path: Path, seed: int) -> None:
    draw, rows, missing, left_out, contradicted = random.Random(seed), [], set(), 0, set()
    for place in range(60):
        name = f"{place}.png"
        Image.fromarray(np.full((8, 8, 3), place, dtype=np.uint8)).save(tmp_path / name)
        rows.append(f"{name},{'ab'[place % 2]}")
    for place in draw.sample(range(60), draw.randint(0, 9)):
        (tmp_path / f"{place}.png").unlink()
        missing.add(f"{place}.png")
    for place in draw.sample(range(60), draw.randint(0, 4)):
        rows.append(f"{place}.png,{'ba'[place % 2]}")
        contradicted.add(f"{place}.png")
    for row in draw.sample(["1.png,a,b", "2.png", '3.png,"a', "file_name,label"], draw.randint(0, 3)):
        rows.append(row)
        left_out += 1
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,label", *rows]) + "\n")
    found = data2vec2.inspect(tmp_path)
    account = found.account.parts["train"]
    assert set(account.bad) == missing and set(account.mended) == contradicted - missing
    assert (account.found, account.used) == (60, 60 - len(missing))
    assert sum(found.classes["train"].values()) == account.used - len(account.mended)
    said = [
        line for line in found.account.remarks if line.startswith(f"{left_out} of {len(rows)} rows of metadata.csv")
    ]
    assert len(said) == (left_out > 0)
    assert found.files == {"UTF-8, LF": ["metadata.csv"]}


def test_the_same_picture_in_two_parts(tmp_path: Path) -> None:
    pictures(tmp_path / "train", 0, 6, 0, 0, 1)
    pictures(tmp_path / "test", 1, 4, 0, 0, 0)
    shutil.copy(tmp_path / "train/a/2.png", tmp_path / "test/a/again.png")
    found = data2vec2.inspect(tmp_path)
    assert found.duplicates == [["train: train/a/2.png", "test: test/a/again.png"]]
    assert found.repeated == 1
    across, within = found.account.remarks
    assert across == "duplicates across parts: 1 (train: train/a/2.png, test: test/a/again.png)"
    assert within.startswith("duplicates within a part: 1 (train/")
    assert found.classes == {"train": {"a": 4, "b": 3}, "test": {"a": 3, "b": 2}}


def test_nothing_is_said_twice(tmp_path: Path) -> None:
    for place, name in enumerate(("a/0", "a/1", "b/0", "b/1", "0")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((28, 28), 100, np.uint8)).save(tmp_path / f"{name}.png", dpi=(72 + place, 72))
    flat = "the pictures hardly vary: the standard deviation is below 0.001, as in a single colour"
    assert data2vec2.inspect(tmp_path).account.remarks == ["1 of 5 train samples have no label", flat]


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = small_npz(tmp_path / "data.npz", 120, tested=40)
    page, file = tmp_path / "page.html", tmp_path / "data.json"
    assert run_here(["inspect", data, "--out", page]) == 0
    printed = capsys.readouterr().out
    for text in ("120 train, 40 test", "train width: least 28, median 28, largest 28", "image_base: 120 pictures"):
        assert text in printed, text
    assert "x 2,133.3 passes = 1,000 updates of 256 pictures, of 375,300 that it was made for\n" in printed
    assert "cut to less than a tenth, a recipe may do worse than a smaller one; --init-from MODEL may help\n" in printed
    shown = Page(page.read_text("utf-8"))
    assert shown.errors == []
    assert {"Data", "What the model sees", "Sizes: train", "Classes", "Recipes"} <= set(shown.headings)
    assert shown.tags.count("img") > 10
    assert run_here(["inspect", data, "--out", file, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(file.read_text("utf-8"))
    assert printed["account"]["parts"]["test"] | {"found": 40, "used": 40} == printed["account"]["parts"]["test"]
    assert run_here(["inspect", data, "--out", file]) == 1
    assert "exists; --overwrite replaces it" in capsys.readouterr().err


def test_recordings(tmp_path: Path) -> None:
    for place, path in enumerate(sorted((english_prompts() / "train/digits").glob("*.ogg"))[:12]):
        (tmp_path / "d" / "ab"[place % 2]).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "d" / "ab"[place % 2])
    wave, rate = soundfile.read(path)
    soundfile.write(tmp_path / "d/a/eight.wav", wave[::2], rate // 2, subtype="PCM_16")
    (tmp_path / "d/b/broken.flac").write_bytes(b"fLaC" + bytes(100))
    found = data2vec2.inspect(tmp_path / "d", out=tmp_path / "page.html")
    assert found.kind == "audio"
    part = found.account.parts["train"]
    assert part.found == 14 and list(part.bad) == ["b/broken.flac"]
    assert found.facts["train"]["rate"] == {"16,000 Hz": 12, "8,000 Hz": 1}
    assert found.facts["train"]["coding"] == {"OGG OPUS": 12, "WAV PCM_16": 1}
    page = Page((tmp_path / "page.html").read_text("utf-8"))
    assert page.errors == [] and page.tags.count("audio") == 10


def test_transcripts_and_mended_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wave = sound(3.0)
    for name, channels in (("a.wav", (wave, wave)), ("b.wav", (wave, -wave)), ("c.wav", (wave,))):
        (tmp_path / name).write_bytes(encoded(np.stack(channels, 1)))
    rows = "file_name,transcription\na.wav,[noise] 5% OFF!\nb.wav,it is -3\n"
    (tmp_path / "metadata.csv").write_text(rows)
    found = data2vec2.inspect(tmp_path)
    assert found.transcripts == {"a.wav": "noise 5% off", "b.wav": "it is -3", "c.wav": ""}
    assert found.account.part("train").mended == {"b.wav": CANCELLED}
    signs = "symbols in transcripts of the train part that are dropped: [ (1), ] (1)"
    remark = f'{signs}; "[noise] 5% OFF!" becomes "noise 5% off"'
    assert found.account.remarks == [remark]
    for out in (tmp_path / "x.html", tmp_path / "x.json"):
        assert run_here(["inspect", tmp_path, "--out", out]) == 0
        assert "noise 5% off" in out.read_text("utf-8")
    printed = capsys.readouterr().out
    assert remark in printed and "  b.wav: it is -3" in printed


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs ffmpeg")
def test_recordings_that_only_ffmpeg_reads(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="needs PyAV: pip install 'data2vec2[ffmpeg]'")
    for name in ("a.m4a", "b.webm", "c.wma", "d.flac"):
        command = ["ffmpeg", "-v", "error", "-i", "-", str(tmp_path / name)]
        subprocess.run(command, input=encoded(sound(3.0)), check=True)
    found = data2vec2.inspect(tmp_path)
    assert found.account.part("train").used == 4
    assert found.facts["train"]["coding"] == {"known to ffmpeg only": 3, "FLAC PCM_16": 1}


def test_tables_and_lines_of_text(tmp_path: Path) -> None:
    rows = [f"words number {place} of a text,{'ab'[place % 2]}" for place in range(400)]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *rows, ",a"]) + "\n")
    found = data2vec2.inspect(tmp_path / "t.csv", out=tmp_path / "page.html")
    assert found.files == {"UTF-8, LF": ["t.csv"]}
    assert "Files" in Page((tmp_path / "page.html").read_text("utf-8")).headings
    assert (found.kind, found.classes) == ("text", {"train": {"a": 200, "b": 200}})
    assert found.account.parts["train"].bad == {"t.csv[400]": "no text"}
    assert "Classes" in Page((tmp_path / "page.html").read_text("utf-8")).headings
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines/a.txt").write_text("\n".join(row.split(",")[0] for row in rows) + "\n")
    assert "400 lines of 1 source" in data2vec2.inspect(tmp_path / "lines").description


def test_tables_as_fine_tuning_takes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the columns are called and however little there is, though pre-training could not read it so."""
    rows = [f"Käse {place},more,{'ab'[place % 2]}" for place in range(9)]
    (tmp_path / "t.csv").write_bytes("\r\n".join(["Sentence1,Sentence2,kind", *rows]).encode("cp1252"))
    assert run_here(["inspect", tmp_path / "t.csv"]) == 1
    assert "save the file as UTF-8, or name its encoding" in capsys.readouterr().err
    assert run_here(["inspect", tmp_path / "t.csv", "--encoding", "cp1252", "--label-column", "kind"]) == 0
    said = capsys.readouterr().out
    assert "texts from Sentence1 and Sentence2, labels from kind" in said and "train classes: a (5), b (4)" in said
    assert "files in CP1252 as said, CRLF: t.csv" in said
    assert "text_tiny can't be pre-trained on it: " in said and "has no column 'text'" in said
    (tmp_path / "t.csv").write_text("text,label\n" + "\n".join(f"{place},{place / 3}" for place in range(9)))
    (tmp_path / "t.jsonl").write_text(
        "".join(json.dumps({"text": "word " * 9, "label": n / 3}) + "\n" for n in range(99))
    )
    found = data2vec2.inspect(tmp_path / "t.jsonl")
    assert "no texts with labels: " in found.account.remarks[-1] and "a label is 0.333" in found.account.remarks[-1]


def test_columns_that_are_named_are_those_of_pretraining(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.dumps({"body": f"words number {place} of a text"}) for place in range(400)]
    (tmp_path / "t.jsonl").write_text("\n".join(rows))
    assert run_here(["inspect", tmp_path / "t.jsonl", "--text-columns", "body"]) == 0
    said = capsys.readouterr().out
    assert "texts from body" in said and "can't be pre-trained on" not in said and "\n  text_tiny: " in said
    (tmp_path / "t.txt").write_text("some words\n" * 400)
    for flag in ("--text-columns", "--label-column"):
        assert run_here(["inspect", tmp_path / "t.txt", flag, "body"]) == 2
        assert "has no columns, for it is no table" in capsys.readouterr().err


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="does not exist"):
        data2vec2.inspect(tmp_path / "nowhere", kind="image")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"as image: no images .*\n  as audio: .*\n  as text: "):
        data2vec2.inspect(tmp_path / "empty")
    wrong: list[Any] = [["--as", "video"], ["--out", tmp_path / "x.pdf"]]
    for flags in wrong:
        assert run_here(["inspect", tmp_path / "empty", *flags]) == 2
    err = capsys.readouterr().err
    assert "--as video is not a modality; there are image, audio, text" in err
    assert "its name must end in .html or .json" in err
    with pytest.raises(UsageError):
        data2vec2.inspect(tmp_path, kind="video")
