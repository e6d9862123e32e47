"""Letters: what a transcript is reduced to, ids and back, and the same in Transformers."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from data2vec2 import Data2Vec2CTCTokenizer
from data2vec2.data.letters import Letters, lost_signs, normalise
from data2vec2.errors import UserError

TEXTS = ["Don't stop!", "she said: well-known facts", "ÉTÉ 1984", "été", "R&B at 10:30, 1/2 or 3.5"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("IT'S  A\ttest.\n", "it's a test"),
        ("It\u2019s", "it's"),
        ("well-known, and/or \u2014 so", "well known and or so"),
        ("U.S. $5 (five), 50 €, $.50", "us $5 five 50 € $.50"),
        ("e\u0301t\u00e9", "\u00e9t\u00e9"),
        ("\uff21\ufb01", "afi"),
        ("हिन्दी भाषा", "हिन्दी भाषा"),
        ("a|b <pad>", "a b pad"),
        ("...", ""),
        ("½ cup, 3½ miles", "1/2 cup 3 1/2 miles"),
        ("it is 3.5 (or .5) miles, 1,000 feet", "it is 3.5 or .5 miles 1,000 feet"),
        ("10:30 to 11/12/13; \uff12\uff0e\uff15", "10:30 to 11/12/13 2.5"),
        ("\u0663\u066b\u0665", "\u0663\u066b\u0665"),  # a decimal point of Arabic
        ("well...I think", "well i think"),
        ("yes,sir. No!Never?\u2026so;it:is", "yes sir no never so it is"),
        ("R&B, rock & roll", "r&b rock & roll"),
        ("user_name@host.org", "user name host org"),
        ("U.S.A. at 5 a.m. I.Then", "usa at 5 am i then"),
        ("\u2018quoted\u2019 word, 'I don't know', \u201che said\u201d, ''so''", "quoted word i don't know he said so"),
        ("don\u00b4t don`t don\u2018t, the boys' 'tis", "don't don't don't the boys' 'tis"),
        ("x² + y², 10²³, H₂O, log₂8", "x 2 + y 2 10 23 h2o log2 8"),
        ("Linux™ №5 5㎏", "linux no 5 5 kg"),
        (
            "A\u00adB, \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645, c\u200bd",
            "ab \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 c d",
        ),
        ("-5 to \u22123.5, 10-20, covid-19: \u2013 - so", "-5 to -3.5 10 20 covid 19 so"),
        ("5%, 5 %, 5\u00b0C, C++, 2+2=4, A+", "5% 5 % 5\u00b0c c++ 2+2=4 a+"),
        ("so...5 people, .5, ...", "so 5 people .5"),
        (
            "\u0dc1\u0dca\u200d\u0dbb\u0dd3, \U0001f469\u200d\U0001f4bb, a\u200cb\u200c",
            "\u0dc1\u0dca\u200d\u0dbb\u0dd3 ab",
        ),
        ("\u0130STANBUL I\u0307z", "istanbul iz"),
        ("Straße, \ufb01ne, col\u00b7lecció", "straße fine collecció"),
        ("ok\u263a\ufe0f 1\ufe0f\u20e3 \u00a8a", "ok 1 a"),
        ("\u4f60\u597d\uff0c\u4e16\u754c\u3002", "\u4f60\u597d \u4e16\u754c"),
    ],
)
def test_what_is_left_of_a_text(text: str, expected: str) -> None:
    assert normalise(text) == unicodedata.normalize("NFKC", expected)
    assert normalise(normalise(text)) == normalise(text)


def test_signs_that_are_lost_are_counted() -> None:
    texts = [
        "[noise] C# [noise]",
        "a < b",
        None,
        "5% of $5 + 3, -5 \u2013 (so) 'well' \u201cyes\u201d \u2026 A.B. 1\u00bd",
    ]
    assert lost_signs(texts) == {"[": 1, "]": 1, "#": 1, "<": 1}


def test_blank_is_0_and_letters_are_in_order() -> None:
    letters = Letters.of(TEXTS)
    assert letters.symbols[:3] == ("<pad>", "|", "<unk>")
    assert list(letters.symbols[3:]) == sorted(set("don'tstopshesaidwellknownfactsété1984r&bat10:301/2or3.5"))
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


def test_letters_of_an_earlier_version_write_as_they_did(tmp_path: Path) -> None:
    """Of transcripts in which 3.5 was 35, and a Turkish capital had a dot of its own."""
    earlier = Letters(("<pad>", "|", "<unk>", "3", "5", "i", "l", "s", "\u0307"))
    earlier.save(tmp_path)
    ids = [earlier.ids[letter] for letter in "i\u0307ls|35"]
    frames = [frame for place in ids for frame in (place, 0)]
    assert earlier.decode(ids) == Data2Vec2CTCTokenizer.from_pretrained(tmp_path).decode(frames) == "i\u0307ls 35"
    assert [earlier.symbols[place] for place in earlier.encode("3.5")] == ["3", "<unk>", "5"]


def test_a_vocabulary_of_a_script_begins_with_its_blank(tmp_path: Path) -> None:
    """Which has names of its own for what is no letter, and tokens beside it, of which a model may have outputs."""
    spelled = ["b", "a", "|", "[UNK]", "[PAD]"]
    (tmp_path / "vocab.json").write_text(json.dumps({letter: place for place, letter in enumerate(spelled)}))
    beside = {"5": {"content": "<s>"}, "6": {"content": "</s>"}}
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "added_tokens_decoder": beside}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(named))
    letters = Letters.load(tmp_path, blank=4, count=6)
    assert letters.symbols == ("<pad>", "b", "a", "|", "<unk>", "<s>")
    assert letters.places == (4, 0, 1, 2, 3, 5)
    for blank in (0, 3, 5, -1):
        with pytest.raises(UserError, match="not a vocabulary of letters"):
            Letters.load(tmp_path, blank, 5)


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
