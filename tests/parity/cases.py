"""Golden cases: tensors of the authors' model code, on weights rebuilt from their names (golden/README.md)."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from data2vec2.config import (
    DecoderConfig,
    EncoderConfig,
    ImageConfig,
    LossConfig,
    MaskConfig,
    ModelConfig,
    TargetConfig,
)
from data2vec2.interop import fairseq
from data2vec2.models import Data2Vec2
from data2vec2.nn.positions import sincos_2d

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
    return torch.from_numpy(r.astype("float32"))


class GoldenCase:
    """An image case: configuration, stored tensors, and our model with the golden weights in it."""

    def __init__(self, name: str) -> None:
        self.info = json.loads((GOLDEN / f"{name}.json").read_text())
        self.tensors = load_file(GOLDEN / f"{name}.safetensors")
        self.config = self._config()
        positions = sincos_2d(self.config.encoder.embed_dim, self.config.modality.grid)[None]

        def weights(prefix: str, names: dict[str, list[int]]) -> dict[str, torch.Tensor]:
            return {n: positions if n == fairseq.POSITIONS else golden_weight(prefix + n, s) for n, s in names.items()}

        shapes = self.info["student_keys"]
        self.original_student = weights("", shapes)
        self.original_teacher = weights("_ema.", {n: s for n, s in shapes.items() if "decoder" not in n})
        self.model = Data2Vec2(self.config)
        self.model.load_state_dict(fairseq.state_dict(self.config, self.original_student, self.original_teacher))

    def full_source(self) -> torch.Tensor:
        """The input; the full-size case stores every 18th value, and all come from this generator."""
        stored = self.tensors["source"]
        if stored.ndim == 4:
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
        return fairseq.our_name(original, encoder, self.config.encoder.prenet_depth)

    def _config(self) -> ModelConfig:
        model, image, decoder = (self.info["config"][k] for k in ("model", "modality_cfg", "decoder"))
        rows = self.tensors["mask"].shape[0]
        return ModelConfig(
            modality=ImageConfig(image_size=image["input_size"], patch_size=image["patch_size"]),
            encoder=EncoderConfig(
                embed_dim=model["embed_dim"],
                num_heads=model["num_heads"],
                depth=model["depth"],
                prenet_depth=image["prenet_depth"],
                norm_eps=model["norm_eps"],
            ),
            masks=MaskConfig(
                num_masks=model["clone_batch"],
                mask_ratio=image["mask_prob"],
                adjust=image["mask_prob_adjust"],
                block_length=image["mask_length"],
            ),
            decoder=DecoderConfig(
                dim=decoder["decoder_dim"],
                groups=decoder["decoder_groups"],
                kernel=decoder["decoder_kernel"],
                depth=decoder["decoder_layers"],
                noise_std=image["mask_noise_std"],
            ),
            targets=TargetConfig(average_layers=model["average_top_k_layers"]),
            # The original weighs a sum over the rows of one device; ours weighs their mean.
            loss=LossConfig(cls_loss_weight=model["cls_loss"] * rows),
        )


def relative_error(ours: torch.Tensor, golden: torch.Tensor) -> float:
    """Largest absolute difference over the golden tensor's largest absolute value."""
    return ((ours - golden).abs().max() / golden.abs().max()).item()


def subsample(tensor: torch.Tensor) -> torch.Tensor:
    """How the full-size cases store large tensors."""
    return tensor.flatten()[:: max(1, tensor.numel() // 8000)] if tensor.numel() >= 20_000 else tensor
