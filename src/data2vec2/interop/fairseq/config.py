"""The original's configuration of pre-training and ours: one table, read in both directions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from data2vec2.config.model import ArchitectureConfig
from data2vec2.config.run import DataConfig, RunConfig
from data2vec2.config.tree import from_dict, to_dict
from data2vec2.interop.fairseq.keys import CALLED
from data2vec2.interop.fairseq.original import PRETRAINED_AS, Original, get
from data2vec2.method.heads import Pooling
from data2vec2.modalities import kinds, read_run_config, recipes
from data2vec2.modalities.audio.config import AudioConfig
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.image.config import ImageDataConfig
from data2vec2.modalities.text.config import TextConfig
from data2vec2.training.optim import peak_lr

NEEDED = object()
OURS = object()
"""Marks of values that must be there, and of those that stay as in our recipe where they are not there."""
OWN = "data2vec2"
"""Part of a configuration in which a model of ours says how its pictures are normalised."""

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
    ("sound", "M.patch_size",                   "model.modality.patch_size",       16),
    ("audio", "task.sample_rate",               "model.modality.sample_rate",      16_000),
    ("audio", "M.conv_pos_depth",               "model.modality.position_depth",   NEEDED),
    ("audio", "M.conv_pos_groups",              "model.modality.position_groups",  NEEDED),
    ("audio", "M.num_extra_tokens",             "model.modality.num_extra_tokens", 0),
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
    ("sound", "M.num_extra_tokens",             1),
    ("sound", "M.in_chans",                     1),
    ("audio", "M.use_alibi_encoder",            True),
    ("audio", "M.learned_alibi_scale",          True),
    ("audio", "M.learned_alibi_scale_per_head", True),
    ("audio", "M.conv_pos_pre_ln",              False),
    ("audio", "task.normalize",                 True),
)  # fmt: skip
# And what ours can be set to and the original can't: the field, and the only value that it has.
ABSENT = (
    ("",      "model.encoder.pre_norm",         False),
    ("",      "model.encoder.layer_scale",      False),
    ("image", "model.modality.positions",       "sincos"),
    ("image", "model.modality.num_registers",   0),
    ("audio", "model.modality.conv_bias",       False),
    ("audio", "model.modality.stem_norm",       "layer"),
    ("audio", "model.modality.position_norm",   True),
    ("audio", "model.modality.alibi",           True),
    ("text",  "model.modality.stem_norm_eps",   1e-5),
)  # fmt: skip
SIZES = ("base", "large", "huge14")
"""Released models, in our recipes' names."""
EAT = {"num_mels": 128, "spectrum_mean": -4.268, "spectrum_std": 2 * 4.569, "unit_variance": False}
"""How EAT's models, which are those of sounds, see them."""
EAT_ON = {
    "esc50_eval": {"spectrum_mean": -6.627, "spectrum_std": 2 * 5.359},
    "spcv2_eval": {"spectrum_mean": -6.846, "spectrum_std": 2 * 5.565},
}
"""And those that were fine-tuned on sounds of one class each, by the setting that says so: ESC-50, Speech Commands."""
MODES: dict[str, Pooling] = {"MEAN_POOLING": "mean", "CLS_TOKEN": "cls"}
"""How the original's classifiers of pictures, and EAT's, pool."""
NORMS = (("layer_norm", "target_layer"), ("final_norm", "targets"))

# of       task of pre-training        what gives outputs, fine-tuned: the model's name          and its task's
TASKS = {
    "image": ("mae_image_pretraining", "mean",             "mae_image_classification",     "mae_image_classification"),
    "audio": ("audio_pretraining",     "letters",          "wav2vec_ctc",                  "audio_finetuning"),
    "text":  ("masked_lm",             "first",            "data2vec_text_classification", "sentence_prediction"),
}  # fmt: skip


def read_config(kind: str, cfg: Any, vocabulary: tuple[int, ...] | None) -> RunConfig | ModelInfo:
    """Our configuration of a pre-training run of the original; what its `cfg` leaves open is as in our recipe.

    A model without decoder has no objective: then only what is known of the encoder is returned. `vocabulary`: entries
    and width of that of a model of text. `ValueError` for what is missing or is not understood.
    """
    released = [recipes()[name]() for size in SIZES if (name := f"{kind}_{size}") in recipes()]
    # Fine-tuned models of text don't say their shape; that of a released one is known by its width.
    width = vocabulary[-1] if cfg is None and vocabulary else get(cfg, "model.embed_dim")
    run = next((run for run in released if run.model.encoder.embed_dim == width), None)
    if cfg is None:
        if run is None:
            raise ValueError("it does not say its model's shape; --pretrained names the file that it was made from")
        return run
    for path, value in _rows(FIXED, kind):
        if (found := get(cfg, path, value)) != value:
            raise ValueError(f"{path} is {found!r}, and only {value!r} can be converted")
    values = to_dict(run or released[0])
    for path, ours, default in _rows(TABLE, kind):
        if (found := _needed(cfg, path) if default is NEEDED else get(cfg, path, default)) is not OURS:
            _set(values, ours, found)
    modality = values["model"]["modality"]
    if kind == "sound":
        modality |= EAT
    if kind == "audio":
        channels, layers = parse_spec(str(_needed(cfg, _path(kind, "M.feature_encoder_spec"))))
        width, depth = (int(_needed(cfg, _path(kind, f"M.conv_pos_{name}"))) for name in ("width", "depth"))
        modality |= {"stem": "waveform", "conv_dim": channels, "position_kernel": max(3, width // max(1, depth))}
        modality |= {"conv_kernels": [kernel for kernel, _ in layers], "conv_strides": [stride for _, stride in layers]}
    values["data"] |= get(cfg, OWN, {})  # of a run of ours; the original knows ImageNet's statistics only
    if vocabulary is not None:
        modality["vocab_size"] = vocabulary[0]
    if get(cfg, _path(kind, "D"), OURS) is None:
        architecture = {"modality": modality, "encoder": values["model"]["encoder"]}
        return ModelInfo(
            model=from_dict(ArchitectureConfig, architecture, "model", kinds=kinds()),
            data=from_dict(DataConfig, values["data"], "data", kinds=kinds()),
        )
    _set_training(kind, cfg, values)
    return read_run_config(values)


def _set_training(kind: str, cfg: Any, values: dict[str, Any]) -> None:
    """What stands in another form there, of the objective and the optimiser."""
    model, optim = values["model"], values["optim"]
    for ours, suffix in NORMS:
        chosen = [norm for norm in ("instance", "layer") if get(cfg, f"model.{norm}_norm_{suffix}", False)]
        if len(chosen) > 1:
            raise ValueError(f"cfg.model has both instance_norm_{suffix} and layer_norm_{suffix}")
        model["targets"][ours] = chosen[0] if chosen else "none"
    if (kind_of_summary := get(cfg, "model.cls_type", "chunk")) != "chunk":
        raise ValueError(f"model.cls_type is {kind_of_summary!r}, and only 'chunk' can be converted")
    # The original weighs a sum over the rows of one device (in the released runs, of 16 pictures), ours their mean. How
    # emotion2vec's training does is not published: its weight is taken for one of the mean.
    rows = 1 if kind == "audio" else int(get(cfg, "dataset.batch_size") or 16) * int(get(cfg, "model.clone_batch", 1))
    model["loss"]["cls_loss_weight"] = float(f"{float(get(cfg, 'model.cls_loss') or 0.0) * rows:.12g}")
    if (betas := get(cfg, _path(kind, "G.optimizer.adam_betas"))) is not None:  # a pair, or its text
        pair = re.findall(r"\d*\.?\d+", betas) if isinstance(betas, str) else betas
        optim["beta1"], optim["beta2"] = map(float, pair)
    if isinstance(clip := get(cfg, "optimization.clip_norm"), int | float):
        optim["clip_norm"] = float(clip) or None
    optim |= {"warmup_updates": int(optim["warmup_updates"]), "lr": float(optim["lr"])}
    values["train"]["updates"] = int(values["train"]["updates"])


def original_config(config: RunConfig | ModelInfo) -> dict[str, Any]:
    """Undo `read_config`: what the original needs to build the model; `ValueError` for what it can't do."""
    if isinstance(config, RunConfig):  # the original has no rule for the batch
        lr = peak_lr(config.optim, config.train.batch_size)
        config = replace(config, optim=replace(config.optim, lr=lr, lr_rule="none"))
    modality, encoder = config.model.modality, config.model.encoder
    kind, ours = modality.kind, to_dict(config)
    if kind not in TASKS:
        raise ValueError(f"the original has no models of {kind}")
    if isinstance(modality, AudioConfig) and modality.stem != "waveform":
        raise ValueError("the original has no mel stem")
    if isinstance(modality, TextConfig) and (modality.bos_id, modality.pad_id, modality.eos_id) != (0, 1, 2):
        raise ValueError("the original's bos, pad and eos are 0, 1 and 2, and this model's tokenizer has others")
    for whose, name, only in ABSENT:
        if whose in ("", kind) and (found := get(ours, name)) != only:
            raise ValueError(f"{name} is {found!r}, and the original has only {only!r}")
    cfg: dict[str, Any] = {"_name": None}
    known = [(path, get(ours, name, OURS)) for path, name, _ in _rows(TABLE, kind)]
    for path, value in (*_rows(FIXED, kind), *known):
        if value is not OURS:
            _set(cfg, path, value)
    own, model = cfg["model"]["modalities"][kind], cfg["model"]
    model |= {"_name": "data2vec_multi", "supported_modality": kind.upper()}
    model |= {"post_mlp_drop": encoder.dropout, "ema_encoder_only": kind == "text"}
    own |= {"type": kind.upper(), "ema_local_encoder": kind == "image", "prenet_dropout": encoder.dropout}
    if isinstance(modality, AudioConfig):
        own["feature_encoder_spec"] = format_spec(modality.conv_dim, modality.layers)
        own["conv_pos_width"] = modality.position_kernel * modality.position_depth
    _set(cfg, "task._name", TASKS[kind][0])
    if isinstance(config.data, ImageDataConfig):
        cfg[OWN] = {name: ours["data"][name] for name in ("mean", "std", "eval_crop")}
    if isinstance(config, ModelInfo):
        model["skip_ema"], own["decoder"] = True, None
        return cfg
    for name, suffix in NORMS:
        chosen = getattr(config.model.targets, name)
        model |= {f"{norm}_norm_{suffix}": chosen == norm for norm in ("instance", "layer")}
    rows = 1 if kind == "audio" else config.train.batch_size * config.model.masks.num_masks
    model["cls_loss"] = config.model.loss.cls_loss_weight / rows
    group = cfg["optimizer"]["groups"]["default"]
    group["optimizer"] |= {"_name": "adam", "adam_betas": [config.optim.beta1, config.optim.beta2]}
    group["lr_scheduler"] |= {"_name": "cosine"}
    cfg["optimizer"] |= {"_name": "composite", "dynamic_groups": True}
    cfg["optimization"] |= {"lr": [config.optim.lr], "clip_norm": config.optim.clip_norm or 0.0}
    cfg["dataset"] = {"batch_size": config.train.batch_size}
    return cfg


def finetuned_config(info: ModelInfo) -> dict[str, Any]:
    """The original's configuration of a fine-tuned model for an export of ours; `ValueError` if it has no such one."""
    cfg = original_config(info)
    _, head, name, task = TASKS[info.kind]
    if info.dense:
        raise ValueError(f"it has no {info.what}")
    if head != ("letters" if info.letters else info.pooling):
        raise ValueError(f"it has no classifier of {info.kind} whose pooling is {info.pooling}")
    place = PRETRAINED_AS["recognizer" if info.letters else "classifier"]
    size = {"num_classes": len(info.classes)} if info.classes else {}
    return {
        "_name": None,
        "model": {"_name": name, place: cfg, **size},
        "task": {"_name": task, **(size or {"normalize": True})},
    }


def config_of_file(original: Original, cfg: Any) -> RunConfig | ModelInfo:
    """As `read_config`, with what the file has of it, and, of a classifier of EAT, with the sounds that it knows."""
    config = read_config(original.kind, cfg, original.vocabulary)
    model = config.model
    if original.kind == "sound" and original.stage == "classifier":
        heard: dict[str, Any] = {"num_frames": int(_needed(cfg, _path("sound", "M.target_length")))}
        heard |= next((own for name, own in EAT_ON.items() if get(original.cfg, f"model.{name}")), {})
        model = replace(model, modality=replace(model.modality, **heard))
    if original.lacks_decoder:
        shape = ArchitectureConfig(modality=model.modality, encoder=model.encoder)
        return ModelInfo(model=shape, data=config.data)
    return replace(config, model=model)  # type: ignore[arg-type]


def read_head(original: Original, outputs: int) -> dict[str, Any]:
    """What a `ModelInfo` says of a file's classifier beside its classes; `ValueError` for what is not understood."""
    if original.kind == "text":  # for GLUE, whose single output is a number
        return {"pooling": "first", "regression": outputs == 1}
    if original.of_funasr:
        return {"pooling": "bare"}
    usual = "CLS_TOKEN" if original.kind == "sound" else "MEAN_POOLING"
    mode = str(get(original.cfg, "model.prediction_mode", usual)).rpartition(".")[2]
    if mode not in MODES:
        raise ValueError(f"model.prediction_mode is {mode}, and only {' and '.join(MODES)} can be converted")
    single = original.kind == "image" or any(get(original.cfg, f"model.{name}") for name in EAT_ON)
    return {"pooling": MODES[mode], "multi_label": not single}


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


def _needed(cfg: Any, path: str) -> Any:
    if (found := get(cfg, path)) is None:
        raise ValueError(f"cfg has no {path}")
    return found


def _rows(table: Sequence[tuple[Any, ...]], kind: str) -> list[tuple[Any, ...]]:
    """Rows of a modality, with whole paths for the original's keys."""
    return [(_path(kind, theirs), *rest) for whose, theirs, *rest in table if whose in ("", kind)]


def _path(kind: str, key: str) -> str:
    own, (first, dot, rest) = f"model.modalities.{CALLED.get(kind, kind)}", key.partition(".")
    return {"M": own, "D": f"{own}.decoder", "G": "optimizer.groups.default"}.get(first, first) + dot + rest


def _set(values: dict[str, Any], path: str, value: Any) -> None:
    *names, last = path.split(".")
    for name in names:
        values = values.setdefault(name, {})
    values[last] = value
