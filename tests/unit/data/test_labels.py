"""Labels of all kinds become indices of classes, or tags."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from data2vec2.data.labels import encode, listed
from data2vec2.errors import UserError


def one(values: list[Any], named: tuple[str, ...] | None = None) -> tuple[list[Any], tuple[str, ...]]:
    encoded, classes, _ = encode({"train": values}, named, "here")
    labels, tags = encoded["train"]
    if tags is None:
        return labels.tolist(), classes
    assert (labels == -1).all()
    return [np.flatnonzero(row).tolist() for row in tags], classes


@pytest.mark.parametrize(
    ("values", "named", "expected", "classes"),
    [
        ([10, 9, -1, None, 10], None, [2, 1, 0, -1, 2], ("-1", "9", "10")),
        (["10", "9", "", "10", "-1"], None, [2, 1, -1, 2, 0], ("-1", "9", "10")),
        (["-1", "+1", "1", None], None, [0, 1, 1, -1], ("-1", "1")),
        (["1.0", "0.0", "", "1", " 0"], None, [1, 0, -1, 1, 0], ("0", "1")),
        (["1.5", "01", "1."], None, [2, 0, 1], ("01", "1", "1.5")),
        (["caf\u00e9 ", "cafe\u0301", "Caf\u00e9", " "], None, [1, 1, 0, -1], ("Caf\u00e9", "caf\u00e9")),
        (["cafe\u0301", "b"], ("b", "caf\u00e9"), [1, 0], ("b", "caf\u00e9")),
        ([1.0, 0.0, float("nan")], ("x", "y"), [1, 0, -1], ("x", "y")),
        (["b", "10", "a", "9"], None, [3, 1, 2, 0], ("9", "10", "a", "b")),
        ([1.0, float("nan"), 0.0, True], None, [1, -1, 0, 1], ("0", "1")),
        ([Decimal(1), Decimal("0.00"), None], None, [1, 0, -1], ("0", "1")),
        ([2, 0, -1, None], ("x", "y", "z"), [2, 0, -1, -1], ("x", "y", "z")),
        (["z", "x", None], ("x", "y", "z"), [2, 0, -1], ("x", "y", "z")),
        (["-1", "2", ""], ("-1", "10", "2"), [0, 2, -1], ("-1", "10", "2")),
        ([[0, 1, 0], [1, 0, 0], None, [0, 1, 0]], None, [1, 0, -1, 1], ("0", "1")),
        ([[0.0, 1.0], [1.0, 0.0]], ("x", "y"), [1, 0], ("x", "y")),
        (["[UNK]", "[1] a [2]", "["], None, [2, 1, 0], ("[", "[1] a [2]", "[UNK]")),
        (["[a]", "b"], ("[a]", "b"), [0, 1], ("[a]", "b")),
        (["['a']", "b"], ("['a']", "b"), [0, 1], ("['a']", "b")),
        ([3, 3], None, [-1, -1], ()),
        ([None, None], None, [-1, -1], ()),
        ([], None, [], ()),
    ],
)
def test_one_label_a_sample(
    values: list[Any], named: tuple[str, ...] | None, expected: list[int], classes: tuple[str, ...]
) -> None:
    assert one(values, named) == (expected, classes)


@pytest.mark.parametrize(
    ("values", "named", "expected", "classes"),
    [
        ([["b", "a"], [], ["a"], None], None, [[0, 1], [], [0], []], ("a", "b")),
        ([[10, 9], 9, (10,)], None, [[0, 1], [0], [1]], ("9", "10")),
        ([[0, 2], [1, 1]], ("x", "y", "z"), [[0, 2], [1]], ("x", "y", "z")),
        ([["only"], []], None, [[0], []], ("only",)),
        (["['b', 'a']", '["a"]', "[]", "['b' 'a']"], None, [[0, 1], [0], [], [0, 1]], ("a", "b")),
        (["[0, 2]", "[1]"], ("x", "y", "z"), [[0, 2], [1]], ("x", "y", "z")),
        ([[0, 1, 1], (1.0, 0.0, 0.0), None, [False, False, False]], None, [[1, 2], [0], [], []], ("0", "1", "2")),
        (["[1 0 1]", "[0 1 0]"], ("x", "y", "z"), [[0, 2], [1]], ("x", "y", "z")),
        ([[0, 1], [0]], None, [[0, 1], [0]], ("0", "1")),
        ([[0, 1], [1, 0]], ("x", "y", "z"), [[0, 1], [0, 1]], ("x", "y", "z")),
        ([["a", "b"], ["b", "a"]], None, [[0, 1], [0, 1]], ("a", "b")),
        ([[1, 0, 1], [0.0, 0.0, 0.0], [False, True, False], None], None, [[0, 2], [], [1], []], ("0", "1", "2")),
        ([[0, 1], [1, 1]], ("x", "y"), [[1], [0, 1]], ("x", "y")),
        ([[0, 1], [0]], ("x", "y"), [[0, 1], [0]], ("x", "y")),
    ],
)
def test_several_labels_a_sample(
    values: list[Any], named: tuple[str, ...] | None, expected: list[list[int]], classes: tuple[str, ...]
) -> None:
    assert one(values, named) == (expected, classes)


def test_parts_share_classes_and_kind() -> None:
    encoded, classes, _ = encode({"train": ["b", "c"], "val": [["a", "c"]]}, None, "here")
    assert classes == ("a", "b", "c")
    train, val = encoded["train"][1], encoded["val"][1]
    assert train is not None and val is not None
    assert train.tolist() == [[False, True, False], [False, False, True]]
    assert val.tolist() == [[True, False, True]]


@pytest.mark.parametrize(
    ("values", "named", "match"),
    [
        ([0.5], None, r"here: a label is 0\.5; labels are whole numbers"),
        ([{"a": 1}], None, "a label is {'a': 1}"),
        ([[[0, 4, "PER"]]], None, r"a label is \[\[0, 4, 'PER'\]\]"),
        ([3], ("x", "y"), r"a label is 3, which is not one of the given classes \(x, y\)"),
        (["q"], ("x", "y"), "a label is 'q', which is not one of the given classes"),
    ],
)
def test_what_is_no_label(values: list[Any], named: tuple[str, ...] | None, match: str) -> None:
    with pytest.raises(UserError, match=match):
        one(values, named)


def remarks(**parts: list[Any]) -> list[str]:
    return encode(parts, None, "here")[2]


def test_below_zero_is_no_label_where_no_training_sample_has_it() -> None:
    encoded, classes, _ = encode({"train": [0, 1], "test": [-1, -1]}, None, "here")
    assert (classes, encoded["test"][0].tolist()) == (("0", "1"), [-1, -1])
    encoded, classes, said = encode({"train": [-1, 1, 0], "test": [-1, 1, 0]}, None, "here")
    assert (classes, encoded["test"][0].tolist()) == (("-1", "0", "1"), [0, 2, 1])
    assert said[0] == "negative numbers taken as classes: -1 (2); leave missing labels empty"


def test_what_is_odd_is_said_with_numbers() -> None:
    assert remarks(train=["a", "a", "b", "b"], test=["a", "b"]) == []
    assert remarks(train=["1", "1.0", "2", "2"]) == ["labels written '1' and '1.0' are one class, '1'"]
    assert remarks(train=["a", "a ", "b", "b"]) == ["labels written 'a' and 'a ' are one class, 'a'"]
    assert remarks(train=["a", "a\u200b", "b", "\ufeffb"]) == [
        r"labels written 'a' and 'a\u200b' are one class, 'a'",
        r"labels written 'b' and '\ufeffb' are one class, 'b'",
    ]
    assert encode({"train": ["9" * 5_000, 1, 2]}, None, "here")[1] == ("1", "2", "9" * 5_000)
    assert remarks(train=["pos", "Pos", "pos", "Pos"]) == ["classes that differ in case only: Pos (2), pos (2)"]
    assert remarks(train=["a", "a", "nan", "nan"])[0].startswith("class names that look like missing labels: nan (2);")
    for text in ("cat, dog", "cat;dog", "dog|cat", "1 2"):
        said = f"classes that look like several: {text} (2); give several labels as a list"
        assert remarks(train=[text, text, "dog", "dog", 1, 1, 2, 2]) == [said]
    assert remarks(train=["hot dog", "hot dog", "dog", "dog", "tench, Tinca tinca", "tench, Tinca tinca"]) == []
    for missing in ("-", "?", "\\N", "#N/A"):
        assert f"look like missing labels: {missing} (2);" in remarks(train=["a", "a", missing, missing])[0]
    assert remarks(train=["1.5", "1.5", "2", "2"]) == [
        "each number is a class: 1.5; finetune regress learns numbers of texts"
    ]
    assert remarks(train=[[1, 0, 0], [0, 1, 1]])[0] == "labels are lists of 3 numbers, 0 or 1, one for each class"
    assert remarks(train=["a", "a", "a"]) == ["all 3 labels of the train part are 'a'"]
    assert remarks(train=["a", "a", "b", None]) == [
        "1 of 4 train samples have no label",
        "classes with one training sample: b",
    ]
    assert remarks(train=["a", "a", "b", "b"], test=["a", "c", "c"]) == [
        "classes that no training sample has, in the test part: c (2)",
        "classes that the test part has not: b (2)",
    ]
    assert remarks(train=["a", "a", "b", "b"], test=[None, ""]) == [
        "none of the 2 test samples has a label; they can't be scored on"
    ]
    assert remarks(train=[None], val=[None]) == []


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("['it', \"it's\", 'a, b']", ["it", "it's", "a, b"]),
        (r"['it\'s']", ["it's"]),
        ('["it", 1]', ["it", 1]),
        (" [0 2\n 10] ", [0, 2, 10]),
        ("['a' 'b']", ["a", "b"]),
        ("[]", []),
        ("[UNK]", None),
        ("['a' ... 'b']", None),
        ("['a'", None),
        ("a", None),
        (None, None),
        (["a"], ["a"]),
    ],
)
def test_lists_that_are_written_out(text: Any, items: list[Any] | None) -> None:
    assert listed(text) == items
