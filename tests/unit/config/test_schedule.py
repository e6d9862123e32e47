"""A shorter run gets a shorter schedule, except where its user said otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest

from data2vec2.config.run import RunConfig, fit_schedule
from data2vec2.modalities import get_finetune_recipe, get_recipe, recipes


def shortened(recipe: RunConfig, updates: int) -> RunConfig:
    return replace(recipe, train=replace(recipe.train, updates=updates))


@pytest.mark.parametrize("name", recipes())
@pytest.mark.parametrize("factor", [1, 2])
def test_a_run_of_full_length_or_longer_is_left_alone(name: str, factor: int) -> None:
    recipe = get_recipe(name)
    config = shortened(recipe, recipe.train.updates * factor)
    assert fit_schedule(config, recipe) == config


@pytest.mark.parametrize("name", recipes())
@pytest.mark.parametrize("share", [2, 10, 100])
def test_warmup_and_annealing_keep_their_share_of_the_run(name: str, share: int) -> None:
    recipe = get_recipe(name)
    updates = recipe.train.updates // share
    share = recipe.train.updates / updates
    fitted = fit_schedule(shortened(recipe, updates), recipe)
    full = recipe.optim.warmup_updates
    assert fitted.optim.warmup_updates == pytest.approx(max(full / share, min(full, 20, updates // 20)), abs=0.6)
    assert fitted.ema.anneal_updates == pytest.approx(recipe.ema.anneal_updates / share, abs=0.6)
    for before, after in ((recipe.ema.start, fitted.ema.start), (recipe.ema.end, fitted.ema.end)):
        assert min(before, 0.9) <= after <= before
        if before < 1 and after > 0.9:
            assert 1 / (1 - after) == pytest.approx(1 / (1 - before) / share)  # the averaging time


def test_a_short_run_has_enough_checks_for_the_alarms_and_is_saved() -> None:
    """A collapse in 400 updates went unseen with a check every 50: three checks in a row have to be low."""
    for name in recipes():
        train = fit_schedule(shortened(get_recipe(name), 400), get_recipe(name)).train
        assert (train.log_every, train.eval_every, train.save_every) == (25, 100, 100)


def test_a_short_teacher_is_no_longer_its_initialisation() -> None:
    recipe = get_recipe("image_base")
    assert recipe.ema.start**2_000 > 0.6
    fitted = fit_schedule(shortened(recipe, 2_000), recipe)
    assert fitted.ema.end**2_000 < 0.1


def test_what_the_user_set_is_left_alone() -> None:
    recipe = get_recipe("image_base")
    config = shortened(recipe, 1_000)
    config = replace(
        config, optim=replace(config.optim, warmup_updates=77), ema=replace(config.ema, start=0.5, anneal_updates=88)
    )
    fitted = fit_schedule(config, recipe)
    assert (fitted.optim.warmup_updates, fitted.ema.start, fitted.ema.anneal_updates) == (77, 0.5, 88)
    assert fitted.ema.end < recipe.ema.end  # this one was not set
    fitted = fit_schedule(shortened(recipe, 1_000), recipe, {"optim.warmup_updates", "ema.start"})  # as the recipe's
    assert (fitted.optim.warmup_updates, fitted.ema.start) == (recipe.optim.warmup_updates, recipe.ema.start)
    speech = get_finetune_recipe("ctc_base_10m")
    short = replace(speech, train=replace(speech.train, updates=speech.train.updates // 2))
    assert fit_schedule(short, speech, {"model.freeze_updates"}).task == speech.task
    assert fit_schedule(short, speech).task != speech.task


def test_a_decay_of_one_stays_one() -> None:
    recipe = get_recipe("image_huge14")
    assert recipe.ema.end == 1
    assert fit_schedule(shortened(recipe, 100), recipe).ema.end == 1


@pytest.mark.parametrize("updates", [1, 10, 1_000])
def test_fitting_twice_is_fitting_once(updates: int) -> None:
    """`config.yaml` of a run holds the fitted schedule, and can be run again."""
    for name in recipes():
        recipe = get_recipe(name)
        fitted = fit_schedule(shortened(recipe, updates), recipe)
        assert fit_schedule(fitted, recipe) == fitted
