"""Letters: what a transcript is reduced to, ids and back, and the same in Transformers."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from data2vec2 import Data2Vec2CTCTokenizer
from data2vec2.data.labels import Letters, normalise
from data2vec2.errors import UserError

TEXTS = ["Don't stop!", "she said: well-known facts", "ÉTÉ 1984", "été"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("IT'S  A\ttest.\n", "it's a test"),
        ("It\u2019s", "it's"),
        ("well-known, and/or \u2014 so", "well known and or so"),
        ("U.S. $5 (five)", "us 5 five"),
        ("e\u0301t\u00e9", "\u00e9t\u00e9"),
        ("\uff21\ufb01", "afi"),
        ("हिन्दी भाषा", "हिन्दी भाषा"),
        ("a|b <pad>", "ab pad"),
        ("...", ""),
    ],
)
def test_what_is_left_of_a_text(text: str, expected: str) -> None:
    assert normalise(text) == unicodedata.normalize("NFKC", expected)
    assert normalise(normalise(text)) == normalise(text)


def test_blank_is_0_and_letters_are_in_order() -> None:
    letters = Letters.of(TEXTS)
    assert letters.symbols[:3] == ("<pad>", "|", "<unk>")
    assert list(letters.symbols[3:]) == sorted(set("don'tstopshesaidwellknownfactsété1984"))
    assert Letters.of(reversed(TEXTS)) == letters
    with pytest.raises(UserError, match="no letters"):
        Letters.of(["?", ""])


@pytest.mark.parametrize("text", TEXTS)
def test_text_to_ids_and_back(text: str) -> None:
    letters = Letters.of(TEXTS)
    ids = letters.encode(text)
    assert letters.decode(ids) == normalise(text)
    assert ids.dtype == np.int64
    assert not (ids == 0).any()


def test_a_letter_that_training_has_not_is_unknown() -> None:
    letters = Letters.of(["ab"])
    assert [letters.symbols[place] for place in letters.encode("a bx")] == ["a", "|", "b", "<unk>"]
    assert letters.encode("").shape == (0,)


def test_transformers_decodes_the_same(tmp_path: Path) -> None:
    letters = Letters.of(TEXTS)
    letters.save(tmp_path)
    assert Letters.load(tmp_path) == letters
    tokenizer = Data2Vec2CTCTokenizer.from_pretrained(tmp_path)
    assert tokenizer.pad_token_id == 0
    assert len(tokenizer) == len(letters)
    for text in (*TEXTS, "ee tt"):
        ids = letters.encode(text)
        assert tokenizer.decode(ids, group_tokens=False) == letters.decode(ids) == normalise(text)
        assert tokenizer(normalise(text))["input_ids"] == ids.tolist()
        frames = [frame for place in ids for frame in (place, place, 0)]  # as a recogniser writes it
        assert tokenizer.decode([0, *frames]) == normalise(text)
    assert letters.decode(letters.encode("x")) == "<unk>"
    assert tokenizer.decode(letters.encode("stxto"), group_tokens=False) == "stto"  # nobody can read "<unk>"
    assert tokenizer.decode(letters.encode("txt")) == "tt"


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"<pad>": 1, "|": 0, "<unk>": 2}', '{"<pad>": 0, "|": 1}', '{"a": []}']
)
def test_what_is_no_vocabulary_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "vocab.json").write_text(content)
    with pytest.raises(UserError, match=r"vocab\.json"):
        Letters.load(tmp_path)
