"""Files as emotion2vec and EAT have them, of tiny models with random weights; and what these compute, written out.

The networks are functions of a file's tensors by their names there, which share nothing with this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

WIDTH, HEADS, PRENET, DEPTH = 32, 4, 1, 2
CONVS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))
CHANNELS, EXTRA, KERNEL, GROUPS = 16, 10, 19, 4
SPECTRUM, PATCH = 128, 16
Tensors = Mapping[str, Tensor]


def _linear(found: dict[str, Tensor], name: str, size: int, *inputs: int) -> None:
    """Weight and bias of a layer."""
    fan = int(torch.tensor(inputs).prod())
    found[f"{name}.weight"] = torch.randn(size, *inputs) / fan**0.5
    found[f"{name}.bias"] = 0.1 * torch.randn(size)


def _norm(found: dict[str, Tensor], name: str, size: int = WIDTH) -> None:
    found[f"{name}.weight"], found[f"{name}.bias"] = 0.5 + torch.rand(size), 0.1 * torch.randn(size)


def _block(found: dict[str, Tensor], name: str) -> None:
    _linear(found, f"{name}.attn.qkv", 3 * WIDTH, WIDTH)
    _linear(found, f"{name}.attn.proj", WIDTH, WIDTH)
    _linear(found, f"{name}.mlp.fc1", 4 * WIDTH, WIDTH)
    _linear(found, f"{name}.mlp.fc2", WIDTH, 4 * WIDTH)
    _norm(found, f"{name}.norm1")
    _norm(found, f"{name}.norm2")


def emotion2vec_tensors(*, decoder: bool = False, classes: int = 0) -> dict[str, Tensor]:
    """`emotion2vec_base.pt`, or with classes `model.pt` of emotion2vec+."""
    found: dict[str, Tensor] = {}
    own = "modality_encoders.AUDIO"
    found[f"{own}.extra_tokens"] = torch.randn(1, EXTRA, WIDTH)
    found[f"{own}.alibi_scale"] = torch.tensor([1.0, 0.5, -0.3, 2.0]).view(1, 1, HEADS, 1, 1)
    for place, (kernel, _) in enumerate(CONVS):
        before = CHANNELS if place else 1
        found[f"{own}.local_encoder.conv_layers.{place}.0.weight"] = torch.randn(CHANNELS, before, kernel) / 3
        _norm(found, f"{own}.local_encoder.conv_layers.{place}.2.1", CHANNELS)
    _norm(found, f"{own}.project_features.1", CHANNELS)
    _linear(found, f"{own}.project_features.2", WIDTH, CHANNELS)
    for place in range(1, 6):
        _linear(found, f"{own}.relative_positional_encoder.{place}.0", WIDTH, WIDTH // GROUPS, KERNEL)
    _norm(found, f"{own}.context_encoder.norm")
    for place in range(PRENET):
        _block(found, f"{own}.context_encoder.blocks.{place}")
    for place in range(DEPTH):
        _block(found, f"blocks.{place}")
    if decoder:
        for place in range(2):
            _linear(found, f"{own}.decoder.blocks.{place}.0", 16, (16 if place else WIDTH) // 4, 7)
        _linear(found, f"{own}.decoder.proj", WIDTH, 16)
    if classes:
        found = {f"d2v_model.{name}": tensor for name, tensor in found.items()}
        _linear(found, "proj", classes, WIDTH)
    return found


def emotion2vec_model_cfg() -> dict[str, Any]:
    """`model` of its configuration in fairseq, and `model_conf` in FunASR's `config.yaml`."""
    audio = {
        "type": "AUDIO",
        "prenet_depth": PRENET,
        "num_extra_tokens": EXTRA,
        "init_extra_token_zero": True,
        "mask_prob": 0.5,
        "mask_prob_adjust": 0.05,
        "mask_length": 5,
        "mask_noise_std": 0.01,
        "inverse_mask": False,
        "use_alibi_encoder": True,
        "learned_alibi_scale": True,
        "learned_alibi_scale_per_head": True,
        "num_alibi_heads": HEADS,
        "feature_encoder_spec": f"[({CHANNELS}, 10, 5)] + [({CHANNELS}, 3, 2)] * 4 + [({CHANNELS},2,2)] * 2",
        "conv_pos_width": 5 * KERNEL,
        "conv_pos_groups": GROUPS,
        "conv_pos_depth": 5,
        "conv_pos_pre_ln": False,
        "decoder": {
            "decoder_dim": 16,
            "decoder_groups": 4,
            "decoder_kernel": 7,
            "decoder_layers": 2,
            "input_dropout": 0.1,
        },
    }
    return {
        "_name": "data2vec_multi",
        "depth": DEPTH,
        "num_heads": HEADS,
        "embed_dim": WIDTH,
        "norm_eps": 1e-5,
        "layer_norm_first": False,
        "average_top_k_layers": DEPTH,
        "clone_batch": 8,
        "instance_norm_target_layer": True,
        "cls_loss": 1.0,
        "cls_type": "chunk",
        "normalize": True,
        "modalities": {"audio": audio},
    }


def _attended(x: Tensor, t: Tensors, name: str, bias: Tensor | float) -> Tensor:
    q, k, v = F.linear(x, t[f"{name}.qkv.weight"], t[f"{name}.qkv.bias"]).chunk(3, dim=-1)
    each = []
    for head in range(HEADS):
        own = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
        scores = q[:, own] @ k[:, own].T / (WIDTH // HEADS) ** 0.5
        each.append((scores + (bias[head] if isinstance(bias, Tensor) else bias)).softmax(-1) @ v[:, own])
    return F.linear(torch.cat(each, dim=-1), t[f"{name}.proj.weight"], t[f"{name}.proj.bias"])


def _through(x: Tensor, t: Tensors, name: str, bias: Tensor | float, eps: float) -> Tensor:
    """A block of tokens `TD`, its norms behind what they normalise."""

    def norm(x: Tensor, which: str) -> Tensor:
        return F.layer_norm(x, (WIDTH,), t[f"{name}.{which}.weight"], t[f"{name}.{which}.bias"], eps)

    x = norm(x + _attended(x, t, f"{name}.attn", bias), "norm1")
    hidden = F.gelu(F.linear(x, t[f"{name}.mlp.fc1.weight"], t[f"{name}.mlp.fc1.bias"]))
    return norm(x + F.linear(hidden, t[f"{name}.mlp.fc2.weight"], t[f"{name}.mlp.fc2.bias"]), "norm2")


def emotion2vec_outputs(t: Tensors, wave_S: Tensor) -> Tensor:
    """The last block's output of a waveform as it is in a file, extra tokens first."""
    own = "modality_encoders.AUDIO"
    x = F.layer_norm(wave_S, wave_S.shape)[None]
    for place, (_, stride) in enumerate(CONVS):
        name = f"{own}.local_encoder.conv_layers.{place}"
        x = F.conv1d(x, t[f"{name}.0.weight"], stride=stride)
        x = F.gelu(F.layer_norm(x.T, (CHANNELS,), t[f"{name}.2.1.weight"], t[f"{name}.2.1.bias"]).T)
    name = f"{own}.project_features"
    x = F.layer_norm(x.T, (CHANNELS,), t[f"{name}.1.weight"], t[f"{name}.1.bias"])
    x = F.linear(x, t[f"{name}.2.weight"], t[f"{name}.2.bias"])
    positions = x.T
    for place in range(1, 6):
        name = f"{own}.relative_positional_encoder.{place}.0"
        weight, bias = t[f"{name}.weight"], t[f"{name}.bias"]
        positions = F.conv1d(positions, weight, bias, padding=KERNEL // 2, groups=GROUPS)
        positions = F.gelu(F.layer_norm(positions.T, (WIDTH,)).T)
    x = torch.cat([t[f"{own}.extra_tokens"][0], x + positions.T])
    bias = torch.zeros(HEADS, len(x), len(x))
    for head in range(HEADS):
        slope = 2 ** (-8 / HEADS * (head + 1)) * max(0.0, float(t[f"{own}.alibi_scale"][0, 0, head]))
        for query in range(EXTRA, len(x)):
            for key in range(EXTRA, len(x)):
                bias[head, query, key] = -slope * abs(query - key)
    name = f"{own}.context_encoder.norm"
    x = F.layer_norm(x, (WIDTH,), t[f"{name}.weight"], t[f"{name}.bias"], 1e-5)
    names = [f"{own}.context_encoder.blocks.{place}" for place in range(PRENET)]
    for name in (*names, *(f"blocks.{place}" for place in range(DEPTH))):
        x = _through(x, t, name, bias, 1e-5)
    return x


def eat_tensors(positions_1TD: Tensor, classes: int, *, fc_norm: bool = True) -> dict[str, Tensor]:
    """A fine-tuned file of EAT; its positions are those of its length."""
    own, found = "model.modality_encoders.IMAGE", dict[str, Tensor]()
    found[f"{own}.extra_tokens"] = torch.randn(1, 1, WIDTH)
    found[f"{own}.fixed_positional_encoder.positions"] = positions_1TD
    _linear(found, f"{own}.local_encoder.proj", WIDTH, 1, PATCH, PATCH)
    _norm(found, f"{own}.context_encoder.norm")
    for place in range(DEPTH):
        _block(found, f"model.blocks.{place}")
    if fc_norm:
        _norm(found, "fc_norm")
    _linear(found, "head", classes, WIDTH)
    return found


def eat_cfg(target_length: int, **model: Any) -> dict[str, Any]:
    """Its configuration: that of fine-tuning, with that of pre-training in it."""
    image = {
        "type": "IMAGE",
        "in_chans": 1,
        "target_length": target_length,
        "prenet_depth": 0,
        "num_extra_tokens": 1,
        "decoder": {"decoder_dim": 16, "decoder_groups": 4, "decoder_kernel": 3, "decoder_layers": 2},
    }
    inner = {"_name": "data2vec_multi", "embed_dim": WIDTH, "num_heads": HEADS, "depth": DEPTH, "norm_eps": 1e-6}
    inner["average_top_k_layers"] = DEPTH
    pretraining = {"model": {**inner, "modalities": {"image": image}}, "task": {"_name": "mae_image_pretraining"}}
    named = {"_name": "mae_image_classification", "audio_mae": True, "target_length": target_length}
    return {
        "model": {**named, "pretrained_model_args": pretraining, **model},
        "task": {"_name": "mae_image_classification"},
    }


def eat_logits(t: Tensors, spectrum_TE: Tensor, *, cls: bool = True) -> Tensor:
    """Logits of a normalised spectrogram of the model's length."""
    own = "model.modality_encoders.IMAGE"
    x = F.conv2d(spectrum_TE[None, None], t[f"{own}.local_encoder.proj.weight"], stride=PATCH)[0].flatten(1).T
    x = x + t[f"{own}.local_encoder.proj.bias"] + t[f"{own}.fixed_positional_encoder.positions"][0]
    x = torch.cat([t[f"{own}.extra_tokens"][0], x])
    name = f"{own}.context_encoder.norm"
    x = F.layer_norm(x, (WIDTH,), t[f"{name}.weight"], t[f"{name}.bias"], 1e-6)
    for place in range(DEPTH):
        x = _through(x, t, f"model.blocks.{place}", 0.0, 1e-6)
    pooled = x[0] if cls else x[1:].mean(0)
    if "fc_norm.weight" in t:
        pooled = F.layer_norm(pooled, (WIDTH,), t["fc_norm.weight"], t["fc_norm.bias"], 1e-6)
    return F.linear(pooled, t["head.weight"], t["head.bias"])
