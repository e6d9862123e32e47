"""`config.yaml` of runs from before fine-tuning had its `task`; the files in `former` are as written then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from data2vec2.modalities import (
    finetune_config,
    get_finetune_recipe,
    get_recipe,
    read_finetune_config,
    read_run_config,
    run_config,
)

FORMER = Path(__file__).with_name("former")
NOT_COMPILED = {"train": {"compile": False}}  # then the default, today by the device
# What the user of each run had changed of its recipe
PRETRAIN: dict[str, dict[str, Any]] = {
    "pretrain_image": {
        "init_from": "/runs/earlier",
        "model": {"modality": {"num_channels": 1}, "masks": {"adjust": 0.05}},
        "optim": {"clip_norm": None},
        "ema": {"start": 0.95},
        "data": {"mean": (0.5,), "std": (0.25,)},
        "train": {"updates": 300},
    },
    "pretrain_audio": {
        "model": {"modality": {"num_mels": 80}, "encoder": {"layer_drop": 0.1}},
        "optim": {"lr_rule": "sqrt"},
        "data": {"min_seconds": 1.0},
        "train": {"micro_batch": 6},
    },
    "pretrain_text": {
        "model": {
            "modality": {"vocab_size": 900},
            "masks": {"mask_ratio": 0.48},  # then the recipe's, as was the rate
            "targets": {"layer_norm": "layer"},
        },
        "optim": {"lr": 1e-3},
        "data": {"tokenizer": "/data/tokenizer", "unit": "document"},
        "train": {"compile": True},
    },
}
FINETUNE: dict[str, dict[str, Any]] = {
    "image_classify": {
        "weights": "0a1b",
        "task": {"model": {"image_size": 384, "drop_path": 0.3}, "augment": {"mixup": 0.0, "label_smoothing": 0.2}},
        "optim": {"layer_decay": 0.5},
        "data": {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2), "labels_per_class": 10},
    },
    "audio_classify": {
        "from_scratch": True,
        "task": {"model": {"pooling": "linear_softmax"}, "masks": {"time_share": 0.2}},
        "optim": {"schedule": "linear"},
        "data": {"labels_per_class": 3},
        "train": {"seed": 5},
    },
    "ctc": {
        "task": {"model": {"freeze_updates": 12}, "masks": {"channel_share": 0.5, "noise_std": 0.1}},
        "data": {"max_minutes": 2.5},
        "train": {"processes": 1},
    },
    "text_classify": {
        "task": {"model": {"dropout": 0.2}},
        "optim": {"decay_all": True},
        "data": {"label_column": "kind", "labels_per_class": 8},
    },
    "text_regress": {
        "weights": "0a1b",
        "task": {"model": {"pooling": "mean"}},
        "data": {"text_columns": ("one", "other"), "val_fraction": 0.2},
    },
}


def former(name: str) -> Any:
    return yaml.safe_load((FORMER / f"{name}.yaml").read_text("utf-8"))


def changed(config: Any, values: dict[str, Any]) -> Any:
    """The configuration with other values in it, groups in groups."""
    return replace(
        config,
        **{
            name: changed(getattr(config, name), value) if isinstance(value, dict) else value
            for name, value in values.items()
        },
    )


@pytest.mark.parametrize("name", PRETRAIN)
def test_a_former_run_of_pretraining(name: str) -> None:
    """Read as a run's own file, to resume it or report on it, and as the recipe of another run."""
    path, values = str(FORMER / f"{name}.yaml"), former(name)
    expected = changed(changed(get_recipe(values["recipe"]), NOT_COMPILED), PRETRAIN[name])
    assert read_run_config(values) == run_config(path) == expected


@pytest.mark.parametrize("name", FINETUNE)
def test_a_former_run_of_finetuning(name: str) -> None:
    path, values = str(FORMER / f"{name}.yaml"), former(name)
    expected = changed(changed(get_finetune_recipe(values["recipe"]), NOT_COMPILED), FINETUNE[name])
    assert finetune_config(path) == expected
    assert read_finetune_config(values) == changed(expected, {"optim": {"fresh": 0.0}}), (
        "it had no new share of its start"
    )


def test_a_former_file_over_its_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("recipe: ctc_tiny\nmasks: {time_share: 0.1}\nmodel: {layer_drop: 0.2}\n")
    expected = changed(
        get_finetune_recipe("ctc_tiny"), {"task": {"masks": {"time_share": 0.1}, "model": {"layer_drop": 0.2}}}
    )
    assert finetune_config(str(tmp_path / "mine.yaml")) == expected


def test_what_was_wrong_is_still_refused() -> None:
    values = former("ctc")
    with pytest.raises(ValueError, match=r"unknown key 'task\.augment'"):
        read_finetune_config({**values, "augment": {"mixup": 0.5}})
    with pytest.raises(ValueError, match=r"unknown key 'task\.model\.drop_path'"):
        read_finetune_config({**values, "model": {"drop_path": 0.5}})
    with pytest.raises(ValueError, match=r"\.kind is 'smell'; it must be one of image, audio, text"):
        read_finetune_config({**values, "data": {**values["data"], "kind": "smell"}})


def test_pictures_need_not_say_that_they_are() -> None:
    values = former("image_classify")
    without = {**values, "data": {name: value for name, value in values["data"].items() if name != "kind"}}
    assert read_finetune_config(without) == read_finetune_config(values)
