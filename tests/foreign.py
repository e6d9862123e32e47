"""Models of other families with random weights, saved by their own classes; and how far our features are from theirs.

    python -m tests.foreign

prints the table of docs/from-existing-models.md, of models of their usual sizes. Needs Transformers and timm; nothing
is downloaded.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn

from data2vec2.interop.foreign import load_foreign, read_foreign
from data2vec2.modalities.image.model import sincos_2d
from data2vec2.modalities.text.tokenizer import save_tokenizer, train_tokenizer

VOCABULARY = 300
TINY = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
PICTURES = {**TINY, "image_size": 32, "patch_size": 8}
SPEECH = {**TINY, "conv_dim": (16,) * 7, "num_conv_pos_embedding_groups": 4, "vocab_size": 20}
STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
QUANTIZER = {"codevector_dim": 16, "num_codevectors_per_group": 8, "proj_codevector_dim": 16}
DECODER = {f"decoder_{name}": value for name, value in {**TINY, "num_hidden_layers": 1}.items()}


@dataclass(frozen=True)
class Family:
    """A class of Transformers, and the sizes of a tiny model."""

    kind: str
    model: str
    config: str
    tiny: dict[str, Any]
    shape: dict[str, Any]
    """What tells this order of norms from the default one."""

    def build(self, tiny: bool = True) -> nn.Module:
        """A model, all of whose parameters are something of their own."""
        config = getattr(transformers, self.config)(**{**self.shape, **(self.tiny if tiny else {})})
        return perturbed(getattr(transformers, self.model)(config))


def _families() -> dict[str, Family]:
    found = {
        "ViT": ("image", "ViTModel", "ViTConfig", PICTURES, {}),
        "ViT, with classes": ("image", "ViTForImageClassification", "ViTConfig", PICTURES, {}),
        "MAE": ("image", "ViTMAEForPreTraining", "ViTMAEConfig", PICTURES | DECODER, {"mask_ratio": 0.0}),
        "DINOv2": ("image", "Dinov2Model", "Dinov2Config", PICTURES, {}),
        "DINOv2 with registers": ("image", "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", PICTURES, {}),
        "data2vec 1 (speech)": ("audio", "Data2VecAudioModel", "Data2VecAudioConfig", SPEECH, {}),
        "wav2vec 2.0": ("audio", "Wav2Vec2ForPreTraining", "Wav2Vec2Config", SPEECH | QUANTIZER, {}),
        "wav2vec 2.0, pre-norm": ("audio", "Wav2Vec2ForCTC", "Wav2Vec2Config", SPEECH, STABLE),
        "HuBERT": ("audio", "HubertModel", "HubertConfig", SPEECH, {}),
        "HuBERT, pre-norm": ("audio", "HubertForCTC", "HubertConfig", SPEECH, STABLE),
        "data2vec 1 (text)": ("text", "Data2VecTextModel", "Data2VecTextConfig", TINY, {"layer_norm_eps": 1e-5}),
        "BERT": ("text", "BertForMaskedLM", "BertConfig", TINY, {}),
        "RoBERTa": ("text", "RobertaForMaskedLM", "RobertaConfig", TINY, {"layer_norm_eps": 1e-5}),
        "XLM-RoBERTa": ("text", "XLMRobertaModel", "XLMRobertaConfig", TINY, {"layer_norm_eps": 1e-5}),
        "CamemBERT": ("text", "CamembertModel", "CamembertConfig", TINY, {"layer_norm_eps": 1e-5}),
    }
    return {name: Family(*row) for name, row in found.items()}


FAMILIES = _families()


def perturbed(model: nn.Module) -> nn.Module:
    """With no parameter that is 0 or 1 everywhere, as norms, biases and factors are at first."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter) * (parameter.abs().mean() + 0.1)
    return model.eval()


def saved(name: str, folder: Path, tiny: bool = True, **sizes: Any) -> nn.Module:
    """A model of a family, which its own class has written into `folder`, with what makes its inputs."""
    family = FAMILIES[name]
    places = {"max_position_embeddings": 66 if name != "BERT" else 64} if family.kind == "text" and tiny else {}
    ids = {"vocab_size": VOCABULARY, "pad_token_id": 1} if family.kind == "text" else {}
    model = Family(
        family.kind, family.model, family.config, {**family.tiny, **sizes, **places}, {**family.shape, **ids}
    )
    built = model.build(tiny)
    if name == "MAE":
        grid = (built.config.image_size // built.config.patch_size,) * 2
        table = built.vit.embeddings.position_embeddings
        table.data = torch.cat([torch.zeros(1, table.shape[2]), sincos_2d(table.shape[2], grid)])[None]
    built.save_pretrained(folder)
    if family.kind == "text":
        tokenizer(folder)
    elif family.kind == "audio":
        write(folder, "preprocessor_config.json", {"sampling_rate": 16_000, "feature_size": 1, "do_normalize": True})
    else:
        side = built.config.image_size
        size = {"height": side, "width": side}
        write(folder, "preprocessor_config.json", {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "size": size})
    return built


def saved_timm(folder: Path, tiny: bool = True, **arguments: Any) -> nn.Module:
    """A ViT of timm, as timm writes it for a hub."""
    from timm.models.vision_transformer import VisionTransformer

    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4} if tiny else {}
    model = perturbed(VisionTransformer(**{"num_classes": 5, **sizes, **arguments}))
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    side = sizes.get("img_size", 224)
    about = {"input_size": [3, side, side], "mean": [0.5] * 3, "std": [0.25] * 3, "crop_pct": 0.9}
    given = {"num_heads": sizes["num_heads"]} if tiny else {}
    fields = {"architecture": "vit_base_patch16_224", "num_classes": 5, "model_args": given, "pretrained_cfg": about}
    write(folder, "config.json", fields)
    return model


def tokenizer(folder: Path) -> None:
    """Byte-level BPE, whose ids of start, padding and end are 0, 1 and 2."""
    save_tokenizer(train_tokenizer(["to be or not to be, that is the question"] * 3, VOCABULARY), folder)


def write(folder: Path, name: str, values: dict[str, Any]) -> None:
    """A file of JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(values))


def change(folder: Path, name: str = "config.json", **values: Any) -> None:
    """Set fields of a file of JSON."""
    write(folder, name, {**json.loads((folder / name).read_text()), **values})


@torch.no_grad()
def theirs(name: str, model: nn.Module, inputs: Tensor, mask: Tensor | None = None, **more: Any) -> Any:
    """What the class itself computes."""
    base = model.base_model
    if name == "MAE":  # which shuffles patches, unless their noise says otherwise
        count = base.embeddings.patch_embeddings.num_patches
        more["noise"] = torch.arange(float(count))[None].expand(len(inputs), -1)
    if mask is not None:
        more["attention_mask"] = mask
    return base(inputs, **more)


def inputs_of(name: str, model: nn.Module) -> Tensor:
    """Two samples of the model's size."""
    kind, config = FAMILIES[name].kind, model.config
    if kind == "image":
        return torch.randn(2, 3, config.image_size, config.image_size)
    if kind == "audio":
        return torch.randn(2, 8_000)
    return torch.randint(5, VOCABULARY, (2, 64))


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max())


def measured(
    name: str, write_model: Callable[[Path], nn.Module], compute: Callable[[nn.Module, Tensor], Tensor]
) -> str:
    """A row of the table."""
    with tempfile.TemporaryDirectory() as temporary:
        model = write_model(Path(temporary))
        foreign, (encoder, _) = read_foreign(Path(temporary)), load_foreign(Path(temporary))
        inputs = inputs_of(name, model) if name in FAMILIES else torch.randn(2, 3, 224, 224)
        with torch.no_grad():
            expected, found = compute(model, inputs), encoder(inputs).x_NLD
        relative = difference(found, expected) / float(expected.abs().max())
    shown = f"{relative:.0e}" if relative else "0"
    family = FAMILIES.get(name)
    size = sum(parameter.numel() for parameter in encoder.parameters()) / 1e6
    dropped = ", ".join(f"`{one}`" for one in foreign.dropped) or "nothing"
    title = f"`{family.model}`" if family else "`VisionTransformer` of timm"
    return f"| {name} | {title} | {len(foreign.tensors)} | {size:.0f} | {shown} | {dropped} |"


def main() -> None:
    """Print the table."""
    torch.manual_seed(0)
    for name in FAMILIES:

        def write_model(folder: Path, name: str = name) -> nn.Module:
            return saved(name, folder, tiny=False)

        def compute(model: nn.Module, inputs: Tensor, name: str = name) -> Tensor:
            found: Tensor = theirs(name, model, inputs).last_hidden_state
            return found

        print(measured(name, write_model, compute), flush=True)
    row = measured("timm", lambda folder: saved_timm(folder, tiny=False), lambda m, x: m.forward_features(x))
    print(row)


if __name__ == "__main__":
    main()
