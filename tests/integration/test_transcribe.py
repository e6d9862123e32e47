"""transcribe and the error rates of a recogniser."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import data2vec2
from data2vec2.data.letters import Letters
from data2vec2.interop.folder import export_model, load_encoder
from data2vec2.method.heads import SpeechRecognizer
from data2vec2.modalities.audio.config import AudioConfig, AudioDataConfig
from data2vec2.modalities.audio.speech import cuts, log_probs
from data2vec2.modalities.data import ModelInfo
from tests.integration.helpers import run_here
from tests.integration.speech import spoken_folder, tiny_encoder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> SpeechRecognizer:
    encoder, _ = load_encoder(tiny_encoder(tmp_path_factory.mktemp("encoder") / "exported"))
    model = SpeechRecognizer(encoder, 9).eval()
    torch.nn.init.normal_(model.head.weight, std=2)
    return model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, recognizer: SpeechRecognizer) -> Path:
    folder = tmp_path_factory.mktemp("model")
    _, info = load_encoder(tiny_encoder(folder / "encoder"))
    full = ModelInfo(model=info.model, data=AudioDataConfig(), letters=Letters.of(["aeinot"]))
    export_model(recognizer, full, folder / "exported", "# A recogniser\n")
    return folder / "exported"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return spoken_folder(tmp_path_factory.mktemp("data") / "digits", train=5, test=4)


def wave_file(seconds: float) -> Callable[[], BytesIO]:
    wave, file = np.random.default_rng(0).standard_normal(int(16_000 * seconds)) / 10, BytesIO()
    soundfile.write(file, wave, 16_000, format="WAV")
    return lambda: BytesIO(file.getvalue())


def test_windows_say_what_the_whole_says(recognizer: SpeechRecognizer) -> None:
    config = recognizer.encoder.modality.config
    assert isinstance(config, AudioConfig)
    file = wave_file(13.3)
    whole = log_probs(recognizer, config, file, CPU)
    windows = log_probs(recognizer, config, file, CPU, window_s=8, overlap_s=2)
    assert whole.shape == windows.shape == (config.num_tokens(int(13.3 * 16_000)), 9)
    same = whole.argmax(axis=1) == windows.argmax(axis=1)
    assert same.mean() > 0.9  # attention sees less in a window; ALiBi keeps it near
    shifted = whole[1:].argmax(axis=1) == windows[:-1].argmax(axis=1)
    assert shifted.mean() < same.mean()


def test_long_recordings_are_cut_between_words() -> None:
    letters = Letters.of(["ab"])
    best = np.tile([3, 4, 1, 0, 0], 100)
    found = cuts(np.eye(5, dtype=np.float32)[best], letters, 60)
    assert found[-1] == 500
    assert np.diff([0, *found]).max() <= 60
    assert all(best[place] in (0, 1) for place in found[:-1])


def test_a_line_for_each_file(model: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted((data / "test").rglob("*.ogg"))
    assert run_here(["transcribe", model, data / "test", files[0]]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in lines] == [*map(str, files), str(files[0])]
    assert lines[-1] == lines[0]
    for flags in ([], ["--decoder", "greedy"], ["--decoder", "beam", "--beam", 5]):
        assert run_here(["transcribe", model, files[0], "--json", "--device", "cpu", *flags]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["text"].split() == [word["text"] for word in found["words"]]
        assert all(0 <= word["start_s"] < word["end_s"] for word in found["words"])
    assert [one.text for one in data2vec2.transcribe(model, files)] == [text for _, text in lines[:-1]]


def test_files_that_can_not_be_read_are_said(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, junk = sorted((data / "test").rglob("*.ogg"))[0], tmp_path / "junk.wav"
    junk.write_text("no sound at all")
    assert run_here(["transcribe", model, junk, tmp_path / "no.wav", good]) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 1
    assert captured.err.splitlines()[0] == f"data2vec2: {junk}: not audio"
    assert len(captured.err.splitlines()) == 2


def test_error_rates(model: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(["evaluate", model, data, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert (scores["part"], scores["samples"], scores["decoder"]) == ("test", 4, "greedy")
    assert scores["words"]["length"] == 4
    assert run_here(["evaluate", model, data, "--decoder", "beam", "--beam", 3, "--max-samples", 2]) == 0
    assert "characters" in capsys.readouterr().out
    for option, value, why in (("--labels", "5", "the features of an encoder"), ("--encoding", "cp1252", "tables")):
        assert run_here(["evaluate", model, data, option, value]) == 2
        assert f"{option} is for {why}" in capsys.readouterr().err


def test_a_language_model_says_its_words(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("flashlight.lib.text")
    lm = tmp_path / "lm.arpa"
    unigrams = "\n".join(f"-0.5\t{word}\t0" for word in ("<unk>", "<s>", "</s>", "tone", "ane"))
    bigrams = "-0.3\t<s> tone\n-0.3\t<s> ane"
    text = f"\\data\\\nngram 1=5\nngram 2=2\n\n\\1-grams:\n{unigrams}\n\n\\2-grams:\n{bigrams}\n\n\\end\\\n"
    lm.write_text(text)
    flags = ["--lm", lm, "--lm-weight", 0.5, "--word-score", 1, "--beam", 50]
    assert run_here(["transcribe", model, data / "test", *flags]) == 0
    said = {word for line in capsys.readouterr().out.splitlines() for word in line.split("\t")[1].split()}
    assert said <= {"tone", "ane"}


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--decoder", "lm"], 2, "needs a language model"),
        (["--decoder", "beam", "--lm", "x.arpa"], 2, "--lm is for --decoder lm"),
        (["--lm", "missing.arpa"], 1, "missing.arpa does not exist"),
        (["--beam", "0"], 2, "--beam is 0"),
        (["--beam", "5"], 2, "greedy has none"),
        (["--decoder", "beam", "--lm-weight", "3"], 2, "--lm-weight needs a language model"),
        (["--word-score", "1"], 2, "--word-score needs a language model"),
        (["--device", "abacus"], 2, "abacus"),
    ],
)
def test_mistakes_are_said(
    model: Path, data: Path, flags: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(["transcribe", model, data, *flags]) == code
    assert message in capsys.readouterr().err


def test_other_models_and_no_files(model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = tiny_encoder(tmp_path / "encoder")
    assert run_here(["transcribe", encoder, data]) == 1
    assert "finetune ctc" in capsys.readouterr().err
    assert run_here(["predict", model, data]) == 1
    assert "finetune classify" in capsys.readouterr().err
    assert run_here(["evaluate", encoder, data, "--decoder", "beam"]) == 2
    assert run_here(["transcribe", model]) == 2
    (tmp_path / "empty").mkdir()
    assert run_here(["transcribe", model, tmp_path / "empty"]) == 1
    assert "no recordings in" in capsys.readouterr().err
