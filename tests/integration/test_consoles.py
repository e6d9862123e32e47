"""Names and texts in any script, or in none, never end a command, whatever the console can print."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data2vec2 import api
from tests.integration.preloaded import preloaded
from tests.unit.data.pictures import encoded, photo

RUN = ["--train.updates", "2", "--train.processes", "1", "--train.batch-size", "4", "--data.workers", "0"]
forked = Path()
CLASSES = ("猫".encode(), b"caf\xe9")  # the second as an old archive has it


@pytest.fixture(scope="module", autouse=True)
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where nothing is asked of the console, programs are forked from one that has imported everything."""
    global forked
    forked = tmp_path_factory.mktemp("bin") / "data2vec2"
    with preloaded(forked.parent):
        yield


def run(*arguments: object, **environment: str) -> tuple[int, bytes, bytes]:
    command = [*([sys.executable, "-m", "data2vec2"] if environment else [forked]), *map(str, arguments)]
    found = subprocess.run(command, capture_output=True, env=os.environ | environment, check=False)
    assert b"Traceback" not in found.stderr, found.stderr.decode(errors="replace")
    return found.returncode, found.stdout, found.stderr


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("consoles") / "絵"
    for name in CLASSES:
        (root / os.fsdecode(name)).mkdir(parents=True)
        for place in range(6):
            picture = photo(32 + place, 32)
            (root / os.fsdecode(name) / f"写真{place}.png").write_bytes(encoded(picture, "PNG"))
    (root / os.fsdecode(CLASSES[1]) / os.fsdecode(b"\xe8.png")).write_bytes(encoded(photo(32, 32), "PNG"))
    (root / "壊.png").write_bytes(b"junk")
    return root


@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "cp1252"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_no_command_ends_at_a_name(tmp_path: Path, pictures: Path, environment: dict[str, str]) -> None:
    model, tuned = tmp_path / "run", tmp_path / "ft"
    flags = [*RUN, "--data.max-bad", "0.5"]
    assert run("pretrain", "image_tiny", pictures, "--out", model, *flags, **environment)[0] == 0
    assert run("finetune", "classify", model, pictures, "--out", tuned, *flags, **environment)[0] == 0
    code, out, err = run("predict", tuned, pictures, **environment)
    assert code == 1  # of the broken file
    assert out.count(b"\n") == 13
    assert b"caf\xe9" in out or b"caf\xc3\xa9" in out
    if "PYTHONIOENCODING" in environment:
        assert b"\\u732b\\u5199" not in out
        assert b"\\u732b/\\u5199\\u771f0.png" in out
        assert b"\\u58ca.png: not an image" in err
    for end in ("parquet", "csv"):
        assert run("embed", model, pictures, "--out", tmp_path / f"特.{end}", **environment)[0] == 0
    labels = {"parquet": pd.read_parquet, "csv": pd.read_csv}
    for end, read in labels.items():
        assert set(read(tmp_path / f"特.{end}")["label"].dropna()) >= {"caf\ufffd"}
    assert run("report", tuned, "--out", tmp_path / "r.html", **environment)[0] == 0


def test_a_run_folder_that_is_no_text_is_refused_before_the_run(tmp_path: Path, pictures: Path) -> None:
    out = os.fsencode(tmp_path) + b"/run\xe9"
    code, _, err = run("pretrain", "image_tiny", pictures, "--out", os.fsdecode(out), *RUN)
    assert (code, b"is not valid UTF-8" in err, Path(os.fsdecode(out)).exists()) == (1, True, False)


def test_a_tokenizer_needs_text(tmp_path: Path) -> None:
    files = {
        "e.txt": "",
        "blank.txt": "\n\n",
        "e.jsonl": "",
        "a.jsonl": '{"a": 1}\n',
        "h.csv": "text\n",
        "b.csv": "a,b\n1,2\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        code, _, err = run("tokenizer", "train", tmp_path / name, "--out", tmp_path / "tokenizer")
        assert code == 1
        assert b"text-column" in err
        assert b"--data.text-column" not in err
        assert not (tmp_path / "tokenizer").exists()


def test_levels_are_kept_with_the_model(tmp_path: Path) -> None:
    """Twelve bits in files of sixteen: a model sees in any file, alone or not, what it has been trained with."""
    rng, root = np.random.default_rng(0), tmp_path / "ct"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for place in range(8):
            top = 4096 if place else 300  # a dark one
            values = rng.integers(0, top, (32, 32)).astype(np.uint16)
            Image.fromarray(values).save(root / name / f"{place}.png")
    run_folder, tuned = tmp_path / "run", tmp_path / "tuned"
    code, _, err = run("pretrain", "image_tiny", root, "--out", run_folder, *RUN)
    assert code == 0
    assert b"0 becomes black and 4,095 white" in err
    assert (
        '"levels": [\n    0.0,\n    4095.0\n  ]' in (run_folder / "exported" / "preprocessor_config.json").read_text()
    )
    assert run("finetune", "classify", run_folder, root, "--out", tuned, *RUN)[0] == 0
    assert "4095.0" in (tuned / "exported" / "preprocessor_config.json").read_text()
    api.embed(run_folder, root, tmp_path / "all.parquet")
    dark = root / "a" / "0.png"
    api.embed(run_folder, [dark], tmp_path / "one.parquet")
    together = pd.read_parquet(tmp_path / "all.parquet").set_index("name").features["a/0.png"]
    alone = pd.read_parquet(tmp_path / "one.parquet").features[0]
    np.testing.assert_allclose(alone, together, atol=1e-5)

    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(run_folder / "exported")
    of_file, of_picture = (processor(one, return_tensors="np")["pixel_values"] for one in (dark, Image.open(dark)))
    of_array = processor(np.asarray(Image.open(dark)), return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(of_file, of_picture)
    np.testing.assert_array_equal(of_file, of_array)
    mean, std = processor.image_mean[0], processor.image_std[0]
    assert (of_file * std + mean).max() < 0.09  # of white, not stretched


@pytest.mark.parametrize("channels", [2, 5])
def test_pictures_of_other_channels_go_through_every_verb(tmp_path: Path, channels: int) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", x=rng.integers(0, 256, (24, 16, 16, channels)).astype(np.uint8), y=np.arange(24) % 2)
    small = ["--model.modality.image-size", "16", *RUN]
    code, _, err = run("pretrain", "image_tiny", tmp_path / "a.npz", "--out", tmp_path / "run", *small)
    assert code == 0, err
    assert f"model: {channels} channels, as the pictures have".encode() in err
    assert run("finetune", "classify", tmp_path / "run", tmp_path / "a.npz", "--out", tmp_path / "ft", *RUN)[0] == 0
    assert run("embed", tmp_path / "run", tmp_path / "a.npz", "--out", tmp_path / "e.npy")[0] == 0
    assert np.load(tmp_path / "e.npy").shape[0] == 24
    assert run("evaluate", tmp_path / "run", tmp_path / "a.npz")[0] == 0
    assert run("inspect", tmp_path / "a.npz")[0] in (0, 2)
    code, _, err = run("pretrain", "image_base", tmp_path / "a.npz", "--out", tmp_path / "b", *small)
    assert code == 1
    assert f"{channels} channels, where the model takes 3".encode() in err
