"""Audio from folder to features: the commands on real recordings."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from transformers import AutoFeatureExtractor, AutoModel

from data2vec2.modalities.audio import english_prompts
from tests.integration.helpers import Child, assert_same_run, last_step, metrics, run_here, words
from tests.integration.speech import spoken_folder

SMALL = words(
    "--model.encoder.embed-dim 16 --model.encoder.num-heads 2 --model.encoder.depth 2 --model.targets.average-layers 2 "
    "--model.decoder.dim 16 --model.decoder.depth 2 --train.precision float32 --train.device cpu --train.processes 1 "
    "--data.workers 0 --optim.lr 5e-4 --ema.start 0.999 --ema.end 0.999"
)
UPDATES = 30
FLAGS = (*SMALL, *words(f"--train.updates {UPDATES} --train.log-every 1 --train.save-every 4 --train.eval-every 15"))


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 prompts in two classes, some of them broken."""
    folder = tmp_path_factory.mktemp("prompts")
    for category in ("letters", "prompts"):
        (folder / category).mkdir()
        files = sorted((english_prompts() / "train" / category).glob("*.ogg"))
        for path in files[:: len(files) // 20][:20]:
            shutil.copy(path, folder / category / path.name)
    (folder / "prompts" / "empty.wav").write_bytes(b"")
    soundfile.write(folder / "prompts" / "silent.flac", np.zeros(30_000), 16_000)
    return folder


@pytest.fixture(scope="module", params=["audio_mel_tiny", "audio_tiny"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, prompts: Path) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    child = start(request.param, run, prompts)
    assert child.wait() == 0, child.output
    return run


def start(recipe: str, run: Path, data: Path, *flags: str) -> Child:
    lengths = words("--data.min-seconds 0.8 --data.max-seconds 2 --data.max-bad 0.2 --train.batch-size 8")
    lengths += words("--model.modality.conv-dim 16") if recipe == "audio_tiny" else ()
    return Child(["pretrain", recipe, data, "--out", run, *FLAGS, *lengths, *flags], run.with_suffix(".out"))


def test_a_run_leaves_what_it_should(whole: Path) -> None:
    lines = metrics(whole)
    assert lines[-1]["step"] == UPDATES
    assert {"loss", "rank_stem", "rank_encoder", "target_std", "unexplained"} <= lines[
        1
    ].keys()  # the first is of update 0
    assert any("val_knn" in line for line in lines)
    account = json.loads((whole / "data.json").read_text())["parts"]["train"]
    assert {"prompts/empty.wav", "prompts/silent.flac"} <= account["bad"].keys()
    assert (whole / "report.html").exists()
    output = whole.with_suffix(".out").read_text()
    assert "left out, being shorter than 0.8 s" in output
    planned = re.search(r"plan: (\d+) recordings x .* seconds of audio", output)
    assert planned and int(planned[1]) == account["used"] + 1  # the silent one, whose place others take
    model, extractor = (kind.from_pretrained(whole / "exported") for kind in (AutoModel, AutoFeatureExtractor))
    wave, rate = soundfile.read(english_prompts() / "train" / "digits" / "1.ogg", dtype="float32")
    output = model(**extractor(wave, sampling_rate=rate, return_tensors="pt"))
    assert output.pooler_output.shape == (1, 16)


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path, prompts: Path, whole: Path) -> None:
    recipe = whole.with_suffix(".out").read_text() and (whole / "config.yaml").read_text().split()[1]
    run = tmp_path / "run"
    for number, aim in enumerate((6, 17, 26)):
        child = start(recipe, run, prompts, *(["--resume"] if number else []))
        child.until(lambda: last_step(run) >= aim)  # noqa: B023
        child.signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL, child.output
    child = start(recipe, run, prompts, "--resume")
    assert child.wait() == 0, child.output
    assert_same_run(run, whole, UPDATES)


def test_two_processes_and_layer_drop(tmp_path: Path, prompts: Path) -> None:
    """A batch of recordings of unlike number falls to two processes; with layer-drop some gradients are missing."""
    flags = words("--train.processes 2 --train.updates 6 --model.encoder.layer-drop 0.4 --train.eval-every 0")
    child = start("audio_mel_tiny", tmp_path / "run", prompts, *flags)
    assert child.wait() == 0, child.output
    assert last_step(tmp_path / "run") == 6


@pytest.mark.parametrize("whole", ["audio_mel_tiny"], indirect=True)
def test_evaluate_has_the_phone_probe_beside_its_baselines(
    tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = spoken_folder(tmp_path / "data", ("digits", "letters"), 40, 15)
    shutil.copy(english_prompts() / "phones.csv", data)
    assert run_here(["evaluate", whole / "exported", data, "--probes", "phones,knn", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert_phones_beside_their_baselines(scores)
    assert all(row["knn"] > 0 for row in scores["rows"])
    assert scores["test_samples"] == 30


def assert_phones_beside_their_baselines(scores: dict[str, Any]) -> None:
    rows = {row["features"]: row for row in scores["rows"]}
    assert list(rows) == ["data2vec2", "random initialisation", "log-mel statistics", "majority class"]
    assert rows["data2vec2"]["phones"] > rows["majority class"]["phones"]


@pytest.mark.parametrize("whole", ["audio_mel_tiny"], indirect=True)
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--probes", "attentive"], 1, "--probes attentive is not for recordings; there are knn,linear,phones"),
        (["--probes", "phones", "--test", "DATA"], 1, "phones.csv"),
        (
            ["--finetune", "image_finetune_tiny", "--labels", "1"],
            2,
            "not for classes of audio; there are audio_classify",
        ),
        (["--finetune", "ctc_tiny", "--labels", "1"], 2, "ctc_tiny is not for classes of audio"),
        (["--finetune", "audio_classify_tiny", "--labels", "1"], 1, "--finetune needs a test part"),
    ],
)
def test_evaluate_refuses(
    whole: Path, prompts: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    arguments = [str(prompts) if word == "DATA" else word for word in arguments]
    assert run_here(["evaluate", whole / "exported", prompts, *arguments]) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize("whole", ["audio_mel_tiny"], indirect=True)
@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file_name,phones\nNAME,SIL:9 W9\n", "phones.csv: row 1 (NAME): W9 is not understood"),
        ("file_name,phones\nother.ogg,SIL:9 W:9\n", "phones.csv has no row for any of"),
        ("file_name,phones\n", "phones.csv has no row for any of"),
        ("file_name,phones\nNAME,SIL:9\nHELD,SIL:9\n", "have 0 phones to learn from"),
    ],
)
def test_mistakes_in_phones_are_said(
    tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture[str], table: str, message: str
) -> None:
    names = []
    for part, prompt in (("train", "1"), ("test", "7")):
        names.append(f"{part}/x/{prompt}.ogg")
        (tmp_path / names[-1]).parent.mkdir(parents=True)
        shutil.copy(english_prompts() / part / "digits" / f"{prompt}.ogg", tmp_path / names[-1])
    name, held = names
    (tmp_path / "phones.csv").write_text(table.replace("NAME", name).replace("HELD", held))
    assert run_here(["evaluate", whole / "exported", tmp_path, "--probes", "phones"]) == 1
    error = capsys.readouterr().err
    assert message.replace("NAME", name) in " ".join(error.split())
    assert "Traceback" not in error


@pytest.mark.parametrize("whole", ["audio_mel_tiny"], indirect=True)
def test_phones_that_only_the_report_shows_are_read_before_scoring(
    tmp_path: Path, whole: Path, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(prompts, tmp_path / "prompts")
    (data / "phones.csv").write_text("file_name,phones\na.ogg,SIL:9 W9\n")
    before = (whole / "report.html").read_bytes()
    assert run_here(["evaluate", whole, data, "--device", "cpu"]) == 1
    error = capsys.readouterr().err
    assert "row 1 (a.ogg): W9 is not understood" in " ".join(error.split())
    assert "evaluating on" not in error
    assert (whole / "report.html").read_bytes() == before


def test_pictures_for_an_audio_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    assert run_here(["pretrain", "audio_tiny", tmp_path, "--out", f"{tmp_path}-run"]) == 1
    error = capsys.readouterr().err
    assert "no recordings" in error
    assert ".png (1)" in error
    assert not Path(f"{tmp_path}-run").exists()


def test_the_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert run_here(["demo", "audio", "--out", run, *SMALL, *words("--train.updates 8 --train.eval-every 0")]) == 0
    printed = capsys.readouterr().out
    assert "154 test recordings" in printed
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    counted = [(line["samples"], line["units"], line["samples_per_s"] < line["units_per_s"]) for line in lines]
    size = yaml.safe_load((run / "config.yaml").read_text())["train"]["batch_size"]
    assert [units for _, units, _ in counted] == [size * line["step"] for line in lines], "seconds"
    assert all(0 < samples < units and fewer for samples, units, fewer in counted), "recordings are fewer than seconds"
    assert "phones" in printed
    scores = json.loads((run / "scores.json").read_text())
    assert_phones_beside_their_baselines(scores)
    assert 0.5 < scores["rows"][2]["phones"] < 0.56  # what the data are known for
    assert 0.07 < scores["rows"][3]["phones"] < 0.08
    assert scores["test_samples"] == 154
    assert (run / "report.html").exists()
    assert run_here(["demo", "smells"]) == 2
