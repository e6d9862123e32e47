"""Alarms for figures that are not finite or stay low."""

from __future__ import annotations

import pytest

from data2vec2.training.progress import FLOORS, PATIENCE, SHARES, Alarm, Alarms, floors

HEALTHY = {"loss": 1.0, "grad_norm": 2.0, "lr": 0.0, **{name: 10 * floor for name, floor in FLOORS.items()}}


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_diverged_at_once(name: str, value: float) -> None:
    with pytest.raises(Alarm, match=rf"{name} is .* at update 7: .* Lower --optim\.lr") as caught:
        Alarms().check(7, {**HEALTHY, name: value})
    assert caught.value.kind == "diverged"


@pytest.mark.parametrize("name", FLOORS)
@pytest.mark.parametrize("factor", [0.5, float("nan")])
def test_a_figure_that_stays_low_collapsed(name: str, factor: float) -> None:
    alarms = Alarms()
    alarms.check(0, HEALTHY)
    alarms.check(0, HEALTHY)
    low = {**HEALTHY, name: FLOORS[name] * factor}
    for step in range(1, PATIENCE):
        alarms.check(step, low)
    with pytest.raises(Alarm, match=rf"{name} is .* at update {PATIENCE}, below .* for {PATIENCE} checks") as caught:
        alarms.check(PATIENCE, low)
    assert caught.value.kind == "collapsed"


def test_predictions_that_have_not_risen_yet_are_fine() -> None:
    alarms = Alarms()
    alarms.check(0, {**HEALTHY, "prediction_std": 0.05})  # text_small's: noise, then the mean, then more
    for step in range(1, 10):
        alarms.check(step, {**HEALTHY, "prediction_std": 0.001 + step / 2_000})
    alarms.check(10, HEALTHY)
    with pytest.raises(Alarm, match="prediction_std"):
        for step in range(11, 20):
            alarms.check(step, {**HEALTHY, "prediction_std": 0.001})


@pytest.mark.parametrize("name", FLOORS)
def test_a_figure_that_recovers_or_stands_at_its_floor_is_fine(name: str) -> None:
    alarms = Alarms()
    for step in range(1, 30):
        alarms.check(step, {**HEALTHY, name: 0.0} if step % PATIENCE else HEALTHY)
        alarms.check(step, {"val_loss": 0.5})  # a line of scores neither counts nor resets
    for step in range(30, 40):
        alarms.check(step, {**HEALTHY, name: FLOORS[name]})


def test_each_figure_is_counted_by_itself() -> None:
    alarms, names = Alarms(), list(FLOORS)
    for step in range(20):
        alarms.check(step, {**HEALTHY, names[step % 2]: 0.0})


def scored(accuracy: float, samples: int = 1_000) -> dict[str, float]:
    return {"val_knn": accuracy, "val_knn_error": (accuracy * (1 - accuracy) / samples) ** 0.5}


def test_a_knn_score_that_stays_far_below_the_first_collapsed() -> None:
    alarms = Alarms()
    for step, accuracy in enumerate([0.5, 0.2, 0.2]):
        alarms.check(step, scored(accuracy))
        alarms.check(step, HEALTHY)  # a line without scores neither counts nor resets
    with pytest.raises(Alarm, match=r"val_knn is 0\.2 at update 3, below 0\.268 for 3 checks: the features are worse"):
        alarms.check(3, scored(0.2))


def test_a_knn_score_that_recovers_or_stands_at_its_floor_is_fine() -> None:
    alarms, first = Alarms(), scored(0.5)
    alarms.check(0, first)
    for step in range(1, 30):
        alarms.check(step, scored(0.1 if step % PATIENCE else 0.4))
    for step in range(30, 40):
        alarms.check(step, scored(floors(first)["val_knn"]))


def test_the_floor_of_the_knn_score_allows_for_few_samples() -> None:
    assert floors(scored(0.5, 10**8))["val_knn"] == pytest.approx(SHARES["val_knn"] * 0.5, abs=1e-3)
    assert floors(scored(0.5, 20))["val_knn"] < 0.1
    assert floors(scored(0.1, 20))["val_knn"] < 0  # chance among ten classes: nothing can be said
    assert "val_knn" not in floors(HEALTHY)


def test_a_rank_that_falls_to_a_small_part_of_the_first_collapsed() -> None:
    alarms, share = Alarms(), SHARES["rank_encoder"]
    alarms.check(1, {**HEALTHY, "rank_encoder": 56.0})
    for step in range(2, 30):
        alarms.check(step, {**HEALTHY, "rank_encoder": 56 * share})
    with pytest.raises(Alarm, match=r"rank_encoder is 6\.9 at update 32, below 7 for 3 checks"):
        for step in range(30, 40):
            alarms.check(step, {**HEALTHY, "rank_encoder": 6.9})


def test_a_low_first_rank_leaves_the_floor_that_holds_for_all() -> None:
    assert floors({"rank_encoder": 4.0})["rank_encoder"] == FLOORS["rank_encoder"]


def test_a_rank_that_falls_while_nothing_is_learned_collapsed() -> None:
    """Speech at a learning rate 13 times too high: ranks between an eighth and a quarter, which alone would be fine."""
    first = {"rank_encoder": 76.0, "prediction_std": 0.43, "unexplained": 2.4}
    fallen = {"rank_encoder": 11.0, "prediction_std": 0.015, "unexplained": 1.2}
    for healthy in ({"rank_encoder": 60.0}, {"prediction_std": 0.31}, {"unexplained": 0.9}):
        alarms = Alarms()
        for step, figures in enumerate((first, *[{**fallen, **healthy}] * 5)):
            alarms.check(step, figures)
    alarms = Alarms()
    alarms.check(0, first)
    with pytest.raises(Alarm, match=r"rank_encoder is 11 at update 3, below 19 for 3 checks"):
        for step in (1, 2, 3):
            alarms.check(step, fallen)
