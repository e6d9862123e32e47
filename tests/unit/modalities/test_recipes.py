"""Recipes by name, and in YAML files, in which what is left out is as in the recipe that they name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from data2vec2.config.tree import to_dict
from data2vec2.errors import UserError
from data2vec2.modalities import (
    finetune_config,
    finetune_recipes,
    get_finetune_recipe,
    get_recipe,
    read_finetune_config,
    read_run_config,
    recipes,
    run_config,
    specs,
)

ALL = [
    pytest.param(name, recipe, *readers, id=name)
    for found, *readers in (
        (recipes(), run_config, read_run_config),
        (finetune_recipes(), finetune_config, read_finetune_config),
    )
    for name, recipe in found.items()
]
"""Name, recipe, and what reads it from a file and from a dictionary."""


@pytest.mark.parametrize(("name", "recipe", "from_file", "read"), ALL)
def test_every_recipe_survives_yaml_and_json(
    name: str, recipe: Callable[[], Any], from_file: Callable[[str], Any], read: Callable[[Any], Any], tmp_path: Path
) -> None:
    config, path = recipe(), tmp_path / "config.yaml"
    assert config.recipe == name
    path.write_text(yaml.safe_dump(to_dict(config)))
    for again in (from_file(str(path)), read(to_dict(config)), read(json.loads(json.dumps(to_dict(config))))):
        assert (again, type(again)) == (config, type(config))
    path.write_text(f"recipe: {name}\n")
    assert from_file(str(path)) == from_file(name) == config


def test_every_modality_has_recipes_of_its_own() -> None:
    for name, spec in specs().items():
        own = [recipe() for recipe in spec.recipes.values()]
        assert own and {config.model.modality.kind for config in own} == {name}
        for tasks in spec.finetune.values():
            assert tasks and {recipe().task.kind for recipe in tasks.values()} == {name}
    assert len(recipes()) == sum(len(spec.recipes) for spec in specs().values())


def test_an_unknown_recipe_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no recipe 'image_bas'; did you mean 'image_base'\?"):
        get_recipe("image_bas")
    with pytest.raises(ValueError, match=r"no recipe 'x'; there are image_tiny, image_small"):
        get_recipe("x")
    with pytest.raises(ValueError, match=r"no fine-tuning recipe 'ctc_base_10hours'; did you mean 'ctc_base_10h'\?"):
        get_finetune_recipe("ctc_base_10hours")
    with pytest.raises(
        ValueError, match="image_tiny is a recipe of pre-training, not of fine-tuning; there are image_fi"
    ):
        get_finetune_recipe("image_tiny")
    with pytest.raises(ValueError, match="squad is a recipe of fine-tuning, not of pre-training; there are image_tiny"):
        get_recipe("squad")


def test_what_a_file_says_is_over_its_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text("recipe: image_tiny\ntrain: {updates: 7}\ndata: {mean: [0.5], std: [0.25]}\n")
    recipe = get_recipe("image_tiny")
    data = replace(recipe.data, mean=(0.5,), std=(0.25,))
    expected = replace(recipe, train=replace(recipe.train, updates=7), data=data)
    assert run_config(str(tmp_path / "mine.yml")) == expected


def test_a_whole_configuration_stays_itself(tmp_path: Path) -> None:
    recipe = get_recipe("audio_mel_tiny")
    mine = replace(recipe, optim=replace(recipe.optim, lr=0.5, clip_norm=None))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(to_dict(mine)))
    assert run_config(str(tmp_path / "mine.yaml")) == mine


def test_files_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    with pytest.raises(UserError, match=r"mine.yaml can't be read: No such file or directory$"):
        finetune_config(str(path))
    path.write_text("recipe: image_tiny\ntrain:\n\t- x: [")
    with pytest.raises(UserError, match=r"mine.yaml can't be read: while scanning .*, line 3, column 1:") as found:
        finetune_config(str(path))
    assert "\n" not in str(found.value)
    path.write_bytes(b"\xff: 1")
    with pytest.raises(UserError, match=r"mine.yaml can't be read"):
        finetune_config(str(path))
    path.write_text("recipe: image_finetune_tini")
    with pytest.raises(ValueError, match="did you mean 'image_finetune_tiny'"):
        finetune_config(str(path))
    path.write_text("recipe: ctc_tiny\ntrain: {update: 3}")
    with pytest.raises(ValueError, match=r"unknown key 'train.update'; did you mean 'updates'"):
        finetune_config(str(path))
