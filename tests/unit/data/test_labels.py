"""Labels of all kinds become indices of classes, or tags."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from data2vec2.data.labels import encode
from data2vec2.errors import UserError


def one(values: list[Any], named: tuple[str, ...] | None = None) -> tuple[list[Any], tuple[str, ...]]:
    encoded, classes = encode({"train": values}, named, "here")
    labels, tags = encoded["train"]
    if tags is None:
        return labels.tolist(), classes
    assert (labels == -1).all()
    return [np.flatnonzero(row).tolist() for row in tags], classes


@pytest.mark.parametrize(
    ("values", "named", "expected", "classes"),
    [
        ([10, 9, -1, None, 10], None, [1, 0, -1, -1, 1], ("9", "10")),
        (["10", "9", "", "10", "-1"], None, [1, 0, -1, 1, -1], ("9", "10")),
        (["b", "10", "a", "9"], None, [3, 1, 2, 0], ("9", "10", "a", "b")),
        ([1.0, float("nan"), 0.0, True], None, [1, -1, 0, 1], ("0", "1")),
        ([2, 0, -1, None], ("x", "y", "z"), [2, 0, -1, -1], ("x", "y", "z")),
        (["z", "x", None], ("x", "y", "z"), [2, 0, -1], ("x", "y", "z")),
        (["-1", "2", ""], ("-1", "10", "2"), [0, 2, -1], ("-1", "10", "2")),
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
    ],
)
def test_several_labels_a_sample(
    values: list[Any], named: tuple[str, ...] | None, expected: list[list[int]], classes: tuple[str, ...]
) -> None:
    assert one(values, named) == (expected, classes)


def test_parts_share_classes_and_kind() -> None:
    encoded, classes = encode({"train": ["b", "c"], "val": [["a", "c"]]}, None, "here")
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
        ([3], ("x", "y"), r"a label is 3, which is none of the classes that are given \(x, y\)"),
        (["q"], ("x", "y"), "a label is 'q', which is none of the classes"),
    ],
)
def test_what_is_no_label(values: list[Any], named: tuple[str, ...] | None, match: str) -> None:
    with pytest.raises(UserError, match=match):
        one(values, named)
