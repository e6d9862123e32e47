"""export MODEL OUT: for ONNX Runtime or torch.export, checked against PyTorch before it is there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from data2vec2.commands.export_checks import BUNDLED, Int8, check_batches, int8_scores, open_records
from data2vec2.data.letters import TOKENIZER, VOCAB
from data2vec2.data.records import Parts
from data2vec2.data.tokenizer import TOKENIZER_FILES
from data2vec2.errors import UserError
from data2vec2.interop.card import kind_of_model, portable_card
from data2vec2.interop.export import ExportInfo, export_of, load_model, new_folder
from data2vec2.interop.onnx import (
    INT8,
    ONNX,
    TORCH,
    AnyModel,
    Inputs,
    OnnxRunner,
    check_onnx,
    export_program,
    largest_difference,
    output_names,
    portable,
    program_runner,
    write_int8,
    write_onnx,
)
from data2vec2.training.progress import console

To = Literal["onnx", "torch"]
BESIDE = ("config.json", "preprocessor_config.json", VOCAB, TOKENIZER, *TOKENIZER_FILES)
"""What is copied from the model: all that makes inputs of files, and texts of outputs."""
TOLERANCE = 1e-4
"""Largest difference from PyTorch; of models that give numbers, in multiples of the largest number."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written, and how it was checked."""

    out: Path
    kind: str
    """image, audio or text."""
    what: str
    """encoder, classifier, regressor or recogniser."""
    largest_difference: float
    """From PyTorch, over all outputs of all batches."""
    int8: Int8 | None = None
    """What 8 bits cost, if they were asked for."""


def export(
    model: str | Path,
    out: str | Path,
    *,
    to: To = "onnx",
    data: str | Path | None = None,
    int8: bool = False,
    text_columns: Sequence[str] = (),
    label_column: str | None = None,
) -> Exported:
    """Write a model as `out`/model.onnx or model.pt2, with what makes its inputs beside it.

    `model` is a run folder or its export: an encoder, or one with a head. The file takes any number of samples, of
    audio and text any length, with an `attention_mask` where a batch is filled up. Before `out` appears, it is compared
    with PyTorch on samples of `data`, or on bundled ones. With `int8` there is also model_int8.onnx, with matrices of 8
    bits, and its drop in score on the labels of `data`.

    Raises `UserError` for an `out` that exists, for a difference above 1e-4, without the extra onnx, and where model or
    data can't be used; `ValueError` for an option that can't be.
    """
    if to not in get_args(To):
        raise ValueError(f"--to is {to!r}; it must be onnx or torch")
    if int8 and to != "onnx":
        raise ValueError("--int8 is for --to onnx")
    if int8 and data is None:
        raise ValueError("--int8 needs --data DATA with labels, on which its drop in score is measured")
    if data is None and (text_columns or label_column):
        raise ValueError("--text-columns and --label-column are those of --data, which is not given")
    source, out = export_of(Path(model)), Path(out)
    if out.exists() or out.is_symlink():
        raise UserError(f"{out} exists; give a new folder")
    if to == "onnx":
        check_onnx()
    loaded, info = load_model(source)
    kind = info.model.modality.kind
    parts = open_records(info, BUNDLED[kind]() if data is None else data, text_columns, label_column, labels=int8)
    with new_folder(out) as new:
        new.mkdir(parents=True)
        difference = _write_checked(loaded, info, new, to, parts)
        scores = None
        if int8:
            write_int8(new / ONNX, new / INT8)
            float32, eight = (OnnxRunner(new / name, info.model, loaded) for name in (ONNX, INT8))
            scores = int8_scores(float32, eight, info, parts)
        for name in BESIDE:
            if (source / name).is_file():
                shutil.copyfile(source / name, new / name)
        card = portable_card(info, to, difference, scores.sentence if scores else None)
        (new / "README.md").write_text(card, encoding="utf-8")
    return Exported(out=out, kind=kind, what=kind_of_model(info), largest_difference=difference, int8=scores)


def _write_checked(model: AnyModel, info: ExportInfo, folder: Path, to: To, parts: Parts) -> float:
    """Write the program; returns its largest difference from PyTorch, and raises `UserError` if that is too large."""
    program = export_program(model, info.model)
    if to == "onnx":
        write_onnx(program, output_names(model), folder / ONNX)
        run: Callable[[Inputs], tuple[Tensor, ...]] = OnnxRunner(folder / ONNX, info.model, model).run
    else:
        torch.export.save(program, folder / TORCH)
        run = program_runner(folder / TORCH)
    original, largest = portable(model, info.model), 0.0
    for inputs in check_batches(info, parts.train):
        with torch.no_grad():
            expected = original(**inputs)
        scale = max(1.0, float(expected[0].abs().max())) if info.regression else 1.0
        found, shape = largest_difference(run(inputs), expected) / scale, tuple(next(iter(inputs.values())).shape)
        console().print(f"inputs {shape}: difference from PyTorch {found:.1e}")
        if not found <= TOLERANCE:  # nor not a number
            raise UserError(f"the program differs from PyTorch by {found:.1e} for inputs {shape}; nothing was written")
        largest = max(largest, found)
    return largest
