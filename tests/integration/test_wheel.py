"""What a user installs: the wheel holds everything, and works outside the repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def run(command: list[str], cwd: Path, **environment: str) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)], folder)
    (path,) = folder.glob("data2vec2-*.whl")
    return path


def test_the_wheel_holds_everything_and_no_more(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    source = ROOT / "src"
    ours = {path.relative_to(source).as_posix() for path in (source / "data2vec2").rglob("*") if path.is_file()}
    ours = {name for name in ours if "__pycache__" not in name}
    assert {name for name in names if name.startswith("data2vec2/")} == ours
    assert "data2vec2/reporting/templates/run.html.j2" in names
    assert "data2vec2/data/bundled/fashion_mnist/fashion_mnist.npz" in names
    licences = {name.split(".dist-info/licenses/")[1] for name in names if ".dist-info/licenses/" in name}
    assert "data2vec2/data/bundled/english_prompts/train/digits/1.ogg" in names
    bundled = "src/data2vec2/data/bundled"
    assert licences == {
        "LICENSE",
        *(path.relative_to(ROOT).as_posix() for path in (ROOT / bundled).glob("*/LICENSE")),
    }
    assert {name.split("/")[0].split("-")[0] for name in names} == {"data2vec2"}, "no tests or benchmarks beside it"


def test_the_installed_wheel_runs_the_demo(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    run([*pip, "--target", str(site), str(wheel)], tmp_path)
    where = run([sys.executable, "-c", "import data2vec2; print(data2vec2.__file__)"], tmp_path, PYTHONPATH=str(site))
    assert Path(where.strip()).is_relative_to(site), "the installed copy must be used, not the source tree"

    demo = [sys.executable, "-m", "data2vec2", "demo", "--out", "run"]
    small = "--train.updates 30 --train.eval-every 0 --model.encoder.embed-dim 16 --model.encoder.num-heads 2 "
    small += "--model.encoder.depth 2 --model.targets.average-layers 2 --model.decoder.dim 16 --model.decoder.depth 2"
    printed = run([*demo, *small.split()], tmp_path, PYTHONPATH=str(site))
    assert "data2vec2 " in printed
    assert "random initialisation" in printed
    assert printed.strip().splitlines()[-1] == f"report: {Path('run') / 'report.html'}"
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    assert str(ROOT) not in (tmp_path / "run" / "train.log").read_text()
