"""Alarms for figures that are not finite or stay low."""

from __future__ import annotations

import pytest

from data2vec2.training.alarms import FLOORS, PATIENCE, Alarm, Alarms

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
    low = {**HEALTHY, name: FLOORS[name] * factor}
    for step in range(1, PATIENCE):
        alarms.check(step, low)
    with pytest.raises(Alarm, match=rf"{name} is .* at update {PATIENCE}, below .* for {PATIENCE} checks") as caught:
        alarms.check(PATIENCE, low)
    assert caught.value.kind == "collapsed"


@pytest.mark.parametrize("name", FLOORS)
def test_a_figure_that_recovers_or_stands_at_its_floor_is_fine(name: str) -> None:
    alarms = Alarms()
    for step in range(1, 30):
        alarms.check(step, {**HEALTHY, name: 0.0} if step % PATIENCE else HEALTHY)
        alarms.check(step, {"val_knn": 0.5})  # a line of scores neither counts nor resets
    for step in range(30, 40):
        alarms.check(step, {**HEALTHY, name: FLOORS[name]})


def test_each_figure_is_counted_by_itself() -> None:
    alarms, names = Alarms(), list(FLOORS)
    for step in range(20):
        alarms.check(step, {**HEALTHY, names[step % 2]: 0.0})
