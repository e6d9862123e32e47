"""finetune answers on real explanations of words: from training to evaluate, predict, export and Transformers."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

import data2vec2
from data2vec2.evaluation.answers import agreement
from data2vec2.interop.folder import load_model
from data2vec2.method.heads import AnswerFinder
from data2vec2.modalities.text import wordnet_glosses
from data2vec2.modalities.text.config import TextConfig, TextDataConfig
from data2vec2.modalities.text.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from tests.integration.helpers import run_here
from tests.integration.test_dense import exported, said, tuned
from tests.pages import ROOT

LIKELY, NOTHING = "sentence that shares most words with the question", "no answer"


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the documentation's example writes, fewer of it; some of the contexts are longer than a window."""
    folder = tmp_path_factory.mktemp("asked") / "data"
    runpy.run_path(str(ROOT / "docs/examples/asked_data.py"))["write"](folder, {"train": 1_200, "test": 200})
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, asked: Path) -> tuple[Path, dict[str, Any]]:
    place = tmp_path_factory.mktemp("answers")
    texts = pq.read_table(wordnet_glosses() / "test.parquet").to_pydict()["text"]
    save_tokenizer(train_tokenizer(texts, 1_500), place / "tokenizer")
    modality = TextConfig(vocab_size=load_tokenizer(place / "tokenizer").size, max_tokens=48)
    model = exported(place / "model", modality, TextDataConfig(tokenizer=str(place / "tokenizer")))
    flags = "--train.updates 120 --train.batch-size 2048 --optim.lr 0.01"
    return place / "run", tuned("answers", model, asked, place / "run", flags)


def questions(path: Path) -> list[dict[str, Any]]:
    data = json.loads(path.read_text())["data"]
    return [{**one, "context": text["context"]} for text in data[0]["paragraphs"] for one in text["qas"]]


def test_answers_from_training_to_predictions(
    run: tuple[Path, dict[str, Any]], asked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, scores = run
    assert (scores["part"], scores["samples"], scores["without_answer"]) == ("test", 400, 100)
    assert scores["windows"] > 400
    assert [row["name"] for row in scores["baselines"]] == [LIKELY, NOTHING]
    assert scores["word_f1"] > max(row["word_f1"] for row in scores["baselines"]) + 0.1
    assert scores["word_f1"] >= scores["exact_match"]
    (again,) = said(capsys, "evaluate", folder, asked)
    same = ("word_f1", "exact_match", "intervals", "baselines", "windows")
    assert {key: again[key] for key in same} == {key: scores[key] for key in same}
    rows, found = questions(asked / "test.json"), said(capsys, "predict", folder, asked / "test.json")
    agreed = []
    for row, one in zip(rows, found, strict=True):
        (part,) = one["parts"]
        assert (part["id"], part["question"]) == (row["id"], row["question"])
        assert row["context"][part["start"] : part["end"]] == part["answer"]
        assert 0 < part["probability"] <= 1
        agreed.append(agreement(part["answer"], [answer["text"] for answer in row["answers"]]))
    exact, f1 = (sum(column) / len(agreed) for column in zip(*agreed, strict=True))
    assert (exact, f1) == pytest.approx((scores["exact_match"], scores["word_f1"]))
    assert run_here(["predict", folder, asked / "test.json"]) == 0
    line = capsys.readouterr().out.splitlines()[0].split("\t")
    assert line[1:3] == [rows[0]["id"], rows[0]["question"]]
    page, card = (folder / "report.html").read_text(), (folder / "exported" / "README.md").read_text()
    assert all(name in page and name in card for name in (LIKELY, NOTHING, "exact match", "F1 of words"))
    assert "mistakes.npz" not in page
    assert "0 classes" not in page
    assert "pipeline_tag: question-answering" in card


def test_answers_in_transformers_and_in_python(
    run: tuple[Path, dict[str, Any]], asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run[0] / "exported"
    theirs, tokenizer = (kind.from_pretrained(folder) for kind in (AutoModelForQuestionAnswering, AutoTokenizer))
    ours, info = load_model(folder)
    assert isinstance(ours, AnswerFinder)
    assert (info.what, info.unanswerable, theirs.config.unanswerable) == ("question answerer", True, True)
    short = [row for row in questions(asked / "test.json") if row["answers"] and len(row["context"]) < 60][:6]
    pairs = [(row["question"], row["context"]) for row in short]
    inputs = tokenizer(*map(list, zip(*pairs, strict=True)), padding=True, return_tensors="pt")
    with torch.no_grad():
        found = theirs(**inputs)
        logits = ours(inputs["input_ids"], inputs["attention_mask"].sum(1))
    real = inputs["attention_mask"].bool()
    assert torch.equal(torch.stack([found.start_logits, found.end_logits], dim=-1)[real], logits[real])
    told = [one.parts[0] for one in data2vec2.load(folder).predict(pairs)]
    assert any(part["answer"] for part in told)
    snippet = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert snippet
    program = tmp_path / "card.py"
    program.write_text(snippet[1].replace('"PATH"', repr(str(folder))))
    for (question, context), part in zip(pairs, told, strict=True):
        if part["answer"]:
            capsys.readouterr()
            runpy.run_path(str(program), {"question": question, "context": context})
            assert capsys.readouterr().out.strip() == part["answer"], "the card's code says what predict says"
            break
    theirs.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    assert data2vec2.load(tmp_path / "saved").predict(pairs)[0].parts[0] == pytest.approx(told[0])


def test_a_new_head_learns_by_positions(run: tuple[Path, dict[str, Any]]) -> None:
    model = run[0].parent / "model"
    network, tokenizer = AutoModelForQuestionAnswering.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    inputs = tokenizer(["Who?", "What is it?"], ["Ada wrote it", "an act"], padding=True, return_tensors="pt")
    ends = {"start_positions": torch.tensor([8, 0]), "end_positions": torch.tensor([9, 0])}
    with torch.no_grad():
        alone = [
            network(
                **{n: v[k : k + 1, : int(inputs["attention_mask"][k].sum())] for n, v in inputs.items()},
                **{n: v[k : k + 1] for n, v in ends.items()},
            ).loss
            for k in (0, 1)
        ]
        assert network(**inputs, **ends).loss == pytest.approx(float(sum(alone)) / 2, rel=1e-5), (
            "padding counts nothing"
        )
    optimiser, losses = torch.optim.Adam(network.parameters(), lr=0.01), []
    for _ in range(12):
        optimiser.zero_grad()
        losses.append(network(**inputs, **ends).loss)
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < losses[0] / 2


def test_other_programs_and_what_is_refused(
    run: tuple[Path, dict[str, Any]], asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = run[0], ("--out", tmp_path / "run")

    def refused(*arguments: object) -> str:
        capsys.readouterr()
        assert run_here(arguments) in (1, 2)
        return str(capsys.readouterr().err)

    assert run_here(["export", folder, tmp_path / "program", "--to", "torch"]) == 0
    assert "`start_logits`, `end_logits`" in (tmp_path / "program" / "README.md").read_text()
    assert "--int8 measures its drop" in refused("export", folder, tmp_path / "onnx", "--int8", "--data", asked)
    assert "it has no question answerer" in refused("convert", folder, tmp_path / "x.pt", "--to", "fairseq")
    assert "is a question answerer" in refused("evaluate", folder, asked, "--labels", "5")
    few = ("--data.labels-per-class", "5")
    assert "is for classes of samples" in refused("finetune", "answers", folder, asked, *out, *few)
    named = ("--data.text-columns", "ask", "text", "--data.label-column", "said")
    assert "no table: leave the columns ask, text, said out" in refused(
        "finetune", "answers", folder, asked, *out, *named
    )
    pooling = ("--model.pooling", "first" if "mean" in (folder / "config.yaml").read_text() else "mean")
    assert "--model.pooling is" in refused("finetune", "answers", folder, asked, *out, *pooling)
    none = tmp_path / "none.jsonl"
    none.write_text('{"question": "?", "context": "a", "answers": {"text": [], "answer_start": []}}\n' * 30)
    assert "no question of" in refused("finetune", "answers", folder, none, *out)
    texts = tmp_path / "texts.txt"
    texts.write_text("an act\n")
    assert "has not the columns question, context" in refused("predict", folder, texts)
    assert not (tmp_path / "run").exists()
