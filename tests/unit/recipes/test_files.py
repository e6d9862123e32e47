"""What a YAML file leaves out is as in the recipe that it names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from data2vec2.config import RunConfig, from_dict, to_dict
from data2vec2.errors import UserError
from data2vec2.recipes import get_recipe
from data2vec2.recipes.files import read_values
from data2vec2.recipes.finetune import finetune_config, get_finetune_recipe


@pytest.mark.parametrize("name", ["image_finetune_tiny", "ctc_tiny", "text_finetune_tiny"])
def test_a_file_that_names_only_a_recipe_is_the_recipe(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine.yaml").write_text(f"recipe: {name}\n")
    assert finetune_config(str(tmp_path / "mine.yaml")) == finetune_config(name) == get_finetune_recipe(name)


def test_what_a_file_says_is_over_its_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text("recipe: image_tiny\ntrain: {updates: 7}\ndata: {mean: [0.5], std: [0.25]}\n")
    recipe = get_recipe("image_tiny")
    data = replace(recipe.data, mean=(0.5,), std=(0.25,))
    expected = replace(recipe, train=replace(recipe.train, updates=7), data=data)
    assert from_dict(RunConfig, read_values(tmp_path / "mine.yml", get_recipe)) == expected


def test_a_whole_configuration_stays_itself(tmp_path: Path) -> None:
    recipe = get_recipe("audio_mel_tiny")
    mine = replace(recipe, optim=replace(recipe.optim, lr=0.5, clip_norm=None))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(to_dict(mine)))
    assert from_dict(RunConfig, read_values(tmp_path / "mine.yaml", get_recipe)) == mine


def test_files_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    with pytest.raises(UserError, match=r"mine.yaml can't be read"):
        finetune_config(str(path))
    path.write_bytes(b"\xff: 1")
    with pytest.raises(UserError, match=r"mine.yaml can't be read"):
        finetune_config(str(path))
    path.write_text("recipe: image_finetune_tini")
    with pytest.raises(ValueError, match="did you mean 'image_finetune_tiny'"):
        finetune_config(str(path))
    path.write_text("recipe: ctc_tiny\ntrain: {update: 3}")
    with pytest.raises(ValueError, match=r"unknown key 'train.update'; did you mean 'updates'"):
        finetune_config(str(path))
