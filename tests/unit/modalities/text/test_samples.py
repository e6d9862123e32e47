"""The bundled WordNet glosses: texts, labels and split."""

from __future__ import annotations

import re
from collections import Counter

import pyarrow.parquet as pq
import pytest

from data2vec2.modalities.text import wordnet_glosses

FOLDER = wordnet_glosses()
PARTS = {part: pq.read_table(FOLDER / f"{part}.parquet").to_pydict() for part in ("train", "test")}
CLASSES = {"act", "animal", "artifact", "attribute", "cognition"}
CLASSES |= {"communication", "location", "person", "plant", "state"}


def words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def test_texts_are_clean() -> None:
    assert [len(table["text"]) for table in PARTS.values()] == [110_806, 6_222]
    for table in PARTS.values():
        assert all(text == " ".join(text.split()) and any(map(str.isalpha, text)) for text in table["text"])
        assert not any("\ufffd" in text or "|" in text for text in table["text"])


def test_no_text_and_no_meaning_is_there_twice_or_in_both_parts() -> None:
    for column, same in (("text", words), ("synset", str)):
        values = [same(value) for table in PARTS.values() for value in table[column]]
        assert len(set(values)) == len(values), column


def test_labels_are_of_nouns_and_the_test_part_has_them_all() -> None:
    counts = {part: Counter(table["label"]) for part, table in PARTS.items()}
    assert set(counts["test"]) == CLASSES
    assert set(counts["train"]) == {*CLASSES, None}
    for name in CLASSES:
        share = counts["test"][name] / (counts["test"][name] + counts["train"][name])
        assert share == pytest.approx(0.1, abs=0.02), name
    for table in PARTS.values():
        rows = list(zip(table["synset"], table["label"], strict=True))
        assert all(synset.startswith("n") for synset, label in rows if label)
        assert all(re.fullmatch(r"[nvar]\d{8}", synset) for synset, _ in rows)


def test_labels_say_what_a_text_is_about() -> None:
    known = {text: label for table in PARTS.values() for text, label in zip(table["text"], table["label"], strict=True)}
    assert known["a small room (or recess) or cabinet used for storage space"] == "artifact"
    assert known["a genus of fossil bird of the subclass Archaeornithes"] == "animal"
    assert known["a person who subscribes to subjectivism"] == "person"


def test_licence_and_origin() -> None:
    licence = (FOLDER / "LICENSE").read_text("utf-8")
    assert licence.startswith("Copyright: © 1996-2012 Cognitive Science Laboratory Princeton University")
    assert "WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved." in licence
    assert "title to copyright" in licence.lower()
    assert "wordnet-base" in (FOLDER / "README.md").read_text("utf-8")
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 4e6
