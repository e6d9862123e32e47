"""evaluate and embed on tables of real texts, every option of theirs that text has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import data2vec2
from data2vec2.config.model import ArchitectureConfig, EncoderConfig
from data2vec2.errors import UsageError, UserError
from data2vec2.interop.folder import export_model
from data2vec2.method.encoder import Encoder
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.fields import build_encoder
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig
from data2vec2.modalities.text import wordnet_glosses
from data2vec2.modalities.text.config import TextConfig, TextDataConfig
from data2vec2.modalities.text.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from tests.integration.helpers import embedded, run_here, write_csv

DIM, TOKENS = 16, 24
TABLE = pq.read_table(wordnet_glosses() / "test.parquet").to_pydict()
ROWS = sorted(zip(TABLE["text"], TABLE["label"], strict=True), key=lambda row: row[0][::-1])[::12]
"""Every class soon occurs."""


def config(vocab_size: int) -> ArchitectureConfig:
    return ArchitectureConfig(
        modality=TextConfig(vocab_size=vocab_size, max_tokens=TOKENS),
        encoder=EncoderConfig(embed_dim=DIM, num_heads=2, prenet_depth=0, depth=2),
    )


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer") / "new"
    save_tokenizer(train_tokenizer([text for text, _ in ROWS], 600), folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tokenizer: Path) -> Encoder:
    torch.manual_seed(3)
    return build_encoder(config(load_tokenizer(tokenizer).size)).eval()


@pytest.fixture(scope="module")
def model(encoder: Encoder, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "exported"
    info = ModelInfo(model=config(load_tokenizer(tokenizer).size), data=TextDataConfig(tokenizer=str(tokenizer)))
    export_model(encoder, info, folder, "# A model\n")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a training and a test part; some rows have no label, or no text."""
    folder = tmp_path_factory.mktemp("texts") / "texts"
    write_csv(folder / "train.csv", [*ROWS[:400], ("", "plant"), ("no label here", "")])
    write_csv(folder / "test.csv", ROWS[400:500])
    return folder


def test_the_table_of_scores(model: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(["evaluate", model, data, "--json"]) == 0
    out, err = capsys.readouterr()
    scores = json.loads(out)
    assert "evaluating on 100 texts (test part), with the labels of 401" in err
    assert "1 texts are left out: 1 no text" in err
    assert "  train.csv[400]: no text" in err
    rows = {row["features"]: row for row in scores["rows"]}
    assert list(rows) == ["data2vec2", "random initialisation", "words (TF-IDF)", "majority class"]
    labels = [label for _, label in ROWS]
    majority = max(set(labels[:400]), key=labels[:400].count)
    assert rows["majority class"]["knn"] == labels[400:500].count(majority) / 100
    assert rows["words (TF-IDF)"]["linear"] > rows["majority class"]["knn"] + 0.1, "words say what a gloss is about"
    assert rows["words (TF-IDF)"]["knn"] > rows["majority class"]["knn"] + 0.1
    assert (scores["train_samples"], scores["test_samples"]) == (401, 100)


def test_low_label_curves_and_a_named_test_part(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = write_csv(tmp_path / "mine.csv", ROWS[400:460])
    flags = ["--labels", "1,4", "--seeds", "2", "--probes", "linear", "--test", test]
    assert run_here(["evaluate", model, data / "train.csv", *flags]) == 0
    out, err = capsys.readouterr()
    assert "60 texts (named test part)" in err
    table, curves = out.split("\n\n")
    assert re.search(r"words \(TF-IDF\) +\d+\.\d", table)
    assert [line.split("  ")[0] for line in curves.splitlines()[1:]].count("words (TF-IDF)") == 2


def test_columns_by_name_and_pairs(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(text, "other", text[::-1], label, "same") for text, label in ROWS[:120]]
    path = write_csv(tmp_path / "odd.csv", rows, ("body", "label", "second", "kind", "constant"))
    flags = ["--probes", "knn", "--json"]
    names = ["--text-columns", "body", "--label-column", "kind"]
    assert run_here(["evaluate", model, path, *names, *flags]) == 0
    single = json.loads(capsys.readouterr().out)
    assert set(single["classes"]) == {label for _, label in ROWS[:120]}
    names = ["--text-columns", "body", "second", "--label-column", "kind"]
    assert run_here(["evaluate", model, path, *names, *flags]) == 0
    pair = json.loads(capsys.readouterr().out)
    assert pair["rows"] != single["rows"]
    row = embedded(model, path, *names, "--pool", "none", "--out", tmp_path / "pairs.parquet")[0]
    assert row["texts"] == [rows[0][0], rows[0][2]]
    assert row["label"] == rows[0][3]
    assert len(row["tokens"]) <= TOKENS
    assert row["tokens"].count("</s>") == 3, "<s> A </s></s> B </s>"


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_features_are_the_encoders_of_each_text_alone(
    model: Path, encoder: Encoder, tokenizer: Path, tmp_path: Path, layer: int, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [text for text, _ in ROWS[:6]] + ["x"]
    (tmp_path / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    outputs: list[torch.Tensor] = []
    hooks = [b.register_forward_hook(lambda _, args, out: outputs.append(out.x_NLD)) for b in encoder.blocks]
    path = tmp_path / "texts.txt"
    dense = embedded(model, path, "--layer", layer, "--pool", "none", "--out", tmp_path / "dense")
    pooled = embedded(model, path, "--layer", layer, "--batch", 3, "--out", tmp_path / "mean")
    assert f"(7 texts, {DIM} numbers each)" in capsys.readouterr().out
    backend = load_tokenizer(tokenizer).backend
    for number, (text, row, mean) in enumerate(zip(texts, dense, pooled, strict=True)):
        outputs.clear()
        ids = backend.encode(text).ids
        ids = ids if len(ids) <= TOKENS else [*ids[: TOKENS - 1], 2]
        with torch.no_grad():
            encoded = encoder(torch.tensor([ids]))
        expected = (outputs[layer - 1] if layer else encoded.tokens.tokens_BTD)[0].numpy()
        np.testing.assert_allclose(np.reshape(row["features"], (-1, DIM)), expected, atol=1e-5)
        np.testing.assert_allclose(mean["features"], expected.mean(axis=0), atol=1e-5)
        assert row["tokens"] == [backend.id_to_token(token) for token in ids]
        spoken = "".join(text[start:end] for start, end in row["offsets"])
        assert text.replace(" ", "").startswith(spoken.replace(" ", ""))
        assert row["name"] == mean["name"] == f"texts.txt[{number}]"
        assert row["texts"] == [text] and row["label"] is None
        assert "tokens" not in mean
    for hook in hooks:
        hook.remove()
    about = json.loads(pq.read_schema(tmp_path / "dense").metadata[b"data2vec2"])
    assert (about["layer"], about["pool"], about["dim"], about["max_tokens"]) == (layer, "none", DIM, TOKENS)


def test_parts_labels_and_rows_without_text(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = embedded(model, data, "--dtype", "float16", "--out", tmp_path / "f")
    assert [row["part"] for row in rows] == ["train"] * 401 + ["test"] * 100
    assert [row["label"] for row in rows[398:402]] == [ROWS[398][1], ROWS[399][1], None, ROWS[400][1]]
    assert "1 of 502 texts are left out: 1 no text" in capsys.readouterr().err
    assert len(embedded(model, data, "--part", "test", "--out", tmp_path / "g")) == 100
    result = data2vec2.embed(model, data / "test.csv", tmp_path / "h", text_columns="text", label_column="label")
    assert (result.rows, result.kind) == (100, "text")
    empty = write_csv(tmp_path / "empty.csv", [("", "a"), (" ", "b")])
    assert run_here(["embed", model, empty, "--out", tmp_path / "i"]) == 1
    assert "none of 2 texts can be used" in capsys.readouterr().err
    assert not (tmp_path / "i").exists()


@pytest.mark.parametrize(
    ("verb", "flags", "code", "message"),
    [
        ("evaluate", ["--text-columns", "body"], 1, "has no column 'body'"),
        ("evaluate", ["--text-columns", "a", "b", "c"], 2, "3 columns of texts"),
        ("evaluate", ["--label-column", "kind"], 1, "has no column 'kind'"),
        ("evaluate", ["--probes", "attentive"], 1, "--probes attentive is not for texts; there are knn,linear"),
        ("evaluate", ["--probes", "phones"], 2, "--probes phones is for speech"),
        ("evaluate", ["--labels", "1000"], 1, "no class has more than"),
        ("evaluate", ["--test", "nowhere"], 1, "nowhere does not exist"),
        ("embed", ["--text-columns", "body"], 1, "has no column 'body'"),
        ("embed", ["--label-column", "kind"], 1, "has no column 'kind'"),
        ("embed", ["--pool", "cls"], 2, "--pool cls is for models with a CLS token"),
        ("embed", ["--size", "64"], 2, "--size is for image models"),
        ("embed", ["--keep-aspect"], 2, "--keep-aspect is for image models"),
        ("embed", ["--layer", "3"], 2, "--layer is 3; it must be 1 to 2"),
        ("embed", ["--batch", "0"], 2, "--batch is 0"),
        ("embed", ["--part", "val"], 1, "the data have no val part; there is train, test"),
    ],
)
def test_mistakes(
    model: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    verb: str,
    flags: list[str],
    code: int,
    message: str,
) -> None:
    out = ["--out", tmp_path / "f"] if verb == "embed" else []
    assert run_here([verb, model, data, *flags, *out]) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_data_that_can_not_be(model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = write_csv(tmp_path / "bare.csv", [(text,) for text, _ in ROWS[:40]], ("text",))
    assert run_here(["evaluate", model, bare]) == 1
    assert "has no labels to evaluate with; name their column with --label-column" in capsys.readouterr().err
    tags = tmp_path / "tags.jsonl"
    lines = [{"text": text, "label": [label, "noun"]} for text, label in ROWS[:40]]
    tags.write_text("\n".join(map(json.dumps, lines)))
    assert run_here(["evaluate", model, tags]) == 1
    assert "texts of" in (error := capsys.readouterr().err) and "can have several labels" in error
    assert run_here(["embed", model, data, bare, "--out", tmp_path / "f"]) == 2
    assert "there are 2 DATA; name one table of texts" in capsys.readouterr().err
    assert run_here(["embed", model, tmp_path / "nowhere", "--out", tmp_path / "f"]) == 1
    assert "nowhere does not exist" in capsys.readouterr().err
    letters = write_csv(tmp_path / "letters.csv", [("!", "a"), ("?", "b")] * 20)
    assert run_here(["evaluate", model, letters]) == 1
    assert "the texts have no words to count" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["evaluate", "embed"])
def test_columns_are_for_text(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    shape = ArchitectureConfig(
        modality=ImageConfig(image_size=8, patch_size=4, num_channels=1),
        encoder=EncoderConfig(embed_dim=DIM, num_heads=2, prenet_depth=0, depth=1),
    )
    info = ModelInfo(model=shape, data=ImageDataConfig(mean=(0.5,), std=(0.5,)))
    export_model(build_encoder(shape), info, tmp_path / "m", "# A model\n")
    out = ["--out", tmp_path / "f"] if verb == "embed" else []
    assert run_here([verb, tmp_path / "m", data, "--text-columns", "text", *out]) == 2
    assert "--text-columns and --label-column are for text models" in capsys.readouterr().err


def test_texts_in_memory_have_the_features_of_their_table(model: Path, tmp_path: Path) -> None:
    rows = [("a warm coat", "1"), ("it", "2"), ("a dog that barks at night", "3")]
    write_csv(tmp_path / "data.csv", rows)
    expected = [row["features"] for row in embedded(model, tmp_path / "data.csv", "--out", tmp_path / "f.parquet")]
    loaded = data2vec2.load(model)
    assert np.abs(loaded.embed([text for text, _ in rows]) - np.array(expected)).max() < 1e-6
    assert np.abs(loaded.embed(rows[0][0]) - np.array(expected[:1])).max() < 1e-6
    assert loaded.embed([("a warm coat", "a dog")]).shape == (1, len(expected[0]))
    for wrong in ([1], [("a", "b"), "c"], [{"text": "a"}], [("a", "b", "c")]):
        with pytest.raises(UsageError, match="a text must be a string"):
            loaded.embed(wrong)
    with pytest.raises(UserError, match=r"1 of 2 texts can't be used:\n  \[1\]: no text"):
        loaded.embed(["a", " "])
