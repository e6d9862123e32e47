"""export: ONNX files and programs of torch.export give what PyTorch gives, with the files that belong to them."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soundfile
import torch
from PIL import Image

import data2vec2
from data2vec2.commands import export as command
from data2vec2.config.model import ArchitectureConfig, EncoderConfig
from data2vec2.data.letters import Letters
from data2vec2.errors import UserError
from data2vec2.interop import onnx
from data2vec2.interop.folder import export_model
from data2vec2.method.encoder import Encoder
from data2vec2.method.heads import Classifier, SpeechRecognizer
from data2vec2.modalities.audio.config import AudioConfig, AudioDataConfig
from data2vec2.modalities.audio.model import MelConvStem, MelStem
from data2vec2.modalities.data import Columns, ModelInfo
from data2vec2.modalities.fields import build_encoder
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig
from data2vec2.modalities.text.config import TextConfig, TextDataConfig
from data2vec2.modalities.text.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from data2vec2.modalities.tools import tools_of
from tests.integration.helpers import files, jpeg_folder, run_here
from tests.integration.speech import spoken_folder, tiny_encoder


def shape_of(modality: ImageConfig | AudioConfig | TextConfig) -> ArchitectureConfig:
    return ArchitectureConfig(
        modality=modality,
        encoder=EncoderConfig(embed_dim=16, num_heads=2, prenet_depth=0, depth=1),
    )


IMAGE = shape_of(ImageConfig(image_size=16, patch_size=8, num_channels=1))
GREY = ImageDataConfig(mean=(0.3,), std=(0.3,))
MEL = shape_of(AudioConfig(stem="mel", position_depth=1, position_groups=4))
WAVES = shape_of(
    AudioConfig(conv_dim=8, conv_kernels=(10, 8), conv_strides=(10, 32), position_depth=1, position_groups=4)
)


def encoder_of(shape: ArchitectureConfig) -> Encoder:
    torch.manual_seed(3)
    return build_encoder(shape).eval()


def loud(model: Classifier | SpeechRecognizer) -> Classifier | SpeechRecognizer:
    """With a head whose outputs differ, so that a test can tell them apart."""
    torch.nn.init.normal_(model.head.weight)
    return model.eval()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return jpeg_folder(tmp_path_factory.mktemp("pictures") / "all", 40)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier") / "exported"
    info = ModelInfo(model=IMAGE, data=GREY, classes=tuple(f"class{n}" for n in range(10)))
    export_model(loud(Classifier(encoder_of(IMAGE), 10)), info, folder, "")
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(train_tokenizer(["a cat sat on a mat", "the dog ran"] * 9, 300), folder)
    return folder


def test_pictures_with_int8_and_the_read_me(
    classifier: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], run_read_me: ReadMe
) -> None:
    out = tmp_path / "out"
    assert run_here(["export", classifier, out, "--data", pictures, "--int8", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert files(out) == {"config.json", "preprocessor_config.json", "README.md", "model.onnx", "model_int8.onnx"}
    assert said["kind"] == "image"
    assert said["what"] == "classifier"
    assert 0 < said["largest_difference"] <= 1e-4
    assert said["int8"]["measure"] == "accuracy"
    assert said["int8"]["samples"] == 40
    readme = (out / "README.md").read_text()
    assert f"{said['int8']['int8']:.4f}, with float32 {said['int8']['float32']:.4f}" in readme
    assert (out / "model_int8.onnx").read_bytes() != (out / "model.onnx").read_bytes()
    paths = sorted(pictures.rglob("*.jpg"))
    pictures_of = [Image.open(path) for path in paths]
    (logits,), (every,) = run_read_me(out, "picture", [pictures_of[0]] * 3, pictures_of)
    assert logits.shape == (3, 10)
    (predicted,) = data2vec2.predict(classifier, paths[0])
    assert f"class{logits[0].argmax()}" in predicted.classes
    truth = [int(path.parent.name.removeprefix("class")) for path in paths]
    assert said["int8"]["float32"] == pytest.approx(float((every.argmax(1) == truth).mean()))


RUN_READ_ME = """
import os, pickle, runpy, sys
import numpy as np, torch, torch._dynamo
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoTokenizer
for line in sys.stdin:
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    code, asked, answers = line.rstrip("\\n").split("\\t")
    with open(asked, "rb") as file:
        cases = pickle.load(file)
    found = []
    for case in cases:
        names = runpy.run_path(code, init_globals=case)
        outputs = [names[name] for name in ("logits", "last_hidden_state", "pooler_output") if name in names]
        found.append([np.asarray(torch.as_tensor(one).detach()) for one in outputs])
    with open(answers, "wb") as file:
        pickle.dump(found, file)
    break
"""
ReadMe = Callable[..., list[list[np.ndarray]]]


@pytest.fixture(scope="module")
def run_read_me() -> Iterator[ReadMe]:
    """What a README's own code computes of each value of its input, in a process that knows nothing else of ours.

    It is a fork of one that has imported what takes long, but not this package.
    """
    command = [sys.executable, "-c", RUN_READ_ME]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin and process.stdout

        def run(folder: Path, name: str, *values: object) -> list[list[np.ndarray]]:
            (block,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
            code, asked, answers = (folder.parent / name for name in ("readme.py", "asked", "answers"))
            code.write_text(block.replace("PATH", str(folder)))
            asked.write_bytes(pickle.dumps([{name: value} for value in values]))
            process.stdin.write(f"{code}\t{asked}\t{answers}\n")
            assert process.stdout.readline() == "0\n"  # what went wrong stands on its stderr
            found: list[list[np.ndarray]] = pickle.loads(answers.read_bytes())
            return found

        yield run
        process.stdin.close()


def test_speech_with_letters(tmp_path: Path, capsys: pytest.CaptureFixture[str], run_read_me: ReadMe) -> None:
    letters = Letters.of(["zero one two three four five six seven eight nine"])
    model = loud(SpeechRecognizer(encoder_of(MEL), len(letters)))
    info = ModelInfo(model=MEL, data=AudioDataConfig(), letters=letters)
    export_model(model, info, tmp_path / "model", "")
    spoken, out = spoken_folder(tmp_path / "spoken", train=12, test=4), tmp_path / "out"
    assert run_here(["export", tmp_path / "model", out, "--data", spoken, "--int8"]) == 0
    assert "character error rate" in capsys.readouterr().out
    assert {"vocab.json", "tokenizer_config.json", "preprocessor_config.json"} < files(out)
    from transformers import AutoTokenizer

    waves = [soundfile.read(path, dtype="float32")[0] for path in sorted((spoken / "test").rglob("*.ogg"))[:2]]
    short = min((0, 1), key=lambda place: len(waves[place]))
    (both,), (alone,) = run_read_me(out, "waveforms", waves, [waves[short]])
    assert both.shape[1] > alone.shape[1]
    np.testing.assert_allclose(both[short, : alone.shape[1]], alone[0], atol=1e-4)
    assert (both[short, alone.shape[1] :].argmax(-1) == 0).all()
    spelled = AutoTokenizer.from_pretrained(out).batch_decode(both.argmax(-1))
    assert spelled[short] == AutoTokenizer.from_pretrained(out).batch_decode(alone.argmax(-1))[0]


def test_sounds_over_the_waveform_on_bundled_ones(tmp_path: Path) -> None:
    info = ModelInfo(model=WAVES, data=AudioDataConfig(), classes=("a", "b"), pooling="linear_softmax")
    export_model(loud(Classifier(encoder_of(WAVES), 2, pooling="linear_softmax")), info, tmp_path / "model", "")
    done = data2vec2.export(tmp_path / "model", tmp_path / "out")
    assert (done.kind, done.what, done.int8) == ("audio", "classifier", None)
    assert (tmp_path / "out" / "model.onnx").is_file()


@pytest.mark.parametrize("regression", [False, True])
def test_texts(regression: bool, tokenizer: Path, tmp_path: Path, run_read_me: ReadMe) -> None:
    shape = shape_of(TextConfig(vocab_size=load_tokenizer(tokenizer).size, max_tokens=40))
    classes = ("value",) if regression else ("cat", "dog")
    read = TextDataConfig(tokenizer=str(tokenizer))
    info = ModelInfo(model=shape, data=read, classes=classes, pooling="first", regression=regression)
    model = Classifier(encoder_of(shape), len(classes), pooling="first")
    if regression:
        model.rescale(2000.0, 900.0)  # so large that 1e-4 is below rounding
    export_model(model if regression else loud(model), info, tmp_path / "model", "")
    rows = [
        "text,label",
        *(f"a cat sat {'on a mat ' * (n % 5)},{n % 2 if regression else classes[n % 2]}" for n in range(20)),
    ]
    (tmp_path / "rows.csv").write_text("\n".join(rows) + "\n")
    done = data2vec2.export(tmp_path / "model", tmp_path / "out", data=tmp_path / "rows.csv", int8=True)
    assert done.int8 is not None
    assert done.int8.measure == ("pearson" if regression else "accuracy")
    assert {"tokenizer.json", "config.json"} < files(tmp_path / "out")
    texts = ["a cat", "the dog ran on a mat and a cat sat"]
    (both,), (alone,) = run_read_me(tmp_path / "out", "texts", texts, texts[:1])
    np.testing.assert_allclose(both[0], alone[0], rtol=1e-5, atol=1e-4)


def test_an_encoder_for_torch_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_read_me: ReadMe) -> None:
    tiny_encoder(tmp_path / "model")
    monkeypatch.setattr(onnx, "check_onnx", lambda: pytest.fail("ONNX is not asked for"))
    done = data2vec2.export(tmp_path / "model", tmp_path / "out", to="torch")
    assert done.what == "encoder"
    assert files(tmp_path / "out") == {"config.json", "preprocessor_config.json", "README.md", "model.pt2"}
    waves = [np.random.default_rng(0).normal(size=length).astype(np.float32) for length in (5_000, 9_000)]
    (_, both), (_, alone) = run_read_me(tmp_path / "out", "waveforms", waves, waves[:1])
    np.testing.assert_allclose(both[0], alone[0], atol=1e-4)


def test_int8_of_an_encoder_of_pictures(pictures: Path, tmp_path: Path) -> None:
    export_model(encoder_of(IMAGE), ModelInfo(model=IMAGE, data=GREY), tmp_path / "model", "")
    done = data2vec2.export(tmp_path / "model", tmp_path / "out", data=pictures, int8=True)
    assert done.int8 is not None
    assert (done.int8.measure, done.int8.part) == ("knn", "split-off")
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    assert [output.name for output in session.get_outputs()] == ["last_hidden_state", "pooler_output"]


def test_a_difference_writes_nothing(classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "export_program", lambda model, config: None)
    monkeypatch.setattr(onnx, "write_onnx", lambda program, names, path: None)

    class Wrong:
        def __init__(self, *_: object) -> None: ...

        def run(self, inputs: onnx.Inputs) -> tuple[torch.Tensor, ...]:
            return (torch.full((len(next(iter(inputs.values()))), 10), torch.nan),)

    monkeypatch.setattr(onnx, "OnnxRunner", Wrong)
    with pytest.raises(UserError, match="differs from PyTorch by nan for inputs"):
        data2vec2.export(classifier, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_spectra_as_a_convolution() -> None:
    torch.manual_seed(0)
    stem = MelStem(AudioConfig(stem="mel"), 8)
    stem.reset_parameters()
    for length in (560, 879, 880, 16_001):
        wave = torch.randn(2, length)
        torch.testing.assert_close(MelConvStem(stem)(wave), stem(wave), atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--int8"], 2, "--int8 needs labelled data"),
        (["--int8", "--to", "torch", "--data", "nothing"], 2, "--int8 works only with --to onnx"),
        (["--text-columns", "a"], 2, "--data, which is missing"),
        (["--data", "nothing"], 1, "nothing does not exist"),
        (["--data", "PICTURES", "--label-column", "a"], 2, "are for text models"),
        (["--to", "tensorflow"], 2, "tensorflow"),
    ],
)
def test_mistakes(
    arguments: list[str],
    code: int,
    message: str,
    classifier: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [str(pictures) if word == "PICTURES" else word for word in arguments]
    assert run_here(["export", classifier, tmp_path / "out", *words]) == code
    assert message in "".join(capsys.readouterr())
    assert list(tmp_path.iterdir()) == []


def test_models_and_folders_that_cannot_be(
    classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    assert run_here(["export", classifier, tmp_path / "there"]) == 1
    assert "exists; give a new folder" in capsys.readouterr().err
    assert run_here(["export", tmp_path / "there", tmp_path / "out"]) == 1
    assert "is not an exported model" in capsys.readouterr().err
    with pytest.raises(ValueError, match="must be onnx or torch"):
        data2vec2.export(classifier, tmp_path / "out", to="jax")  # type: ignore[arg-type]
    monkeypatch.setattr(onnx.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else True)
    assert run_here(["export", classifier, tmp_path / "out"]) == 1
    assert "ONNX needs onnxscript: pip install 'data2vec2[onnx]'" in capsys.readouterr().err
    assert files(tmp_path) == {"there"}


def test_labels_of_other_classes(pictures: Path) -> None:
    info = ModelInfo(model=IMAGE, data=GREY, classes=("cat", "dog"))
    parts = tools_of("image").open_labelled(pictures, Columns(), "classes")
    with pytest.raises(UserError, match="the model's classes are cat, dog, and those of --data are class0"):
        command.int8_scores(None, None, info, parts)  # type: ignore[arg-type]
