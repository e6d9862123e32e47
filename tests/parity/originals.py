"""Files as the original data2vec 2.0 saves them, of the golden cases' weights: its names, nesting and types."""

from __future__ import annotations

import sys
import types
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.parity.cases import GoldenCase

TASKS = {"image": "mae_image_pretraining", "audio": "audio_pretraining", "text": "masked_lm"}
LETTERS = ("<s>", "<pad>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ")


def pretraining_cfg(case: GoldenCase) -> dict[str, Any]:
    """The configuration of a pre-training run, as far as the golden case has it."""
    info = case.info["config"]
    kind = info["modality"]
    own = {"type": kind.upper(), **info["modality_cfg"], "decoder": dict(info["decoder"])}
    model = {"_name": "data2vec_multi", "supported_modality": kind.upper(), "skip_ema": False, **info["model"]}
    group = {
        "lr_float": 0.001,
        "optimizer": {"_name": "adam", "adam_betas": [0.9, 0.98], "adam_eps": 1e-6, "weight_decay": 0.01},
        "lr_scheduler": {"_name": "cosine", "warmup_updates": 8000},
    }
    return {
        "_name": None,
        "common": {"fp16": True, "seed": 1, "tensorboard_logdir": None},
        "model": {**model, "modalities": {"_name": None, kind: own}},
        "task": {"_name": TASKS[kind], "data": "/data", **({"normalize": True} if kind == "audio" else {})},
        "dataset": {"batch_size": 2, "num_workers": 6},
        "optimization": {"max_update": 400000, "lr": [0.001], "clip_norm": 0.0},
        "optimizer": {"_name": "composite", "dynamic_groups": True, "groups": {"default": group}},
        "lr_scheduler": "pass_through",
    }


def file_of(model: dict[str, Any], cfg: Any, **more: Any) -> dict[str, Any]:
    """A file's nesting around its `model`."""
    moments = {0: {"exp_avg": torch.ones(3), "step": 5}}
    return {
        "args": None,
        "cfg": cfg,
        "model": model,
        "criterion": None,
        "optimizer_history": [{"criterion_name": "ModelCriterion", "num_updates": 5, "lr_scheduler_state": {}}],
        "task_state": {},
        "extra_state": {"val_loss": np.float64(3.0), "metrics": Namespace(loss=1.0)},
        "last_optimizer_state": {"state": moments},
        **more,
    }


def pretrained(case: GoldenCase) -> dict[str, Any]:
    """A pre-trained file: student, decoder, and the teacher under `_ema`."""
    return file_of({**case.original_student, "_ema": dict(case.original_teacher)}, pretraining_cfg(case))


def finetuned(case: GoldenCase, outputs: int, head_name: str = "rte") -> dict[str, Any]:
    """A classifier of images, a recogniser of speech or a model of text: no decoder, no teacher."""
    kind, dim = case.config.modality.kind, case.config.encoder.embed_dim
    encoder = {name: tensor for name, tensor in case.original_student.items() if ".decoder." not in name}
    drawn = torch.Generator().manual_seed(0)

    def linear(name: str, size: int) -> dict[str, torch.Tensor]:
        shapes = {f"{name}.weight": (size, dim), f"{name}.bias": (size,)}
        return {name: torch.randn(shape, generator=drawn) for name, shape in shapes.items()}

    inner = pretraining_cfg(case)
    if kind == "image":
        norm = {"fc_norm.weight": torch.rand(dim, generator=drawn) + 0.5, "fc_norm.bias": torch.zeros(dim)}
        tensors = {**{f"model.{name}": t for name, t in encoder.items()}, **norm, **linear("head", outputs)}
        model = {"_name": "mae_image_classification", "num_classes": outputs, "pretrained_model_args": inner}
    elif kind == "audio":
        tensors = {f"w2v_encoder.w2v_model.{name}": t for name, t in encoder.items()}
        tensors |= linear("w2v_encoder.proj", outputs)
        model = {"_name": "wav2vec_ctc", "w2v_args": Namespace(**inner)}
    else:
        head = {**linear(f"classification_heads.{head_name}.dense", dim)}
        head |= linear(f"classification_heads.{head_name}.out_proj", outputs)
        tensors = {**{f"model.{name}": t for name, t in encoder.items()}, **head}
        model = {"_name": "data2vec_text_classification", "model_path": "/text.pt"}
    return file_of(tensors, {"model": model, "task": {"_name": "finetuning"}})


def save_with_dictionary(content: dict[str, Any], path: Path, symbols: tuple[str, ...] = LETTERS) -> None:
    """Save a recogniser with its vocabulary as an object of the original's class, which is gone afterwards."""
    names = ("fairseq", "fairseq.data", "fairseq.data.dictionary")
    modules = {name: types.ModuleType(name) for name in names}
    kind = type("Dictionary", (), {"__module__": names[-1]})
    modules[names[-1]].Dictionary = kind  # type: ignore[attr-defined]
    dictionary = kind()
    dictionary.__dict__ |= {"symbols": list(symbols), "count": [1] * len(symbols), "nspecial": 4, "indices": {}}
    try:
        sys.modules.update(modules)
        torch.save({**content, "task_state": {"target_dictionary": dictionary}}, path)
    finally:
        for name in names:
            del sys.modules[name]


def write_bpe(folder: Path, entries: int) -> None:
    """encoder.json, vocab.bpe and dict.txt of a vocabulary of so many entries, of single bytes."""
    import json

    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = sorted(ByteLevel.alphabet(), key=lambda one: (not one.isascii(), one))[: entries - 5]
    (folder / "encoder.json").write_text(json.dumps({piece: place for place, piece in enumerate(alphabet)}), "utf-8")
    (folder / "vocab.bpe").write_text("#version: 0.2\n", "utf-8")
    (folder / "dict.txt").write_text("".join(f"{n} 1\n" for n in reversed(range(len(alphabet)))), "utf-8")
