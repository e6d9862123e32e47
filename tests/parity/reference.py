"""The whole training step, slow and obvious: plain functions over a state dict, one sample and one row at a time.

Nothing here is shared with the package but the names of the weights. Dropout and decoder noise are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from data2vec2.config.model import ModelConfig

State = dict[str, Tensor]


@dataclass
class Step:
    """What one step computed; `loss` is the mean over student rows."""

    loss: Tensor
    regression: Tensor
    cls: Tensor
    targets: Tensor


def step(config: ModelConfig, state: State, pixels: Tensor, masked: Tensor) -> Step:
    """One step for pictures `BCHW`; `masked[b, m, t]` is True where mask m of sample b removes token t."""
    width = config.encoder.embed_dim
    scale = config.loss.scale or 1 / math.sqrt(width)
    weight = config.loss.cls_loss_weight
    regression: list[Tensor] = []
    cls: list[Tensor] = []
    all_targets: list[Tensor] = []
    for picture, masks in zip(pixels, masked, strict=True):
        with torch.no_grad():
            target = targets(config, state, picture)
        all_targets.append(target)
        for mask in masks:
            visible = encode(config, state, "student", picture, ~mask)[-1][0]
            predicted = decode(config, state, visible[1:], ~mask)
            errors = [distance(config, predicted[t], target[t]) for t in range(len(mask)) if mask[t]]
            regression.append(scale * torch.stack(errors).mean())
            cls.append(scale * distance(config, visible[0], target.mean(0)))
    mean_regression, mean_cls = torch.stack(regression).mean(), torch.stack(cls).mean()
    return Step(mean_regression + weight * mean_cls, mean_regression, mean_cls, torch.stack(all_targets))


def distance(config: ModelConfig, predicted: Tensor, target: Tensor) -> Tensor:
    """Squared or smooth-L1 distance of two vectors."""
    difference = (predicted - target).abs()
    if config.loss.beta == 0:
        return (difference**2).sum()
    small = difference < config.loss.beta
    return torch.where(small, 0.5 * difference**2 / config.loss.beta, difference - 0.5 * config.loss.beta).sum()


def targets(config: ModelConfig, state: State, picture: Tensor) -> Tensor:
    """Targets `TD` of one picture: the teacher sees all of it."""
    whole = torch.ones(math.prod(config.modality.grid), dtype=torch.bool)
    blocks = encode(config, state, "teacher", picture, whole)[config.encoder.prenet_depth :]
    normed = []
    for _, ffn in blocks[len(blocks) - config.targets.average_layers :]:
        normed.append(normalise(config.targets.layer_norm, ffn[1:]))
    return normalise(config.targets.final_norm, sum(normed, torch.zeros(())) / len(normed))


def normalise(kind: str, x: Tensor) -> Tensor:
    """`TD` over time (instance), over channels (layer), or as it is."""
    if kind == "none":
        return x
    axis = 0 if kind == "instance" else 1
    mean = x.mean(axis, keepdim=True)
    variance = ((x - mean) ** 2).mean(axis, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5)


def encode(config: ModelConfig, state: State, who: str, picture: Tensor, kept: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Output and FFN output of every block, each `(1 + K) x D` with the CLS token first, for the kept patches."""
    size, (rows, columns) = config.modality.patch_size, config.modality.grid
    kernel, bias = state[f"{who}.modality.stem.weight"], state[f"{who}.modality.stem.bias"]
    tokens = [state[f"{who}.modality.cls_token"].reshape(-1)]
    for row in range(rows):
        for column in range(columns):
            patch = picture[:, row * size : (row + 1) * size, column * size : (column + 1) * size]
            if kept[row * columns + column]:
                position = positions(config.encoder.embed_dim, row, column)
                tokens.append(kernel.flatten(1) @ patch.flatten() + bias + position)
    eps = config.encoder.norm_eps
    x = layer_norm(torch.stack(tokens), state[f"{who}.norm.weight"], state[f"{who}.norm.bias"], eps)
    outputs = []
    for number in range(config.encoder.prenet_depth + config.encoder.depth):
        part = {n.removeprefix(f"{who}.blocks.{number}."): w for n, w in state.items()}
        x = layer_norm(x + attention(config, part, x), part["norm1.weight"], part["norm1.bias"], eps)
        ffn = F.gelu(x @ part["mlp.fc1.weight"].T + part["mlp.fc1.bias"]) @ part["mlp.fc2.weight"].T
        ffn = ffn + part["mlp.fc2.bias"]
        x = layer_norm(x + ffn, part["norm2.weight"], part["norm2.bias"], eps)
        outputs.append((x, ffn))
    return outputs


def positions(width: int, row: int, column: int) -> Tensor:
    """Sine and cosine of the column, then of the row."""
    values = []
    for place in (column, row):
        angles = [place / 10_000 ** (i / (width // 4)) for i in range(width // 4)]
        values += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
    return torch.tensor(values)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(((x - mean) ** 2).mean(-1, keepdim=True) + eps) * weight + bias


def attention(config: ModelConfig, part: State, x: Tensor) -> Tensor:
    """Self-attention of one row, head by head."""
    width = config.encoder.embed_dim // config.encoder.num_heads
    qkv = x @ part["attn.qkv.weight"].T + part["attn.qkv.bias"]
    q, k, v = qkv.tensor_split(3, dim=1)
    heads = []
    for head in range(config.encoder.num_heads):
        at = slice(head * width, (head + 1) * width)
        scores = (q[:, at] / math.sqrt(width)) @ k[:, at].T
        heads.append(torch.softmax(scores, dim=1) @ v[:, at])
    return torch.cat(heads, dim=1) @ part["attn.proj.weight"].T + part["attn.proj.bias"]


def decode(config: ModelConfig, state: State, visible: Tensor, kept: Tensor) -> Tensor:
    """Predictions `TD` for all places of one row from the outputs at its kept ones; zeros stand at the others."""
    full = torch.zeros(len(kept), config.encoder.embed_dim)
    full[kept] = visible
    x = full.T.reshape(1, config.encoder.embed_dim, *config.modality.grid)
    for number in range(config.decoder.depth):
        y = F.conv2d(
            x,
            state[f"decoder.convs.{number}.weight"],
            state[f"decoder.convs.{number}.bias"],
            padding=config.decoder.kernel // 2,
            groups=config.decoder.groups,
        )
        mean = y.mean(1, keepdim=True)
        y = F.gelu((y - mean) / torch.sqrt(((y - mean) ** 2).mean(1, keepdim=True) + 1e-5))
        x = x + y if config.decoder.residual and x.shape == y.shape else y
    x = x.flatten(2)[0].T
    if config.decoder.projection_depth == 1:
        return x @ state["decoder.proj.weight"].T + state["decoder.proj.bias"]
    x = F.gelu(x @ state["decoder.proj.0.weight"].T + state["decoder.proj.0.bias"])
    return x @ state["decoder.proj.2.weight"].T + state["decoder.proj.2.bias"]
