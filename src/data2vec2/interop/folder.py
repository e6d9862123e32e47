"""The exported model: a folder that Hugging Face Transformers reads, and this package without it.

    config.json               shape of the encoder, in Hugging Face's names
    model.safetensors         the encoder's weights, each name after "encoder." (and a head's: "norm.", "classifier.";
                              of a recogniser "lm_head.")
    vocab.json, tokenizer_config.json    of a recogniser: its letters
    preprocessor_config.json  what makes inputs of samples; of text: tokenizer.json
    README.md                 the model card

Nothing here imports Transformers: the folder is plain JSON and safetensors, and `config.json` alone says what to build.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from data2vec2.data.letters import TOKENIZER, VOCAB, Letters
from data2vec2.errors import UserError
from data2vec2.files import read_json, whole_folder
from data2vec2.method.encoder import Encoder
from data2vec2.method.heads import POOLINGS, Classifier, Pooling, SpeechRecognizer, TokenClassifier
from data2vec2.modalities import specs
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.fields import (
    MULTI_LABEL,
    PREFIX,
    REGRESSION,
    SINGLE_LABEL,
    build_encoder,
    build_model,
    class_name,
    from_fields,
    interop_of,
    to_fields,
)
from data2vec2.modalities.interop import PROCESSOR, TOGETHER, AnyModel
from data2vec2.training.run import CONFIG

FILES = ("config.json", "model.safetensors", "README.md")
HEAD_NAMES = {
    **dict.fromkeys(("classifier", "regressor", "token classifier", "question answerer"), "classifier."),
    "recogniser": "lm_head.",
}
"""What the last layer of each kind of model is called in the file."""


def export_model(model: AnyModel, info: ModelInfo, folder: Path, card: str) -> None:
    """Write a model as a folder for Transformers, in one step; `card` is the README's text.

    An earlier export is replaced; `UserError` if something else is there or the folder can't be written.
    """
    if isinstance(model, Encoder):
        weights = {f"encoder.{name}": tensor for name, tensor in model.state_dict().items()}
    else:
        weights = _renamed(model.state_dict(), "head.", HEAD_NAMES[info.what])
        outputs, names = model.head.out_features, len(info.letters if info.letters is not None else info.classes)
        if outputs != names:
            raise ValueError(f"{names} names of classes or letters for {outputs} outputs")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give the folder to export to")
    if folder.is_dir() and (others := sorted({entry.name for entry in folder.iterdir()} - own_files(info.kind))):
        raise UserError(f"{folder} holds other files ({', '.join(others[:3])}); export to a folder of its own")
    dtype = str(next(iter(weights.values())).dtype).removeprefix("torch.")
    read = {"text_columns": list(info.columns)} if info.columns else {}
    fields = {"architectures": [architecture(info)], **_head_fields(info), **read, "dtype": dtype}
    fields |= to_fields(info.model)
    with whole_folder(folder, replace=True) as new:
        (new / "config.json").write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        save_file(tensors, new / "model.safetensors", metadata={"format": "pt"})
        interop_of(info.kind).write(info, new)
        if info.letters is not None:
            info.letters.save(new)
        (new / "README.md").write_text(card, encoding="utf-8")


def own_files(kind: str) -> set[str]:
    """Names of all files that an export of a modality may have, also as Transformers saves it."""
    return {*FILES, PROCESSOR, TOGETHER, VOCAB, TOKENIZER, *interop_of(kind).files}


def architecture(info: ModelInfo) -> str:
    """Name of the class of Transformers that loads a model."""
    endings = {"encoder": "Model", **interop_of(info.kind).heads}
    return class_name(info.kind, endings["classifier" if info.what == "regressor" else info.what])


def _head_fields(info: ModelInfo) -> dict[str, Any]:
    """What config.json says of a head."""
    if info.letters is not None:
        return {"vocab_size": len(info.letters), "pad_token_id": 0}
    kind, names = REGRESSION if info.regression else MULTI_LABEL if info.multi_label else SINGLE_LABEL, info.classes
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    more = {"unanswerable": info.unanswerable} if info.answers else {} if info.dense else {"pooling": info.pooling}
    return {**labels, "problem_type": kind, **more} if names else {}


def export_of(model: Path, *data: Path) -> Path:
    """The exported folder of a run, or the folder itself; `UserError` for a run that has none yet.

    Also for a path that does not exist, and for one that stands where the first of `data` should.
    """

    def is_model(path: Path) -> bool:
        return any((path / name).is_file() for name in (CONFIG, FILES[0]))

    if not is_model(model) and data and is_model(data[0]):
        raise UserError(f"MODEL comes before the data: {data[0]} is a model, and {model} is none; swap them")
    if not model.exists():
        raise UserError(f"{model} does not exist; MODEL is a run folder or an exported model")
    if not (model / CONFIG).is_file():
        return model
    if not (model / "exported").is_dir():
        raise UserError(f"the run in {model} has not finished, so there is no model yet; continue it with --resume")
    return model / "exported"


def load_encoder(folder: Path) -> tuple[Encoder, ModelInfo]:
    """Load an exported folder's encoder without its head, in eval mode on the CPU in float32, and what belongs to it.

    `UserError` if the folder is not an export, or is one of another model type or with damaged files.
    """
    info, weights = read_export(folder)
    return _loaded(build_encoder(info.model), info, weights, folder)


def load_classifier(folder: Path) -> tuple[Classifier | TokenClassifier, ModelInfo]:
    """Load a fine-tuned classifier as `load_encoder` loads an encoder; `UserError` also if the model has no head."""
    info, weights = read_export(folder)
    require_classes(info, folder)
    return _loaded(build_model(info), info, weights, folder)


def load_recognizer(folder: Path) -> tuple[SpeechRecognizer, ModelInfo]:
    """Load a recogniser, as `load_encoder` loads an encoder; `UserError` also for another model."""
    info, weights = read_export(folder)
    require_letters(info, folder)
    return _loaded(build_model(info), info, weights, folder)


def require_classes(info: ModelInfo, folder: Path) -> None:
    """`UserError` for a model that predicts nothing."""
    if not info.classes:
        found = "a recogniser of speech, whose head has letters" if info.letters else "an encoder without a head"
        raise UserError(f"{folder} holds {found}; make a classifier of it with data2vec2 finetune classify")


def require_letters(info: ModelInfo, folder: Path) -> Letters:
    """What a recogniser writes; `UserError` for another model."""
    if info.letters is None:
        if "ctc" not in specs()[info.kind].finetune:
            raise UserError(
                f"{folder} is a model of {specs()[info.kind].words.many}, not of speech; use predict or embed"
            )
        raise UserError(f"{folder} holds no recogniser of speech; make one of it with data2vec2 finetune ctc")
    return info.letters


def load_model(folder: Path) -> tuple[AnyModel, ModelInfo]:
    """Load what an exported folder holds, with its head if it has one."""
    info, weights = read_export(folder)
    return _loaded(build_model(info), info, weights, folder)


def _loaded(model: Any, info: ModelInfo, weights: Mapping[str, Tensor], folder: Path) -> tuple[Any, ModelInfo]:
    encoder = isinstance(model, Encoder)
    own = within(weights, "encoder.") if encoder else _renamed(weights, HEAD_NAMES[info.what], "head.")
    try:
        model.load_state_dict(own)
    except RuntimeError as error:
        raise UserError(f"{folder / 'model.safetensors'} does not hold what config.json describes: {error}") from error
    return model.eval(), info


def within(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _renamed(weights: Mapping[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {new + n.removeprefix(old) if n.startswith(old) else n: tensor for n, tensor in weights.items()}


def read_export(folder: Path) -> tuple[ModelInfo, dict[str, Tensor]]:
    """What an exported folder says, and its weights as named in the file; a recogniser's blank becomes letter 0."""
    fields = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    kind = str(fields.get("model_type")).removeprefix(PREFIX)
    inputs = interop_of(kind).files[0] if kind in specs() else PROCESSOR
    for name in (*FILES[:2], inputs):
        if not (folder / name).is_file() and not (name == PROCESSOR and (folder / TOGETHER).is_file()):
            inner = folder / "exported"
            hint = f"; did you mean {inner}?" if inner.is_dir() else "; give a folder that data2vec2 exported"
            raise UserError(f"{folder} is not an exported model: {name} is missing{hint}")
    try:
        model, classes = from_fields(fields), _classes(fields)
    except ValueError as error:
        raise UserError(
            f"{folder / 'config.json'} does not describe a model that can be loaded here: {error}"
        ) from error
    heads = {class_name(kind, ending): what for what, ending in interop_of(kind).heads.items()}
    what = next((what for name, what in heads.items() if fields.get("architectures") == [name]), "")
    letters = None
    if what == "recogniser":
        letters = Letters.load(folder, *(int(fields.get(name) or 0) for name in ("pad_token_id", "vocab_size")))
    pooling: Pooling = next((name for name in POOLINGS if name == fields.get("pooling")), "mean")
    info = ModelInfo(
        model=model,
        data=interop_of(kind).read(model.modality, folder),
        classes=classes,
        multi_label=fields.get("problem_type") == MULTI_LABEL,
        pooling=pooling,
        regression=fields.get("problem_type") == REGRESSION,
        letters=letters,
        dense=what in ("token classifier", "question answerer"),
        answers=what == "question answerer",
        unanswerable=fields.get("unanswerable") is True,
        columns=tuple(map(str, fields.get("text_columns") or ())),
    )
    try:
        weights = load_file(folder / "model.safetensors")
    except SafetensorError as error:
        raise UserError(f"{folder / 'model.safetensors'} is damaged: {error}") from error
    if letters is not None and (places := letters.places):
        head = {name: tensor for name, tensor in weights.items() if name.startswith(HEAD_NAMES["recogniser"])}
        weights |= {name: tensor[list(places)] for name, tensor in head.items() if len(tensor) == len(places)}
    return info, weights


def _classes(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes, if the model has a head; `ValueError` where they are not numbered from 0."""
    if not fields.get("problem_type"):  # Transformers may write id2label for a model without a head
        return ()
    names = fields.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})  # Transformers' default, which it does not write
    if not isinstance(names, dict) or set(names) != {str(index) for index in range(len(names))}:
        raise ValueError("id2label must name the classes from 0 on")
    return tuple(str(names[str(index)]) for index in range(len(names)))
