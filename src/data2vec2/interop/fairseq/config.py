"""The original's configuration of pre-training and ours: one table, read in both directions."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from data2vec2.config import AudioConfig, ImageDataConfig, RunConfig, TextConfig, from_dict, to_dict
from data2vec2.interop.fairseq.keys import Kind
from data2vec2.recipes import RECIPES

NEEDED = object()
OURS = object()
"""Marks of values that must be there, and of those that stay as in our recipe where they are not there."""
OWN = "data2vec2"
"""Part of a configuration in which a model of ours says how its pictures are normalised."""
TASKS = {"image": "mae_image_pretraining", "audio": "audio_pretraining", "text": "masked_lm"}

# M: "model.modalities.image" or another; D: its "decoder"; G: "optimizer.groups.default"
# whose   the original's key                ours                               where it is left out
TABLE = (
    ("",      "model.embed_dim",                "model.encoder.embed_dim",         NEEDED),
    ("",      "model.num_heads",                "model.encoder.num_heads",         NEEDED),
    ("",      "M.prenet_depth",                 "model.encoder.prenet_depth",      NEEDED),
    ("",      "model.depth",                    "model.encoder.depth",             NEEDED),
    ("",      "model.mlp_ratio",                "model.encoder.mlp_ratio",         4.0),
    ("",      "model.norm_eps",                 "model.encoder.norm_eps",          NEEDED),
    ("",      "model.encoder_dropout",          "model.encoder.dropout",           OURS),
    ("",      "model.attention_dropout",        "model.encoder.attention_dropout", OURS),
    ("",      "model.layerdrop",                "model.encoder.layer_drop",        0.0),
    ("image", "M.input_size",                   "model.modality.image_size",       224),
    ("image", "M.patch_size",                   "model.modality.patch_size",       16),
    ("image", "M.in_chans",                     "model.modality.num_channels",     3),
    ("audio", "task.sample_rate",               "model.modality.sample_rate",      16_000),
    ("audio", "M.conv_pos_depth",               "model.modality.position_depth",   NEEDED),
    ("audio", "M.conv_pos_groups",              "model.modality.position_groups",  NEEDED),
    ("text",  "M.max_source_positions",         "model.modality.max_tokens",       512),
    ("",      "model.clone_batch",              "model.masks.num_masks",           OURS),
    ("",      "M.mask_prob",                    "model.masks.mask_ratio",          OURS),
    ("",      "M.mask_prob_adjust",             "model.masks.adjust",              0.0),
    ("",      "M.mask_length",                  "model.masks.block_length",        OURS),
    ("",      "M.inverse_mask",                 "model.masks.inverse",             False),
    ("",      "D.decoder_layers",               "model.decoder.depth",             OURS),
    ("",      "D.decoder_kernel",               "model.decoder.kernel",            OURS),
    ("",      "D.decoder_dim",                  "model.decoder.dim",               OURS),
    ("",      "D.decoder_groups",               "model.decoder.groups",            OURS),
    ("",      "D.input_dropout",                "model.decoder.input_dropout",     OURS),
    ("",      "D.decoder_residual",             "model.decoder.residual",          True),
    ("",      "D.projection_layers",            "model.decoder.projection_depth",  1),
    ("",      "M.mask_noise_std",               "model.decoder.noise_std",         0.01),
    ("",      "model.average_top_k_layers",     "model.targets.average_layers",    OURS),
    ("",      "model.loss_scale",               "model.loss.scale",                None),
    ("",      "model.loss_beta",                "model.loss.beta",                 0.0),
    ("",      "model.ema_decay",                "ema.start",                       OURS),
    ("",      "model.ema_end_decay",            "ema.end",                         OURS),
    ("",      "model.ema_anneal_end_step",      "ema.anneal_updates",              OURS),
    ("",      "G.lr_float",                     "optim.lr",                        OURS),
    ("",      "G.lr_scheduler.warmup_updates",  "optim.warmup_updates",            OURS),
    ("",      "G.optimizer.adam_eps",           "optim.eps",                       OURS),
    ("",      "G.optimizer.weight_decay",       "optim.weight_decay",              OURS),
    ("",      "optimization.max_update",        "train.updates",                   OURS),
)  # fmt: skip

# What the original can be set to and ours can't: the key, and the only value that is understood.
FIXED = (
    ("",      "model.layer_norm_first",         False),
    ("",      "model.batch_norm_target_layer",  False),
    ("",      "model.shared_decoder",           None),
    ("",      "D.projection_ratio",             2.0),
    ("image", "M.num_extra_tokens",             1),
    ("audio", "M.use_alibi_encoder",            True),
    ("audio", "M.learned_alibi_scale",          True),
    ("audio", "M.learned_alibi_scale_per_head", True),
    ("audio", "M.conv_pos_pre_ln",              False),
)  # fmt: skip
_NORMS = (("layer_norm", "target_layer"), ("final_norm", "targets"))


def run_config(kind: Kind, cfg: Mapping[str, Any], vocab_size: int | None) -> RunConfig:
    """Our configuration of a pre-training run of the original; what it leaves open is as in our recipe.

    `cfg` is the original's whole, with `model`; `vocab_size` that of a model of text. `ValueError` for what is missing
    or is not understood.
    """
    _check_fixed(kind, cfg)
    base = _recipe(kind, int(_needed(kind, cfg, "model.embed_dim")))
    values = to_dict(base)
    for whose, theirs, ours, default in TABLE:
        if whose in ("", kind):
            found = _get(cfg, _path(kind, theirs), default)
            if found is NEEDED:
                raise ValueError(f"cfg has no {_path(kind, theirs)}")
            if found is not OURS and not (theirs.startswith("D.") and _get(cfg, _path(kind, "D"), None) is None):
                _set(values, ours, found)
    values["model"]["targets"] |= _target_norms(cfg)
    values["model"]["loss"]["cls_loss_weight"] = _cls_loss_weight(cfg)
    _set_optimiser(kind, cfg, values)
    if kind == "audio":
        values["model"]["modality"] |= _waveform_stem(cfg)
    if kind == "image":  # a run of ours; the original knows ImageNet's statistics only
        values["data"] |= _get(cfg, OWN, {})
    if vocab_size is not None:
        values["model"]["modality"]["vocab_size"] = vocab_size
    encoder, decoder = values["model"]["encoder"], values["model"]["decoder"]
    if _get(cfg, _path(kind, "D"), None) is None:  # a model without decoder: a placeholder that fits
        decoder["groups"] = math.gcd(decoder["groups"], encoder["embed_dim"])
    return from_dict(RunConfig, values)


def original_config(run: RunConfig) -> dict[str, Any]:
    """Undo `run_config`: what the original needs to build the model; `ValueError` for what it can't do."""
    modality, kind = run.model.modality, run.model.modality.kind
    if isinstance(modality, AudioConfig) and modality.stem != "waveform":
        raise ValueError("the original knows no mel stem")
    if isinstance(modality, TextConfig) and (modality.bos_id, modality.pad_id, modality.eos_id) != (0, 1, 2):
        raise ValueError("the original's bos, pad and eos are 0, 1 and 2, and this model's tokenizer has others")
    ours = to_dict(run)
    cfg: dict[str, Any] = {"_name": None}
    for whose, theirs, name, _ in TABLE:
        if whose in ("", kind):
            _set(cfg, _path(kind, theirs), _get(ours, name, None))
    for whose, theirs, value in FIXED:
        if whose in ("", kind):
            _set(cfg, _path(kind, theirs), value)
    own, model = cfg["model"]["modalities"][kind], cfg["model"]
    for ours_name, suffix in _NORMS:
        chosen = getattr(run.model.targets, ours_name)
        model |= {f"{norm}_norm_{suffix}": chosen == norm for norm in ("instance", "layer")}
    rows = run.train.batch_size * run.model.masks.num_masks
    model |= {
        "_name": "data2vec_multi",
        "supported_modality": kind.upper(),
        "cls_loss": run.model.loss.cls_loss_weight / rows,
        "post_mlp_drop": run.model.encoder.dropout,
        "ema_encoder_only": kind == "text",
    }
    own |= {"type": kind.upper(), "ema_local_encoder": kind == "image", "prenet_dropout": run.model.encoder.dropout}
    if isinstance(modality, AudioConfig):
        own["feature_encoder_spec"] = format_spec(modality.conv_dim, modality.layers)
        own["conv_pos_width"] = modality.position_kernel * modality.position_depth
    group = cfg["optimizer"]["groups"]["default"]
    group["optimizer"] |= {"_name": "adam", "adam_betas": [run.optim.beta1, run.optim.beta2]}
    group["lr_scheduler"] |= {"_name": "cosine"}
    cfg["optimizer"] |= {"_name": "composite", "dynamic_groups": True}
    cfg["optimization"] |= {"lr": [run.optim.lr], "clip_norm": run.optim.clip_norm or 0.0}
    cfg["dataset"] = {"batch_size": run.train.batch_size}
    cfg["task"] = {**cfg.get("task", {}), "_name": TASKS[kind], **({"normalize": True} if kind == "audio" else {})}
    if isinstance(run.data, ImageDataConfig):
        cfg[OWN] = {name: _get(ours["data"], name, None) for name in ("mean", "std", "eval_crop")}
    return cfg


def parse_spec(spec: str) -> tuple[int, list[tuple[int, int]]]:
    """Channels, and kernel and stride of each layer, of a text like `[(512, 10, 5)] + [(512, 3, 2)] * 4`.

    `ValueError` for anything else: it is read, not run.
    """
    layers: list[tuple[int, int, int]] = []
    for term in re.sub(r"\s", "", spec).split("+"):
        match = re.fullmatch(r"\[((?:\(\d{1,5},\d{1,5},\d{1,5}\),?)+)\](?:\*(\d{1,3}))?", term)
        if match is None:
            raise ValueError(f"feature_encoder_spec is {spec!r}; it must be like [(512, 10, 5)] + [(512, 3, 2)] * 4")
        own = [(int(c), int(k), int(s)) for c, k, s in re.findall(r"\((\d+),(\d+),(\d+)\)", match[1])]
        layers += own * int(match[2] or 1)
    if len({channels for channels, _, _ in layers}) != 1:
        raise ValueError(f"feature_encoder_spec is {spec!r}; all its layers must have the same channels")
    return layers[0][0], [(kernel, stride) for _, kernel, stride in layers]


def format_spec(channels: int, layers: tuple[tuple[int, int], ...]) -> str:
    """Undo `parse_spec`."""
    return " + ".join(f"[({channels}, {kernel}, {stride})]" for kernel, stride in layers)


def _waveform_stem(cfg: Mapping[str, Any]) -> dict[str, Any]:
    channels, layers = parse_spec(str(_needed("audio", cfg, "M.feature_encoder_spec")))
    width, depth = (int(_needed("audio", cfg, f"M.conv_pos_{name}")) for name in ("width", "depth"))
    return {
        "stem": "waveform",
        "conv_dim": channels,
        "conv_kernels": [kernel for kernel, _ in layers],
        "conv_strides": [stride for _, stride in layers],
        "position_kernel": max(3, width // max(1, depth)),
    }


def _target_norms(cfg: Mapping[str, Any]) -> dict[str, str]:
    norms = {}
    for ours, suffix in _NORMS:
        chosen = [n for n in ("instance", "layer") if _get(cfg, f"model.{n}_norm_{suffix}", False)]
        if len(chosen) > 1:
            raise ValueError(f"cfg.model has both instance_norm_{suffix} and layer_norm_{suffix}")
        norms[ours] = chosen[0] if chosen else "none"
    return norms


def _cls_loss_weight(cfg: Mapping[str, Any]) -> float:
    """The original weighs a sum over the rows of one device (in the released runs, of 16 pictures), ours their mean."""
    weight = float(_get(cfg, "model.cls_loss", 0.0) or 0.0)
    rows = int(_get(cfg, "dataset.batch_size", None) or 16) * int(_get(cfg, "model.clone_batch", 1))
    return float(f"{weight * rows:.12g}")


def _set_optimiser(kind: Kind, cfg: Mapping[str, Any], values: dict[str, Any]) -> None:
    """What stands in another form there."""
    betas = _get(cfg, _path(kind, "G.optimizer.adam_betas"), None)
    if betas is not None:  # a pair, or its text
        pair = re.findall(r"\d*\.?\d+", betas) if isinstance(betas, str) else betas
        values["optim"]["beta1"], values["optim"]["beta2"] = map(float, pair)
    if isinstance(clip := _get(cfg, "optimization.clip_norm", None), int | float):
        values["optim"]["clip_norm"] = float(clip) or None
    for name, number in (("warmup_updates", int), ("lr", float)):
        values["optim"][name] = number(values["optim"][name])
    values["train"]["updates"] = int(values["train"]["updates"])


def _check_fixed(kind: Kind, cfg: Mapping[str, Any]) -> None:
    for whose, theirs, value in FIXED:
        if whose in ("", kind) and (found := _get(cfg, _path(kind, theirs), value)) != value:
            raise ValueError(f"{_path(kind, theirs)} is {found!r}, and only {value!r} can be converted")


def _recipe(kind: Kind, embed_dim: int) -> RunConfig:
    """The released recipe of this width, else base."""
    released = [name for name in RECIPES if name in (f"{kind}_base", f"{kind}_large", f"{kind}_huge14")]
    runs = [RECIPES[name]() for name in released]
    return next((run for run in runs if run.model.encoder.embed_dim == embed_dim), runs[0])


def _path(kind: str, key: str) -> str:
    """The whole path of a key of the table."""
    places = {"M": f"model.modalities.{kind}", "G": "optimizer.groups.default"}
    places["D"] = f"{places['M']}.decoder"
    first, dot, rest = key.partition(".")
    return f"{places.get(first, first)}{dot}{rest}"


def _needed(kind: Kind, cfg: Mapping[str, Any], key: str) -> Any:
    if (found := _get(cfg, _path(kind, key), NEEDED)) is NEEDED:
        raise ValueError(f"cfg has no {_path(kind, key)}")
    return found


def _get(values: Any, path: str, default: Any) -> Any:
    """What stands at a path of nested mappings or namespaces, else `default`."""
    for name in path.split("."):
        values = values if isinstance(values, Mapping) else getattr(values, "__dict__", {})
        if name not in values:
            return default
        values = values[name]
    return values


def _set(values: dict[str, Any], path: str, value: Any) -> None:
    *names, last = path.split(".")
    for name in names:
        values = values.setdefault(name, {})
    values[last] = value
