"""Weights of other families, as Transformers and timm store them: a folder, or a repository of a hub.

    config.json                       the shape; its `model_type` (timm: `architecture`) names the family
    model.safetensors                 the weights; or several files and model.safetensors.index.json; or
                                      pytorch_model.bin, which is read without running what it may hold
    preprocessor_config.json          how pictures and recordings are read
    tokenizer.json, ...               of text

Nothing here imports Transformers or timm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from data2vec2.config.run import DataConfig
from data2vec2.data.hub import PREFIX as HUB
from data2vec2.errors import UsageError, UserError
from data2vec2.files import read_json
from data2vec2.interop.foreign import pictures, speech, text
from data2vec2.interop.foreign.family import Fields, Foreign, checked
from data2vec2.method.encoder import Encoder
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.fields import PREFIX as OURS
from data2vec2.modalities.fields import build_encoder
from data2vec2.modalities.interop import PROCESSOR, TOGETHER
from data2vec2.modalities.text.tokenizer import TOKENIZER_FILES

WEIGHTS, INDEX, PICKLED = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
Read = Callable[[Fields, Mapping[str, Tensor], Path, Fields | None], Foreign]
FAMILIES: Mapping[str, Read] = {
    **dict.fromkeys(speech.NAMES, speech.read_speech),
    **dict.fromkeys(text.NAMES, text.read_text),
    **dict.fromkeys(pictures.NAMES, pictures.read_pictures),
}
"""Families of Transformers by their `model_type`."""


def is_foreign(folder: Path) -> bool:
    """Whether this is a model of Transformers or timm that is none of ours."""
    if not (folder / "config.json").is_file():
        return False
    fields = read_json(folder / "config.json")
    named = isinstance(fields, Mapping) and ("model_type" in fields or "architecture" in fields)
    return named and not str(fields.get("model_type")).startswith(OURS)


def read_foreign(folder: Path) -> Foreign:
    """A folder's weights as an encoder of ours.

    `UserError` for a family, a field or a tensor that is not understood, and for files that can't be read.
    """
    values = read_json(folder / "config.json")
    kind = values.get("model_type")
    read = pictures.read_timm if kind is None and "architecture" in values else FAMILIES.get(str(kind))
    if read is None:
        known = ", ".join(FAMILIES)
        raise UserError(f"{folder / 'config.json'}: model_type is {kind!r}; supported are {known}, and ViTs of timm")
    try:
        foreign = read(Fields(values, folder / "config.json"), _tensors(folder), folder, _processor(folder))
    except UsageError as error:  # of a configuration of ours, which no flag has set
        raise UserError(f"{folder / 'config.json'} describes no model that can be built here: {error}") from error
    except (IndexError, RuntimeError) as error:  # of tensors that can't be joined, cut or added
        raise UserError(f"{folder} has tensors of shapes that no {kind or 'ViT'} has: {error}") from error
    return checked(foreign, folder)


def load_foreign(folder: Path, data: DataConfig | None = None) -> tuple[Encoder, ModelInfo]:
    """Such an encoder, in eval mode on the CPU in float32, and what belongs to it.

    What its folder does not say of inputs is as in `data`, where that is given.
    """
    foreign = read_foreign(folder)
    reading = {name: getattr(foreign.data, name) for name in foreign.reading}
    encoder = build_encoder(foreign.model)
    encoder.load_state_dict(foreign.adapted(foreign.tensors, foreign.model))
    return encoder.eval(), ModelInfo(model=foreign.model, data=replace(data, **reading) if data else foreign.data)


def fetched(name: str) -> Path:
    """The folder of a model of the Hugging Face hub, `hf:NAME`, downloaded unless that was done before.

    `UserError` where it can't be: without a network, or without such a repository.
    """
    from huggingface_hub import snapshot_download  # takes a second

    repository = name.removeprefix(HUB).strip()
    small = ["config.json", PROCESSOR, TOGETHER, *TOKENIZER_FILES, "vocab.txt", "vocab.json", "merges.txt"]
    try:
        folder = Path(snapshot_download(repository, allow_patterns=[*small, WEIGHTS, INDEX, "model-*.safetensors"]))
        if not (folder / WEIGHTS).is_file() and not (folder / INDEX).is_file():
            folder = Path(snapshot_download(repository, allow_patterns=[*small, PICKLED]))
    except Exception as error:  # the list of what it raises is open-ended
        reason = str(error).strip().split("\n", 1)[0]
        raise UserError(
            f"{name} can't be fetched ({type(error).__name__}: {reason}); without a network, give a folder with its "
            "files, config.json and model.safetensors among them"
        ) from error
    return folder


def _tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder, by their names in its files."""
    single, index, pickled = (folder / name for name in (WEIGHTS, INDEX, PICKLED))
    places = read_json(index) if index.is_file() and not single.is_file() else None
    files = [WEIGHTS] if single.is_file() else _named(folder, places) if places is not None else []
    if not files and not pickled.is_file():
        raise UserError(f"{folder} has no weights: {WEIGHTS}, {INDEX} and {PICKLED} are missing")
    try:
        if files:
            return {name: tensor for file in files for name, tensor in load_file(folder / file).items()}
        found = torch.load(pickled, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file makes of the reader
        reason = str(error).strip().split("\n", 1)[0]
        raise UserError(f"the weights in {folder} can't be read: {reason}") from error
    tensors = found.get("state_dict", found) if isinstance(found, Mapping) else {}
    return {str(name): one for name, one in tensors.items() if isinstance(one, Tensor)}


def _named(folder: Path, index: Any) -> list[str]:
    """The files that an index names, which must stand beside it."""
    places = index.get("weight_map") if isinstance(index, Mapping) else None
    files = sorted(set(map(str, places.values()))) if isinstance(places, Mapping) else []
    if not files or any(Path(name).name != name for name in files):
        raise UserError(f"{folder / INDEX} names no files beside it (weight_map)")
    if missing := [name for name in files if not (folder / name).is_file()]:
        raise UserError(f"{folder} lacks {', '.join(missing)}, of which {INDEX} tells")
    return files


def _processor(folder: Path) -> Fields | None:
    """How inputs are made, where a file says it."""
    for name in (PROCESSOR, TOGETHER):
        if (path := folder / name).is_file():
            values = read_json(path)
            own = values if name == PROCESSOR else values.get("image_processor") or values.get("feature_extractor")
            return Fields(own if isinstance(own, Mapping) else {}, path)
    return None
