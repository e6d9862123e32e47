"""Pre-training under Transformers: the same objective, masks of its own, and a teacher that must be updated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForPreTraining

from data2vec2 import TeacherUpdate
from data2vec2.config.run import EmaConfig, RunConfig
from data2vec2.errors import UserError
from data2vec2.method.masking import draw_keep_ids
from data2vec2.method.pretraining import Data2Vec2
from data2vec2.modalities import get_recipe
from data2vec2.modalities.audio.config import AudioConfig
from data2vec2.modalities.audio.transformers import Data2Vec2AudioConfig
from data2vec2.modalities.image.transformers import Data2Vec2ImageConfig, Data2Vec2ImageForPreTraining
from data2vec2.modalities.text.config import TextConfig
from data2vec2.modalities.text.transformers import Data2Vec2TextConfig
from data2vec2.modalities.tools import tools_of
from data2vec2.modalities.transformers.models import Data2Vec2Config
from tests.unit.interop.conftest import small_config

CONFIGS: dict[str, type[Data2Vec2Config]] = {
    "image": Data2Vec2ImageConfig,
    "audio": Data2Vec2AudioConfig,
    "text": Data2Vec2TextConfig,
}


def run_config(kind: str = "image") -> RunConfig:
    """A tiny run of the modality's recipe."""
    recipe, small = get_recipe(f"{kind}_tiny"), small_config()
    modality = {
        "image": small.modality,
        "audio": AudioConfig(stem="mel", position_depth=2, position_groups=4),
        "text": TextConfig(vocab_size=300, max_tokens=16),
    }[kind]
    decoder = replace(recipe.model.decoder, dim=16, depth=2, groups=4)
    targets = replace(recipe.model.targets, average_layers=2)
    model = replace(recipe.model, modality=modality, encoder=small.encoder, decoder=decoder, targets=targets)
    return replace(recipe, model=model, ema=EmaConfig(start=0.5, end=0.9, anneal_updates=4))


def new_model(kind: str = "image") -> torch.nn.Module:
    config = CONFIGS[kind].from_run_config(run_config(kind))
    return AutoModelForPreTraining.from_config(config)


def inputs_of(kind: str) -> Tensor:
    if kind == "image":
        return torch.randn(4, 3, 24, 24)
    return torch.randn(4, 8_000) if kind == "audio" else torch.randint(3, 300, (4, 16))


def test_a_recipe_goes_there_and_back(tmp_path: Path) -> None:
    for kind, config_class in CONFIGS.items():
        config = run_config(kind)
        config_class.from_run_config(config).save_pretrained(tmp_path / kind)
        loaded = config_class.from_pretrained(tmp_path / kind)
        assert loaded.to_model_config() == config.model
        assert loaded.ema == config.ema
    with pytest.raises(ValueError, match="num_channels"):
        Data2Vec2ImageConfig.from_run_config(get_recipe("image_tiny"))
    with pytest.raises(ValueError, match="from_run_config"):
        Data2Vec2ImageForPreTraining(Data2Vec2ImageConfig.from_model_config(small_config()))


@pytest.mark.parametrize("kind", ["image", "audio", "text"])
def test_the_loss_is_that_of_our_model(kind: str) -> None:
    """Of the masks that the seed and the pass give, in training and in evaluation."""
    model, inputs = new_model(kind), inputs_of(kind)
    config = run_config(kind).model
    ours = Data2Vec2(config, tools_of(kind).build(config))
    state = model.state_dict()
    ours.load_state_dict({name: state[name.replace("student.", "encoder.", 1)] for name in ours.state_dict()})
    grid = {"image": (3, 3), "audio": (24,), "text": (16,)}[kind]
    for passes, mode in ((1, True), (2, True), (0, False), (0, False)):
        model.train(mode)
        keep_ids = draw_keep_ids(ours.config.masks, grid, 0, np.full(4, passes), np.arange(4))
        torch.manual_seed(7)
        with torch.no_grad():
            found = model(inputs, **({} if kind == "image" else {"attention_mask": torch.ones(4, inputs.shape[1])}))
        torch.manual_seed(7)
        with torch.no_grad():
            expected = ours(inputs, torch.from_numpy(keep_ids))
        assert torch.equal(found.loss, expected.loss / expected.num_rows)
        assert torch.equal(found.regression_loss, expected.regression) and torch.equal(found.cls_loss, expected.cls)
    assert int(model.passes) == 2
    if kind != "image":
        with pytest.raises(ValueError, match="padding"):
            model(inputs, attention_mask=torch.eye(4, inputs.shape[1]))


def step(model: torch.nn.Module, optimiser: torch.optim.Optimizer, update: bool) -> None:
    model(torch.randn(2, 3, 24, 24)).loss.backward()
    model(torch.randn(2, 3, 24, 24)).loss.backward()  # accumulated
    optimiser.step()
    optimiser.zero_grad()
    if update:
        TeacherUpdate().on_optimizer_step(None, None, None, model=model)


@pytest.mark.parametrize("fused", [False, True])  # True as by the Trainer
def test_without_updates_of_the_teacher_it_refuses_to_go_on(fused: bool) -> None:
    model = new_model().train()
    optimiser = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-3, fused=fused)
    for _ in range(4):
        step(model, optimiser, update=True)
    step(model, optimiser, update=False)
    step(model, optimiser, update=False)
    with pytest.raises(UserError, match=r"TeacherUpdate\(\)"):
        step(model, optimiser, update=False)
    model.eval()(torch.randn(2, 3, 24, 24))
    model.update_teacher()
    step(model.train(), optimiser, update=True)
    with pytest.raises(UserError, match="Linear"):
        TeacherUpdate().on_optimizer_step(None, None, None, model=torch.nn.Linear(1, 1))


def test_the_teacher_is_the_average_of_the_student_and_never_trained() -> None:
    model = new_model().train()
    assert not model.teacher.training and not any(p.requires_grad for p in model.teacher.parameters())
    optimiser = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
    name = "blocks.1.mlp.fc1.weight"
    expected = model.teacher.get_parameter(name).clone()
    for decay in (0.6, 0.7, 0.8, 0.9, 0.9):
        step(model, optimiser, update=True)
        expected = decay * expected + (1 - decay) * model.encoder.get_parameter(name).detach()
        torch.testing.assert_close(model.teacher.get_parameter(name), expected)
    assert int(model.teacher_updates) == 5


def test_saved_and_loaded_it_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = new_model().train()
    optimiser = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
    step(model, optimiser, update=True)
    model.save_pretrained(tmp_path / "saved", max_shard_size="20KB")
    loaded = AutoModelForPreTraining.from_pretrained(tmp_path / "saved").train()
    assert {n for n, p in loaded.named_parameters() if p.requires_grad} == {
        n for n, p in model.named_parameters() if p.requires_grad
    }
    others = torch.optim.SGD((p for p in loaded.parameters() if p.requires_grad), lr=0.1)
    for one, optimiser_of_one in ((model, optimiser), (loaded, others)):
        torch.manual_seed(1)
        step(one, optimiser_of_one, update=True)
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    model.save_pretrained(tmp_path / "saved")
    encoder = AutoModel.from_pretrained(tmp_path / "saved").encoder.state_dict()
    assert all(torch.equal(tensor, encoder[name]) for name, tensor in model.encoder.state_dict().items())


@pytest.mark.usefixtures("garbage_in_new_tensors")
def test_an_exported_encoder_is_student_and_teacher(exported: Path, encoder: torch.nn.Module) -> None:
    config = Data2Vec2ImageConfig.from_run_config(run_config())
    model = Data2Vec2ImageForPreTraining.from_pretrained(exported, config=config)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], tensor), name
        assert torch.equal(model.teacher.state_dict()[name], tensor), name
    assert int(model.passes) == int(model.teacher_updates) == 0
    for name, parameter in model.decoder.named_parameters():
        assert parameter.isfinite().all() and parameter.abs().max() < 1, name
    assert model(torch.randn(2, 3, 24, 24)).loss.isfinite()


def test_gradient_checkpointing_changes_nothing() -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(3)
        model = new_model("audio").train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(inputs_of("audio")).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_weights_of_bfloat16_have_no_teacher() -> None:
    with pytest.raises(ValueError, match="float32"):
        new_model().bfloat16().update_teacher()
