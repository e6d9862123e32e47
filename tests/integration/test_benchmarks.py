"""The benchmarks run; what they measure is not tested."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data2vec2.recipes import get_recipe

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


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
def test_gpu_check_says_that_there_is_no_gpu() -> None:
    done = run("gpu_check.py")
    assert done.returncode == 0
    assert "no CUDA device" in done.stdout


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_check_on_a_gpu(tmp_path: Path) -> None:
    done = run("gpu_check.py", "--results", str(tmp_path / "RESULTS.md"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "RESULTS.md").read_text().count("| image_base |") == 3


def test_throughput_prints_a_row() -> None:
    done = run("throughput.py", "--device", "cpu", "--batch", "2", "--steps", "1", "--peak-tflops", "0.1")
    assert done.returncode == 0, done.stderr
    header, rule, row = done.stdout.splitlines()
    assert header.count("|") == rule.count("|") == row.count("|")
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:5] == ["image_tiny", "cpu (1 threads)", "float32", "no", "2"]
    assert float(cells[6]) == pytest.approx(4 * float(cells[5]), rel=0.05)  # four masks


@pytest.mark.parametrize(("recipe", "gflop"), [("image_base", 413), ("image_large", 1697)])
def test_against_the_known_cost_of_a_step(recipe: str, gflop: float) -> None:
    """Counted by hand from the paper's shapes, the decoder's projection at every place."""
    step_flops = runpy.run_path(str(BENCHMARKS / "throughput.py"))["step_flops"]
    assert step_flops(get_recipe(recipe).model) / 1e9 == pytest.approx(gflop, rel=0.01)
