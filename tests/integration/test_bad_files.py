"""A folder in which some files are bad: refused with the list, or trained on without them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data2vec2.modalities.image import fashion_mnist
from tests.integration.helpers import SMALL, Child, files, last_step, metrics, run_here
from tests.unit.data.pictures import encoded, png_claiming

FLAGS = [
    *SMALL,
    *["--train.updates", "12", "--train.log-every", "1", "--train.save-every", "5", "--train.batch-size", "40"],
]
KINDS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP", "tif": "TIFF"}
GOOD, BAD = 200, 40


def good_pictures(count: int) -> list[tuple[Image.Image, int]]:
    with np.load(fashion_mnist()) as arrays:
        x, y = arrays["x_train"][:count], arrays["y_train"][:count]
    return [(Image.fromarray(pixels).resize((40, 36)), int(label)) for pixels, label in zip(x, y, strict=True)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 good pictures in every format, and 40 bad files of each kind of badness."""
    root = tmp_path_factory.mktemp("data") / "pictures"
    endings = list(KINDS)
    pictures = good_pictures(GOOD)
    for place, (picture, label) in enumerate(pictures):
        ending = endings[place % len(endings)]
        folder = root / f"class{label}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"good{place:03}.{ending}").write_bytes(encoded(picture, KINDS[ending]))
    large = pictures[0][0].convert("RGB").resize((300, 300))
    for place in range(BAD):
        ending = endings[place % len(endings)]
        whole = encoded(large, KINDS[ending])
        kind, content = [
            ("empty", b""),
            ("text", b"this is a text with the name of a picture"),
            ("cut", whole[: len(whole) // 3]),
            ("magic", whole[:8] + np.random.default_rng(place).bytes(300)),
            ("bomb", png_claiming(60_000, 60_000)),
        ][place % 5]
        (root / f"class{place % 10}" / f"bad{place:02}-{kind}.{ending}").write_bytes(content)
    return root


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def test_too_many_bad_files_are_refused_with_the_list(
    place: Path, capsys: pytest.CaptureFixture[str], data: Path
) -> None:
    assert run_here(["pretrain", "image_tiny", data, "--out", "run", *FLAGS]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert "--data.max-bad 0.05" in err
    listed = [line.split(": ") for line in err.splitlines() if "/bad" in line]
    assert len(listed) > 30  # some of the 40 are in the validation part
    assert not [line for line in err.splitlines() if "/good" in line]
    reasons = {"empty": {"empty file"}, "text": {"not an image"}, "bomb": {"too large"}}
    for name, reason in listed:
        kind = name.split("-")[1].split(".")[0]
        expected = reasons.get(kind, {"truncated", "damaged", "not an image", "too large"})
        assert reason.split(",")[0] in expected, name
    assert files(place) == set()


def test_allowed_bad_files_are_left_out_counted_and_named(
    place: Path, capsys: pytest.CaptureFixture[str], data: Path
) -> None:
    command = ["pretrain", "image_tiny", data, "--out", "run", *FLAGS]
    assert run_here([*command, "--data.max-bad", "0.2"]) == 0
    _, err = capsys.readouterr()
    run = Path("run")
    account = json.loads((run / "data.json").read_text())["parts"]["train"]
    names = list(account["bad"])
    assert account["found"] == account["used"] + len(names)
    assert all((data / name).is_file() and "/bad" in name for name in names)
    validation = json.loads((run / "split.json").read_text())["validation"]
    training_bad = {path.relative_to(data).as_posix() for path in data.rglob("bad*")} - set(validation)
    assert set(names) == training_bad
    last = err[err.rindex("samples could not be used") - 10 :]
    assert f"{len(names)} samples could not be used" in last
    for reason, count in Counter(account["bad"].values()).items():
        assert f"{count} {reason}" in last
    assert all(np.isfinite(line["loss"]) for line in metrics(run) if "loss" in line)
    assert json.loads((run / "status.json").read_text())["state"] == "finished"

    before = {path: (run / path).read_bytes() for path in files(run) if (run / path).is_file()}
    assert run_here([*command, "--data.max-bad", "0.2"]) == 1
    assert "run already holds a run; --resume continues it, --overwrite deletes it" in capsys.readouterr().err
    assert {path: (run / path).read_bytes() for path in files(run) if (run / path).is_file()} == before

    assert run_here([*command, "--resume"]) == 0
    assert "finished at update 12" in capsys.readouterr().err
    for name in ("metrics.jsonl", "exported/model.safetensors", "data.json", "config.yaml"):
        assert (run / name).read_bytes() == before[name], name


def test_files_that_go_bad_while_it_trains(place: Path) -> None:
    root, run = place / "pictures", place / "run"
    root.mkdir()
    for number, (picture, _) in enumerate(good_pictures(60)):
        picture.save(root / f"{number:02}.png")
    flags = [
        *SMALL,
        *["--train.updates", "100000", "--train.log-every", "1", "--data.val-fraction", "0", "--data.workers", "0"],
    ]
    child = Child(["pretrain", "image_tiny", root, "--out", run, *SMALL, *flags], place / "output")
    child.until(lambda: last_step(run) >= 3)
    for number in range(10):
        (root / f"{number:02}.png").write_bytes((root / f"{number:02}.png").read_bytes()[:50])
    assert child.wait() == 1
    assert "of 60 samples can't be used" in child.output
    assert "--data.max-bad 0.05" in child.output
    assert "Traceback" not in child.output
    assert json.loads((run / "status.json").read_text())["state"] == "failed"


def test_nothing_but_bad_files(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = place / "pictures"
    root.mkdir()
    for number in range(30):
        (root / f"{number}.jpg").write_bytes(b"\xff\xd8\xff" + bytes(50))
    assert run_here(["pretrain", "image_tiny", root, "--out", "run", *FLAGS, "--data.max-bad", "1"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert "can be used" in err
    assert not Path("run").exists()
