"""Pre-training on text, from words to a Transformers model."""

from __future__ import annotations

import json
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from transformers import AutoModel, AutoTokenizer

import data2vec2
from data2vec2.interop.folder import load_encoder
from data2vec2.modalities import spec_of
from data2vec2.modalities.text import corpus, wordnet_glosses
from data2vec2.modalities.text.files import find_text
from tests.integration.helpers import SMALL, Child, assert_same_run, last_step, run_here, words
from tests.unit.reporting.pages import read_page

UPDATES = 20
FLAGS = (
    *SMALL,
    *words(f"--train.updates {UPDATES} --train.log-every 1 --train.save-every 4 --train.eval-every 10"),
    *words("--train.batch-size 4 --model.modality.max-tokens 32 --model.decoder.projection-depth 1"),
)
"""With two layers of N(0, 0.02), predictions of so small a decoder start below the collapse alarm's floor."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "text"
    folder.mkdir()
    for name in ("README.md", "CONTRIBUTING.md"):
        shutil.copy(name, folder / f"{name}.txt")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path, cache: Path) -> Path:
    """The uninterrupted run, whose tokenizer is made from the text."""
    run = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        assert run_here(["pretrain", "text_tiny", data, "--out", run, *FLAGS]) == 0
    return run


def test_a_killed_run_that_is_resumed_ends_with_the_same_bits(tmp_path: Path, data: Path, whole: Path) -> None:
    """Even if the cached tokenizer and corpus are gone by then."""
    run = tmp_path / "run"
    arguments = ["pretrain", "text_tiny", data, "--out", run, *FLAGS]
    child = Child(arguments, tmp_path / "out")
    child.until(lambda: last_step(run) >= 6)
    child.signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, child.output
    cached = Path(yaml.safe_load((run / "config.yaml").read_text())["data"]["tokenizer"])
    shutil.rmtree(cached.parent)
    assert run_here([*arguments, "--resume"]) == 0
    assert_same_run(run, whole, UPDATES)


def test_with_a_validation_set_all_of_the_data_is_trained_on(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And all of the other is held out, though without labels nothing is scored, which is said."""
    run = tmp_path / "run"
    start = ["pretrain", "text_tiny", data, "--out", run, *FLAGS, "--train.updates", 2]

    def parts(*flags: object) -> tuple[int, int]:
        assert run_here([*start, *flags]) == 0
        said = " ".join(capsys.readouterr().err.split())
        assert "training is not scored without classes" in said and "are not used" not in said
        held, trained = re.findall(r" ([\d]+) held out for validation.* plan: (\d+) texts", said)[0]
        return int(trained), int(held)

    trained, held = parts("--dry-run")
    assert 0 < held < 20 < trained
    every = trained + held + 1  # at the border between the parts one is lost
    assert parts("--val", data) == parts("--val", data, "--resume") == (every, every)


def test_the_run_folder(whole: Path) -> None:
    config = yaml.safe_load((whole / "config.yaml").read_text())
    tokenizer = AutoTokenizer.from_pretrained(whole / "tokenizer")
    assert config["model"]["modality"]["vocab_size"] == len(tokenizer)
    with np.load(whole / "masks.npz") as arrays:
        tokens, keep_ids = arrays["tokens"], arrays["keep_ids"]
    assert tokens.shape == (4, 32) and keep_ids.shape == (4, 4, int(32 * (1 - 0.6)))
    assert (tokens[:, 0] == "<s>").all()
    assert json.loads((whole / "split.json").read_text())["validation"]
    assert (whole / "report.html").is_file()


def test_auto_model_gives_the_exported_encoder_and_padding_changes_nothing(whole: Path, tmp_path: Path) -> None:
    exported = whole / "exported"
    tokenizer, model = AutoTokenizer.from_pretrained(exported), AutoModel.from_pretrained(exported)
    assert isinstance(model, data2vec2.Data2Vec2TextModel)
    encoder, info = load_encoder(exported)
    assert info.model.modality.kind == "text" and info.data.kind == "text"
    texts = ["Pre-train on your own text.", "Pre-train"]
    with torch.no_grad():
        together = model(**tokenizer(texts, padding=True, return_tensors="pt"), output_hidden_states=True)
        for row, text in enumerate(texts):
            ids = tokenizer(text, return_tensors="pt").input_ids
            alone = encoder(ids)
            real = together.last_hidden_state[row, : ids.shape[1]]
            assert (real - alone.features_NTD[0]).abs().max() < 1e-5
            assert (together.pooler_output[row] - alone.pooled()[0]).abs().max() < 1e-5
    assert len(together.hidden_states) == 3
    model.save_pretrained(tmp_path / "again")
    again = AutoModel.from_pretrained(tmp_path / "again")
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))


def test_a_tokenizer_of_ones_own(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["tokenizer", "train", data, "--out", tmp_path / "tokenizer", "--vocab-size", 300]
    assert run_here([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["vocab_size"] == 300
    assert run_here(command) == 1
    assert "is not empty" in capsys.readouterr().err
    start = ["pretrain", "text_tiny", data, "--out", tmp_path / "run", *FLAGS, "--data.tokenizer"]
    assert run_here([*start, tmp_path / "tokenizer", "--dry-run"]) == 0
    shown = capsys.readouterr().err
    assert "vocabulary of 300" in shown and "kept tokens (16, 12)" in shown
    assert run_here([*start, tmp_path / "nothing"]) == 1
    assert "data2vec2 tokenizer train" in capsys.readouterr().err
    assert run_here([*start, tmp_path / "tokenizer", "--model.modality.vocab-size", 280]) == 1
    assert "room for 280" in capsys.readouterr().err


def test_a_tokenizer_that_can_not_be_made(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty.csv").write_text("text\n")
    for source, out, said in (
        (data, "file/new", "can't write"),
        (tmp_path / "empty.csv", "new", "holds no text to learn from"),
        (tmp_path / "file", "new", "no text in"),
    ):
        assert run_here(["tokenizer", "train", source, "--out", tmp_path / out, "--vocab-size", 300]) == 1
        assert said in capsys.readouterr().err
    assert run_here(["pretrain", "text_tiny", tmp_path / "empty.csv", "--out", tmp_path / "run", *FLAGS]) == 1
    assert "has 0 tokens of text" in capsys.readouterr().err
    for flags in (["--vocab-size", 300], ["--text-column", "body"], ["--encoding", "cp1252"]):
        assert run_here(["tokenizer", "original", data, "--out", tmp_path / "new", *flags]) == 2
        assert f"{flags[0]} is for tokenizer train" in capsys.readouterr().err


def test_a_vocabulary_is_made_of_evenly_spread_pieces_of_long_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken() -> str:
        return " ".join(corpus.sampled_texts(find_text(tmp_path)["train"], "text", "line", lambda *_: None))

    for name, word in (("a.txt", "first"), ("b.txt", "other"), ("c.txt", "third")):
        (tmp_path / name).write_text(f"{word}\n" * 1_000)
    assert [taken().count(word) for word in ("first", "other", "third")] == [1_000] * 3
    monkeypatch.setattr(corpus, "LEARNED", 1_800)  # a tenth of the bytes
    assert [taken().count(word) for word in ("first", "other", "third")] == pytest.approx([120] * 3, abs=2)


def test_another_tokenizer_is_refused_on_resume(
    tmp_path: Path, data: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(["tokenizer", "train", data, "--out", tmp_path / "other", "--vocab-size", 300]) == 0
    resume = ["pretrain", "text_tiny", data, "--out", whole, *FLAGS, "--resume", "--data.tokenizer"]
    assert run_here([*resume, tmp_path / "other"]) == 1
    assert "can't change on --resume" in capsys.readouterr().err


def test_a_run_is_scored_and_shown(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pq.read_table(wordnet_glosses() / "test.parquet").take(list(range(0, 6_000, 15)))
    pq.write_table(table, tmp_path / "table.parquet")
    run = shutil.copytree(whole, tmp_path / "run")
    assert run_here(["evaluate", run, tmp_path / "table.parquet", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert json.loads((run / "scores.json").read_text()) == scores
    page = read_page(run / "report.html")
    assert page.errors == []
    for heading in ("Scores", "Masks", "Nearest neighbours", "Map of samples"):
        assert heading in page.headings
    assert "can't be shown" not in page.text
    assert "Blocks seen" in page.text


def test_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = spec_of("text").demo.evaluation
    tuned = replace(asked["finetune"], train=replace(asked["finetune"].train, updates=2, processes=1))
    for name, value in {"max_samples": 6_222, "labels": (3,), "seeds": 1, "finetune": tuned}.items():
        monkeypatch.setitem(asked, name, value)
    flags = words("--train.updates 4 --train.eval-every 0 --train.batch-size 4 --model.modality.vocab-size 1000")
    assert run_here(["demo", "text", "--out", tmp_path / "run", *SMALL, *flags]) == 0
    printed, said = capsys.readouterr()
    assert "data2vec 2.0 learns from 110,806 explanations of words, without labels" in said
    assert "Accuracy on 6,222 test texts, in percent" in printed
    assert "words (TF-IDF)" in printed
    assert "labels per class" in printed
    own, longer = printed.split("The same of a bundled model of text_tiny, trained for 3,600 updates, ten minutes")
    table = [
        [line for line in part.splitlines() if line.startswith(name)]
        for part in (own, longer)
        for name in ("data2vec2", "random initialisation", "words (TF-IDF)", "majority class")
    ]
    assert table[0] != table[4], "two models"
    assert table[1:4] == table[5:], "the same baselines"
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert len(scores["classes"]) == 10
    assert {(curve["features"], curve["probe"]) for curve in scores["curves"]} >= {
        (features, probe)
        for features in ("data2vec2", "random initialisation", "words (TF-IDF)")
        for probe in ("knn", "linear")
    } | {("data2vec2", "finetune"), ("random initialisation", "finetune")}
    assert (tmp_path / "run" / "report.html").is_file()
