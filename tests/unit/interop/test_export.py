"""The exported folder, written and read without Transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, load_file, save_file

from data2vec2.config.model import ArchitectureConfig, ModelConfig
from data2vec2.errors import UserError
from data2vec2.interop.folder import FILES, export_model, load_encoder
from data2vec2.method.encoder import Encoder
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.fields import from_fields, to_fields
from data2vec2.modalities.image import recipes as image
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig
from data2vec2.modalities.interop import PROCESSOR
from tests.unit.interop.conftest import export, make_encoder


def change_json(path: Path, **changes: object) -> None:
    """Set fields of a JSON file; None removes one."""
    fields = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in fields.items() if value is not None}))


@pytest.mark.parametrize("recipe", [image.image_base, image.image_large, image.image_huge14, image.image_tiny])
def test_modality_and_encoder_survive_the_fields_of_config_json(recipe):
    model = recipe().model
    restored = from_fields(json.loads(json.dumps(to_fields(model))))
    assert (restored.modality, restored.encoder) == (model.modality, model.encoder)


def test_loaded_encoder_equals_the_exported_one(encoder: Encoder, config: ModelConfig, exported: Path, pictures):
    loaded, info = load_encoder(exported)
    assert (info.model.modality, info.model.encoder) == (config.modality, config.encoder)
    assert info.data == ImageDataConfig(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), eval_crop=0.875)
    assert not loaded.training
    assert torch.equal(loaded(pictures).x_NLD, encoder(pictures).x_NLD)


def test_tensor_names_are_those_that_transformers_reads(encoder: Encoder, exported: Path):
    names = set(load_file(exported / "model.safetensors"))
    assert names == {f"encoder.{name}" for name in encoder.state_dict()}
    assert {"encoder.modality.stem.weight", "encoder.modality.cls_token", "encoder.blocks.0.attn.qkv.weight"} <= names


def test_a_bfloat16_encoder_is_loaded_in_float32(encoder: Encoder, config: ModelConfig, tmp_path: Path):
    export(encoder.bfloat16(), config, tmp_path / "half")
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"
    loaded, _ = load_encoder(tmp_path / "half")
    for name, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, encoder.state_dict()[name].float())


def test_export_replaces_an_earlier_one_and_leaves_nothing_else(config: ModelConfig, exported: Path, pictures):
    other = make_encoder(config)
    with torch.no_grad():
        other.blocks[0].mlp.fc1.weight.mul_(2)
    export(other, config, exported, card="# Another\n")
    assert sorted(path.name for path in exported.parent.iterdir()) == ["exported"]
    assert {path.name for path in exported.iterdir()} == {*FILES, PROCESSOR}
    assert (exported / "README.md").read_text() == "# Another\n"
    assert torch.equal(load_encoder(exported)[0](pictures).x_NLD, other(pictures).x_NLD)


def test_export_makes_missing_folders_and_fills_an_empty_one(encoder: Encoder, config: ModelConfig, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "a" / "b"):
        export(encoder, config, folder)
        load_encoder(folder)


def test_export_leaves_other_peoples_files_alone(encoder: Encoder, config: ModelConfig, exported: Path):
    (exported / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        export(encoder, config, exported)
    assert (exported / "thesis.tex").read_text() == "precious"
    with pytest.raises(UserError, match="is a file"):
        export(encoder, config, exported / "thesis.tex")


def test_a_failed_export_keeps_the_earlier_one(encoder: Encoder, config: ModelConfig, exported: Path, pictures):
    with pytest.raises(UnicodeEncodeError):
        export(encoder, config, exported, card="\ud800")  # half a character: the last file can't be written
    assert sorted(path.name for path in exported.parent.iterdir()) == ["exported"]
    assert torch.equal(load_encoder(exported)[0](pictures).x_NLD, encoder(pictures).x_NLD)


def test_export_refuses_a_mean_of_other_length(encoder: Encoder, config: ModelConfig, tmp_path: Path):
    info = ModelInfo(model=config, data=ImageDataConfig(mean=(0.5,), std=(0.2,)))
    with pytest.raises(ValueError, match="3 channels"):
        export_model(encoder, info, tmp_path / "x", "")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", [*FILES[:2], PROCESSOR])
def test_a_missing_file_is_named(exported: Path, name: str):
    (exported / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        load_encoder(exported)


def test_a_run_folder_is_told_from_its_export(exported: Path):
    with pytest.raises(UserError, match=r"did you mean .*exported"):
        load_encoder(exported.parent)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "vit"}, "model_type is 'vit'"),
        ({"hidden_size": None}, "hidden_size missing"),
        ({"hidden_size": "wide"}, "'wide'"),
        ({"num_attention_heads": 5}, "num_heads is 5"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"num_hidden_layers": 3}, r"model\.safetensors"),
        ({"hidden_size": 32}, r"model\.safetensors"),
    ],
)
def test_a_config_json_of_something_else_is_refused(exported: Path, changes: dict[str, object], message: str):
    change_json(exported / "config.json", **changes)
    with pytest.raises(UserError, match=message):
        load_encoder(exported)


def test_damaged_files_are_named(exported: Path):
    change_json(exported / "preprocessor_config.json", eval_crop=None)
    with pytest.raises(UserError, match=r"preprocessor_config\.json can't be used: it needs"):
        load_encoder(exported)
    (exported / "preprocessor_config.json").write_text("{")
    with pytest.raises(UserError, match=r"preprocessor_config\.json is not valid JSON"):
        load_encoder(exported)
    (exported / "preprocessor_config.json").write_text("[]")
    with pytest.raises(UserError, match="must hold an object"):
        load_encoder(exported)
    (exported / "preprocessor_config.json").rename(exported / "processor_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"processor_config\.json can't be used: it needs"):
        load_encoder(exported)


def test_damaged_weights_are_named(exported: Path):
    path = exported / "model.safetensors"
    weights = load(path.read_bytes())
    del weights["encoder.norm.weight"]
    save_file(weights, path)
    with pytest.raises(UserError, match=r"(?s)model\.safetensors.*norm\.weight"):
        load_encoder(exported)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load_encoder(exported)


def test_the_default_fields_are_the_default_configuration():
    default = ArchitectureConfig(modality=ImageConfig())
    fields = to_fields(default)
    assert fields["image_size"] == ImageConfig().image_size
    assert from_fields(fields) == default
