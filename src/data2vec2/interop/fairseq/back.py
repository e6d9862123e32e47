"""A run or an export as a checkpoint that the original's tools read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from data2vec2.config import ImageConfig, ModelConfig, RunConfig, TextConfig, from_dict
from data2vec2.data.letters import BLANK, Letters
from data2vec2.data.tokenizer import SPECIAL
from data2vec2.errors import UserError
from data2vec2.interop.export import ExportInfo, export_of, read_export
from data2vec2.interop.fairseq.config import original_config
from data2vec2.interop.fairseq.files import from_json
from data2vec2.interop.fairseq.folder import LEFT, read_beside
from data2vec2.interop.fairseq.keys import POSITIONS, original_name, original_tensors
from data2vec2.interop.fairseq.original import HEADS, PREFIXES, Job
from data2vec2.nn.positions import sincos_2d
from data2vec2.recipes import get_recipe
from data2vec2.training.checkpoint import load_newest
from data2vec2.training.run import CONFIG

TOKENS = "modality.stem.tokens.weight"
NEVER = -1e4
"""Bias of symbols that the original's vocabulary has and ours has not."""
_FINETUNED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "image": ("mae_image_classification", "pretrained_model_args", {"_name": "mae_image_classification"}),
    "audio": ("wav2vec_ctc", "w2v_args", {"_name": "audio_finetuning", "normalize": True}),
    "text": ("data2vec_text_classification", "pretrained_model_args", {"_name": "sentence_prediction"}),
}
"""The original's name of a fine-tuned model, where the configuration of its pre-training stands, and its task."""


def original_content(source: Path) -> tuple[dict[str, Any], tuple[str, ...] | None]:
    """What a `.pt` file of the original holds of a run or an export, and a recogniser's symbols.

    Every tensor and the configuration of a converted folder are those of the file it was made of. A run gives student,
    teacher and decoder; an export that is not converted has only its encoder and head. `UserError` if the original has
    no such model.
    """
    try:
        pretrained = _of_run(source)
        return (pretrained, None) if pretrained is not None else _of_export(export_of(source))
    except ValueError as error:
        raise UserError(f"{source} can't become a checkpoint of the original: {error}") from error


def _of_run(run: Path) -> dict[str, Any] | None:
    """Of a run of pre-training with a checkpoint; none of another."""
    if not (run / CONFIG).is_file():
        return None
    checkpoint, _ = load_newest(run / "checkpoints")
    if checkpoint is None or not any(name.startswith("student.") for name in checkpoint.groups["model"]):
        return None
    config = from_dict(RunConfig, yaml.safe_load((run / CONFIG).read_text("utf-8")))
    student, ema = _tensors(config.model, checkpoint.groups["model"], None)
    return _content(original_config(config), student, ema, checkpoint.step)


def _of_export(folder: Path) -> tuple[dict[str, Any], tuple[str, ...] | None]:
    info, weights = read_export(folder)
    about, beside = read_beside(folder)
    tensors = {f"student.{n.removeprefix('encoder.')}": t for n, t in weights.items() if n.startswith("encoder.")}
    tensors |= {name: tensor for name, tensor in beside.items() if not name.startswith(LEFT)}
    left = {name.removeprefix(LEFT): tensor for name, tensor in beside.items() if name.startswith(LEFT)}
    student, ema = _tensors(info.model, tensors, left if about else None)
    job: Job = "recognizer" if info.letters else "classifier" if info.classes else "pretraining"
    head = {n.replace("classifier.", "head.").replace("lm_head.", "head."): t for n, t in weights.items()}
    head = {name: tensor for name, tensor in head.items() if not name.startswith("encoder.")}
    symbols: tuple[str, ...] | None = None
    if about is not None:
        cfg, name = from_json(about["cfg"]), about["head_name"]
        symbols = tuple(about["symbols"]) if about["symbols"] else None
    else:
        cfg, name = _made_config(info, job), "sentence_classification_head"
        if info.letters is not None:
            symbols, head = _as_dictionary(info.letters, head)
    model = {PREFIXES[job] + name: tensor for name, tensor in student.items()}
    for ours, tensor in head.items():
        theirs = original_name(ours, info.model.modality.kind, "head", 0)
        model[theirs.replace(HEADS, f"{HEADS}{name}.", 1)] = tensor
    return _content(cfg, model, ema, 0), symbols


def _tensors(
    config: ModelConfig, ours: Mapping[str, Tensor], left: dict[str, Tensor] | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Student and teacher in the original's names; `left` are their leftovers, if they come from the original."""
    modality, encoder = config.modality, config.encoder
    if isinstance(modality, ImageConfig) and left is None:
        if modality.position_grid != modality.grid:
            raise ValueError("it sees pictures of another size than it was pre-trained with")
        positions = sincos_2d(encoder.embed_dim, modality.grid)[None]
        parts = {name.split(".")[0] for name in ours} & {"student", "teacher"}
        left = {f"{part}.{POSITIONS}": positions.clone() for part in parts}
    if isinstance(modality, TextConfig):  # the original has no factor beside the embeddings
        ours = {name: t * modality.token_scale if name.endswith(TOKENS) else t for name, t in ours.items()}
    return original_tensors(modality.kind, encoder.prenet_depth, ours, left or {})


def _made_config(info: ExportInfo, job: Job) -> dict[str, Any]:
    """The original's configuration for an export of ours, of which nothing but the encoder's shape is known."""
    kind = info.model.modality.kind
    if job == "classifier" and (kind == "audio" or info.pooling != ("first" if kind == "text" else "mean")):
        raise ValueError(f"it has no classifier of {kind} whose pooling is {info.pooling}")
    cfg = original_config(replace(get_recipe(f"{kind}_base"), model=info.model, data=info.data))
    cfg["model"]["modalities"][kind]["decoder"] = None
    cfg["model"]["skip_ema"] = True
    if job == "pretraining":
        return cfg
    name, place, task = _FINETUNED[kind]
    more = {"num_classes": len(info.classes)} if info.classes else {}
    return {"_name": None, "model": {"_name": name, place: cfg, **more}, "task": {**task, **more}}


def _as_dictionary(letters: Letters, head: Mapping[str, Tensor]) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Symbols in the original's order, which begins with four special ones, and the head's outputs likewise."""
    symbols = (*SPECIAL, *(one for one in letters.symbols if one not in (BLANK, *SPECIAL)))
    ids = {**letters.ids, "<s>": letters.ids[BLANK], "<pad>": None}
    weight, bias = (torch.zeros(len(symbols), *head[f"head.{n}"].shape[1:]) for n in ("weight", "bias"))
    bias.fill_(NEVER)
    for place, symbol in enumerate(symbols):
        if (own := ids.get(symbol)) is not None:
            weight[place], bias[place] = head["head.weight"][own], head["head.bias"][own]
    return symbols, {"head.weight": weight, "head.bias": bias}


def _content(cfg: Any, model: dict[str, Tensor], ema: dict[str, Tensor], step: int) -> dict[str, Any]:
    """The nesting of a file, with what the original's loader looks at besides; its optimiser starts anew."""
    history = {"criterion_name": "ModelCriterion", "optimizer_name": "FairseqOptimizer", "num_updates": step}
    return {
        "args": None,
        "cfg": cfg,
        "model": {**model, **({"_ema": ema} if ema else {})},
        "criterion": None,
        "optimizer_history": [{**history, "lr_scheduler_state": {}}],
        "task_state": {},
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}, "previous_training_time": 0},
        "last_optimizer_state": None,
    }
