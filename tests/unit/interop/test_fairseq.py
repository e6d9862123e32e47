"""The tables of names and of configurations read in both directions."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data2vec2.config.model import ArchitectureConfig, ModalityConfig
from data2vec2.config.run import DataConfig, RunConfig
from data2vec2.interop.fairseq.config import TABLE, format_spec, original_config, parse_spec, read_config
from data2vec2.interop.fairseq.folder import our_letters
from data2vec2.interop.fairseq.keys import POSITIONS, original_name, our_name
from data2vec2.interop.fairseq.original import from_json, to_json
from data2vec2.modalities import get_recipe, recipes
from data2vec2.modalities.audio.config import AudioConfig
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.text.config import TextConfig
from data2vec2.training.optim import peak_lr
from tests.parity.cases import GOLDEN

RELEASED = ("image_base", "image_large", "image_huge14", "audio_base", "audio_large", "text_base", "text_large")


@pytest.mark.parametrize("recipe", [name for name in RELEASED if name != "text_large"])
def test_every_released_name_comes_back(recipe: str) -> None:
    manifest = json.loads((GOLDEN / "manifests" / f"{recipe}.json").read_text())
    model = get_recipe(recipe).model
    kind, prenet = model.modality.kind, model.encoder.prenet_depth
    for part, names in (("student", manifest["state_dict"]), ("teacher", manifest["ema"])):
        ours = {name: our_name(name, kind, part, prenet) for name in names if name != POSITIONS}
        assert len(set(ours.values())) == len(ours)
        assert all(original_name(our, kind, part, prenet) == name for name, our in ours.items())


@pytest.mark.parametrize(
    ("name", "kind", "part"),
    [
        ("blocks.x.norm1.weight", "image", "student"),
        ("modality_encoders.AUDIO.extra_tokens", "image", "student"),
        ("modality_encoders.AUDIO.extra_tokens", "text", "student"),
        ("proj.weight", "audio", "letters"),
        ("w2v_encoder.proj.weight", "audio", "head"),
        ("modality_encoders.IMAGE.context_encoder.blocks.2.norm1.weight", "image", "student"),  # the prenet has 2
        ("modality_encoders.AUDIO.relative_positional_encoder.0.0.weight", "audio", "student"),
        ("modality_encoders.IMAGE.decoder.proj.weight", "image", "teacher"),
        ("0.norm1.weight", "text", "student"),
        ("blocks.0.norm1.weight", "text", "head"),
        ("fc_norm.weight", "text", "head"),
    ],
)
def test_names_without_a_place(name: str, kind: str, part: str) -> None:
    with pytest.raises(KeyError, match="unknown key"):
        our_name(name, kind, part, 2)


@pytest.mark.parametrize("name", [name for name in recipes() if not re.search("mel|sound", name)])
def test_configurations_come_back(name: str) -> None:
    recipe = get_recipe(name)
    if name == "image_tiny":
        recipe = replace(recipe, model=replace(recipe.model, modality=replace(recipe.model.modality, num_channels=1)))
    vocabulary = None
    if isinstance(modality := recipe.model.modality, TextConfig):  # the scale becomes a part of the weights
        recipe = replace(recipe, model=replace(recipe.model, modality=replace(modality, token_scale=1.0)))
        vocabulary = (modality.vocab_size, recipe.model.encoder.embed_dim)
    cfg = json.loads(json.dumps(original_config(recipe)))
    again = read_config(recipe.model.modality.kind, cfg, vocabulary)
    assert isinstance(again, RunConfig)
    peak = peak_lr(recipe.optim, recipe.train.batch_size)
    assert (again.model, again.ema, again.optim) == (
        recipe.model,
        recipe.ema,
        replace(recipe.optim, lr=peak, lr_rule="none", lr_batch=again.optim.lr_batch),
    )
    assert again.train.updates == recipe.train.updates
    model = ArchitectureConfig(modality=recipe.model.modality, encoder=recipe.model.encoder)
    alone = read_config(model.modality.kind, original_config(ModelInfo(model=model, data=recipe.data)), vocabulary)
    assert isinstance(alone, ModelInfo) and alone.model == model, "an encoder without objective"


def test_the_documentation_has_every_key() -> None:
    page = Path("docs/migration.md").read_text("utf-8")
    for _, theirs, ours, _ in TABLE:
        last = theirs.rpartition(".")[2]
        assert f".{last}` | `{ours}` |" in page


def test_what_the_original_has_not() -> None:
    with pytest.raises(ValueError, match="mel stem"):
        original_config(get_recipe("audio_mel_tiny"))
    own = ArchitectureConfig(modality=ModalityConfig(kind="sensors"))
    with pytest.raises(ValueError, match="no models of sensors"):
        original_config(ModelInfo(model=own, data=DataConfig(kind="sensors")))
    text = get_recipe("text_base")
    with pytest.raises(ValueError, match="bos, pad and eos"):
        original_config(replace(text, model=replace(text.model, modality=TextConfig(bos_id=5))))
    with pytest.raises(ValueError, match="stem_norm_eps is 1e-12, and the original has only 1e-05"):
        original_config(replace(text, model=replace(text.model, modality=TextConfig(stem_norm_eps=1e-12))))
    with pytest.raises(ValueError, match="pre_norm is True, and the original has only False"):
        original_config(replace(text, model=replace(text.model, encoder=replace(text.model.encoder, pre_norm=True))))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("layer_norm_first", True, "layer_norm_first is True"),
        ("instance_norm_targets", True, "both instance_norm_targets and layer_norm_targets"),
        ("depth", "12", "model.encoder.depth is '12'"),
        ("average_top_k_layers", 40, "average_layers is 40"),
    ],
)
def test_configurations_that_are_not_understood(key: str, value: object, said: str) -> None:
    cfg = original_config(get_recipe("image_base"))
    cfg["model"][key] = value
    with pytest.raises(ValueError, match=said):
        read_config("image", cfg, None)


def test_the_stems_spec_is_read_not_run() -> None:
    spec = "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]"
    stem = AudioConfig()
    assert parse_spec(spec) == (512, list(stem.layers))
    assert parse_spec("[(8,3,2),(8,2,2)]") == (8, [(3, 2), (2, 2)])
    assert parse_spec(format_spec(512, stem.layers)) == (512, list(stem.layers))
    for bad in ("__import__('os').system('ls')", "", "[(1, 2)]", "[(8,3,2)] * 99999", "[(8,3,2)] + [(4,3,2)]", "[]"):
        with pytest.raises(ValueError, match="feature_encoder_spec"):
            parse_spec(bad)


def test_plain_values_through_json() -> None:
    value = {"a": [1, 2.5, None, True, "x"], "t": (1, (2,)), "n": argparse.Namespace(b={"c": ()}), "i": {0: "a", 1: {}}}
    assert from_json(json.loads(json.dumps(to_json(value)))) == value
    assert to_json(np.float64(0.5)) == 0.5
    assert to_json(torch.float16) == "torch.float16"


def test_letters() -> None:
    assert our_letters(("<s>", "<pad>", "</s>", "<unk>", "|", "A")).symbols == (
        "<pad>", "<s>", "</s>", "<unk>", "|", "a",
    )  # fmt: skip
    both_cases = our_letters(("<s>", "<pad>", "</s>", "<unk>", "|", "A", "a"))
    assert both_cases.symbols[-2:] == ("A", "a")
    for bad in (
        ("<pad>", "<s>"),
        ("<s>", "<pad>", "</s>", "<unk>", "a"),
        ("<s>", "<pad>", "</s>", "<unk>", "|", "a", "a"),
    ):
        with pytest.raises(ValueError, match="symbol"):
            our_letters(bad)
