"""What stands in the account, in the log and in the scores agrees, with faults in every part of the data."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from tests.integration.helpers import run_here, words
from tests.integration.speech import FLAGS, spoken_folder, tiny_encoder
from tests.integration.test_finetune_text import model as text_model  # noqa: F401  (a fixture)

QUICK = words("--train.updates 2 --train.device cpu --train.precision float32 --train.processes 1 --data.workers 0")
RATE = 16_000


def account_of(run: Path) -> dict[str, dict[str, Any]]:
    """The parts of data.json, each of which adds up."""
    parts: dict[str, dict[str, Any]] = json.loads((run / "data.json").read_text())["parts"]
    for part in parts.values():
        asked = sum(part["left_out_as_asked"].values())
        assert part["found"] == part["used"] + len(part["bad"]) + len(part["left_out"]) + asked
    return parts


def agrees(run: Path, err: str) -> dict[str, dict[str, Any]]:
    """The account, of which log and scores have the same numbers."""
    parts, scores = account_of(run), json.loads((run / "scores.json").read_text())
    said = re.search(r"^data: (\d+) to train on, (\d+) for validation, (\d+) to test on", err, re.MULTILINE)
    assert said
    assert [int(number) for number in said.groups()] == [parts[key]["used"] for key in ("train", "val", "test")]
    assert scores["samples"] == parts["test"]["used"]
    for key, part in parts.items():
        if part["bad"]:
            assert f"{key} part: {len(part['bad'])} samples could not be used: " in err
    return parts


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (28, 28), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Thirty pictures to train on, twenty each for validation and test, of two classes; some are no pictures."""
    root = tmp_path / "pictures"
    for part, count, bad in (("train", 30, 2), ("val", 20, 3), ("test", 20, 4)):
        for place in range(count):
            path = root / part / f"class{place % 2}" / f"{place:02}.png"
            picture(path, place)
            if place < bad:
                path.write_bytes(b"not a picture" if place % 2 else b"")
    return root


def test_pictures(untrained: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["finetune", "classify", untrained, pictures, "--out", tmp_path / "run", *QUICK, "--train.batch-size", 8]
    assert run_here(command) == 1  # 2 of 30 are more than one in twenty
    assert "2 of 30 samples can't be used" in capsys.readouterr().err
    assert run_here([*command, "--data.max-bad", 0.1]) == 1
    err = capsys.readouterr().err
    assert "3 of 20 samples can't be used" in err  # those for validation count too
    assert "val/class0/00.png: empty file" in err
    assert run_here([*command, "--data.max-bad", 0.15]) == 1
    assert "test/class0/00.png: empty file" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert run_here([*command, "--data.max-bad", 0.2]) == 0
    parts = agrees(tmp_path / "run", capsys.readouterr().err)
    counts = {"train": 2, "val": 3, "test": 4}
    bad = {key: {f"{key}/class{place % 2}/{place:02}.png" for place in range(number)} for key, number in counts.items()}
    assert {key: set(part["bad"]) for key, part in parts.items()} == bad
    assert set(parts["test"]["bad"].values()) == {"empty file", "not an image"}


def test_a_single_bad_picture_of_a_small_part_stops_nothing(
    untrained: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (*sorted((pictures / "train").rglob("0[01].png")), *sorted((pictures / "val").rglob("0[12].png"))):
        picture(path, 99)
    for path in sorted((pictures / "test").rglob("0[0123].png")):
        picture(path, 99)
    for place in range(8, 20):  # eight are left
        (pictures / "val" / f"class{place % 2}" / f"{place:02}.png").unlink()
    command = ["finetune", "classify", untrained, pictures, "--out", tmp_path / "run", *QUICK, "--train.batch-size", 8]
    assert run_here([*command, "--data.max-bad", 0]) == 1
    assert "1 of 8 samples can't be used" in capsys.readouterr().err
    assert run_here(command) == 0
    parts = agrees(tmp_path / "run", capsys.readouterr().err)
    assert {key: len(part["bad"]) for key, part in parts.items()} == {"train": 0, "val": 1, "test": 0}


def test_another_validation_set_has_its_own_account(
    untrained: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in range(12):
        picture(tmp_path / "other" / f"class{place % 2}" / f"{place:02}.png", place + 50)
    (tmp_path / "other" / "class0" / "00.png").write_bytes(b"")
    flags = ["--val", tmp_path / "other", "--data.max-bad", 0.2, "--train.batch-size", 8]
    assert run_here(["finetune", "classify", untrained, pictures, "--out", tmp_path / "run", *QUICK, *flags]) == 0
    err = capsys.readouterr().err
    parts = agrees(tmp_path / "run", err)
    assert (parts["val"]["found"], set(parts["val"]["bad"])) == (12, {"class0/00.png"})
    assert "20 val samples of" in err  # which are not used


def test_of_one_class_there_is_no_accuracy(untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "pictures"
    for place in range(30):
        picture(root / "train" / "many" / f"{place}.png", place)
    picture(root / "train" / "single" / "0.png", 40)
    for place in range(6):
        picture(root / "test" / "many" / f"{place}.png", place + 50)
    run = tmp_path / "run"
    flags = [*QUICK, "--train.batch-size", 8, "--train.eval-every", 1]
    assert run_here(["finetune", "classify", untrained, root, "--out", run, *flags]) == 0
    err = capsys.readouterr().err
    assert "data: classes with one training sample: single" in err
    assert "data: all 6 test samples are of one class (many): they have no accuracy" in err
    assert "test part of" in err
    assert "all 6 pictures are of one class (many), so there is no accuracy" in err
    assert "val_accuracy" not in err
    assert "best so far" not in err
    scores = json.loads((run / "scores.json").read_text())
    assert "accuracy" not in scores
    page = (run / "report.html").read_text()
    assert "all 6 pictures are of one class (many), so there is no accuracy" in page
    assert "100.0 %" not in re.sub(r"(?s)<table.*?</table>", "", page)
    assert run_here(["evaluate", untrained, root]) == 1
    assert "are of one class (many), so accuracy is meaningless" in capsys.readouterr().err


def test_a_class_of_the_test_part_alone_is_said(
    untrained: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(pictures / "test" / "unknown" / "0.png", 7)
    flags = [*QUICK, "--train.batch-size", 8, "--data.max-bad", 0.2]
    assert run_here(["finetune", "classify", untrained, pictures, "--out", tmp_path / "run", *flags]) == 0
    assert "data: classes that no training sample has, in the test part: unknown" in capsys.readouterr().err
    remarks = json.loads((tmp_path / "run" / "data.json").read_text())["remarks"]
    assert remarks == ["classes that no training sample has, in the test part: unknown (1)"]


def damaged(folder: Path, faults: dict[str, tuple[str, ...]]) -> dict[str, dict[str, str]]:
    """Spoil recordings of each part, and their transcripts; returns what was done to which."""
    path = folder / "metadata.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    done: dict[str, dict[str, str]] = {}
    for part, kinds in faults.items():
        of_part = [row for row in rows if row["file_name"].startswith(f"{part}/")]
        for row, kind in zip(of_part, kinds, strict=False):
            name = row["file_name"]
            done.setdefault(part, {})[name] = kind
            if kind == "no transcript":
                row["transcription"] = "..."
            elif kind == "too short for its transcript":
                row["transcription"] = "far too many letters for so short a recording " * 9
            elif kind == "not audio":
                (folder / name).write_bytes(b"this is no recording, whatever its name says" * 9)
            elif kind == "too short":
                soundfile.write(folder / name, np.random.default_rng(0).normal(0, 0.1, 300), RATE, format="OGG")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return done


@pytest.fixture(scope="module")
def audio_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("model") / "exported")


@pytest.fixture
def spoken(tmp_path: Path) -> tuple[Path, dict[str, dict[str, str]]]:
    """Recordings in three parts, each with one that is no sound, one without words, and one too short for its words."""
    folder = spoken_folder(tmp_path / "data", train=40, test=24)
    table = (folder / "metadata.csv").read_text("utf-8")
    (folder / "val" / "digits").mkdir(parents=True)
    for path in sorted((folder / "test" / "digits").iterdir())[:12]:
        path.rename(folder / "val" / "digits" / path.name)
        table = table.replace(f"test/digits/{path.name}", f"val/digits/{path.name}")
    (folder / "metadata.csv").write_text(table, "utf-8")
    faults = ("not audio", "no transcript", "too short for its transcript")
    return folder, damaged(folder, {"train": (*faults, "too short"), "val": faults, "test": faults})


def test_speech(
    audio_model: Path,
    spoken: tuple[Path, dict[str, dict[str, str]]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder, faults), run = spoken, tmp_path / "run"
    command = [
        "finetune",
        "ctc",
        audio_model,
        folder,
        "--out",
        run,
        *FLAGS,
        "--train.updates",
        2,
        "--train.eval-every",
        1,
    ]
    assert run_here([*command, "--data.max-bad", 0.02]) == 1
    assert "can't be used (1 not audio)" in capsys.readouterr().err
    assert run_here(command) == 0
    err = capsys.readouterr().err
    parts = agrees(run, err)
    assert {key: part["bad"] | part["left_out"] for key, part in parts.items()} == faults
    assert all(set(part["bad"].values()) == {"not audio"} for part in parts.values())
    assert "data: 1 of 12 val samples can't be used: 1 not audio" in err
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(line["impossible"] == 0 for line in lines if "impossible" in line)
    assert all(line["val_loss"] > 1 for line in lines if "val_loss" in line)
    scores = json.loads((run / "scores.json").read_text())
    assert scores["data"] == str(folder)
    assert scores["intervals"]["cer"][0] <= scores["cer"] <= scores["intervals"]["cer"][1]

    assert run_here(["evaluate", run, folder, "--json"]) == 0
    out, err = capsys.readouterr()
    again = json.loads(out)
    assert (again["samples"], again["data"], again["part"]) == (parts["test"]["used"], str(folder), "test")
    assert again["skipped"] == dict.fromkeys(faults["test"].values(), 1)
    assert all(name in err for name in faults["test"])
    assert str(folder) in err


def test_speech_of_which_nothing_can_be_aligned_is_refused(
    audio_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = spoken_folder(tmp_path / "data", train=30, test=3)
    damaged(folder, {"train": ("too short for its transcript",) * 30})
    assert run_here(["finetune", "ctc", audio_model, folder, "--out", tmp_path / "run", *FLAGS]) == 1
    assert "can be trained on: 24 too short for its transcript" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_classes_of_recordings(audio_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, run = spoken_folder(tmp_path / "data", ("digits", "letters"), 20, 8), tmp_path / "run"
    (folder / "metadata.csv").unlink()
    names = {}
    for part in ("train", "test"):
        first, second = sorted((folder / part / "digits").iterdir())[:2]
        first.write_bytes(b"no sound at all" * 20)
        soundfile.write(second, np.random.default_rng(0).normal(0, 0.1, 300), RATE, format="OGG")
        names[part] = {path.relative_to(folder).as_posix() for path in (first, second)}
    flags = [*FLAGS, "--train.updates", 2, "--data.max-bad", 0.3]
    assert run_here(["finetune", "classify", audio_model, folder, "--out", run, *flags]) == 0
    parts = agrees(run, capsys.readouterr().err)
    left_out = {key: {*part["bad"], *part["left_out"]} for key, part in parts.items()}
    assert left_out["test"] == names["test"]
    assert left_out["train"] | left_out["val"] == names["train"]


def test_texts(text_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    for part, count, empty in (("train", 40, 2), ("val", 20, 1), ("test", 20, 1)):
        rows = [
            {"text": "" if place < empty else f"a text of {place} things", "label": ["few", "many"][place % 2]}
            for place in range(count)
        ]
        (tmp_path / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "data").mkdir()
    for part in ("train", "val", "test"):
        (tmp_path / f"{part}.jsonl").rename(tmp_path / "data" / f"{part}.jsonl")
    flags = [*QUICK, "--train.batch-size", 512]
    assert run_here(["finetune", "classify", text_model, tmp_path / "data", "--out", tmp_path / "run", *flags]) == 0
    parts = agrees(tmp_path / "run", capsys.readouterr().err)
    assert {key: part["used"] for key, part in parts.items()} == {"train": 38, "val": 19, "test": 19}
