"""The benchmarks run; what they measure is not tested."""

import ast
import gzip
import html
import importlib
import os
import re
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.gpu_check import PARTS
from packaging.requirements import Requirement
from packaging.tags import platform_tags

from data2vec2.config.run import RunConfig
from data2vec2.modalities import get_recipe
from data2vec2.modalities.audio.config import AudioConfig
from data2vec2.modalities.image import fashion_mnist

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)


def run_here(script: str, *arguments: str) -> object:
    """Exit code of a script that runs in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        patch.setattr(sys, "argv", [script, *arguments])
        try:
            runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
        except SystemExit as stop:
            return stop.code
    return None


@pytest.mark.parametrize("script", sorted(path.name for path in BENCHMARKS.glob("*.py")))
def test_every_script_finds_what_it_imports_and_explains_itself(
    script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for node in ast.walk(ast.parse((BENCHMARKS / script).read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("data2vec2"):
            home = importlib.import_module(str(node.module))
            assert all(hasattr(home, alias.name) for alias in node.names), ast.unparse(node)
    try:
        code = run_here(script, "--help")
    except ModuleNotFoundError as error:
        assert error.name in ("G722", "pocketsphinx"), "all else comes with the package"
        return
    is_program = "__main__" in (BENCHMARKS / script).read_text("utf-8")
    assert code == (0 if is_program else None)
    assert ("usage: " in capsys.readouterr().out) == is_program


def test_samples_are_made_of_idx_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with np.load(fashion_mnist()) as arrays:
        expected = {name: array if name == "classes" else array[:20] for name, array in arrays.items()}
    for part, name in (("train", "train"), ("t10k", "test")):
        for what, array in (("images-idx3", expected[f"x_{name}"]), ("labels-idx1", expected[f"y_{name}"])):
            header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, dtype=">i4").tobytes()
            (tmp_path / f"{part}-{what}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
    monkeypatch.setattr("data2vec2.modalities.image.fashion_mnist", lambda: tmp_path / "made" / "fashion_mnist.npz")
    run_here("make_samples.py", str(tmp_path))
    with np.load(tmp_path / "made" / "fashion_mnist.npz") as made:
        assert list(made) == list(expected)
        for name, array in expected.items():
            assert made[name].dtype == array.dtype
            assert np.array_equal(made[name], array)


def test_gpu_check_adds_what_it_measured(tmp_path: Path) -> None:
    results = tmp_path / "RESULTS.md"
    results.write_text("# Measurements\n")
    parts = [name for name in PARTS if name != "rivals"]  # of which `test_steps_beside_others` has more
    done = run("gpu_check.py", "--device", "cpu", "--quick", "--results", str(results), "--parts", *parts)
    assert done.returncode == 0, done.stdout + done.stderr
    text = results.read_text()
    assert text.startswith("# Measurements\n")
    assert f"torch {torch.__version__}" in text
    found = re.findall(r"golden (\w+), float32: largest relative error of (\d+) quantities (\S+)", text)
    assert [name for name, *_ in found] == ["image_tiny", "audio_tiny", "text_tiny"]
    assert all(int(count) > 50 and float(error) < 1e-4 for _, count, error in found)
    assert text.count("_tiny | float32 | False | again |") == 3
    assert re.search(r"image_tiny, 20 updates .* kNN 0\.\d+ before, 0\.\d+ after", text)
    gradients = re.findall(r"of the scale's gradient (\S+)", text)
    assert len(gradients) == 2 and max(map(float, gradients)) < 1e-4
    assert re.search(r"finished: [\d,]+ pictures/s, \d+% of the time spent waiting for data", text)
    assert "two processes on one cpu by gloo work" in text
    assert "failed" not in text and text.count("left out") == 0


def test_gpu_check_says_what_failed_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr("tests.parity.cases.GoldenCase", broken)
    results = tmp_path / "RESULTS.md"
    flags = ["--device", "cpu", "--quick", "--results", str(results), "--parts", "golden", "alibi"]
    assert run_here("gpu_check.py", *flags) == 1
    assert "- golden: failed: RuntimeError: no kernel image" in results.read_text()
    assert "dense bias" in results.read_text() and "All is well: False" in results.read_text()
    assert run_here("gpu_check.py", *flags, "--seconds", "0") == 0
    assert "- alibi: left out, as 0 s had gone by" in results.read_text()


def test_what_a_card_should_reach() -> None:
    """In a process of its own: tensors without memory ended a whole worker of tests once, elsewhere, by SIGSEGV."""
    done = run("cuda_model.py", "--samples", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()[2:]]
    recipes = ("image_base", "audio_base", "text_base")
    assert [(row[0], row[2]) for row in rows] == [(name, card) for name in recipes for card in ("A100", "H100", "H200")]
    for row in rows:
        slow, fast = float(row[3]), float(row[5])
        assert 1 < fast < slow < 1000
        assert 0 < int(row[4].rstrip("%")) < int(row[6].rstrip("%")) < 85  # the most that products are taken to reach


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here, which the check would use")
def test_gpu_check_says_that_there_is_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here("gpu_check.py") == 0
    assert "no CUDA device" in capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_check_on_a_gpu(tmp_path: Path) -> None:
    done = run("gpu_check.py", "--results", str(tmp_path / "RESULTS.md"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "RESULTS.md").read_text().count("| image_base |") > 3


@pytest.mark.parametrize(
    "recipe", ["audio_base", *(pytest.param(name, marks=pytest.mark.slow) for name in ("image_base", "text_base"))]
)
def test_steps_beside_others(recipe: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data2vec2.modalities.get_recipe", lambda name: narrow(get_recipe(name)))
    run_here("throughput.py", "--device", "cpu", "--quick", "--rounds", "2", "--recipes", recipe)
    header, rule, *rows = capsys.readouterr().out.splitlines()
    assert len({line.count("|") for line in (header, rule, *rows)}) == 1
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[1] for row in cells[:3]] == ["ours", "usual", "data2vec 1"]
    ours, usual, former, rival = ([float(row[i].replace(",", "")) for i in (3, 4, 5, 9)] for row in cells)
    assert usual[0] >= ours[0] > former[0]  # operations of a sample
    assert former[1] == former[2] and ours[1] > 3 * ours[2]  # a sample has one student row, or several
    assert all(row[3] > 1 for row in (ours, usual, former, rival))
    assert all(re.fullmatch(r"[\d.]+ \([\d.]+ to [\d.]+\)", row[7]) for row in cells[1:])


def narrow(config: RunConfig) -> RunConfig:
    """Narrow, so that a step takes a moment."""
    model, modality = config.model, config.model.modality
    if isinstance(modality, AudioConfig):
        modality = replace(modality, conv_dim=32)
    encoder, decoder = replace(model.encoder, embed_dim=96, num_heads=4), replace(model.decoder, dim=96)
    return replace(config, model=replace(model, modality=modality, encoder=encoder, decoder=decoder))


def test_the_newest_wheel_that_fits_a_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked of an index in a folder."""
    files = {
        "thing-1.0-py3-none-any.whl": ">=3.9",
        f"thing-2.0-cp313-cp313-{next(platform_tags())}.whl": ">=3.11",
        f"thing-3.0-cp39-abi3-{next(platform_tags())}.whl": "<3.13",
        "thing-5.0rc1-py3-none-any.whl": "",
        "thing-6.0.tar.gz": "",
        "thing-7.0-py3-none-any.whl": ">=3.14",
    }
    (tmp_path / "thing").mkdir()
    links = [
        f'<a href="{name}" data-requires-python="{html.escape(python)}">{name}</a>' for name, python in files.items()
    ]
    (tmp_path / "thing" / "index.html").write_text(f"<!DOCTYPE html><html><body>{' '.join(links)}</body></html>")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", tmp_path.as_uri())
    newest = runpy.run_path(str(BENCHMARKS / "check_range.py"))["newest"]
    asked = Requirement("thing>=1; python_version >= '3.12'")
    assert [newest(asked, python) for python in ("3.11", "3.12", "3.13", "3.14")] == ["", "3.0", "2.0", "7.0"]
    assert newest(Requirement("thing>=8"), "3.14") == "none"
    assert newest(Requirement("nothing"), "3.14") == "none"


def test_lower_bounds_are_those_of_the_project() -> None:
    done = run("check_range.py", "--lower-bounds")
    asked = (ROOT / "pyproject.toml").read_text()
    bounds = [Requirement(line) for line in done.stdout.splitlines()]
    assert {"torch", "numpy", "transformers", "onnx", "accelerate", "timm"} <= {bound.name for bound in bounds}
    for bound in bounds:
        oldest = next(each.version for each in bound.specifier if each.operator == "==")
        assert re.search(rf'"{bound.name}(\[.+\])?>={re.escape(oldest)}', asked), bound
