"""finetune classify, finetune regress and predict on tables of real texts."""

from __future__ import annotations

import gzip
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from sklearn.metrics import f1_score, matthews_corrcoef

from data2vec2.config.model import ArchitectureConfig, EncoderConfig
from data2vec2.config.run import FinetuneConfig
from data2vec2.config.tree import to_dict
from data2vec2.interop.folder import export_model, load_classifier, load_encoder
from data2vec2.modalities import read_finetune_config
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.fields import build_encoder
from data2vec2.modalities.text import wordnet_glosses
from data2vec2.modalities.text.config import TextConfig, TextDataConfig
from data2vec2.modalities.text.recipes import FINETUNE
from data2vec2.modalities.text.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from tests.integration.helpers import Child, assert_same_run, last_step, run_here, scores, words, write_csv

TABLE = pq.read_table(wordnet_glosses() / "test.parquet").to_pydict()
PLANTS = [text for text, label in zip(TABLE["text"], TABLE["label"], strict=True) if label == "plant"]
PEOPLE = [text for text, label in zip(TABLE["text"], TABLE["label"], strict=True) if label == "person"]
PAIRS = zip(((text, "plant") for text in PLANTS), ((text, "person") for text in PEOPLE), strict=False)
ROWS = [row for pair in PAIRS for row in pair]
FLAGS = words(
    "--train.updates 40 --train.batch-size 512 --train.log-every 1 --train.eval-every 10 --train.save-every 7 "
    "--train.precision float32 --train.device cpu --train.processes 1 --data.val-fraction 0.2 --optim.lr 0.01"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder that takes a few milliseconds a step."""
    place = tmp_path_factory.mktemp("model")
    save_tokenizer(train_tokenizer([text for text, _ in ROWS], 600), place / "tokenizer")
    shape = ArchitectureConfig(
        modality=TextConfig(vocab_size=load_tokenizer(place / "tokenizer").size, max_tokens=32),
        encoder=EncoderConfig(embed_dim=16, num_heads=2, prenet_depth=0, depth=2),
    )
    torch.manual_seed(7)
    info = ModelInfo(model=shape, data=TextDataConfig(tokenizer=str(place / "tokenizer")))
    export_model(build_encoder(shape), info, place / "exported", "")
    return place / "exported"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, one row without a text and one without a label."""
    folder = tmp_path_factory.mktemp("texts") / "texts"
    write_csv(folder / "train.csv", [*ROWS[:600], ("", "plant"), ("no label", "")])
    write_csv(folder / "test.csv", ROWS[600:800])
    return folder


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """How long a text is, in a unit in which the mean is far from 0."""
    folder = tmp_path_factory.mktemp("numbers") / "numbers"
    rows = [(text, 1000 + 7 * len(text)) for text, _ in ROWS]
    write_csv(folder / "train.csv", rows[:600], ("text", "score"))
    write_csv(folder / "test.csv", rows[600:800], ("text", "score"))
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: Path, data: Path) -> Path:
    """An uninterrupted run."""
    run = tmp_path_factory.mktemp("whole") / "run"
    child = start(run, model, data)
    assert child.wait() == 0, child.output
    return run


def start(run: Path, model: Path, data: Path, *flags: object) -> Child:
    return Child(["finetune", "classify", model, data, "--out", run, *FLAGS, *flags], run.with_suffix(".out"))


def here(task: str, model: object, data: object, run: Path, *flags: object) -> int:
    return run_here(["finetune", task, model, data, "--out", run, *FLAGS, *flags])


@pytest.mark.parametrize("layout", ["folders", "fasttext", "json"])
def test_texts_as_people_have_them(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], layout: str
) -> None:
    """One file a text in folders of classes, fastText's lines in a compressed file, a list in JSON: the same scores."""
    data = tmp_path / "data"
    for part, rows in (("train", ROWS[:300]), ("test", ROWS[300:380])):
        for place, (text, label) in enumerate(rows):
            path = data / part / label / f"{place:03}_9.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            if layout == "folders":
                path.write_text(text, "utf-8")
        if layout == "fasttext":
            lines = "".join(f"__label__{label} {text}\n" for text, label in rows)
            (data / f"{part}.txt.gz").write_bytes(gzip.compress(lines.encode()))
        if layout == "json":
            (data / f"{part}.json").write_text(json.dumps({"data": [{"text": a, "label": b} for a, b in rows]}))
    assert here("classify", model, data, tmp_path / "run") == 0
    assert (scores(tmp_path / "run")["samples"], scores(tmp_path / "run")["classes"]) == (80, ["person", "plant"])
    assert scores(tmp_path / "run")["accuracy"] > 0.6
    found = predicted(capsys, tmp_path / "run", data)
    assert len(found) == 380 and {Path(one["name"]).name for one in found} & {
        "000_9.txt",
        "train.txt.gz[0]",
        "train.json[0]",
    }


def predicted(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert run_here(["predict", *arguments, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_scores_are_those_of_the_exported_model(whole: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, log = scores(whole), (whole / "train.log").read_text()
    assert (found["part"], found["samples"], found["classes"]) == ("test", 200, ["person", "plant"])
    assert found["accuracy"] > 0.7, "half of the texts are of each class"
    said = predicted(capsys, whole, data / "test.csv")
    truth = [label for _, label in ROWS[600:800]]
    given = [next(iter(row["classes"])) for row in said]
    assert [row["name"] for row in said] == [f"{data / 'test.csv'}[{place}]" for place in range(200)]
    assert found["accuracy"] == pytest.approx(np.mean([a == b for a, b in zip(given, truth, strict=True)]))
    assert found["f1"] == pytest.approx(f1_score(truth, given, pos_label="plant"))
    assert found["matthews"] == pytest.approx(matthews_corrcoef(truth, given))
    for name in ("val_accuracy", "val_f1", "val_matthews"):
        assert name in log
    assert "test texts fill all 32 tokens; what is longer is cut" in (whole / "data.json").read_text()
    with np.load(whole / "mistakes.npz", allow_pickle=False) as wrong:
        assert set(wrong["texts"].tolist()) <= {text[:300] + "…" * (len(text) > 300) for text, _ in ROWS[600:800]}
        assert len(wrong["texts"])
    page = (whole / "report.html").read_text()
    assert "Matthews" in page and "Confusion matrix" in page


def test_kills_and_resume_end_with_the_same_bits(tmp_path: Path, model: Path, data: Path, whole: Path) -> None:
    run = tmp_path / "run"
    for number, aim in enumerate((9, 24)):
        child = start(run, model, data, *(["--resume"] if number else []))
        child.until(lambda: last_step(run) >= aim)  # noqa: B023
        child.signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL, child.output
    assert run_here(["finetune", "classify", model, data, "--out", run, "--resume"]) == 0
    assert_same_run(run, whole, 40)
    assert scores(run) == scores(whole)


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_pairs_and_the_head_come_back_from_the_export(
    tmp_path: Path, model: Path, pooling: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(one, other, int(a == b)) for (one, a), (other, b) in zip(ROWS[:90], ROWS[1:180:2], strict=False)]
    table = write_csv(tmp_path / "pairs.csv", rows, ("premise", "hypothesis", "label"))
    run = tmp_path / "run"
    assert here("classify", model, table, run, "--model.pooling", pooling, "--train.updates", 4) == 0
    classifier, info = load_classifier(run / "exported")
    assert (classifier.pooling, info.classes) == (pooling, ("0", "1"))
    saved = json.loads((run / "exported" / "config.json").read_text())
    assert saved["architectures"] == ["Data2Vec2TextForSequenceClassification"]
    assert saved["hidden_dropout_prob"] == saved["attention_probs_dropout_prob"] == 0.1
    both = predicted(capsys, run, table, "--top", 2)
    one = predicted(capsys, run, table, "--top", 2, "--text-columns", "premise")
    assert all(sum(row["classes"].values()) == pytest.approx(1) for row in both)
    assert [row["classes"] for row in one] != [row["classes"] for row in both]


def test_predict_reads_the_columns_that_the_model_learned_from(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_csv(
        tmp_path / "a.csv", [("same", text, label) for text, label in ROWS[:100]], ("text", "body", "label")
    )
    run = tmp_path / "run"
    assert here("classify", model, table, run, "--data.text-columns", "body", "--train.updates", 2) == 0
    capsys.readouterr()
    assert run_here(["predict", run, table, "--json"]) == 0
    out, said = capsys.readouterr()
    assert "texts from body as the model learned" in said
    found = [json.loads(line)["classes"] for line in out.splitlines()]
    assert found == [row["classes"] for row in predicted(capsys, run, table, "--text-columns", "body")]
    assert found != [row["classes"] for row in predicted(capsys, run, table, "--text-columns", "text")]
    config = run / "exported" / "config.json"
    fields = json.loads(config.read_text())
    assert fields.pop("text_columns") == ["body"]
    config.write_text(json.dumps(fields))  # as earlier versions wrote it
    assert run_here(["predict", run, table, "--json"]) == 0
    assert "texts from text;" in capsys.readouterr().err


def test_numbers_come_back_in_their_own_unit(
    tmp_path: Path, model: Path, numbers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert here("regress", model, numbers, run) == 0
    found = scores(run)
    assert found["pearson"] > 0.5 and found["spearman"] > 0.5
    assert found["mse"] < found["mse_of_mean"]
    truth = np.array([1000 + 7 * len(text) for text, _ in ROWS[600:800]])
    given = np.array([row["value"] for row in predicted(capsys, run, numbers / "test.csv")])
    assert found["mse"] == pytest.approx(np.square(given - truth).mean(), rel=1e-4)
    assert found["pearson"] == pytest.approx(np.corrcoef(given, truth)[0, 1], rel=1e-4)
    mean = np.mean([1000 + 7 * len(text) for text, _ in ROWS[:600]])
    assert found["mse_of_mean"] == pytest.approx(np.square(truth - mean).mean(), rel=0.02), "a fifth is held out"
    saved = json.loads((run / "exported" / "config.json").read_text())
    assert (saved["problem_type"], saved["id2label"]) == ("regression", {"0": "value"})
    assert "Pearson" in (run / "report.html").read_text()
    assert run_here(["predict", run, numbers / "test.csv"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split("\t") == [f"{numbers / 'test.csv'}[0]", f"{given[0]:.6g}"]
    assert run_here(["evaluate", run, numbers, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["part"], again["samples"], again["skipped"]) == ("test", 200, {})
    assert (
        again["pearson"] == pytest.approx(found["pearson"]) and again["intervals"].keys() == found["intervals"].keys()
    )
    assert run_here(["evaluate", run, numbers / "test.csv"]) == 0
    assert capsys.readouterr().out.startswith(f"pearson {found['pearson']:.4f} (95 % interval ")
    assert run_here(["evaluate", run, numbers, "--probes", "knn"]) == 2
    assert "--probes is for the features of an encoder" in capsys.readouterr().err


def test_every_option(tmp_path: Path, model: Path, numbers: Path, data: Path) -> None:
    rows = [(text, text[::-1], label) for text, label in ROWS[:200]]
    table = write_csv(tmp_path / "odd.csv", rows, ("body", "again", "kind"))
    flags = words(
        "--recipe glue --data.text-columns body again --data.label-column kind --data.labels-per-class 20 "
        "--model.dropout 0 --model.attention-dropout 0.2 --train.updates 3 --from-scratch --data.val-fraction 0"
    )
    assert here("classify", model, table, tmp_path / "run", "--val", table, *flags) == 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["data"]["text_columns"] == ["body", "again"]
    assert config["from_scratch"] is True
    assert (scores(tmp_path / "run")["labels"], scores(tmp_path / "run")["samples"]) == (40, 200)
    encoder = load_classifier(tmp_path / "run" / "exported")[1].model.encoder
    assert (encoder.dropout, encoder.attention_dropout) == (0, 0.2)


def test_half_of_the_start_is_new_where_features_know_less_than_random_ones(
    tmp_path: Path,
    model: Path,
    data: Path,
    whole: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    encoder, info = load_encoder(model)
    torch.nn.init.zeros_(encoder.modality.stem.tokens.weight)  # type: ignore[union-attr, arg-type]
    export_model(encoder, info, tmp_path / "knows-nothing", "")
    for source, share in ((tmp_path / "knows-nothing", 0.5), (whole, 0.0)):
        run = tmp_path / f"run-{share}"
        assert here("classify", source, data, run, "--train.updates", 4, "--train.save-every", 2) == 0
        assert read_run(run).optim.fresh == share
        said = " ".join(capsys.readouterr().err.split())
        assert f"of the validation part; {'new random' if share else 'the start is'}" in said
        assert f"(--optim.fresh {share:g})" in said
        assert here("classify", source, data, run, "--train.updates", 4, "--resume") == 0
        assert "start:" not in capsys.readouterr().err, "the share is kept"


def test_nothing_of_the_start_is_new_for_numbers_or_where_a_few_texts_would_decide(
    tmp_path: Path, model: Path, numbers: Path
) -> None:
    few = write_csv(tmp_path / "few.csv", ROWS[:100])
    for task, given in (("classify", few), ("regress", numbers)):
        assert here(task, model, given, tmp_path / task, "--train.updates", 2) == 0
        assert read_run(tmp_path / task).optim.fresh == 0


def read_run(run: Path) -> FinetuneConfig:
    return read_finetune_config(yaml.safe_load((run / "config.yaml").read_text()))


def test_predict_says_what_it_can_not_read(tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lines.txt").write_text("a small tree\n\na person who sings\n", encoding="utf-8")
    assert run_here(["predict", whole, tmp_path / "lines.txt", "--top", 1, "--batch", 1]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert "lines.txt[1]: no text" in err and "texts from" not in err
    table = write_csv(tmp_path / "table.csv", [("a", "b")], ("text", "note"))
    predicted(capsys, whole, table)
    assert run_here(["predict", whole, table]) == 0
    assert f"data: {table}: texts from text as the model learned; unused columns: note\n" in capsys.readouterr().err


def test_dry_run_writes_nothing(tmp_path: Path, model: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert here("classify", model, data, tmp_path / "run", "--dry-run") == 0
    out, err = capsys.readouterr()
    assert "first batch: texts (" in out + err and "512 tokens" in out + err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("task", "flags", "code", "message"),
    [
        ("classify", ["--data.text-columns", "body"], 1, "has no column 'body'"),
        ("classify", ["--data.text-columns", "a", "b", "c"], 2, "one column, or two"),
        ("classify", ["--data.label-column", "kind"], 1, "has no column 'kind'"),
        ("classify", ["--train.batch-size", "8"], 2, "train.batch_size is 8; it must be at least"),
        ("classify", ["--data.labels-per-class", "0"], 2, "data.labels_per_class"),
        ("classify", ["--model.dropout", "1"], 2, "model.dropout is 1"),
        ("classify", ["--recipe", "ctc_tiny"], 2, "ctc_tiny"),
        ("regress", ["--data.label-column", "label"], 1, "label is 'plant'; for regression"),
        ("regress", ["--data.labels-per-class", "5"], 2, "--data.labels-per-class is for classes"),
        ("ctc", [], 1, "finetune ctc needs a model of audio, but MODEL is one of text"),
    ],
)
def test_mistakes(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    task: str, flags: list[str], code: int, message: str,
) -> None:  # fmt: skip
    out = ["--out", tmp_path / "run"]
    assert run_here(["finetune", task, model, data, *out, *flags]) == code
    error = " ".join(capsys.readouterr().err.replace("|", " ").split())
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_numbers_that_are_all_the_same(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_csv(tmp_path / "same.csv", [(text, 3) for text, _ in ROWS[:50]], ("text", "score"))
    assert here("regress", model, table, tmp_path / "run") == 1
    assert "are 3; there is nothing to learn" in capsys.readouterr().err


@pytest.mark.parametrize("name", FINETUNE)
def test_every_recipe_round_trips(name: str) -> None:
    config = FINETUNE[name]()
    assert config.recipe == name
    assert read_finetune_config(yaml.safe_load(yaml.safe_dump(to_dict(config)))) == config
