"""What a table of scores says in words."""

from typing import Any

import pytest

from data2vec2.evaluation.intervals import of_difference, of_share
from data2vec2.evaluation.verdict import verdict


def scores(*rows: tuple[str, int], count: int = 1_000, **more: Any) -> dict[str, Any]:
    """A table of kNN accuracies by features, of so many right."""
    shares = [(name, right / count) for name, right in rows]
    bars = [{"knn": list(of_share(share, count))} for _, share in shares]
    return {"rows": [{"features": name, "knn": share} for name, share in shares], "intervals": bars, **more}


def test_the_interval_of_a_difference_is_newcombes() -> None:
    # Newcombe (1998), Statistics in Medicine 17, table II: 56 of 70 against 48 of 80, method 10
    found = of_difference((56 / 70, of_share(56 / 70, 70)), (48 / 80, of_share(48 / 80, 80)))
    assert found == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_gain_and_lag_are_said_with_their_errors() -> None:
    table = scores(("data2vec2", 780), ("random initialisation", 530), ("raw pixels", 830), ("majority class", 100))
    assert verdict(table) == [
        "kNN: +25.0 points over the same network untrained, ±4.0; behind raw pixels by 5.0 points, ±3.5: "
        "train longer or on more data"
    ]


def test_a_difference_within_its_error_is_none() -> None:
    (said,) = verdict(scores(("data2vec2", 780), ("random initialisation", 770)))
    assert said == "kNN: no clear difference from the same network untrained (+1.0 ±3.7 points)"
    (said,) = verdict(scores(("data2vec2", 78_000), ("random initialisation", 77_000), count=100_000))
    assert said == "kNN: +1.0 points over the same network untrained, ±0.4"


def test_the_majority_class_counts_where_there_is_nothing_else() -> None:
    assert verdict(scores(("data2vec2", 780), ("majority class", 100)))[0].startswith("kNN: +68.0 points over majority")
    assert verdict(scores(("data2vec2", 780))) == []


def test_scores_without_intervals_have_no_errors() -> None:
    assert verdict(scores(("data2vec2", 780), ("words", 770)) | {"intervals": []}) == ["kNN: +1.0 points over words"]


def test_fine_tuning_with_few_labels_is_said_too() -> None:
    curve = {"probe": "finetune", "labels": [10, 100], "draws": 3}
    of_model = {"features": "data2vec2", "mean": [0.7, 0.8], "low": [0.68, 0.7], "high": [0.72, 0.9]}
    of_scratch = {"features": "random initialisation", "mean": [0.55, 0.8], "low": [0.52, 0.7], "high": [0.58, 0.9]}
    table = scores(("data2vec2", 780)) | {"curves": [curve | of_model, curve | of_scratch]}
    assert verdict(table) == [
        "fine-tuned with 10 labels per class: +15.0 points over the same network trained from scratch, ±3.6"
    ]
