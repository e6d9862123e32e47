"""Pictures: ViT (DINO's too), MAE, DINOv2 without and with registers, and the ViTs of timm.

Shapes: `T` patches, `D` width, `R` registers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from data2vec2.config.model import ArchitectureConfig, EncoderConfig
from data2vec2.errors import UserError
from data2vec2.interop.foreign.family import (
    Fields,
    Foreign,
    Tensors,
    encoder_of,
    mlp_ratio,
    translated,
    without_prefix,
)
from data2vec2.modalities.data import narrow
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig
from data2vec2.modalities.image.model import sincos_2d

NAMES = {
    "vit": "ViT",
    "vit_mae": "MAE",
    "dinov2": "DINOv2",
    "dinov2_with_registers": "DINOv2 with registers",
}
"""Families by their `model_type`."""
PREFIXES = ("vit.", "dinov2.", "dinov2_with_registers.")
CLS, POSITIONS, REGISTERS = "modality.cls_token", "modality.positions_TD", "modality.registers_1RD"

# theirs                                            ours
TABLE = (
    ("embeddings.cls_token",                        CLS),
    ("embeddings.register_tokens",                  REGISTERS),
    ("embeddings.position_embeddings",              POSITIONS),  # the first row is the CLS token's
    ("embeddings.patch_embeddings.projection.*",    "modality.stem.*"),
    ("encoder.layer.#.attention.attention.query.*", "blocks.#.attn.q.*"),
    ("encoder.layer.#.attention.attention.key.*",   "blocks.#.attn.k.*"),
    ("encoder.layer.#.attention.attention.value.*", "blocks.#.attn.v.*"),
    ("encoder.layer.#.attention.output.dense.*",    "blocks.#.attn.proj.*"),
    ("encoder.layer.#.layernorm_before.*",          "blocks.#.norm1.*"),
    ("encoder.layer.#.intermediate.dense.*",        "blocks.#.mlp.fc1.*"),
    ("encoder.layer.#.output.dense.*",              "blocks.#.mlp.fc2.*"),
    ("encoder.layer.#.layernorm_after.*",           "blocks.#.norm2.*"),
    ("encoder.layer.#.norm1.*",                     "blocks.#.norm1.*"),  # from here DINOv2
    ("encoder.layer.#.layer_scale1.lambda1",        "blocks.#.scale1.weight"),
    ("encoder.layer.#.norm2.*",                     "blocks.#.norm2.*"),
    ("encoder.layer.#.mlp.fc1.*",                   "blocks.#.mlp.fc1.*"),
    ("encoder.layer.#.mlp.fc2.*",                   "blocks.#.mlp.fc2.*"),
    ("encoder.layer.#.layer_scale2.lambda1",        "blocks.#.scale2.weight"),
    ("layernorm.*",                                 "norm.*"),
)  # fmt: skip
DROPPED = ("pooler.*", "classifier.*", "decoder.*", "embeddings.mask_token")

# timm's                     ours
TIMM = (
    ("cls_token",            CLS),
    ("reg_token",            REGISTERS),
    ("pos_embed",            POSITIONS),
    ("patch_embed.proj.*",   "modality.stem.*"),
    ("blocks.#.norm1.*",     "blocks.#.norm1.*"),
    ("blocks.#.attn.qkv.*",  "blocks.#.attn.qkv.*"),
    ("blocks.#.attn.proj.*", "blocks.#.attn.proj.*"),
    ("blocks.#.ls1.gamma",   "blocks.#.scale1.weight"),
    ("blocks.#.norm2.*",     "blocks.#.norm2.*"),
    ("blocks.#.mlp.fc1.*",   "blocks.#.mlp.fc1.*"),
    ("blocks.#.mlp.fc2.*",   "blocks.#.mlp.fc2.*"),
    ("blocks.#.ls2.gamma",   "blocks.#.scale2.weight"),
    ("norm.*",               "norm.*"),
)  # fmt: skip
TIMM_DROPPED = ("head.*", "fc_norm.*", "mask_token")
TIMM_NAMES = re.compile(r"(vit|deit3?)_(?!.*(clip|siglip|gelu|rope|rmsnorm|gap|dinov3|sam|pe_)).*")
"""Architectures of timm that compute what ours do; what their weights need besides is checked."""
TIMM_HEADS = {192: 3, 320: 5, 384: 6, 512: 8, 640: 10, 768: 12, 1024: 16, 1280: 16, 1408: 16, 1664: 16}
"""Heads by width, which the weights don't tell."""


def read_pictures(fields: Fields, tensors: Mapping[str, Tensor], folder: Path, processor: Fields | None) -> Foreign:
    """A model of one of `NAMES`; `UserError` for a field that can't be."""
    kind = str(fields.values["model_type"])
    dino = kind.startswith("dinov2")
    fields.only("hidden_act", "gelu")
    fields.only("qkv_bias", True)
    fields.only("use_swiglu_ffn", False)
    width = fields.whole("hidden_size", 768)
    hidden = int(width * fields.number("mlp_ratio", 4)) if dino else fields.whole("intermediate_size", 3072)
    eps = fields.number("layer_norm_eps", 1e-6 if dino else 1e-12, least=0)
    found, dropped = translated(without_prefix(tensors, PREFIXES), TABLE, DROPPED, folder)
    patch, made_for = fields.side("patch_size", 16), fields.side("image_size", 224)
    antialias = kind == "dinov2_with_registers"
    model = _model(
        fields,
        encoder_of(fields, hidden=hidden, eps=eps, pre_norm=True, layer_scale=dino),
        {"patch_size": patch, "num_channels": fields.whole("num_channels", 3)},
        made_for,
        found,
    )
    reading, size, notes = _reading(processor, made_for)
    return _resized(NAMES[kind], model, found, dropped, reading, size, notes, antialias)


def read_timm(fields: Fields, tensors: Mapping[str, Tensor], folder: Path, processor: Fields | None) -> Foreign:
    """A ViT of timm; `UserError` for an architecture that computes something else."""
    architecture = str(fields.values.get("architecture"))
    if not TIMM_NAMES.fullmatch(architecture):
        raise UserError(
            f"{fields.path}: architecture is {architecture!r}; of timm plain ViTs are supported (vit_, deit_)"
        )
    about = fields.values.get("pretrained_cfg")
    own = Fields({**fields.values, **(about if isinstance(about, Mapping) else {})}, fields.path)
    arguments = fields.values.get("model_args")
    given = Fields(arguments if isinstance(arguments, Mapping) else {}, fields.path)
    found, dropped = translated(tensors, TIMM, TIMM_DROPPED, folder)
    if "norm.weight" not in found:
        raise UserError(f"{folder} has no norm.weight: the features of {architecture} are not normalised, as here")
    stem, hidden = found.get("modality.stem.weight"), found.get("blocks.0.mlp.fc1.weight")
    if stem is None or stem.ndim != 4 or hidden is None or hidden.ndim != 2 or len(set(stem.shape[2:])) != 1:
        raise UserError(f"{folder} lacks patch_embed.proj.weight or blocks.0.mlp.fc1.weight, or they have odd shapes")
    width = stem.shape[0]
    heads = given.whole("num_heads", TIMM_HEADS.get(width))
    channels, *sides = own.numbers("input_size", (stem.shape[1], 224, 224))
    encoder = EncoderConfig(
        embed_dim=width,
        num_heads=heads,
        prenet_depth=0,
        depth=1 + max(int(name.split(".")[1]) for name in found if name.startswith("blocks.")),
        mlp_ratio=mlp_ratio(hidden.shape[0], width),
        norm_eps=1e-6,
        pre_norm=True,
        layer_scale="blocks.0.scale1.weight" in found,
    )
    shape = {"patch_size": stem.shape[2], "num_channels": channels}
    made_for = given.side("img_size", Fields({"input_size": sides}, fields.path).side("input_size", 224))
    model = _model(fields, encoder, shape, made_for, found)
    mean, std, share = (own.values.get(name) for name in ("mean", "std", "crop_pct"))
    reading = {"mean": _numbers(mean), "std": _numbers(std), "eval_crop": share} if mean and std and share else {}
    notes = () if reading else ("config.json has no mean, std and crop_pct: pictures are read as the recipe says",)
    return _resized(f"timm's {architecture}", model, found, dropped, reading, made_for, notes, True)


def _model(
    fields: Fields, encoder: EncoderConfig, shape: Mapping[str, Any], made_for: int, tensors: Tensors
) -> ArchitectureConfig:
    """The shape; the positions in `tensors` become those of patches alone, what CLS and registers have is theirs.

    Positions that are the fixed ones, as MAE's, are left out.
    """
    registers = tensors[REGISTERS].shape[1] if REGISTERS in tensors else 0
    modality = ImageConfig(
        image_size=made_for, position_size=made_for, positions="learned", num_registers=registers, **shape
    )
    if POSITIONS not in tensors or CLS not in tensors:
        raise UserError(f"{fields.path.parent} has no positions or no CLS token; models without them are not supported")
    positions_TD, count = tensors[POSITIONS].flatten(0, -2), math.prod(modality.position_grid)
    extra = len(positions_TD) - count
    if extra not in (0, 1, 1 + registers) or positions_TD.shape[1] != encoder.embed_dim:
        raise UserError(
            f"{fields.path.parent} has positions of shape {list(tensors[POSITIONS].shape)}, and its pictures of "
            f"{made_for} x {made_for} pixels have {count} patches"
        )
    if extra:
        tensors[CLS] = tensors[CLS] + positions_TD[:1]
    if extra > 1:
        tensors[REGISTERS] = tensors[REGISTERS] + positions_TD[1:extra]
    tensors[POSITIONS] = positions_TD[extra:]
    if encoder.embed_dim % 4 == 0:
        fixed_TD = sincos_2d(encoder.embed_dim, modality.position_grid)
        if (tensors[POSITIONS] - fixed_TD).abs().max() < 1e-5:
            del tensors[POSITIONS]
            modality = ImageConfig(image_size=made_for, position_size=made_for, num_registers=registers, **shape)
    return ArchitectureConfig(modality=modality, encoder=encoder)


def _resized(
    family: str,
    model: ArchitectureConfig,
    tensors: Tensors,
    dropped: tuple[str, ...],
    reading: Mapping[str, Any],
    size: int,
    notes: tuple[str, ...],
    antialias: bool,
) -> Foreign:
    """For pictures of the size that the weights are used with, whatever their positions were made for."""
    modality = narrow(model.modality, ImageConfig)
    made_for, patch, channels = modality.image_size, modality.patch_size, modality.channels
    for name in ("mean", "std"):
        if len(values := reading.get(name, (0.0,) * channels)) != channels:
            raise UserError(f"the {name} of pictures for {family} has {len(values)} values for {channels} channels")
    if size % patch:
        notes = (*notes, f"pictures of {size} pixels are no multiple of the patches ({patch}): {made_for} are taken")
        size = made_for
    learned = modality.positions == "learned"
    if size != made_for and learned:
        notes = (*notes, f"positions, made for {made_for} x {made_for} pixels, are interpolated to the run's pictures")
    changed = ImageConfig(
        **{**vars(modality), "image_size": size, "position_size": None if learned or size == made_for else made_for}
    )
    grid = modality.position_grid
    return Foreign(
        family=family,
        model=ArchitectureConfig(modality=changed, encoder=model.encoder),
        tensors=tensors,
        data=ImageDataConfig(**reading),
        reading=tuple(reading),
        dropped=dropped,
        notes=notes,
        adapted=partial(_interpolated, grid=grid, antialias=antialias),
    )


def _interpolated(tensors: Tensors, model: ArchitectureConfig, *, grid: tuple[int, int], antialias: bool) -> Tensors:
    """With learned positions for the model's grid, made of those for another as the family does it."""
    new = narrow(model.modality, ImageConfig).position_grid
    if POSITIONS not in tensors or new == grid:
        return tensors
    table_1Dhw = tensors[POSITIONS].view(1, *grid, -1).permute(0, 3, 1, 2)
    smooth = F.interpolate(table_1Dhw, size=new, mode="bicubic", align_corners=False, antialias=antialias)
    return {**tensors, POSITIONS: smooth.flatten(2)[0].T.contiguous()}


def _reading(processor: Fields | None, made_for: int) -> tuple[dict[str, Any], int, tuple[str, ...]]:
    """Fields of `ImageDataConfig`, the size of pictures, and what differs, from preprocessor_config.json."""
    if processor is None:
        return {}, made_for, ("no preprocessor_config.json: pictures are normalised as the recipe says",)
    if processor.values.get("do_rescale", True):
        factor = processor.number("rescale_factor", 1 / 255, least=0)
        if abs(factor * 255 - 1) > 1e-3:
            raise UserError(f"{processor.path}: rescale_factor is {factor}; only 1/255 is supported")
    normalised = processor.values.get("do_normalize", True)
    mean, std = (_numbers(processor.values.get(name)) for name in ("image_mean", "image_std"))
    if normalised and (not mean or not std):
        raise UserError(f"{processor.path} has no image_mean and image_std")
    if not normalised:
        mean, std = (0.0,) * 3, (1.0,) * 3
    scaled, cut = _side(processor, "size", made_for), made_for
    notes, share = tuple[str, ...](), 1.0
    if processor.values.get("do_center_crop", "crop_size" in processor.values):
        cut = _side(processor, "crop_size", made_for)
        share = min(1.0, cut / scaled)
    else:
        cut = scaled
        notes = ("of pictures that are no squares the central square is taken, where the family squashes the whole",)
    return {"mean": mean, "std": std, "eval_crop": round(share, 4)}, cut, notes


def _side(fields: Fields, name: str, default: int) -> int:
    """Side of a square in pixels: a number, height and width, or the shortest edge."""
    value = fields.values.get(name, default)
    if isinstance(value, Mapping):
        sides = [value[key] for key in ("shortest_edge", "height", "width") if key in value]
        return Fields({name: sides}, fields.path).side(name, default)
    return fields.side(name, default)


def _numbers(value: Any) -> tuple[float, ...]:
    """Numbers of the channels; none where they are missing or something else."""
    given = value if isinstance(value, list | tuple) else ()
    return tuple(float(one) for one in given if isinstance(one, int | float))
