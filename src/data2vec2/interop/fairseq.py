"""Checkpoints of the original data2vec 2.0: one table from its key names to ours.

A pre-trained file holds the student, the decoder and, under `_ema`, the teacher. The fixed image positions are in the
file but not parameters of ours: they are checked and dropped.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data2vec2.config import ImageConfig, ModelConfig
from data2vec2.errors import UserError
from data2vec2.nn.positions import sincos_2d

POSITIONS = "modality_encoders.IMAGE.fixed_positional_encoder.positions"

# Original name (a regular expression; M is "modality_encoders.IMAGE" or another)     ours
KEYS = (
    # images
    (r"M\.extra_tokens",                                     "{encoder}.modality.cls_token"),
    (r"M\.local_encoder\.proj\.(.+)",                        "{encoder}.modality.stem.{0}"),
    # audio
    (r"M\.alibi_scale",                                      "{encoder}.modality.alibi_scale_H"),
    (r"M\.local_encoder\.conv_layers\.(\d+)\.0\.weight",     "{encoder}.modality.stem.convs.{0}.weight"),
    (r"M\.local_encoder\.conv_layers\.(\d+)\.2\.1\.(.+)",    "{encoder}.modality.stem.norms.{0}.{1}"),
    (r"M\.project_features\.1\.(.+)",                        "{encoder}.modality.stem.norm.{0}"),
    (r"M\.project_features\.2\.(.+)",                        "{encoder}.modality.stem.proj.{0}"),
    (r"M\.relative_positional_encoder\.(\d+)\.0\.(.+)",      "{encoder}.modality.positions.convs.{0-1}.{1}"),
    # text; its teacher is the trunk alone, so its names begin with a block's number
    (r"M\.local_encoder\.embed_(tokens|positions)\.(.+)",   "{encoder}.modality.stem.{0}.{1}"),
    (r"M\.local_encoder\.layernorm_embedding\.(.+)",        "{encoder}.modality.stem.norm.{0}"),
    (r"(\d+)\.(.+)",                                        "{encoder}.blocks.{0+prenet}.{1}"),
    # all
    (r"M\.context_encoder\.norm\.(.+)",                      "{encoder}.norm.{0}"),
    (r"M\.context_encoder\.blocks\.(\d+)\.(.+)",            "{encoder}.blocks.{0}.{1}"),
    (r"blocks\.(\d+)\.(.+)",                                "{encoder}.blocks.{0+prenet}.{1}"),
    (r"M\.decoder\.blocks\.(\d+)\.0\.(.+)",                 "decoder.convs.{0}.{1}"),
    (r"M\.decoder\.proj\.(.+)",                              "decoder.proj.{0}"),
)  # fmt: skip


# What a file may hold beside tensors and plain containers; anything else is refused unread.
_SCALAR = np.float64(0).__reduce__()[0]
_ALLOWED: list[Any] = [
    argparse.Namespace,
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *{type(np.dtype(code)) for code in "?bhilqefd"},
]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of an original `.pt` file, without running what a stranger may have put into it.

    `UserError` if it can't be read, is not a dictionary, or holds objects beyond tensors and plain values.
    """
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file makes of the reader
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path} can't be read as a checkpoint; files are read only if they hold nothing but tensors and plain "
            f"values, because others could run a program ({reason})"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not the dictionary of a checkpoint")
    return content


def our_name(original: str, encoder: str, prenet_depth: int) -> str:
    """Our name of an original key; `encoder` is "student" or "teacher". `KeyError` if the table has no place for it."""
    for pattern, ours in KEYS:
        if match := re.fullmatch(pattern.replace("M", r"modality_encoders\.[A-Z]+"), original):
            groups = list(match.groups())
            for shift, by in (("{0-1}", -1), ("{0+prenet}", prenet_depth)):
                if shift in ours:
                    groups[0], ours = str(int(groups[0]) + by), ours.replace(shift, "{0}")
            return ours.format(*groups, encoder=encoder)
    raise KeyError(f"unknown key {original!r} in an original data2vec 2.0 checkpoint")


def state_dict(config: ModelConfig, student: Mapping[str, Tensor], ema: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict for `Data2Vec2` from an original file's `model` entries and its nested `_ema`.

    `KeyError` for a key that has no place, `ValueError` for stored positions that are not the ones we compute.
    """
    ours = {}
    for encoder, tensors in (("student", student), ("teacher", ema)):
        for name, tensor in tensors.items():
            if name == POSITIONS:
                assert isinstance(config.modality, ImageConfig)
                expected = sincos_2d(config.encoder.embed_dim, config.modality.grid)
                if tensor.shape[1:] != expected.shape or not torch.allclose(tensor[0].float(), expected, atol=2e-3):
                    raise ValueError(f"{name} is not the 2-D sine-cosine table for a grid of {config.modality.grid}")
                continue
            ours_name = our_name(name, encoder, config.encoder.prenet_depth)
            ours[ours_name] = tensor.flatten() if ours_name.endswith("alibi_scale_H") else tensor
    return ours
