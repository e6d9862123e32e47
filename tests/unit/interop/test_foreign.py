"""Weights of other families: our features are those of their own classes, and what can't be mapped is named."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from data2vec2.errors import UserError
from data2vec2.interop.folder import export_model, load_encoder
from data2vec2.interop.foreign import fetched, is_foreign, load_foreign, read_foreign
from data2vec2.interop.onnx import export_program, output_names, write_onnx
from data2vec2.method.encoder import Encoder
from data2vec2.modalities.fields import example_of, interop_of
from tests.foreign import FAMILIES, change, difference, inputs_of, saved, saved_timm, theirs

CLOSE = 1e-4
OF = {kind: [name for name, family in FAMILIES.items() if family.kind == kind] for kind in ("image", "audio", "text")}


def blocks_of(encoder: Encoder, inputs: torch.Tensor) -> list[torch.Tensor]:
    """Every block's output."""
    found: list[torch.Tensor] = []
    hooks = [block.register_forward_hook(lambda *of: found.append(of[2].x_NLD)) for block in encoder.blocks]
    with torch.no_grad():
        encoder(inputs)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_theirs(tmp_path: Path, name: str) -> None:
    """Those of the last and of every block."""
    torch.manual_seed(0)
    model = saved(name, tmp_path)
    inputs, (encoder, info) = inputs_of(name, model), load_foreign(tmp_path)
    expected = theirs(name, model, inputs, output_hidden_states=True)
    with torch.no_grad():
        found = encoder(inputs)
    assert info.kind == FAMILIES[name].kind
    assert expected.last_hidden_state.std() > 0.1
    assert difference(found.x_NLD, expected.last_hidden_state) < CLOSE
    for ours, block in zip(blocks_of(encoder, inputs)[:-1], expected.hidden_states[1:-1], strict=True):
        assert difference(ours, block) < CLOSE


@pytest.mark.parametrize("name", OF["audio"] + OF["text"])
def test_padding_changes_nothing(tmp_path: Path, name: str) -> None:
    """Features of a padded sample are theirs of the sample alone, also where theirs of the padded one are not."""
    torch.manual_seed(0)
    model = saved(name, tmp_path)
    inputs, (encoder, info) = inputs_of(name, model), load_foreign(tmp_path)
    length = inputs.shape[1] * 3 // 4
    lengths_B = torch.tensor([inputs.shape[1], length])
    inputs[1, length:] = 1 if info.kind == "text" else 7.0
    with torch.no_grad():
        encoded = encoder(inputs, lengths_B=lengths_B)
    for row, real in enumerate(lengths_B.tolist()):
        alone = theirs(name, model, inputs[row : row + 1, :real]).last_hidden_state[0]
        assert encoded.tokens.padding_BT is not None
        assert int((~encoded.tokens.padding_BT[row]).sum()) == len(alone)
        assert difference(encoded.x_NLD[row, : len(alone)], alone) < CLOSE
    if info.kind == "text" or name.endswith("pre-norm"):  # others of them have norms over time or deep positions
        mask = (torch.arange(inputs.shape[1]) < lengths_B[:, None]).long()
        padded = theirs(name, model, inputs * mask if info.kind == "audio" else inputs, mask).last_hidden_state[1]
        assert difference(encoded.x_NLD[1, : len(alone)], padded[: len(alone)]) < CLOSE


@pytest.mark.parametrize("name", OF["image"])
def test_pictures_of_another_size(tmp_path: Path, name: str) -> None:
    """The processor's size decides; positions are interpolated as the family does it."""
    torch.manual_seed(0)
    model = saved(name, tmp_path)
    change(tmp_path, "preprocessor_config.json", size={"shortest_edge": 28}, crop_size={"height": 24, "width": 24})
    encoder, info = load_foreign(tmp_path)
    assert (info.model.modality.image_size, info.data.eval_crop) == (24, pytest.approx(24 / 28, abs=1e-4))
    pictures, more = torch.randn(2, 3, 24, 24), {} if "DINO" in name else {"interpolate_pos_encoding": True}
    if name == "MAE":
        more["noise"] = torch.arange(9.0).expand(2, -1)
        with torch.no_grad():
            expected = model.base_model(pictures, **more)
    else:
        expected = theirs(name, model, pictures, **more)
    with torch.no_grad():
        found = encoder(pictures).x_NLD
    assert difference(found, expected.last_hidden_state) < CLOSE


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"init_values": 0.1},
        {"init_values": 0.1, "reg_tokens": 4, "no_embed_class": True},
        {"reg_tokens": 2},
    ],
)
def test_vits_of_timm(tmp_path: Path, arguments: dict[str, object]) -> None:
    pytest.importorskip("timm", reason="the models of timm need timm: pip install 'data2vec2[vision]'")
    torch.manual_seed(0)
    model = saved_timm(tmp_path, **arguments)
    encoder, info = load_foreign(tmp_path)
    pictures = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert difference(encoder(pictures).x_NLD, model.forward_features(pictures)) < CLOSE
    assert (info.data.mean, info.data.std, info.data.eval_crop) == ((0.5,) * 3, (0.25,) * 3, 0.9)


def test_mae_keeps_its_fixed_positions(tmp_path: Path) -> None:
    saved("MAE", tmp_path)
    foreign = read_foreign(tmp_path)
    assert foreign.model.modality.positions == "sincos"
    assert foreign.dropped == ("decoder",)
    weights = load_file(tmp_path / "model.safetensors")
    weights["vit.embeddings.position_embeddings"] *= 1.1
    save_file(weights, tmp_path / "model.safetensors")
    assert read_foreign(tmp_path).model.modality.positions == "learned"


def test_old_names_and_other_files(tmp_path: Path) -> None:
    """Weight norm and LayerNorm under their former names; several files; PyTorch's own format; half precision."""
    model = saved("wav2vec 2.0", tmp_path / "speech")
    weights = load_file(tmp_path / "speech" / "model.safetensors")
    place = "wav2vec2.encoder.pos_conv_embed.conv."
    for new, old in (
        ("parametrizations.weight.original0", "weight_g"),
        ("parametrizations.weight.original1", "weight_v"),
    ):
        weights[place + old] = weights.pop(place + new)
    (tmp_path / "speech" / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "speech" / "pytorch_model.bin")
    inputs = inputs_of("wav2vec 2.0", model)
    with torch.no_grad():
        found = load_foreign(tmp_path / "speech")[0](inputs).x_NLD
    assert difference(found, theirs("wav2vec 2.0", model, inputs).last_hidden_state) < CLOSE

    model = saved("BERT", folder := tmp_path / "text")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts: dict[str, dict[str, torch.Tensor]] = {
        "model-00001-of-00002.safetensors": {},
        "model-00002-of-00002.safetensors": {},
    }
    places = {}
    for number, (name, tensor) in enumerate(weights.items()):
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        file = list(parts)[number % 2]
        parts[file][old], places[old] = tensor.bfloat16(), file
    for file, tensors in parts.items():
        save_file(tensors, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    encoder, _ = load_foreign(folder)
    assert {tensor.dtype for tensor in encoder.state_dict().values()} == {torch.float32}
    inputs = inputs_of("BERT", model)
    with torch.no_grad():
        assert difference(encoder(inputs).x_NLD, theirs("BERT", model, inputs).last_hidden_state) < 0.1
    (folder / file).unlink()
    with pytest.raises(UserError, match=f"lacks {file}"):
        read_foreign(folder)


class Stranger:
    """An object that a restricted reader must not build."""


def test_no_file_runs_anything(tmp_path: Path) -> None:
    saved("ViT", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"x": Stranger()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="can't be read"):
        read_foreign(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match="has no weights"):
        read_foreign(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"x": "../elsewhere.safetensors"}}')
    with pytest.raises(UserError, match="names no files beside it"):
        read_foreign(tmp_path)


@pytest.mark.parametrize(
    ("name", "field", "value", "said"),
    [
        ("ViT", "hidden_act", "relu", 'hidden_act is "relu"; only "gelu" is supported'),
        ("ViT", "qkv_bias", False, "qkv_bias is false; only true is supported"),
        ("ViT", "image_size", [32, 64], "only squares are supported"),
        ("ViT", "num_hidden_layers", 2, "has more than config.json describes"),
        ("ViT", "num_hidden_layers", 4, "lacks what config.json describes"),
        ("ViT", "num_hidden_layers", 100_000, "too few for the 100,000 blocks"),
        ("ViT", "hidden_size", 64, "positions of shape"),
        ("ViT", "intermediate_size", 64, r"has shape \[48\], and config.json says \[64\]"),
        ("ViT", "num_attention_heads", 5, "num_attention_heads is 5, which does not divide"),
        ("ViT", "hidden_size", "wide", "hidden_size is 'wide'; it must be a number"),
        ("ViT", "model_type", "swin", "model_type is 'swin'; supported are wav2vec2, hubert"),
        ("DINOv2", "use_swiglu_ffn", True, "use_swiglu_ffn is true"),
        ("wav2vec 2.0", "model_type", "wavlm", "model_type is 'wavlm'"),
        ("wav2vec 2.0", "add_adapter", True, "add_adapter is true"),
        ("wav2vec 2.0", "layer_norm_eps", 1e-12, "layer_norm_eps is 1e-12; only 1e-05"),
        ("wav2vec 2.0", "conv_dim", [16, 8], "all layers must have the same channels"),
        ("wav2vec 2.0", "num_conv_pos_embedding_groups", 5, "describes no model that can be built here"),
        ("data2vec 1 (speech)", "num_conv_pos_embeddings", 10**9, "have only 86 tensors"),
        ("HuBERT", "conv_pos_batch_norm", True, "conv_pos_batch_norm is true"),
        ("BERT", "position_embedding_type", "relative_key", "position_embedding_type"),
        ("BERT", "is_decoder", True, "is_decoder is true"),
        ("BERT", "vocab_size", 20, "the tokenizer beside it has"),
        ("BERT", "pad_token_id", 0, "pad_token_id is 0, and that of the tokenizer beside it 1"),
    ],
)
def test_what_is_not_supported_is_named(tmp_path: Path, name: str, field: str, value: object, said: str) -> None:
    saved(name, tmp_path)
    change(tmp_path, **{field: value})
    with pytest.raises(UserError, match=said):
        read_foreign(tmp_path)


def test_unknown_tensors_are_named(tmp_path: Path) -> None:
    saved("ViT", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({**weights, "encoder.layer.0.gate.weight": torch.ones(3)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"tensors that are not understood: encoder\.layer\.0\.gate\.weight"):
        read_foreign(tmp_path)


@pytest.mark.parametrize("name", ["embeddings.register_tokens", "encoder.layer.0.attention.attention.key.weight"])
def test_tensors_of_odd_shapes_are_an_error(tmp_path: Path, name: str) -> None:
    saved("DINOv2 with registers", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({**weights, name: torch.ones(3)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="has tensors of shapes that no dinov2_with_registers has"):
        read_foreign(tmp_path)


def test_inputs_that_are_made_otherwise_are_refused(tmp_path: Path) -> None:
    saved("ViT", tmp_path / "vit")
    change(tmp_path / "vit", "preprocessor_config.json", image_mean=[0.5])
    with pytest.raises(UserError, match="the mean of pictures for ViT has 1 values for 3 channels"):
        read_foreign(tmp_path / "vit")
    change(tmp_path / "vit", "preprocessor_config.json", rescale_factor=1.0)
    with pytest.raises(UserError, match=r"rescale_factor is 1\.0; only 1/255"):
        read_foreign(tmp_path / "vit")
    saved("HuBERT, pre-norm", tmp_path / "hubert")
    change(tmp_path / "hubert", "preprocessor_config.json", do_normalize=False)
    with pytest.raises(UserError, match="do_normalize is false; only true"):
        read_foreign(tmp_path / "hubert")
    saved("BERT", tmp_path / "bert")
    (tmp_path / "bert" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="needs its own tokenizer"):
        read_foreign(tmp_path / "bert")


@pytest.mark.parametrize("architecture", ["resnet50", "vit_base_patch16_clip_224", "vit_base_patch16_siglip_224"])
def test_other_models_of_timm_are_refused(tmp_path: Path, architecture: str) -> None:
    pytest.importorskip("timm", reason="the models of timm need timm: pip install 'data2vec2[vision]'")
    saved_timm(tmp_path)
    change(tmp_path, architecture=architecture)
    with pytest.raises(UserError, match="of timm plain ViTs are supported"):
        read_foreign(tmp_path)


def test_a_name_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is in the cache needs no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    kept = tmp_path / "models--some--vit"
    saved("ViT", kept / "snapshots" / "abc")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("abc")
    assert read_foreign(fetched("hf:some/vit")).family == "ViT"


def test_without_a_network_a_name_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"hf:nobody/nothing can't be fetched .*without a network, give a folder"):
        fetched("hf:nobody/nothing")
    assert not is_foreign(tmp_path)


@pytest.mark.parametrize("name", ["DINOv2 with registers", "wav2vec 2.0", "BERT"])
def test_they_are_exported_like_any_encoder(tmp_path: Path, name: str) -> None:
    """And loaded again by this package, by Transformers' Auto classes, and by ONNX Runtime."""
    import data2vec2.modalities.transformers  # noqa: F401  (registers the classes)

    torch.manual_seed(0)
    saved(name, tmp_path / "theirs")
    encoder, info = load_foreign(tmp_path / "theirs")
    export_model(encoder, info, tmp_path / "ours", "a card")
    loaded, again = load_encoder(tmp_path / "ours")
    inputs = example_of(info.model)
    inputs = torch.randn_like(inputs) if inputs.is_floating_point() else inputs
    assert again.model == info.model
    with torch.no_grad():
        expected = encoder(inputs).x_NLD
        assert torch.equal(loaded(inputs).x_NLD, expected)
        model = AutoModel.from_pretrained(tmp_path / "ours").eval()
        assert difference(model(inputs).last_hidden_state, expected) < 1e-5
    if name == "BERT":  # whose shape is like that of others
        return
    write_onnx(export_program(encoder, info), output_names(info), tmp_path / "model.onnx")
    named = {key: value.numpy() for key, value in interop_of(info.kind).named(inputs).items()}
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert difference(torch.from_numpy(session.run(None, named)[0]), expected) < CLOSE
