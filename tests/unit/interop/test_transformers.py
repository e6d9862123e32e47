"""The exported folder as a Transformers model."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load, save_file
from transformers import AutoConfig, AutoImageProcessor, AutoModel, pipeline

import data2vec2
from data2vec2.config.model import ArchitectureConfig, ModelConfig
from data2vec2.errors import UserError
from data2vec2.interop.folder import load_encoder
from data2vec2.method.encoder import Encoder
from data2vec2.modalities.image import recipes as image
from data2vec2.modalities.image.config import ImageConfig
from data2vec2.modalities.image.model import sincos_2d
from data2vec2.modalities.image.reader import central_box, crop
from data2vec2.modalities.image.transformers import Data2Vec2ImageConfig, Data2Vec2ImageModel
from tests.unit.interop.conftest import export, make_encoder, small_config


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def garbage_in_new_tensors():
    """Fill memory that nobody has initialised with NaN, so that whoever reads it is found out."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def assert_same_encoder(model: Data2Vec2ImageModel, encoder: Encoder) -> None:
    """Weights and fixed buffers are equal, bit by bit."""
    theirs = dict(model.encoder.named_parameters()) | dict(model.encoder.named_buffers())
    ours = dict(encoder.named_parameters()) | dict(encoder.named_buffers())
    assert theirs.keys() == ours.keys()
    for name, tensor in ours.items():
        assert torch.equal(theirs[name], tensor), name


@pytest.mark.parametrize("recipe", [image.image_base, image.image_huge14, image.image_tiny])
def test_configuration_goes_there_and_back(recipe, tmp_path: Path):
    model = recipe().model
    config = Data2Vec2ImageConfig.from_model_config(model)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, Data2Vec2ImageConfig)
    assert loaded.to_model_config() == ArchitectureConfig(modality=model.modality, encoder=model.encoder)


def test_default_configuration_is_ours():
    assert Data2Vec2ImageConfig().to_model_config() == ArchitectureConfig(modality=ImageConfig())
    assert Data2Vec2ImageConfig(hidden_size=192) != Data2Vec2ImageConfig(hidden_size=384)
    with pytest.raises(ValueError, match="hidden_act"):
        Data2Vec2ImageModel(Data2Vec2ImageConfig(hidden_act="relu"))


@pytest.mark.usefixtures("garbage_in_new_tensors")
def test_auto_model_gives_the_exported_encoder(encoder: Encoder, exported: Path, pictures):
    model, report = AutoModel.from_pretrained(exported, output_loading_info=True)
    assert isinstance(model, Data2Vec2ImageModel)
    assert isinstance(AutoConfig.from_pretrained(exported), Data2Vec2ImageConfig)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert_same_encoder(model, encoder)
    with torch.no_grad():
        output, encoded = model(pixel_values=pictures), encoder(pictures)
    assert output.last_hidden_state.shape == (2, 1 + 9, 16)
    assert torch.equal(output.last_hidden_state, encoded.x_NLD)
    assert torch.equal(output.pooler_output, output.last_hidden_state[:, 1:].mean(dim=1))
    assert output.hidden_states is None


def test_hidden_states_are_the_embeddings_and_every_block(exported: Path, pictures):
    model = AutoModel.from_pretrained(exported)
    states = model(pictures, output_hidden_states=True).hidden_states
    assert len(states) == 1 + 3
    for block, before, after in zip(model.encoder.blocks, states[:-1], states[1:], strict=True):
        assert torch.equal(block(before).x_NLD, after)
    rows = model.encoder.modality.arrange(model.encoder.modality.tokens(pictures)).rows_NLD
    assert torch.equal(states[0], model.encoder.norm(rows))
    assert torch.equal(states[-1], model(pictures).last_hidden_state)
    with pytest.raises(ValueError, match="shape"):
        model(pictures[:, :1], output_hidden_states=True)
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in model.encoder.blocks)


def test_outputs_as_a_tuple(exported: Path, pictures):
    model = AutoModel.from_pretrained(exported)
    last, pooled = model(pictures, return_dict=False)
    assert torch.equal(last, model(pictures).last_hidden_state)
    assert torch.equal(pooled, model(pictures).pooler_output)


@pytest.mark.usefixtures("garbage_in_new_tensors")
def test_bfloat16_is_close(config: ModelConfig, tmp_path: Path, pictures):
    torch.manual_seed(0)
    encoder = Data2Vec2ImageModel(Data2Vec2ImageConfig.from_model_config(config)).encoder.eval()
    export(encoder, config, tmp_path / "out")
    model = AutoModel.from_pretrained(tmp_path / "out", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    for name, parameter in encoder.named_parameters():
        assert torch.equal(model.encoder.get_parameter(name), parameter.bfloat16()), name
    positions = model.encoder.modality.positions_TD.float()
    torch.testing.assert_close(positions, sincos_2d(16, (3, 3)), atol=5e-3, rtol=0)
    output = model(pictures).last_hidden_state
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), encoder(pictures).x_NLD, atol=0.1, rtol=0)


@pytest.mark.usefixtures("garbage_in_new_tensors")
def test_missing_weights_are_initialised_and_reported(encoder: Encoder, exported: Path):
    missing = {
        "encoder.modality.stem.bias",
        "encoder.modality.cls_token",
        "encoder.norm.weight",
        "encoder.blocks.1.attn.qkv.weight",
        "encoder.blocks.1.attn.qkv.bias",
    }
    weights = load((exported / "model.safetensors").read_bytes())
    kept = {name: tensor for name, tensor in weights.items() if name not in missing}
    save_file(kept, exported / "model.safetensors", metadata={"format": "pt"})
    model, report = AutoModel.from_pretrained(exported, output_loading_info=True)
    assert set(report["missing_keys"]) == missing
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, weights[name]) == (name not in missing), name
        assert parameter.isfinite().all(), name
    assert torch.equal(model.encoder.modality.positions_TD, encoder.modality.positions_TD)
    assert torch.equal(model.encoder.norm.weight, torch.ones(16))
    block = model.encoder.blocks[1]
    assert torch.equal(block.attn.qkv.bias, torch.zeros(48))
    assert 0.015 < block.attn.qkv.weight.std() < 0.025
    assert 0.3 < model.encoder.modality.cls_token.std() < 2


@pytest.mark.usefixtures("garbage_in_new_tensors")
def test_a_missing_stem_is_initialised(exported: Path):
    weights = load((exported / "model.safetensors").read_bytes())
    del weights["encoder.modality.stem.weight"]
    save_file(weights, exported / "model.safetensors", metadata={"format": "pt"})
    model = AutoModel.from_pretrained(exported)
    limit = (6 / (16 + 3 * 64)) ** 0.5  # Xavier uniform on the flattened kernel
    assert 0.9 * limit < model.encoder.modality.stem.weight.abs().max() <= limit
    for name, tensor in weights.items():
        assert torch.equal(model.get_parameter(name), tensor), name


def test_initialising_again_repairs_buffers_and_spares_loaded_weights(encoder: Encoder, exported: Path):
    model = AutoModel.from_pretrained(exported)
    model.encoder.modality.positions_TD.fill_(torch.nan)
    model._init_weights(model.encoder.modality)
    assert_same_encoder(model, encoder)


def test_a_new_model_is_initialised_as_ours(config: ModelConfig):
    model = Data2Vec2ImageModel(Data2Vec2ImageConfig.from_model_config(config))
    assert torch.equal(model.encoder.modality.positions_TD, sincos_2d(16, (3, 3)))
    assert 0.015 < model.encoder.blocks[0].mlp.fc1.weight.std() < 0.025
    assert torch.equal(model.encoder.blocks[0].mlp.fc1.bias, torch.zeros(64))


def test_what_transformers_saves_is_read_by_both(encoder: Encoder, exported: Path, tmp_path: Path):
    again = tmp_path / "again"
    AutoModel.from_pretrained(exported).save_pretrained(again)
    AutoImageProcessor.from_pretrained(exported).save_pretrained(again)
    assert_same_encoder(AutoModel.from_pretrained(again), encoder)
    loaded, info = load_encoder(again)
    assert info == load_encoder(exported)[1]
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_fine_tuning_reaches_every_parameter(exported: Path, pictures):
    model = AutoModel.from_pretrained(exported).train()
    model(pictures).last_hidden_state.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.get_input_embeddings() is model.encoder.modality.stem


@pytest.mark.parametrize(("mode", "num_channels"), [("RGB", 3), ("L", 3), ("L", 1)])
def test_image_processor_sees_what_evaluation_sees(mode: str, num_channels: int, tmp_path: Path):
    config = small_config(num_channels)
    export(make_encoder(config), config, tmp_path / "out", eval_crop=0.75)  # 24 / 0.75 is a whole number of pixels
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, len(mode)), dtype=np.uint8)
    picture = Image.fromarray(pixels if len(mode) > 1 else pixels[:, :, 0]).resize((450, 300), Image.Resampling.BICUBIC)
    assert picture.mode == mode
    values = processor(picture, return_tensors="pt")["pixel_values"]
    ours = crop(np.asarray(picture), partial(central_box, 0.75), 24, num_channels)
    expected = np.asarray(ours, dtype=np.float32).reshape(24, 24, num_channels) / 255
    expected = (expected - (0.4, 0.5, 0.6)[:num_channels]) / (0.2, 0.25, 0.3)[:num_channels]
    assert values.shape == (1, num_channels, 24, 24)
    np.testing.assert_allclose(values[0].numpy(), expected.transpose(2, 0, 1), atol=1e-5)
    both = processor([picture, picture.convert("RGB")], return_tensors="pt")["pixel_values"]
    assert torch.equal(both[:1], values) and both.shape[0] == 2
    model = AutoModel.from_pretrained(tmp_path / "out")
    assert model(values).last_hidden_state.isfinite().all()


def test_an_image_processor_takes_pictures_in_many_forms(exported: Path, tmp_path: Path):
    processor = AutoImageProcessor.from_pretrained(exported)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    picture.save(tmp_path / "picture.png")
    expected = processor(picture, return_tensors="pt")["pixel_values"]
    forms = (tmp_path / "picture.png", (tmp_path / "picture.png").read_bytes(), pixels, pixels.transpose(2, 0, 1))
    for form in (*forms, torch.from_numpy(pixels), pixels[None], picture.convert("P", palette=Image.Palette.WEB)):
        values = processor(form, return_tensors="pt")["pixel_values"]
        assert values.shape == (1, 3, 24, 24)
        assert torch.equal(values, expected) or isinstance(form, Image.Image)
    with pytest.raises(ValueError, match="uint8"):
        processor(pixels / 255.0)


def test_exports_with_the_image_processor_of_vit_still_load(encoder: Encoder, exported: Path):
    old = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"shortest_edge": 27},
        "crop_size": {"height": 24, "width": 24},
        "do_center_crop": True,
        "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.2, 0.25, 0.3],
        "eval_crop": 0.875,
    }
    before = load_encoder(exported)[1]
    (exported / "preprocessor_config.json").write_text(json.dumps(old))
    assert load_encoder(exported)[1] == before
    processor = AutoImageProcessor.from_pretrained(exported)
    picture = Image.new("RGB", (40, 30))
    assert processor(picture, return_tensors="pt")["pixel_values"].shape == (1, 3, 24, 24)
    with pytest.warns(UserWarning, match=r"ViTImageProcessor.* transparent pictures on black"):
        pipeline("image-feature-extraction", str(exported), device="cpu")


@pytest.mark.parametrize("change", [{"transparency": "black"}, {"do_normalize": False}, {"size": 32}])
def test_an_image_processor_that_differs_from_training_is_refused_by_commands(exported: Path, change: dict):
    path = exported / "preprocessor_config.json"
    values = json.loads(path.read_text())
    assert values["transparency"] == "white" and values["size"] == {"height": 24, "width": 24}
    path.write_text(json.dumps(values | change))
    with pytest.raises(UserError, match=next(iter(change))):
        load_encoder(exported)


def test_the_file_of_the_image_processor_keeps_the_crop(exported: Path):
    assert json.loads((exported / "preprocessor_config.json").read_text())["eval_crop"] == 0.875


def test_the_package_offers_what_it_says():
    for name in data2vec2.__all__:
        assert name == "__version__" or getattr(data2vec2, name).__name__ == name
    assert data2vec2.Data2Vec2ImageModel is Data2Vec2ImageModel
    assert data2vec2.Data2Vec2ImageConfig is Data2Vec2ImageConfig
