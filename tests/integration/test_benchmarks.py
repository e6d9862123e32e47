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
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from packaging.tags import platform_tags

from data2vec2.modalities import get_recipe
from data2vec2.modalities.image import fashion_mnist

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


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
    done = run("gpu_check.py", "--device", "cpu", "--quick", "--results", str(results))
    assert done.returncode == 0, done.stderr
    text = results.read_text()
    assert text.startswith("# Measurements\n")
    assert f"torch {torch.__version__}" in text
    error = re.search(r"golden image_tiny, float32: largest relative error of (\d+) quantities (\S+)", text)
    assert error is not None
    assert int(error[1]) > 60
    assert float(error[2]) < 1e-4
    assert re.search(r"image_tiny, 20 updates .* kNN 0\.\d+ before, 0\.\d+ after", text)
    assert text.count("| image_tiny | cpu") == 2


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
    assert (tmp_path / "RESULTS.md").read_text().count("| image_base |") == 3


def test_throughput_prints_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    run_here("throughput.py", "--device", "cpu", "--batch", "2", "--steps", "1", "--peak-tflops", "0.1")
    header, rule, row = capsys.readouterr().out.splitlines()
    assert header.count("|") == rule.count("|") == row.count("|")
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:5] == ["image_tiny", "cpu (1 threads)", "float32", "no", "2"]
    assert float(cells[6]) == pytest.approx(4 * float(cells[5]), rel=0.05)  # four masks


@pytest.mark.parametrize(("recipe", "gflop"), [("image_base", 413), ("image_large", 1697)])
def test_against_the_known_cost_of_a_step(recipe: str, gflop: float) -> None:
    """Counted by hand from the paper's shapes, the decoder's projection at every place."""
    step_flops = runpy.run_path(str(BENCHMARKS / "throughput.py"))["step_flops"]
    assert step_flops(get_recipe(recipe).model) / 1e9 == pytest.approx(gflop, rel=0.01)


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
        assert f"{bound.name}>={oldest}" in asked
