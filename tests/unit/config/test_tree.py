"""Configurations to and from what YAML holds."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from data2vec2.config.run import RunConfig, TrainConfig
from data2vec2.config.tree import to_dict, updated
from data2vec2.modalities import read_run_config
from data2vec2.modalities.image.config import ImageConfig


def read(tree: dict[str, Any]) -> RunConfig:
    """With no more beside it than must be there."""
    return read_run_config(updated({"recipe": "mine", "model": {"modality": {}}, "data": {}}, tree))


def test_what_is_left_out_is_the_default() -> None:
    config = read({"train": {"seed": 7}})
    assert (config.recipe, config.train, config.model.modality) == ("mine", TrainConfig(seed=7), ImageConfig())
    assert read(to_dict(config)) == config


@pytest.mark.parametrize(
    ("tree", "field"),
    [
        ({}, "recipe"),
        ({"recipe": "mine"}, "model"),
        ({"recipe": "mine", "model": {}, "data": {}}, "model.modality"),
        ({"recipe": "mine", "model": {"modality": {}}}, "data"),
    ],
)
def test_what_must_be_there_is_named(tree: dict[str, object], field: str) -> None:
    with pytest.raises(ValueError, match=rf"^{field} is missing"):
        read_run_config(tree)


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
        ({"optim": {"lr": "fast"}}, r"optim\.lr is 'fast'; it must be of type float"),
        ({"train": {"updates": "1e-3"}}, r"train\.updates is 0\.001; it must be of type int"),
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
        read(tree)


def test_numbers_with_an_exponent_are_numbers_in_yaml() -> None:
    config = read(yaml.safe_load("{optim: {lr: 1e-3, warmup_updates: 1E3}, data: {mean: [5e-1], std: [.25e+0]}}"))
    assert (config.optim.lr, config.optim.warmup_updates, config.data.mean) == (0.001, 1_000, (0.5,))


def test_whole_numbers_do_for_floats_and_none_where_it_is_allowed() -> None:
    config = read({"optim": {"lr": 1, "clip_norm": None}, "data": {"mean": [0], "std": [1]}})
    assert isinstance(config.optim.lr, float)
    assert config.optim.clip_norm is None
    assert config.data.mean == (0.0,)
    assert read(to_dict(config)) == config
