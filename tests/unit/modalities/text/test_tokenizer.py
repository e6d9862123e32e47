"""Tokenizers that are made here are those that Transformers loads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from data2vec2.errors import UserError
from data2vec2.modalities.text.tokenizer import (
    MASK,
    SPECIAL,
    load_tokenizer,
    original_tokenizer,
    save_tokenizer,
    train_tokenizer,
)

TEXT = Path("README.md").read_text("utf-8").splitlines()
STRANGE = ["", " two  spaces\tand\ttabs ", "ünïcödé 漢字 🙂", "a <s> of </s> <pad> and <mask>", "\x00\x7f\u2028"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "new"
    save_tokenizer(train_tokenizer(TEXT, 500), path)
    return path


@pytest.mark.parametrize("text", [*STRANGE, *TEXT[:20]])
def test_round_trip_and_auto_tokenizer(folder: Path, text: str) -> None:
    ours, theirs = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    ids = ours.backend.encode(text, add_special_tokens=False).ids
    assert min(ids, default=4) >= len(SPECIAL), "special tokens in a text are ordinary characters"
    assert ours.backend.decode(ids) == text
    if "<" not in text:
        assert theirs(text).input_ids == [0, *ids, 2]


def test_special_tokens_stand_where_the_original_has_them(folder: Path) -> None:
    ours, theirs = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    assert (ours.bos_id, ours.pad_id, ours.eos_id, ours.size) == (0, 1, 2, 500)
    assert theirs.convert_tokens_to_ids([*SPECIAL, MASK]) == [0, 1, 2, 3, 499]
    assert theirs("a", "b").input_ids == [0, *theirs("a").input_ids[1:], 2, *theirs("b").input_ids[1:]]
    assert set(theirs(["a", "a b c"], padding=True)) == {"input_ids", "attention_mask"}


def test_the_originals_order(tmp_path: Path) -> None:
    """GPT-2's numbers stand in dict.txt in another order, with words that fill it up."""
    made = train_tokenizer(TEXT, 400)
    model = json.loads(made.to_str())["model"]
    pieces = [piece for piece in model["vocab"] if piece not in SPECIAL]
    (tmp_path / "encoder.json").write_text(json.dumps({piece: place for place, piece in enumerate(pieces)}))
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (tmp_path / "vocab.bpe").write_text(f"#version: 0.2\n{merges}\n", "utf-8")
    order = list(reversed(range(len(pieces))))
    lines = [f"{number} {7 * number}" for number in order] + ["madeupword0000 0"]
    (tmp_path / "dict.txt").write_text("\n".join(lines))
    files = [tmp_path / name for name in ("encoder.json", "vocab.bpe", "dict.txt")]
    save_tokenizer(original_tokenizer(*files), tmp_path / "out")
    ours = load_tokenizer(tmp_path / "out")
    assert ours.size == 4 + len(pieces) + 1 + 1
    for text in TEXT[:20]:
        expected = [pieces[order[one - 4]] for one in ours.backend.encode(text, add_special_tokens=False).ids]
        assert made.encode(text, add_special_tokens=False).tokens == expected
    (tmp_path / "dict.txt").write_text("5 1\n")
    with pytest.raises(UserError, match="do not form a tokenizer"):
        original_tokenizer(*files)


def test_mistakes(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ValueError, match="at least 261"):
        train_tokenizer(TEXT, 260)
    with pytest.raises(UserError, match="no tokenizer at"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="can't be read as a tokenizer"):
        load_tokenizer(tmp_path)
    assert load_tokenizer(folder / "tokenizer.json").digest == load_tokenizer(folder).digest
    content = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    content["added_tokens"] = []
    content["model"]["vocab"] = {k: v for k, v in content["model"]["vocab"].items() if k != "<pad>"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="no pad token"):
        load_tokenizer(tmp_path)
