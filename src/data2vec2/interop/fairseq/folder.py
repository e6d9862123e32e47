"""A checkpoint of the original as an exported folder.

Beside the files of an export stand, so that nothing is lost:

    original.json           where it comes from, and the original's configuration
    original.safetensors    tensors beyond the exported model: decoder and teacher, and what has no place in ours
    pretraining.yaml        of a pre-trained file: our configuration, to go on with (`pretrain pretraining.yaml`)
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from data2vec2.config import ModelConfig, RunConfig, TextDataConfig, to_dict
from data2vec2.data.letters import BLANK, SPACE, UNKNOWN, Letters
from data2vec2.errors import UserError
from data2vec2.interop.card import converted_card
from data2vec2.interop.export import ExportInfo, export_classifier, export_encoder, export_recognizer, new_folder
from data2vec2.interop.fairseq.files import to_json
from data2vec2.interop.fairseq.keys import Kind, Part, leftovers, original_name, our_name, state_dict
from data2vec2.interop.fairseq.original import Original
from data2vec2.modalities import build_modality
from data2vec2.models import Classifier, Data2Vec2, Encoder, SpeechRecognizer

ABOUT, TENSORS, PRETRAINING = "original.json", "original.safetensors", "pretraining.yaml"
LEFT = "leftover."
"""Before the original's names in original.safetensors."""
Weights = Literal["student", "teacher"]


def write_folder(
    original: Original,
    source: Path,
    run: RunConfig,
    folder: Path,
    *,
    weights: Weights = "student",
    tokenizer: Path | None = None,
    classes: tuple[str, ...] | None = None,
) -> ExportInfo:
    """Write `folder`, a new one, in one step; returns what the export says of itself.

    `run` is the configuration, of which a fine-tuned file only uses the encoder's shape; `tokenizer` the folder of a
    model of text; `classes` the names of a classifier's, else numbers. `UserError` where the file is not what the
    configuration says, lacks something or has too much.
    """
    parts = _parts(original, run.model, source)
    head = {_head_name(name, original.kind, source): t for name, t in original.head.items()}
    encoder = dict(parts["student"])
    if weights == "teacher":
        if not parts["teacher"]:
            raise UserError(f"{source} has no teacher; leave --weights teacher out")
        encoder |= parts["teacher"]
        beside = {f"student.{name}": tensor for name, tensor in parts["student"].items()}
    else:
        beside = {}
    beside |= {f"{part}.{name}": t for part in ("teacher", "decoder") for name, t in parts[part].items()}
    beside |= {f"{LEFT}{name}": t for name, t in leftovers(original.student, original.ema).items()}
    info = _info(original, run, head, source, tokenizer, classes)
    about = {
        "source": source.name,
        "sha256": _sha256(source),
        "kind": original.kind,
        "job": original.job,
        "weights": weights,
        "head_name": original.head_name,
        "symbols": original.symbols,
        "dropped": original.dropped,
        "cfg": to_json(original.cfg),
    }
    with new_folder(folder) as new:
        _export(original, encoder, head, info, new, converted_card(info, about))
        (new / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        save_file({name: tensor.contiguous() for name, tensor in beside.items()}, new / TENSORS)
        if original.job == "pretraining":
            (new / PRETRAINING).write_text(yaml.safe_dump(to_dict(run), sort_keys=False), encoding="utf-8")
    return info


def read_beside(folder: Path) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """original.json and original.safetensors of a converted folder; none and nothing of another export."""
    if not (folder / ABOUT).is_file():
        return None, {}
    try:
        about = json.loads((folder / ABOUT).read_text("utf-8"))
        return dict(about), load_file(folder / TENSORS)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise UserError(f"{folder / ABOUT} and {TENSORS} beside it can't be read: {error}") from error


def original_letters(symbols: tuple[str, ...]) -> Letters:
    """The vocabulary of a recogniser whose outputs have these symbols; `ValueError` where it is not one of letters.

    The original's `<s>` is the blank; its letters, in capitals, become small ones, as this package writes.
    """
    if symbols[:1] != ("<s>",) or UNKNOWN not in symbols or SPACE not in symbols:
        raise ValueError(f"the symbols must begin with <s>, and have {UNKNOWN} and {SPACE} among them")
    others = ["<s>" if symbol == BLANK else symbol for symbol in symbols[1:]]
    small = [other if len(other) > 1 else other.lower() for other in others]
    ours = (BLANK, *(small if len(set(small)) == len(small) else others))
    if len(set(ours)) != len(ours):
        raise ValueError("a symbol is there twice")
    return Letters(ours)


def _parts(original: Original, config: ModelConfig, source: Path) -> dict[str, dict[str, Tensor]]:
    """Tensors of student, teacher and decoder by our names without these words, all that must be there."""
    try:
        found = state_dict(config, original.student, original.ema)
    except (KeyError, ValueError) as error:
        raise UserError(f"{source} does not fit its configuration: {error.args[0]}") from error
    with torch.device("meta"):
        expected = Data2Vec2(config).state_dict()
    needed = {"student"} | ({"decoder"} if original.job == "pretraining" else set())
    needed |= {"teacher"} if original.ema else set()
    missing = [name for name in expected if name.split(".")[0] in needed and name not in found]
    _compare(missing, expected, found, original.kind, config.encoder.prenet_depth, source)
    parts: dict[str, dict[str, Tensor]] = {"student": {}, "teacher": {}, "decoder": {}}
    for name, tensor in found.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor.float()
    return parts


def _compare(
    missing: list[str],
    expected: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    kind: Kind,
    prenet_depth: int,
    source: Path,
) -> None:
    """`UserError` for missing and unexpected tensors and for other shapes, in the original's names."""

    def theirs(name: str) -> str:
        part: Part = "teacher" if name.startswith("teacher.") else "student"
        return ("_ema." if part == "teacher" else "") + original_name(name, kind, part, prenet_depth)

    for what, names in (("lacks", missing), ("has unexpected", [name for name in found if name not in expected])):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise UserError(f"{source} {what} {theirs(names[0])}{more}; it must be as its configuration says")
    for name, tensor in found.items():
        if tensor.shape != expected[name].shape:
            raise UserError(
                f"{source}: {theirs(name)} has shape {list(tensor.shape)}, and by its configuration "
                f"{list(expected[name].shape)} is needed"
            )


def _head_name(name: str, kind: Kind, source: Path) -> str:
    try:
        return our_name(name, kind, "head", 0)
    except KeyError as error:
        raise UserError(f"{source}: {error.args[0]}") from error


def _info(
    original: Original,
    run: RunConfig,
    head: Mapping[str, Tensor],
    source: Path,
    tokenizer: Path | None,
    classes: tuple[str, ...] | None,
) -> ExportInfo:
    """What the export says; `UserError` where names of classes or letters are missing or not as many as outputs."""
    data = TextDataConfig(tokenizer=str(tokenizer)) if original.kind == "text" else run.data
    info = ExportInfo(model=run.model, data=data)
    if original.job == "pretraining":
        return info
    if "head.weight" not in head:
        raise UserError(f"{source} has no head, although its names are those of a fine-tuned model")
    outputs = len(head["head.weight"])
    if original.job == "recognizer":
        symbols = original.symbols or ()
        if len(symbols) != outputs:
            found = f"the vocabulary has {len(symbols)} symbols" if symbols else "nothing says which letters"
            raise UserError(f"{source} has {outputs} outputs, and {found}; --vocabulary names the right dict.ltr.txt")
        try:
            return dataclasses.replace(info, letters=original_letters(symbols))
        except ValueError as error:
            raise UserError(f"the vocabulary of {source} is not one of letters: {error}") from error
    if classes is not None and len(classes) != outputs:
        raise UserError(f"--classes has {len(classes)} lines, and {source} has {outputs} outputs")
    of_text = original.kind == "text"
    return dataclasses.replace(
        info,
        classes=classes or tuple(map(str, range(outputs))),
        pooling="first" if of_text else "mean",
        regression=of_text and outputs == 1,
    )


def _export(
    original: Original,
    encoder: Mapping[str, Tensor],
    head: Mapping[str, Tensor],
    info: ExportInfo,
    folder: Path,
    card: str,
) -> None:
    with torch.device("meta"):  # only its shape is needed
        module = Encoder(info.model.encoder, build_modality(info.model))
    if original.job == "pretraining":
        module.load_state_dict(dict(encoder), assign=True)
        export_encoder(module, info.model, info.data, folder, card)
        return
    outputs = len(head["head.weight"])
    model: Classifier | SpeechRecognizer
    if original.job == "recognizer":
        model = SpeechRecognizer(module, outputs)
    else:
        model = Classifier(module, outputs, pooling=info.pooling)
    weights = {f"encoder.{name}": tensor for name, tensor in encoder.items()}
    weights |= {name: tensor.float() for name, tensor in head.items()}
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise UserError(f"the head is not that of a {original.kind} {original.job}: {error}") from error
    if isinstance(model, SpeechRecognizer):
        export_recognizer(model, info, folder, card)
    else:
        export_classifier(model, info, folder, card)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
