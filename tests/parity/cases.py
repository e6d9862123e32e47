"""Golden cases: tensors of the authors' model code, on weights rebuilt from their names (golden/README.md)."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from data2vec2.config.model import DecoderConfig, EncoderConfig, LossConfig, MaskConfig, ModelConfig, TargetConfig
from data2vec2.interop.fairseq import keys
from data2vec2.method.pretraining import Data2Vec2
from data2vec2.modalities.audio.config import AudioConfig
from data2vec2.modalities.image.config import ImageConfig
from data2vec2.modalities.image.model import sincos_2d
from data2vec2.modalities.text.config import TextConfig
from data2vec2.modalities.tools import tools_of

GOLDEN = Path(__file__).parent / "golden"


def golden_weight(name: str, shape: list[int]) -> torch.Tensor:
    """The weight that golden/README.md defines for a name."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    r = np.random.default_rng(seed).standard_normal(shape).astype("float32")
    if len(shape) == 1:
        r = (1 + 0.1 * r) if name.endswith(".weight") else 0.1 * r
    elif "alibi_scale" in name:
        r = 1 + 0.2 * r
    else:
        r = r * np.float32(np.prod(shape[1:]) ** -0.5)
    if "embed_" in name and len(shape) == 2:
        r[1] = 0  # padding
    return torch.from_numpy(r.astype("float32"))


def build(config: ModelConfig) -> Data2Vec2:
    """A model with random weights."""
    return Data2Vec2(config, tools_of(config.modality.kind).build(config))


class GoldenCase:
    """A case: configuration, stored tensors, and our model with the golden weights in it."""

    def __init__(self, name: str) -> None:
        self.info = json.loads((GOLDEN / f"{name}.json").read_text())
        self.tensors = load_file(GOLDEN / f"{name}.safetensors")
        self.config = self._config()
        shapes = self.info["student_keys"]
        self.original_student = self._weights("", shapes)
        local = ("decoder", "AUDIO.local_encoder", "AUDIO.project_features")  # what the teacher has not
        of_teacher = {n: s for n, s in shapes.items() if not any(part in n for part in local)}
        if isinstance(self.config.modality, TextConfig):  # the trunk alone
            of_teacher = {n.removeprefix("blocks."): s for n, s in shapes.items() if n.startswith("blocks.")}
        self.original_teacher = self._weights("_ema.", of_teacher)
        self.model = build(self.config)
        self.model.load_state_dict(keys.our_tensors(self.config, self.original_student, self.original_teacher)[0])

    def _weights(self, prefix: str, names: dict[str, list[int]]) -> dict[str, torch.Tensor]:
        weights = {}
        for name, shape in names.items():
            if name == keys.POSITIONS:
                weights[name] = sincos_2d(self.config.encoder.embed_dim, self.config.modality.grid)[None]
            else:
                weights[name] = golden_weight(prefix + name, shape)
        return weights

    def full_source(self) -> torch.Tensor:
        """The input; the full-size case stores every 18th value, and all come from this generator."""
        stored = self.tensors["source"]
        if stored.ndim > 1:
            return stored
        shape = (1, 3, 224, 224)
        source = torch.from_numpy(np.random.default_rng(1).standard_normal(shape).astype("float32"))
        assert relative_error(subsample(source), stored) < 1e-6
        return source

    def keep_ids(self) -> torch.Tensor:
        mask_NT = self.tensors["mask"]
        kept = int((mask_NT[0] == 0).sum())
        return mask_NT.argsort(dim=1, stable=True)[:, :kept]

    def our_name(self, original: str, encoder: str = "student") -> str:
        return keys.our_name(original, self.config.modality.kind, encoder, self.config.encoder.prenet_depth)

    def _config(self) -> ModelConfig:
        model, own, decoder = (self.info["config"][k] for k in ("model", "modality_cfg", "decoder"))
        kind = self.info["config"]["modality"]
        modality: ImageConfig | AudioConfig | TextConfig
        if kind == "text":
            modality = TextConfig(vocab_size=self.info["config"]["vocab_size"], max_tokens=own["max_source_positions"])
        elif kind == "image":
            modality = ImageConfig(image_size=own["input_size"], patch_size=own["patch_size"])
        else:
            spec = own["feature_encoder_spec"].replace(" ", "")
            modality = AudioConfig(
                conv_dim=int(spec[2 : spec.index(",")]),
                position_depth=own["conv_pos_depth"],
                position_kernel=own["conv_pos_width"] // own["conv_pos_depth"],
                position_groups=own["conv_pos_groups"],
            )
        return ModelConfig(
            modality=modality,
            encoder=EncoderConfig(
                embed_dim=model["embed_dim"],
                num_heads=model["num_heads"],
                depth=model["depth"],
                prenet_depth=own["prenet_depth"],
                norm_eps=model["norm_eps"],
            ),
            masks=MaskConfig(
                num_masks=model["clone_batch"],
                mask_ratio=own["mask_prob"],
                adjust=own.get("mask_prob_adjust", 0.0),
                block_length=own["mask_length"],
                inverse=kind == "image",
            ),
            decoder=DecoderConfig(
                dim=decoder["decoder_dim"],
                groups=decoder["decoder_groups"],
                kernel=decoder["decoder_kernel"],
                depth=decoder["decoder_layers"],
                noise_std=own["mask_noise_std"],
                residual=decoder.get("decoder_residual", True),
                projection_depth=decoder.get("projection_layers", 1),
            ),
            targets=TargetConfig(
                average_layers=model["average_top_k_layers"], final_norm="layer" if kind == "image" else "none"
            ),
            # The original weighs a sum over the rows of one device; ours weighs their mean.
            loss=LossConfig(
                scale=model.get("loss_scale"),
                cls_loss_weight=model.get("cls_loss", 0.0) * len(self.tensors.get("mask", ())),
            ),
        )


def relative_error(ours: torch.Tensor, golden: torch.Tensor) -> float:
    """Largest absolute difference over the golden tensor's largest absolute value."""
    return ((ours - golden).abs().max() / golden.abs().max()).item()


def subsample(tensor: torch.Tensor) -> torch.Tensor:
    """How the full-size cases store large tensors."""
    return tensor.flatten()[:: max(1, tensor.numel() // 8000)] if tensor.numel() >= 20_000 else tensor
