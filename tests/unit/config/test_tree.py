"""Configurations to and from what YAML holds."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml

from data2vec2.config import RunConfig, from_dict, to_dict
from data2vec2.recipes import RECIPES, get_recipe


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_survive_yaml_and_json(name: str) -> None:
    recipe = RECIPES[name]()
    assert recipe.recipe == name
    assert from_dict(RunConfig, to_dict(recipe)) == recipe
    assert from_dict(RunConfig, yaml.safe_load(yaml.safe_dump(to_dict(recipe)))) == recipe
    assert from_dict(RunConfig, json.loads(json.dumps(to_dict(recipe)))) == recipe


def test_what_is_left_out_is_the_default() -> None:
    assert from_dict(RunConfig, {}) == RunConfig()
    config = from_dict(RunConfig, {"train": {"seed": 7}})
    assert config == replace(RunConfig(), train=replace(RunConfig().train, seed=7))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"trian": {}}, r"unknown key 'trian'; did you mean 'train'\?"),
        ({"optim": {"learning": 1}}, r"unknown key 'optim\.learning'"),
        ({"optim": {"warmup_update": 1}}, r"unknown key 'optim\.warmup_update'; did you mean 'warmup_updates'\?"),
        ({"model": {"encoder": {"dept": 1}}}, r"unknown key 'model\.encoder\.dept'; did you mean 'depth'\?"),
        ({"model": {"zzz": 1}}, r"unknown key 'model\.zzz'; known are modality, encoder, masks"),
        ({"train": {"updates": "many"}}, r"train\.updates is 'many'; it must be of type int"),
        ({"train": {"updates": 1.5}}, r"train\.updates is 1\.5; it must be of type int"),
        ({"train": {"updates": True}}, r"train\.updates is True; it must be of type int"),
        ({"train": {"compile": 1}}, r"train\.compile is 1; it must be of type bool"),
        ({"train": {"micro_batch": "8"}}, r"train\.micro_batch is '8'; it must be of type int"),
        ({"optim": {"lr": "1e-3"}}, r"optim\.lr is '1e-3'; it must be of type float"),
        ({"optim": {"lr": None}}, r"optim\.lr is None; it must be of type float"),
        ({"optim": {"lr_rule": "log"}}, r"optim\.lr_rule is 'log'; it must be one of none, linear, sqrt"),
        ({"data": {"mean": [0.5, "x"]}}, r"data\.mean is 'x'; it must be of type float"),
        ({"data": {"mean": 0.5}}, r"data\.mean is 0\.5; it must be of type"),
        ({"optim": 3}, r"optim is 3; it must be a group of fields"),
        ({"optim": None}, r"optim is None; it must be a group of fields"),
        ({"ema": {"start": 1.5}}, r"ema\.start is 1\.5; it must be from 0 to 1"),
    ],
)
def test_mistakes_are_named_with_their_place(tree: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_dict(RunConfig, tree)


def test_whole_numbers_do_for_floats_and_none_where_it_is_allowed() -> None:
    config = from_dict(RunConfig, {"optim": {"lr": 1, "clip_norm": None}, "data": {"mean": [0], "std": [1]}})
    assert isinstance(config.optim.lr, float)
    assert config.optim.clip_norm is None
    assert config.data.mean == (0.0,)
    assert from_dict(RunConfig, to_dict(config)) == config


def test_an_unknown_recipe_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no recipe 'image_bas'; did you mean 'image_base'\?"):
        get_recipe("image_bas")
    with pytest.raises(ValueError, match=r"no recipe 'x'; there are image_tiny, image_base"):
        get_recipe("x")
