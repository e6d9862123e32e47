"""A checkpoint of the original as an exported folder, and a run or an export as such a checkpoint.

Beside the files of an export stand, so that nothing is lost:

    original.json           where it comes from, and the original's configuration
    original.safetensors    tensors beyond the exported model: decoder and teacher, and what has no place in ours
    pretraining.yaml        of a pre-trained file: our configuration, to go on with (`pretrain pretraining.yaml`)
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from data2vec2.config.model import ArchitectureConfig, ModelConfig
from data2vec2.config.run import RunConfig
from data2vec2.config.tree import to_dict
from data2vec2.data.letters import BLANK, SPACE, UNKNOWN, Letters
from data2vec2.errors import UserError
from data2vec2.files import read_json, read_yaml, sha256_of, whole_folder
from data2vec2.interop.card import converted_card
from data2vec2.interop.fairseq.config import finetuned_config, original_config, read_head
from data2vec2.interop.fairseq.keys import original_name, original_tensors, our_name, our_tensors
from data2vec2.interop.fairseq.original import EMOTIONS, LETTERS, Original, from_json, read_letters, read_lines, to_json
from data2vec2.interop.folder import export_model, export_of, read_export, within
from data2vec2.method.encoder import Encoder, make_teacher
from data2vec2.method.pretraining import Data2Vec2
from data2vec2.modalities import read_run_config
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.fields import build_encoder, build_model
from data2vec2.modalities.interop import AnyModel
from data2vec2.modalities.text import tokenizer
from data2vec2.modalities.text.config import TextDataConfig
from data2vec2.modalities.tools import tools_of
from data2vec2.training.checkpoint import load_newest
from data2vec2.training.run import CONFIG

ABOUT, TENSORS, PRETRAINING = "original.json", "original.safetensors", "pretraining.yaml"
LEFT = "leftover."
"""Before the original's names in original.safetensors."""
GPT2 = ("encoder.json", "vocab.bpe", "dict.txt")
"""The original's files of a tokenizer."""
NEVER = -1e4
"""Bias of symbols that the original's vocabulary has and ours has not."""


def write_folder(
    original: Original,
    source: Path,
    config: RunConfig | ModelInfo,
    folder: Path,
    *,
    weights: Literal["student", "teacher"],
    vocabulary: Path | None,
    classes: Path | None,
) -> None:
    """Write `folder`, a new one, in one step.

    `config` is the configuration, of which a fine-tuned file only uses the encoder's shape; `vocabulary` a file or
    folder with the letters or the tokenizer, else they are looked for beside `source`; `classes` a file with the names
    of a classifier's, else numbers. `UserError` where the file is not what the configuration says, lacks something or
    has too much.
    """
    tensors, left = _checked(original, config.model, source)
    encoder, teacher = within(tensors, "student."), within(tensors, "teacher.")
    beside = {name: tensor for name, tensor in tensors.items() if not name.startswith("student.")}
    if weights == "teacher":
        if not teacher:
            raise UserError(f"{source} has no teacher; leave --weights teacher out")
        beside, encoder = tensors, encoder | teacher
    beside = beside | {f"{LEFT}{name}": tensor for name, tensor in left.items()}
    part = "letters" if original.stage == "recognizer" else "head"
    try:
        head = {our_name(name, original.kind, part, 0): tensor.float() for name, tensor in original.head.items()}
    except KeyError as error:
        raise UserError(f"{source}: {error.args[0]}") from error
    place = vocabulary or source.parent
    dictionary = place / LETTERS if place.is_dir() else place
    if original.stage == "recognizer" and (vocabulary or dictionary.is_file()):
        original = replace(original, symbols=(*tokenizer.SPECIAL, *read_letters(dictionary)))
    with tempfile.TemporaryDirectory() as temporary:
        info = ModelInfo(model=config.model, data=config.data)
        if original.vocabulary is not None:
            found = _tokenizer(original.vocabulary[0], place, Path(temporary))
            info = replace(info, data=TextDataConfig(tokenizer=str(found)))
        if original.stage != "pretraining":
            info = _with_outputs(info, original, head, source, classes)
        about = {
            "source": source.name,
            "sha256": sha256_of(source),
            "kind": original.kind,
            "job": original.stage,
            "weights": weights,
            "head_name": original.head_name,
            "symbols": original.symbols,
            "dropped": original.dropped,
            "cfg": to_json(original.cfg),
        }
        with whole_folder(folder) as new:
            export_model(_model(original, info, encoder, head), info, new, converted_card(info, about))
            (new / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
            save_file({name: tensor.contiguous() for name, tensor in beside.items()}, new / TENSORS)
            if original.stage == "pretraining" and isinstance(config, RunConfig):
                (new / PRETRAINING).write_text(yaml.safe_dump(to_dict(config), sort_keys=False), encoding="utf-8")


def _checked(
    original: Original, config: ArchitectureConfig, source: Path
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """All tensors that must be there, by the names of `Data2Vec2`, and leftovers.

    `UserError` for missing and unexpected tensors and for other shapes, in the original's names.
    """

    def theirs(name: str) -> str:
        part = "teacher" if name.startswith("teacher.") else "student"
        said = original_name(name, original.kind, part, config.encoder.prenet_depth)
        return f"_ema.{said}" if part == "teacher" else said

    try:
        found, left = our_tensors(config, original.student, original.ema)
    except (KeyError, ValueError) as error:
        raise UserError(f"{source} does not fit its configuration: {error.args[0]}") from error
    with torch.device("meta"):  # only shapes are needed
        if isinstance(config, ModelConfig):
            whole: nn.Module = Data2Vec2(config, tools_of(original.kind).build(config))
        else:
            student = build_encoder(config)
            whole = nn.ModuleDict({"student": student, "teacher": make_teacher(student)})
    expected = whole.state_dict()
    needed = {"student", "decoder" if original.stage == "pretraining" else "", "teacher" if original.ema else ""}
    missing = [name for name in expected if name.split(".")[0] in needed and name not in found]
    for what, names in (("lacks", missing), ("has unexpected", [name for name in found if name not in expected])):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise UserError(f"{source} {what} {theirs(names[0])}{more}; it must be as its configuration says")
    for name, tensor in found.items():
        if tensor.shape != (needs := expected[name].shape):
            shapes = f"has shape {list(tensor.shape)}, and by its configuration {list(needs)} is needed"
            raise UserError(f"{source}: {theirs(name)} {shapes}")
    return {name: tensor.float() for name, tensor in found.items()}, left


def _with_outputs(
    info: ModelInfo, original: Original, head: Mapping[str, Tensor], source: Path, classes: Path | None
) -> ModelInfo:
    """What a head gives; `UserError` where names of classes or letters are missing or not as many as outputs."""
    if "head.weight" not in head:
        raise UserError(f"{source} has no head, although its names are those of a fine-tuned model")
    outputs = len(head["head.weight"])
    if original.stage == "recognizer":
        symbols = original.symbols or ()
        if len(symbols) != outputs:
            found = f"the vocabulary has {len(symbols)} symbols" if symbols else "nothing says which letters"
            raise UserError(f"{source} has {outputs} outputs, and {found}; --vocabulary names the right {LETTERS}")
        try:
            return replace(info, letters=our_letters(symbols))
        except ValueError as error:
            raise UserError(f"the vocabulary of {source} is not one of letters: {error}") from error
    beside = source.with_name(EMOTIONS)
    named = classes or (beside if original.of_funasr and beside.is_file() else None)
    names = read_lines(named) if named else list(map(str, range(outputs)))
    if len(names) != outputs:
        where = "--classes" if classes else beside
        raise UserError(f"{where} has {len(names)} lines, and {source} has {outputs} outputs")
    try:
        how = read_head(original, outputs)
    except ValueError as error:
        raise UserError(f"{source}: {error}") from error
    return replace(info, classes=tuple(names), **how)


def _model(original: Original, info: ModelInfo, encoder: Mapping[str, Tensor], head: Mapping[str, Tensor]) -> AnyModel:
    """The model itself; `UserError` for another head."""
    with torch.device("meta"):  # only shapes are needed
        model = build_model(info)
    place = "" if isinstance(model, Encoder) else "encoder."
    weights = {**{f"{place}{name}": tensor for name, tensor in encoder.items()}, **head}
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise UserError(f"the head is not that of a {original.kind} {original.stage}: {error}") from error
    return model


def our_letters(symbols: tuple[str, ...]) -> Letters:
    """The vocabulary of a recogniser whose outputs have these symbols; `ValueError` where it is not one of letters.

    The original's `<s>` is the blank; its letters, in capitals, become small ones, as this package writes.
    """
    if symbols[:1] != ("<s>",) or UNKNOWN not in symbols or SPACE not in symbols:
        raise ValueError(f"the symbols must begin with <s>, and have {UNKNOWN} and {SPACE} among them")
    others = ["<s>" if symbol == BLANK else symbol for symbol in symbols[1:]]
    small = [other if len(other) > 1 else other.lower() for other in others]
    ours = (BLANK, *(small if len(set(small)) == len(small) else others))
    if len(set(ours)) != len(ours):
        raise ValueError("a symbol occurs twice")
    return Letters(ours)


def _tokenizer(entries: int, place: Path, temporary: Path) -> Path:
    """Folder of the tokenizer, made in `temporary` where `place` has the original's files."""
    folder = place
    if not (place / tokenizer.TOKENIZER_FILES[0]).is_file():
        if missing := [name for name in GPT2 if not (place / name).is_file()]:
            raise UserError(
                f"a model of text needs its tokenizer: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not "
                f"in {place}; --vocabulary names the folder with {', '.join(GPT2)}"
            )
        tokenizer.save_tokenizer(tokenizer.original_tokenizer(*(place / name for name in GPT2)), temporary)
        folder = temporary
    if (size := tokenizer.load_tokenizer(folder).size) != entries:
        raise UserError(
            f"the tokenizer in {place} has {size} entries, and the model {entries}; it belongs to another model"
        )
    return folder


def read_beside(folder: Path) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """original.json and original.safetensors of a converted folder; none and nothing of another export."""
    if not (folder / ABOUT).is_file():
        return None, {}
    try:
        return read_json(folder / ABOUT), load_file(folder / TENSORS)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise UserError(f"{folder / ABOUT} and {TENSORS} beside it can't be read: {error}") from error


def pretrained_tensors(weights: Mapping[str, Tensor], beside: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by the names of `Data2Vec2` of an export: the student's, or what a converted one has beside it."""
    found = {f"student.{name}": tensor for name, tensor in within(weights, "encoder.").items()}
    return found | {name: tensor for name, tensor in beside.items() if not name.startswith(LEFT)}


def read_folder(source: Path) -> tuple[Original, int]:
    """What a `.pt` file of the original holds of a run or an export, and the updates of its training where known.

    Every tensor and the configuration of a converted folder are those of the file it was made of. A run gives student,
    teacher and decoder; an export that is not converted has only its encoder and head. `UserError` if the original has
    no such model.
    """
    try:
        return _of_run(source) or (_of_export(export_of(source)), 0)
    except ValueError as error:
        raise UserError(f"{source} can't become a checkpoint of the original: {error}") from error


def _of_run(run: Path) -> tuple[Original, int] | None:
    """Of a run of pre-training with a checkpoint; none of another."""
    if not (run / CONFIG).is_file():
        return None
    checkpoint, _ = load_newest(run / "checkpoints")
    if checkpoint is None or not any(name.startswith("student.") for name in checkpoint.groups["model"]):
        return None
    config = read_yaml(run / CONFIG, read_run_config)
    cfg = original_config(config)
    student, ema = original_tensors(config.model, checkpoint.groups["model"], None)
    made = Original(kind=config.data.kind, stage="pretraining", cfg=cfg, student=student, ema=ema, head={})
    return made, checkpoint.step


def _of_export(folder: Path) -> Original:
    info, weights = read_export(folder)
    about, beside = read_beside(folder)
    head = {n.replace("classifier.", "head.").replace("lm_head.", "head."): t for n, t in weights.items()}
    head = {name: tensor for name, tensor in head.items() if not name.startswith("encoder.")}
    symbols, left, head_name = None, None, "sentence_classification_head"
    if about is not None:
        cfg, head_name, symbols = from_json(about["cfg"]), about["head_name"], about["symbols"]
        left = within(beside, LEFT)
    else:
        cfg = original_config(info) if info.what == "encoder" else finetuned_config(info)
        if info.letters is not None:
            symbols, head = _as_dictionary(info.letters, head)
    student, ema = original_tensors(info.model, pretrained_tensors(weights, beside), left)
    return Original(
        kind=info.kind,
        stage="recognizer" if info.letters else "classifier" if info.classes else "pretraining",
        cfg=cfg,
        student=student,
        ema=ema,
        head={original_name(name, info.kind, "letters" if info.letters else "head", 0): t for name, t in head.items()},
        head_name=head_name,
        symbols=tuple(symbols) if symbols else None,
    )


def _as_dictionary(letters: Letters, head: Mapping[str, Tensor]) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Symbols in the original's order, which begins with four special ones, and the head's outputs likewise."""
    symbols = (*tokenizer.SPECIAL, *(one for one in letters.symbols if one not in (BLANK, *tokenizer.SPECIAL)))
    ids = {**letters.ids, "<s>": letters.ids[BLANK], "<pad>": None}
    weight, bias = (torch.zeros(len(symbols), *head[f"head.{n}"].shape[1:]) for n in ("weight", "bias"))
    bias.fill_(NEVER)
    for place, symbol in enumerate(symbols):
        if (own := ids.get(symbol)) is not None:
            weight[place], bias[place] = head["head.weight"][own], head["head.bias"][own]
    return symbols, {"head.weight": weight, "head.bias": bias}
