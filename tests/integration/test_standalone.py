"""Exports with their own code: where this package is not installed they say what they say here; and on a hub."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageClassification

import data2vec2
from data2vec2.config.model import ArchitectureConfig, EncoderConfig
from data2vec2.data.letters import BLANK, SPACE, UNKNOWN, Letters
from data2vec2.interop.folder import export_model
from data2vec2.method.heads import Classifier, SpeechRecognizer
from data2vec2.modalities import specs
from data2vec2.modalities.audio import english_prompts
from data2vec2.modalities.audio.config import AudioConfig, AudioDataConfig
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.fields import build_encoder
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig
from data2vec2.modalities.text import longer_glosses
from tests.integration.helpers import run_here
from tests.integration.hub import Hub, hub
from tests.integration.pipelines import ask_each, python_alone
from tests.integration.speech import tiny_encoder
from tests.integration.test_pipelines import stickers

DIGITS = sorted((english_prompts() / "test" / "digits").iterdir())[:3]
LETTERS = Letters((BLANK, SPACE, UNKNOWN, *"aeinorst"))
ENCODER = EncoderConfig(embed_dim=32, num_heads=2, prenet_depth=0, depth=2)


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    """Of pictures, untaught."""
    shape = ArchitectureConfig(modality=ImageConfig(image_size=32, patch_size=8), encoder=ENCODER)
    model = Classifier(build_encoder(shape), 3)
    torch.nn.init.normal_(model.head.weight)
    data = ImageDataConfig(mean=(0.7, 0.7, 0.7), std=(0.3, 0.3, 0.3))
    export_model(model, ModelInfo(model=shape, data=data, classes=("a", "b", "c")), tmp_path / "classifier", "# C\n")
    return tmp_path / "classifier"


@pytest.fixture
def recogniser(tmp_path: Path) -> Path:
    """Of speech, untaught, which says letters."""
    modality = AudioConfig(stem="mel", position_depth=2, position_groups=4)
    shape = ArchitectureConfig(modality=modality, encoder=ENCODER)
    model = SpeechRecognizer(build_encoder(shape), len(LETTERS))
    torch.nn.init.normal_(model.head.weight)
    with torch.no_grad():
        model.head.bias[LETTERS.ids[UNKNOWN]] = -100
    export_model(model, ModelInfo(model=shape, data=AudioDataConfig(), letters=LETTERS), tmp_path / "recogniser", "")
    return tmp_path / "recogniser"


def exported(model: Path, out: Path, *flags: object) -> Path:
    assert run_here(["export", model, out, "--standalone", *flags]) == 0
    return out


def test_without_this_package(tmp_path: Path, classifier: Path, recogniser: Path) -> None:
    """Pipelines give what `predict`, `transcribe` and pipelines with this package give, also of what is transparent."""
    files = stickers(tmp_path / "stickers", 6)
    reading = ("feature-extraction", exported(longer_glosses(), tmp_path / "out" / "text"), ["a large bird of prey"])
    seen, heard, read = ask_each(
        ("image-classification", exported(classifier, tmp_path / "out" / "image"), files),
        ("automatic-speech-recognition", exported(recogniser, tmp_path / "out" / "audio"), DIGITS),
        reading,
        alone=python_alone(tmp_path / "environment"),
    )
    for said, ours in zip(seen, data2vec2.predict(classifier, files, top=3, device="cpu"), strict=True):
        assert {one["label"]: one["score"] for one in said} == pytest.approx(ours.classes, abs=1e-5)
    assert [one["text"] for one in heard] == [one.text for one in data2vec2.transcribe(recogniser, DIGITS)]
    assert all(one["text"] for one in heard)
    assert [read] == ask_each(reading)


SCRIPT = """
import json, sys
from pathlib import Path
from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForCTC, AutoProcessor, AutoTokenizer
model, out = sys.argv[1:]
letters = {letter: place for place, letter in enumerate(["a", "b", "|", "[UNK]", "[PAD]"])}
Path(out).mkdir()
(Path(out) / "vocab.json").write_text(json.dumps(letters))
config = AutoConfig.from_pretrained(model, trust_remote_code=True)
named = {"unk_token": "[UNK]", "pad_token": "[PAD]", "word_delimiter_token": "|"}
tokenizer = AutoTokenizer.from_pretrained(out, config=config, trust_remote_code=True, **named)
extractor = AutoFeatureExtractor.from_pretrained(model)
config.update({"pad_token_id": tokenizer.pad_token_id, "vocab_size": len(tokenizer)})
network = AutoModelForCTC.from_pretrained(model, config=config, trust_remote_code=True)
for part in (extractor, tokenizer, config):
    part.save_pretrained(out)
processor = AutoProcessor.from_pretrained(out)
assert processor.tokenizer("ab a").input_ids == [0, 1, 2, 0]
assert processor([0.5] * 3000, sampling_rate=16_000).input_values
network.save_pretrained(out)
"""
"""What Transformers' script for speech does with a vocabulary of its own; it trusts no code but the model's."""


def test_a_script_makes_a_recogniser_of_an_encoder(tmp_path: Path) -> None:
    encoder, alone = exported(tiny_encoder(tmp_path / "model"), tmp_path / "encoder"), python_alone(tmp_path / "python")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "code")}
    command = [str(alone), "-c", SCRIPT, str(encoder), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    [heard] = ask_each(("automatic-speech-recognition", tmp_path / "out", DIGITS[:1]), alone=alone)
    assert set(heard[0]["text"]) <= set("ab </s>[PADUNK]")


def test_where_this_package_is_installed_it_is_used(tmp_path: Path, classifier: Path) -> None:
    """Without a question whether the code beside the weights may run; and the folder is a model for all verbs."""
    out = exported(classifier, tmp_path / "out")
    model = AutoModelForImageClassification.from_pretrained(out)
    assert type(model) is data2vec2.Data2Vec2ImageForImageClassification
    [one] = data2vec2.predict(out, stickers(tmp_path / "stickers", 1), top=3, device="cpu")
    assert set(one.classes) == {"a", "b", "c"}


@pytest.mark.parametrize("kind", ["image", "audio", "text", "sound"])
def test_the_code_is_whole(kind: str, tmp_path: Path) -> None:
    """It has every name that it uses, once, and nothing of this package or of pre-training."""
    from data2vec2.interop.standalone import code_file, write_code

    write_code(tmp_path, kind)
    text = (tmp_path / code_file(kind)).read_text()
    tree = ast.parse(text)
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name for name in imported if name.partition(".")[0] == "data2vec2"}
    assert not {"teacher", "RunConfig", "MaskConfig", "argparse"} & {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name)
    }
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F401,F811,F821", str(tmp_path)]
    done = subprocess.run(ruff, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert ast.get_docstring(tree).startswith(f"Models of {specs()[kind].words.many}")


def test_a_card_for_the_hub(tmp_path: Path, classifier: Path) -> None:
    out = exported(classifier, tmp_path / "out", "--license", "cc-by-4.0")
    card = (out / "README.md").read_text()
    assert "license: cc-by-4.0" in card
    assert "custom_code" in card
    assert 'pipeline("image-classification", model="PATH", trust_remote_code=True)' in card
    assert "import data2vec2" not in card


def pushing(server: Hub, model: Path, out: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run the command with this hub."""
    home = {"HF_ENDPOINT": server.address, "HF_HOME": str(out.parent / "home"), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "data2vec2", "export", str(model), str(out), "--standalone", "--push", *flags]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_TOKEN": "hf_x", **home})


def test_what_is_uploaded(tmp_path: Path, classifier: Path) -> None:
    """All files of the folder, as they are, under the name that was asked for."""
    out = tmp_path / "out"
    with hub() as server:
        done = pushing(server, classifier, out, "me/shoes", "--private", "--license", "mit")
        assert done.returncode == 0, done.stderr
        assert f"uploaded: {server.address}/me/shoes" in done.stdout
        assert server.made["name"] == "shoes"
        assert server.made["organization"] == "me"
        assert server.made.get("visibility") == "private" or server.made.get("private")
        assert {who for path, who in server.asked if "/repos/" in path or "/models/" in path} == {"Bearer hf_x"}
        assert server.files == {path.name: path.read_bytes() for path in out.iterdir()}
    assert 'model="me/shoes"' in (out / "README.md").read_text()
    assert json.loads((out / "config.json").read_text())["auto_map"]["AutoConfig"].endswith(".Data2Vec2ImageConfig")


def test_what_can_not_be_uploaded(tmp_path: Path, classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub() as server:
        server.refuses = True
        done = pushing(server, classifier, tmp_path / "out", "me/shoes")
        assert done.returncode == 1
        assert "is written, but was not uploaded to me/shoes" in done.stderr
        assert "hf upload me/shoes" in done.stderr
        assert "Traceback" not in done.stderr
        assert (tmp_path / "out" / "model.safetensors").is_file()
        done = pushing(server, classifier, tmp_path / "other", "not/a/name")
        assert done.returncode == 2, done.stderr
        assert not (tmp_path / "other").exists()
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("data2vec2.interop.hub.get_token", lambda: None)
    assert run_here(["export", classifier, tmp_path / "other", "--standalone", "--push", "me/shoes"]) == 1
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "flags", [["--standalone", "--to", "onnx"], ["--push", "me/m"], ["--license", "mit"], ["--standalone", "--private"]]
)
def test_flags_that_do_not_go_together(flags: list[str], classifier: Path, tmp_path: Path) -> None:
    assert run_here(["export", classifier, tmp_path / "out", *flags]) == 2
