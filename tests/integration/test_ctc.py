"""finetune ctc and finetune classify on real recordings."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from data2vec2.data.letters import Letters
from data2vec2.interop.folder import load_classifier, load_encoder, load_recognizer
from data2vec2.modalities import read_finetune_config
from tests.integration.helpers import (
    Child,
    assert_same_run,
    assert_same_tensors,
    files,
    last_step,
    metrics,
    run_here,
    words,
)
from tests.integration.speech import FLAGS, spoken_folder, tiny_encoder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("model") / "exported")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return spoken_folder(tmp_path_factory.mktemp("data") / "digits")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: Path, data: Path) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    child = start(run, model, data)
    assert child.wait() == 0, child.output
    return run


def start(run: Path, model: Path, data: Path, *flags: object) -> Child:
    return Child(["finetune", "ctc", model, data, "--out", run, *FLAGS, *flags], run.with_suffix(".out"))


def here(task: str, model: object, data: object, run: Path, *flags: object) -> int:
    return run_here(["finetune", task, model, data, "--out", run, *FLAGS, *flags])


def test_what_a_run_leaves_behind(whole: Path) -> None:
    left = {"config.yaml", "split.json", "metrics.jsonl", "train.log", "status.json", "scores.json", "report.html"}
    assert left | {"transcripts.jsonl", "exported/vocab.json", "exported/tokenizer_config.json"} <= files(whole)
    scores = json.loads((whole / "scores.json").read_text())
    assert (scores["kind"], scores["part"], scores["samples"]) == ("ctc", "test", 10)
    edits = scores["characters"]
    total = edits["substitutions"] + edits["insertions"] + edits["deletions"]
    assert scores["cer"] == pytest.approx(total / edits["length"])
    rows = [json.loads(line) for line in (whole / "transcripts.jsonl").read_text().splitlines()]
    assert len(rows) == 10
    assert set(rows[0]) == {"name", "reference", "hypothesis", "cer", "part", "update"}
    assert {"val_loss", "val_cer", "val_wer", "val_letter_accuracy"} <= set().union(*metrics(whole))
    recognizer, info = load_recognizer(whole / "exported")
    assert info.letters is not None
    assert recognizer.head.out_features == len(info.letters)
    assert json.loads((whole / "exported" / "config.json").read_text())["architectures"] == ["Data2Vec2AudioForCTC"]
    losses = [line["loss"] for line in metrics(whole) if "loss" in line]
    assert losses[-1] < losses[0] / 2


def test_kills_and_resume_end_with_the_same_bits(tmp_path: Path, model: Path, data: Path, whole: Path) -> None:
    run = tmp_path / "run"
    for number, aim in enumerate((2, 7)):  # before the first checkpoint, and after the first best model
        child = start(run, model, data, *(["--resume"] if number else []))
        child.until(lambda: last_step(run) >= aim)  # noqa: B023
        child.signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL, child.output
    assert run_here(["finetune", "ctc", model, data, "--out", run, "--resume"]) == 0  # the run's own flags
    assert_same_run(run, whole, 12)
    best = next((whole / "best").iterdir()).name
    assert_same_tensors(run / "best" / best / "model.safetensors", whole / "best" / best / "model.safetensors")
    for name in ("scores.json", "transcripts.jsonl"):
        assert (run / name).read_text() == (whole / name).read_text()


def test_letters_that_have_changed_are_said_on_resume(
    tmp_path: Path, model: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, of = tmp_path / "run", Letters.of
    assert here("ctc", model, data, run, "--train.updates", 1) == 0
    monkeypatch.setattr(Letters, "of", lambda texts: of([*texts, "\u00fe"]))
    assert here("ctc", model, data, run, "--train.updates", 1, "--resume") == 1
    assert "this version normalises transcripts otherwise; start a new run" in capsys.readouterr().err


def test_two_processes_learn_as_one(tmp_path: Path, model: Path, data: Path) -> None:
    """Without masks, whose noise differs from process to process, only the order of sums is another."""
    losses = []
    for processes in (1, 2):
        run = tmp_path / str(processes)
        flags = ("--train.processes", processes, "--masks.time-share", 0, "--train.updates", 4)
        flags = (*flags, "--model.freeze-updates", 2)
        child = start(run, model, data, *flags)
        assert child.wait() == 0, child.output
        assert "find_unused_parameters" not in child.output  # after the thaw nothing is left out
        losses.append([line["loss"] for line in metrics(run) if "loss" in line])
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_flags_from_scratch_and_few_minutes(tmp_path: Path, model: Path, data: Path) -> None:
    flags = words(
        "--from-scratch --data.max-minutes 0.2 --data.min-seconds 0.5 --train.updates 3 --train.seed 2 "
        "--model.dropout 0.1 --model.activation-dropout 0.1 --model.layer-drop 0.2 --model.freeze-updates 0 "
        "--masks.time-share 0.5 --masks.time-length 3 --masks.channel-share 0.5 --masks.channel-length 4 "
        "--masks.noise-std 0.1 --optim.schedule linear --data.max-bad 0.1 --json"
    )
    run = tmp_path / "run"
    assert here("ctc", model, data, run, *flags) == 0
    task = read_finetune_config(yaml.safe_load((run / "config.yaml").read_text())).task
    assert (task.model.freeze_updates, task.model.layer_drop, task.masks.time_length) == (0, 0.2, 3)
    assert 0 < json.loads((run / "scores.json").read_text())["minutes"] <= 0.2


def test_dry_run_writes_nothing(tmp_path: Path, model: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert here("ctc", model, data, tmp_path / "run", "--dry-run") == 0
    assert "first batch: recordings" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_without_transcript_and_too_long_are_left_out(tmp_path: Path, model: Path) -> None:
    folder = spoken_folder(tmp_path / "data", train=30, test=3)
    table = (folder / "metadata.csv").read_text().splitlines()
    name = table[1].split(",")[0]
    (folder / "metadata.csv").write_text("\n".join([table[0], f"{name},", *table[2:]]) + "\n")
    run = tmp_path / "run"
    flags = ("--train.updates", 1, "--data.max-seconds", 1, "--data.val-fraction", 0)
    assert here("ctc", model, folder, run, *flags) == 0
    account = json.loads((run / "data.json").read_text())["parts"]["train"]
    assert "too long" in account["left_out"].values()
    assert not (run / "best").exists()


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--from-scratch", "--model.freeze-updates", "2"], 2, "--model.freeze-updates is 2, but nothing is learned"),
        (["--from-scratch", "--model.freeze-stem"], 2, "--model.freeze-stem is True, but nothing is learned"),
        (["--recipe", "audio_classify_tiny"], 2, "not for this task; there are ctc_tiny"),
        (["--recipe", "ctc_tini"], 2, "did you mean 'ctc_tiny'"),
        (["--masks.channel-length", "64"], 2, "masks.channel_length is 64"),
        (["--data.max-minutes", "0.001"], 1, "is too little"),
        (["--model.pooling", "linear_softmax"], 2, "--model.pooling is linear_softmax, but nothing"),
        (["--data.gaps", "ignore"], 2, "--data.gaps is ignore, but nothing"),
        (["--data.labels-per-class", "3"], 2, "of transcripts, --data.max-minutes takes some"),
        (["--data.min-seconds", "4"], 1, "too short"),
        (["--train.batch-size", "4", "--train.micro-batch", "2"], 2, "train.batch_size is 4"),
    ],
)
def test_mistakes_in_flags_are_said(
    tmp_path: Path, model: Path, data: Path, flags: list[str], code: int, message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert here("ctc", model, data, tmp_path / "run", *flags) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_librispeech_as_it_is_unpacked(
    tmp_path: Path, model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = list(csv.DictReader((data / "metadata.csv").open(encoding="utf-8")))
    corpus, run = tmp_path / "LibriSpeech", tmp_path / "run"
    for number, row in enumerate(rows):
        part = (
            "test-clean" if row["file_name"].startswith("test/") else ("train-clean-100", "dev-clean")[number % 4 == 0]
        )
        chapter = corpus / part / "19" / "198"
        chapter.mkdir(parents=True, exist_ok=True)
        wave, rate = soundfile.read(data / row["file_name"], dtype="int16")
        soundfile.write(chapter / f"19-198-{number:04}.flac", wave, rate)
        with (chapter / "19-198.trans.txt").open("a", encoding="utf-8") as file:
            file.write(f"19-198-{number:04} {row['transcription'].upper()}\n")
    assert here("ctc", model, corpus, run, "--train.updates", 3) == 0
    assert "30 train, 10 val, 10 test" in (said := capsys.readouterr().err)
    assert "transcripts from 3 .trans.txt files" in said
    assert json.loads((run / "scores.json").read_text())["samples"] == 10
    assert run_here(["evaluate", run, corpus / "test-clean", "--device", "cpu", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert (scores["samples"], scores["skipped"]) == (10, {})
    assert run_here(["inspect", corpus]) == 0
    assert f"19-198-0001.flac: {rows[1]['transcription'].lower()}" in capsys.readouterr().out


def test_no_transcripts_are_said(tmp_path: Path, model: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert here("ctc", model, data / "train", tmp_path / "run") == 1
    assert "has no transcripts" in capsys.readouterr().err


def test_a_recipe_for_pictures_is_refused(
    tmp_path: Path, model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["finetune", "ctc", model, data, "--out", tmp_path / "run", "--recipe", "image_finetune_tiny"]
    assert run_here(command) == 2
    assert "image_finetune_tiny is a recipe for image" in capsys.readouterr().err


@pytest.mark.parametrize("pooling", ["mean", "linear_softmax"])
def test_classes_of_recordings(tmp_path: Path, model: Path, pooling: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = spoken_folder(tmp_path / "data", ("digits", "letters"), 20, 5)
    run = tmp_path / "run"
    assert here("classify", model, folder, run, "--train.updates", 4, "--model.pooling", pooling) == 0
    scores = json.loads((run / "scores.json").read_text())
    assert (scores["part"], scores["samples"], scores["classes"]) == ("test", 10, ["digits", "letters"])
    assert load_classifier(run / "exported")[1].pooling == pooling
    assert load_encoder(run / "exported")[1].model.modality.kind == "audio"
    capsys.readouterr()
    digits = sorted((folder / "test" / "digits").iterdir())
    waves = [soundfile.read(path, dtype="float32")[0] for path in digits]
    soundfile.write(folder / "test" / "long.wav", np.resize(np.concatenate(waves), 70 * 16_000), 16_000)
    assert run_here(["predict", run, folder / "test"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 11


def test_few_minutes_of_classes(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, minutes = spoken_folder(tmp_path / "data", ("digits", "letters"), 20, 5), "--data.max-minutes"
    for seed in (1, 2):
        flags = ("--train.updates", 1, "--train.seed", seed, minutes, 0.3)
        assert here("classify", model, folder, tmp_path / f"run{seed}", *flags) == 0
    accounts = [json.loads((tmp_path / f"run{seed}" / "data.json").read_text())["parts"]["train"] for seed in (1, 2)]
    for account in accounts:
        assert account["left_out_as_asked"][minutes] == account["found"] - account["used"] > 0
    assert 0 < json.loads((tmp_path / "run1" / "scores.json").read_text())["labels"] == accounts[0]["used"]
    assert here("classify", model, folder, tmp_path / "few", "--model.dropout", 0.3) == 2
    assert "--model.dropout is 0.3, but nothing would be done with it here; leave it out" in capsys.readouterr().err
    assert here("classify", model, folder, tmp_path / "few", minutes, 0.03) == 1
    assert "draws recordings of one class; give more" in capsys.readouterr().err


def test_curves_of_few_labels(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of the probes, and with a run's configuration those of fine-tuning from the model and from scratch."""
    folder, run = spoken_folder(tmp_path / "data", ("digits", "letters"), 20, 5), tmp_path / "run"
    assert here("classify", model, folder, run, "--train.updates", 2) == 0
    capsys.readouterr()
    flags = ["--probes", "knn", "--labels", "2,4", "--seeds", 1, "--finetune", run / "config.yaml", "--json"]
    assert run_here(["evaluate", model, folder, *flags]) == 0
    curves = json.loads(capsys.readouterr().out)["curves"]
    assert {(curve["features"], curve["probe"]) for curve in curves} >= {
        ("data2vec2", "finetune"),
        ("random initialisation", "finetune"),
    }
    assert all(0 <= value <= 1 for curve in curves for value in curve["mean"])
    assert all(curve["labels"] == [2, 4] for curve in curves)


def test_tags_of_recordings(tmp_path: Path, model: Path) -> None:
    folder = spoken_folder(tmp_path / "data", train=30, test=6)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.ogg"))
    rows = [f"{name},{'even|all' if place % 2 else 'all'}" for place, name in enumerate(names)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,labels", *rows]) + "\n")
    run = tmp_path / "run"
    assert here("classify", model, folder, run, "--train.updates", 4, "--model.pooling", "linear_softmax") == 0
    assert "map" in json.loads((run / "scores.json").read_text())
    assert load_classifier(run / "exported")[1].multi_label


def test_it_learns_to_write_digits_down(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], seed: int = 0
) -> None:
    """Eight recordings by heart: chance writes nothing, an error rate of 1."""
    folder, run = spoken_folder(tmp_path / "data", train=8, test=0), tmp_path / "run"
    flags = words(
        f"--train.updates 150 --train.seed {seed} --train.log-every 50 --train.eval-every 0 --train.save-every 150 "
        "--optim.lr 5e-3 --optim.warmup-updates 20 --masks.time-share 0 --masks.channel-share 0 "
        "--model.freeze-updates 0 --data.val-fraction 0"
    )
    assert here("ctc", model, folder, run, *flags) == 0
    capsys.readouterr()
    assert run_here(["evaluate", run, folder, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["samples"] == 8
    assert scores["cer"] < 0.3
