"""What pre-training starts from: a run, an export, a checkpoint of the original, or weights of another family.

The recipe keeps objective, masks, optimiser and data; the shape of the model follows the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from data2vec2.config.model import ArchitectureConfig, DecoderConfig, ModelConfig
from data2vec2.config.run import DataConfig, RunConfig
from data2vec2.data.hub import PREFIX as HUB
from data2vec2.errors import UserError
from data2vec2.files import read_yaml
from data2vec2.interop.fairseq.folder import PRETRAINING, pretrained_tensors, read_beside
from data2vec2.interop.fairseq.keys import our_tensors
from data2vec2.interop.fairseq.original import read_original
from data2vec2.interop.folder import read_export
from data2vec2.interop.foreign import PICKLED, WEIGHTS, fetched, is_foreign, read_foreign
from data2vec2.method.pretraining import Data2Vec2
from data2vec2.modalities import read_run_config
from data2vec2.modalities.tools import tools_of
from data2vec2.training.checkpoint import load_newest
from data2vec2.training.run import CONFIG

Tensors = dict[str, Tensor]
OF_SHAPE = ("embed_dim", "num_heads", "mlp_ratio", "norm_eps", "pre_norm", "layer_scale")
"""Fields of an encoder's configuration that its weights decide, beside the number of blocks."""
OF_DECODER = ("depth", "kernel", "dim", "groups", "residual", "projection_depth")
"""And of a decoder's."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """Weights that a run starts from, and what is known of them."""

    name: str
    """As the user gave it."""
    what: str
    """What was found there."""
    tensors: Callable[[ModelConfig], Tensors]
    """Tensors for a model of such a shape, by their names in `Data2Vec2`."""
    shape: ArchitectureConfig | None = None
    """The encoder's; none: it is not known, and must be the recipe's."""
    decoder: DecoderConfig | None = None
    """Where there is one among the weights."""
    splits: bool = False
    """Whether any of the blocks may be the prenet's."""
    data: DataConfig | None = None
    """How inputs are read, as far as the weights need it."""
    reading: tuple[str, ...] = ()
    """The fields of `data` that they need."""
    notes: tuple[str, ...] = ()
    """What the user should know."""


def open_start(name: str) -> Start:
    """What a path or `hf:NAME` holds; `UserError` if it is nothing to start from."""
    path = fetched(name) if name.startswith(HUB) else Path(name)
    path = path.parent if path.name in (WEIGHTS, PICKLED) else path
    if (path / CONFIG).is_file():
        checkpoint, damaged = load_newest(path / "checkpoints")
        if checkpoint:
            found, what = checkpoint.groups["model"], f"the run {path} at update {checkpoint.step}"
            return _with_shape(Start(name=name, what=what, tensors=lambda _: found), path / CONFIG, path)
        if damaged or not (path / "exported").is_dir():
            raise UserError(f"the run {path} has no usable checkpoint: {'; '.join(damaged) or 'there is none'}")
        path = path / "exported"
    if is_foreign(path):
        return _foreign(name, path)
    if (path / WEIGHTS).is_file():
        try:
            weights = load_file(path / WEIGHTS)
        except SafetensorError as error:
            raise UserError(f"{path / WEIGHTS} can't be read: {error}") from error
        found = pretrained_tensors(weights, read_beside(path)[1])
        start = Start(name=name, what=f"the export {path}", tensors=lambda _: found)
        info = read_export(path)[0]
        start = replace(start, shape=info.model, data=info.data, reading=info.data.learned)
        return _with_shape(start, path / PRETRAINING) if (path / PRETRAINING).is_file() else start
    if path.suffix == ".pt" and path.is_file():
        return Start(name=name, what=f"the original checkpoint {path}", tensors=lambda model: _original(path, model))
    raise UserError(
        f"{path} is neither a run, nor an exported model, nor a folder of Transformers (config.json and its weights), "
        "nor a .pt checkpoint of the original; there is nothing to start from"
    )


def _with_shape(start: Start, path: Path, run: Path | None = None) -> Start:
    """With what the configuration of pre-training says; one of fine-tuning has no such shape."""
    try:
        config = read_yaml(path, read_run_config)
    except UserError:
        return start
    model = config.model
    shape = ArchitectureConfig(modality=model.modality, encoder=model.encoder)
    if run is not None:
        data = tools_of(config.data.kind).resumed(config, run).data
        start = replace(start, data=data, reading=data.learned)
    return replace(start, shape=shape, decoder=model.decoder)


def _foreign(name: str, path: Path) -> Start:
    foreign = read_foreign(path)
    left_out = (f"left out: {', '.join(foreign.dropped)}",) if foreign.dropped else ()

    def tensors(model: ModelConfig) -> Tensors:
        return {f"student.{name}": one for name, one in foreign.adapted(foreign.tensors, model).items()}

    return Start(
        name=name,
        what=f"{foreign.family} in {name}",
        tensors=tensors,
        shape=foreign.model,
        splits=True,
        data=foreign.data,
        reading=foreign.reading,
        notes=(*foreign.notes, *left_out),
    )


def _original(path: Path, model: ModelConfig) -> Tensors:
    original, kind = read_original(path), model.modality.kind
    if original.kind != kind:
        raise UserError(f"{path} is a model of {original.kind}, but this recipe is for {kind}")
    try:
        return our_tensors(model, original.student, original.ema)[0]
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} does not fit this model: {error.args[0]}") from error


def following(config: RunConfig, reference: RunConfig, start: Start) -> RunConfig:
    """The configuration with the shape of the weights, and with what they need of the data.

    What differs from the `reference`, a recipe, is the user's: `UserError` where it is against the weights.
    """
    model, usual, shape = config.model, reference.model, start.shape
    if shape is None:
        return config
    if (kind := shape.modality.kind) != model.modality.kind:
        raise UserError(f"{start.name} is a model of {kind}, but this recipe is for {model.modality.kind}")

    def kept(section: str, mine: Any, usual: Any, theirs: Any, names: tuple[str, ...]) -> dict[str, Any]:
        for name in names:
            if getattr(mine, name) not in (getattr(usual, name), getattr(theirs, name)):
                flag, found = f"--model.{section}.{name}".replace("_", "-"), getattr(theirs, name)
                raise UserError(
                    f"{flag} {getattr(mine, name)} is against {start.name}, where it is {found}; leave it out"
                )
        return {name: getattr(theirs, name) for name in names}

    free = shape.modality.resizable
    names = tuple(field.name for field in fields(shape.modality) if field.name not in free)
    own = {name: getattr(model.modality, name) for name in free}
    sizes = {n: getattr(shape.modality, n) if one == getattr(usual.modality, n) else one for n, one in own.items()}
    fixed = kept("modality", model.modality, usual.modality, shape.modality, names)
    sized = kept("encoder", model.encoder, usual.encoder, shape.encoder, OF_SHAPE)
    encoder = replace(model.encoder, **_blocks(config, reference, start), **sized)
    decoder = model.decoder
    if start.decoder is not None:
        decoder = replace(decoder, **kept("decoder", decoder, usual.decoder, start.decoder, OF_DECODER))
    elif decoder.groups == usual.decoder.groups:
        decoder = replace(decoder, groups=math.gcd(decoder.groups, encoder.embed_dim))
    targets = model.targets
    if targets.average_layers == usual.targets.average_layers:
        targets = replace(targets, average_layers=min(targets.average_layers, encoder.depth))
    modality = replace(model.modality, **fixed, **sizes)
    model = replace(model, modality=modality, encoder=encoder, decoder=decoder, targets=targets)
    data = config.data
    if start.data is not None:
        left = [name for name in start.reading if getattr(data, name) == getattr(reference.data, name)]
        data = replace(data, **{name: getattr(start.data, name) for name in left})
    return replace(config, model=model, data=data)


def _blocks(config: RunConfig, reference: RunConfig, start: Start) -> dict[str, Any]:
    """Depths of prenet and trunk."""
    assert start.shape is not None
    mine, usual, theirs = config.model.encoder, reference.model.encoder, start.shape.encoder
    total = theirs.prenet_depth + theirs.depth
    prenet = mine.prenet_depth if start.splits else theirs.prenet_depth
    if prenet >= total and mine.prenet_depth == usual.prenet_depth:
        prenet = 0
    fits = {"prenet_depth": prenet, "depth": total - prenet}
    for name, value in fits.items():
        if (given := getattr(mine, name)) not in (getattr(usual, name), value) or prenet >= total:
            flag = f"--model.encoder.{name}".replace("_", "-")
            raise UserError(f"{flag} {given} is against {start.name}, which has {total} blocks with the prenet's")
    return fits


def told(config: RunConfig, recipe: RunConfig, start: Start) -> list[str]:
    """What the user is told of the shape, of what the weights need, and of what is left out."""
    model, usual, lines = config.model, recipe.model, [f"weights: {note}" for note in start.notes]
    if start.shape is None:
        return lines
    encoder = model.encoder
    if encoder != usual.encoder or model.modality != usual.modality:
        blocks = f"{encoder.prenet_depth + encoder.depth} blocks ({encoder.prenet_depth} of them the prenet's)"
        order = ", pre-norm" if encoder.pre_norm else ""
        shape = f"width {encoder.embed_dim}, {encoder.num_heads} heads, {blocks}{order}"
        lines.insert(0, f"model: {shape}, as {start.what}, in place of the shape of {config.recipe}")
    for name in ("targets.average_layers", "decoder.groups"):
        section, _, field = name.partition(".")
        mine, theirs = (getattr(getattr(one, section), field) for one in (model, usual))
        if mine != theirs:
            lines.append(f"model: {name} is {mine} instead of {theirs}, to fit them")
    read = {name: getattr(config.data, name) for name in start.reading}
    if start.data is not None and read:
        same = all(value == getattr(start.data, name) for name, value in read.items())
        values = ", ".join(f"{name} {value}" for name, value in read.items())
        lines.append(f"data: {values}, {'as the weights need' if same else 'which the weights were not trained with'}")
    return lines


def load_start(model: Data2Vec2, start: Start) -> str:
    """Put the student, teacher and decoder that there are into `model`; returns what was found, for the user.

    A run has all three, and so has a converted checkpoint; another export and other families have the student's encoder
    (the teacher starts as its copy), an original `.pt` file what its `model` entry holds. What is missing keeps its
    random initialisation. `UserError` if shapes are not the model's.
    """
    weights, kind, own = dict(start.tensors(model.config)), start.what, model.state_dict()
    if not any(name.startswith("teacher.") for name in weights):
        copies = {f"teacher.{name.removeprefix('student.')}": tensor for name, tensor in weights.items()}
        weights.update((name, tensor) for name, tensor in copies.items() if name in own)
        kind += ", the teacher a copy of the student"
    for name, tensor in weights.items():
        if name not in own:
            raise UserError(
                f"{start.name} has a tensor {name}, which this model lacks; its architecture must be the recipe's"
            )
        if own[name].shape != tensor.shape:
            raise UserError(
                f"{start.name}: {name} has shape {list(tensor.shape)}, and this model needs {list(own[name].shape)}; "
                "give the sizes that it was trained with (--model...), or the right recipe"
            )
    model.load_state_dict(weights, strict=False)
    missing = sorted({name.split(".")[0] for name in own.keys() - weights.keys()})
    return kind + (f"; at random initialisation: {', '.join(missing)}" if missing else "")
