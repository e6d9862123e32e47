"""`data2vec2 inspect` on real files of every modality, good and bad: its numbers add up, and everything is named."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

import data2vec2
from data2vec2.errors import UsageError, UserError
from data2vec2.modalities.audio import english_prompts
from tests.integration.helpers import run_here, small_npz
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


def test_the_same_picture_in_two_parts(tmp_path: Path) -> None:
    pictures(tmp_path / "train", 0, 6, 0, 0, 1)
    pictures(tmp_path / "test", 1, 4, 0, 0, 0)
    shutil.copy(tmp_path / "train/a/2.png", tmp_path / "test/a/again.png")
    found = data2vec2.inspect(tmp_path)
    assert found.duplicates == [["train: train/a/2.png", "test: test/a/again.png"]]
    assert found.repeated == 1
    said = ["content that stands in more than one part: 1", "samples whose content their part has already: 1"]
    assert found.account.remarks == said
    assert found.classes == {"train": {"a": 4, "b": 3}, "test": {"a": 3, "b": 2}}


def test_nothing_is_said_twice(tmp_path: Path) -> None:
    for place, name in enumerate(("a/0", "a/1", "b/0", "b/1", "0")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((28, 28), 100, np.uint8)).save(tmp_path / f"{name}.png", dpi=(72 + place, 72))
    flat = "the pictures hardly vary: the deviation is below 0.001, as of a single colour"
    assert data2vec2.inspect(tmp_path).account.remarks == ["1 of 5 train samples have no label", flat]


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = small_npz(tmp_path / "data.npz", 120, tested=40)
    page, file = tmp_path / "page.html", tmp_path / "data.json"
    assert run_here(["inspect", data, "--out", page]) == 0
    printed = capsys.readouterr().out
    for text in ("120 train, 40 test", "train width: least 28, median 28, largest 28", "image_tiny: 2,200 updates"):
        assert text in printed, text
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


def test_tables_and_lines_of_text(tmp_path: Path) -> None:
    rows = [f"words number {place} of a text,{'ab'[place % 2]}" for place in range(400)]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *rows, ",a"]) + "\n")
    found = data2vec2.inspect(tmp_path / "t.csv", out=tmp_path / "page.html")
    assert (found.kind, found.classes) == ("text", {"train": {"a": 200, "b": 200}})
    assert found.account.parts["train"].bad == {"t.csv[400]": "no text"}
    assert "Classes" in Page((tmp_path / "page.html").read_text("utf-8")).headings
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines/a.txt").write_text("\n".join(row.split(",")[0] for row in rows) + "\n")
    assert "400 lines of 1 source" in data2vec2.inspect(tmp_path / "lines").description


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
    assert "--as video is no modality; there are image, audio, text" in err
    assert "its name must end in .html or .json" in err
    with pytest.raises(UsageError):
        data2vec2.inspect(tmp_path, kind="video")
