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
        "from data2vec2.modalities.image.transformers import Data2Vec2ImageModel; from transformers import AutoModel",
        "from data2vec2 import TeacherUpdate; from transformers import AutoModel",
        "import data2vec2, peft; from transformers import AutoModel",
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


TONES = """
from dataclasses import dataclass, replace
from typing import Literal
from data2vec2.modalities.audio import SPEC as AUDIO
from data2vec2.modalities.audio.config import AudioConfig, AudioDataConfig

@dataclass(frozen=True, kw_only=True)
class TonesConfig(AudioConfig):
    kind: Literal["tones"] = "tones"
    num_mels: int = 24

@dataclass(frozen=True, kw_only=True)
class TonesDataConfig(AudioDataConfig):
    kind: Literal["tones"] = "tones"

def tools():
    from data2vec2.modalities.audio.tools import AudioTools
    return type("TonesTools", (AudioTools,), {"spec": SPEC})()

OWN = {"config": TonesConfig, "data": TonesDataConfig, "recipes": {}, "finetune": {}, "tools": "tones:tools"}
SPEC = replace(AUDIO, name="tones", transformers="", **OWN)
BROKEN = replace(SPEC, name="broken", transformers="no_such_module")
"""
USE = """
import sys, warnings
warnings.simplefilter("always")
from dataclasses import replace
import data2vec2, tones, torch
from data2vec2.config.model import ArchitectureConfig, EncoderConfig
from data2vec2.modalities import get_recipe
from data2vec2.modalities.fields import build_encoder
from transformers import AutoConfig, AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification

torch.manual_seed(0)
config = AutoConfig.for_model("data2vec2-tones", stem="mel", num_hidden_layers=2, hidden_size=32, num_attention_heads=2)
assert (type(config).__name__, config.num_mels) == ("Data2Vec2TonesConfig", 24)
shape = EncoderConfig(embed_dim=32, num_heads=2, depth=2)
expected = ArchitectureConfig(modality=tones.TonesConfig(stem="mel"), encoder=shape)
assert config.to_model_config() == expected
AutoModel.from_config(config).save_pretrained(sys.argv[1])
model = AutoModel.from_pretrained(sys.argv[1])
assert type(model).__name__ == "Data2Vec2TonesModel"
encoder = build_encoder(expected).eval()
encoder.load_state_dict(model.encoder.state_dict())
waves, mask = torch.randn(2, 5_000), torch.arange(5_000) < torch.tensor([[5_000], [3_300]])
encoded = encoder(waves, lengths_B=mask.sum(1))
assert torch.equal(model(input_values=waves, attention_mask=mask.long()).last_hidden_state, encoded.x_NLD)
head = AutoModelForSequenceClassification.from_pretrained(sys.argv[1], num_labels=3)
assert type(head).__name__ == "Data2Vec2TonesForSequenceClassification"
assert head(waves, labels=torch.tensor([2, 0])).loss.isfinite()
recipe = get_recipe("audio_mel_tiny")
decoder, targets = replace(recipe.model.decoder, dim=32), replace(recipe.model.targets, average_layers=2)
parts = {"modality": expected.modality, "encoder": shape, "decoder": decoder, "targets": targets}
recipe = replace(recipe, model=replace(recipe.model, **parts), data=tones.TonesDataConfig(max_seconds=5))
pretraining = AutoModelForPreTraining.from_config(type(config).from_run_config(recipe))
assert type(pretraining).__name__ == "Data2Vec2TonesForPreTraining"
assert pretraining(waves).loss.isfinite()
assert type(AutoConfig.for_model("data2vec2-text")) is data2vec2.Data2Vec2TextConfig
"""


def test_modalities_of_other_packages(tmp_path: Path):
    """One that says nothing of Transformers has classes all the same; one that can't be imported is left out."""
    (tmp_path / "tones.py").write_text(TONES)
    (tmp_path / "tones-1.dist-info").mkdir()
    (tmp_path / "tones-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: tones\nVersion: 1\n")
    points = "[data2vec2.modalities]\nbroken = tones:BROKEN\ntones = tones:SPEC\n"
    (tmp_path / "tones-1.dist-info" / "entry_points.txt").write_text(points)
    result = run(USE, str(tmp_path / "model"), path=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "will not know data2vec2's models of recordings: No module named 'no_such_module'" in result.stderr


def test_unknown_attributes_are_errors():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        data2vec2.nonsense  # noqa: B018
