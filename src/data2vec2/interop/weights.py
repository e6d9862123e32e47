"""Weights to start pre-training from: a run, an exported model, or a checkpoint of the original."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from data2vec2.errors import UserError
from data2vec2.interop.fairseq.folder import pretrained_tensors, read_beside
from data2vec2.interop.fairseq.keys import our_tensors
from data2vec2.interop.fairseq.original import read_original
from data2vec2.method.pretraining import Data2Vec2
from data2vec2.training.checkpoint import load_newest
from data2vec2.training.run import CONFIG


def load_initial(model: Data2Vec2, path: Path) -> str:
    """Put the student, teacher and decoder that `path` has into `model`; returns what was found, for the user.

    A run folder has all three, and so has a converted checkpoint; another export has the student's encoder (the teacher
    starts as its copy), an original `.pt` file what its `model` entry holds. What is missing keeps its random
    initialisation. `UserError` if nothing usable is there or its shapes are not the model's.
    """
    weights, kind = _weights(model, path)
    if not any(name.startswith("teacher.") for name in weights):
        kept = {name for name in model.state_dict() if name.startswith("teacher.")}
        copies = {f"teacher.{name.removeprefix('student.')}": tensor for name, tensor in weights.items()}
        weights.update((name, tensor) for name, tensor in copies.items() if name in kept)
        kind += ", the teacher a copy of the student"
    own = model.state_dict()
    for name, tensor in weights.items():
        if name not in own:
            raise UserError(f"{path} has a tensor {name}, which this model has not; its shape must be the recipe's")
        if own[name].shape != tensor.shape:
            raise UserError(
                f"{path}: {name} has shape {list(tensor.shape)}, and this model needs {list(own[name].shape)}; "
                "give the sizes that it was trained with (--model...), or the right recipe"
            )
    model.load_state_dict(weights, strict=False)
    missing = sorted({name.split(".")[0] for name in own.keys() - weights.keys()})
    return kind + (f"; at random initialisation: {', '.join(missing)}" if missing else "")


def _weights(model: Data2Vec2, path: Path) -> tuple[dict[str, Tensor], str]:
    """Tensors in the names of `Data2Vec2`, and what they were read from."""
    if (path / CONFIG).is_file():
        checkpoint, damaged = load_newest(path / "checkpoints")
        if checkpoint:
            return checkpoint.groups["model"], f"the run {path} at update {checkpoint.step}"
        if damaged or not (path / "exported").is_dir():
            raise UserError(f"the run {path} has no usable checkpoint: {'; '.join(damaged) or 'there is none'}")
        path = path / "exported"
    if (path / "model.safetensors").is_file():
        try:
            weights = load_file(path / "model.safetensors")
        except SafetensorError as error:
            raise UserError(f"{path / 'model.safetensors'} can't be read: {error}") from error
        return pretrained_tensors(weights, read_beside(path)[1]), f"the export {path}"
    if path.suffix == ".pt" and path.is_file():
        return _original(model, path), f"the original checkpoint {path}"
    raise UserError(
        f"{path} is neither a run, nor an exported model, nor a .pt checkpoint of the original; there is nothing to "
        "start from"
    )


def _original(model: Data2Vec2, path: Path) -> dict[str, Tensor]:
    original, kind = read_original(path), model.config.modality.kind
    if original.kind != kind:
        raise UserError(f"{path} is a model of {original.kind}, and this recipe is for {kind}")
    try:
        return our_tensors(model.config, original.student, original.ema)[0]
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} does not fit this model: {error.args[0]}") from error
