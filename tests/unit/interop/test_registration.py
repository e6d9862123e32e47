"""Imports in both orders, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import data2vec2


def run(code: str, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python code in a new process, `path` in front of what it can import."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    command = [sys.executable, "-W", "error::UserWarning", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


LOAD = """
import sys
model = AutoModel.from_pretrained(sys.argv[1])
assert type(model).__name__ == "Data2Vec2ImageModel", type(model)
assert not [finder for finder in sys.meta_path if type(finder).__module__ == "data2vec2.registration"], sys.meta_path
"""


@pytest.mark.parametrize(
    "imports",
    [
        "import data2vec2; from transformers import AutoModel",
        "from transformers import AutoModel; import data2vec2",
        "from data2vec2.interop.transformers import Data2Vec2ImageModel; from transformers import AutoModel",
    ],
)
def test_auto_model_knows_us_in_any_order_of_imports(imports: str, exported: Path):
    result = run(imports + LOAD, str(exported))
    assert result.returncode == 0, result.stderr


def test_importing_the_package_is_light():
    code = """
import sys, data2vec2
heavy = {"torch", "transformers", "numpy"} & set(sys.modules)
assert not heavy, heavy
assert data2vec2.__version__
assert set(data2vec2.__all__) <= set(dir(data2vec2))
"""
    result = run(code)
    assert result.returncode == 0, result.stderr


def test_a_missing_transformers_is_missing_as_usual():
    code = """
import sys
class Hidden:  # stands in front of the path and says that transformers is not there
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "transformers":
            raise ModuleNotFoundError("No module named 'transformers'", name=name)
sys.meta_path.insert(0, Hidden)
import data2vec2
try:
    import transformers
except ModuleNotFoundError as error:
    assert error.name == "transformers"
else:
    raise AssertionError("imported")
assert type(sys.meta_path[0]).__module__ == "data2vec2.registration"  # still waits
"""
    result = run(code)
    assert result.returncode == 0, result.stderr


def test_a_transformers_that_fails_to_import_fails_as_usual(tmp_path: Path):
    (tmp_path / "transformers.py").write_text("raise RuntimeError('broken on purpose')\n")
    result = run("import data2vec2, transformers", path=tmp_path)
    assert result.returncode == 1
    assert "RuntimeError: broken on purpose" in result.stderr


def test_a_transformers_that_we_can_not_use_is_still_imported(tmp_path: Path):
    (tmp_path / "transformers.py").write_text("value = 7\n")
    code = "import warnings; warnings.simplefilter('default'); import data2vec2, transformers as t; print(t.value)"
    result = run(code, path=tmp_path)
    assert result.stdout.strip() == "7", result.stderr
    assert "will not know data2vec2's models" in result.stderr


def test_unknown_attributes_are_errors():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        data2vec2.nonsense  # noqa: B018
